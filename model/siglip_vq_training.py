"""Learning the code book: pictures are captioned from their quantised features alone.

What a code must mean is decided by what it is for, so the objective is understanding: a small text decoder
reads the quantised features and predicts the caption. The code book learns by gradient, the features are
committed to it, gradients pass straight through the choice, and codes that nothing chooses are revived from
live features.

One step is: features z -> unit sphere -> nearest code -> caption loss + codebook loss + beta x commitment
loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
import yaml
from pydantic import Field
from torch import Tensor, nn

from model.configs import ConfigError, ModelConfig, SigLIPVQConfig
from model.image_tokenizer import Pixels, check_pixels
from model.siglip_vq import Quantiser, SigLIPVQ

IGNORED = -100


class CaptionerConfig(ModelConfig):
    """Shape of the text decoder that reads quantised features; it is thrown away after training."""

    vocab_size: int = Field(gt=1)
    longest: int = Field(gt=1)
    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)


class CodebookStage(ModelConfig):
    """One training stage of the tokenizer.

    Attributes:
        tokenizer: what is trained.
        captioner: what it is trained with.
        steps: optimizer steps.
        batch: pictures per step.
        learning_rate: peak, after a linear warm-up over a tenth of the steps.
        revive_after: a code unused for this many steps is revived; 0 never revives.
        train_tower: false trains quantiser and captioner only.
        seed: of every random choice.
    """

    tokenizer: SigLIPVQConfig
    captioner: CaptionerConfig
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    revive_after: int = Field(ge=0)
    train_tower: bool = True
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a stage from YAML. Raises ConfigError as `ModelConfig.read` does."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError) as problem:
            raise ConfigError(f"{path}: not readable ({problem})") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must hold a mapping, not {type(values).__name__}")
        return cls.parse(values, str(path))

    @classmethod
    def tiny(cls, vocab_size: int = 64, steps: int = 100) -> CodebookStage:
        """Seconds on a CPU; for tests and the demo."""
        return cls(
            tokenizer=SigLIPVQConfig.tiny(codes=32, patch_size=8),
            captioner=CaptionerConfig(vocab_size=vocab_size, longest=8, width=48, layers=1, heads=4),
            steps=steps,
            batch=8,
            learning_rate=3e-3,
            revive_after=4,
        )


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture uint8 RGB [H, W, 3] of whole patches, and its caption's ids, end mark included."""

    image: Pixels
    caption: tuple[int, ...]


@dataclass(frozen=True)
class CodeUse:
    """How much of the code book a set of choices used.

    Attributes:
        used: share of codes chosen at least once, 0..1.
        perplexity: exp of the entropy of the choices, 1..codes; the number of codes in even use.
    """

    used: float
    perplexity: float

    @classmethod
    def of(cls, counts: Tensor) -> CodeUse:
        """From how often each code was chosen, [codes]."""
        shares = counts.double() / counts.sum().clamp(min=1)
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum()
        return cls(float((counts > 0).double().mean()), float(entropy.exp()))


@dataclass(frozen=True)
class StepReport:
    """What one step did: losses in nats or squared distance, the code use of its batch, codes revived."""

    step: int
    caption_loss: float
    codebook_loss: float
    commitment_loss: float
    use: CodeUse
    revived: int


@dataclass(frozen=True)
class Quantised:
    """Features after the code book.

    Attributes:
        passed: [N, L], the codes' directions; gradients pass straight through to the features.
        codes: int64 [N].
        unit: [N, L], the features on the unit sphere.
        codebook_loss: mean squared distance that moves codes towards features.
        commitment_loss: the same distance, moving features towards codes.
    """

    passed: Tensor
    codes: Tensor
    unit: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


def quantise(quantiser: Quantiser, z: Tensor) -> Quantised:
    """Choose a code for each feature [N, L], differentiably."""
    unit = F.normalize(z.float(), dim=-1)
    codes = quantiser.nearest(z.detach())
    chosen = quantiser.directions()[codes]
    return Quantised(
        passed=unit + (chosen - unit).detach(),
        codes=codes,
        unit=unit,
        codebook_loss=F.mse_loss(chosen, unit.detach()),
        commitment_loss=F.mse_loss(unit, chosen.detach()),
    )


class Captioner(nn.Module):
    """A causal text decoder that attends to a picture's quantised features."""

    def __init__(self, config: CaptionerConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.read = nn.Linear(channels, config.width)
        self.words = nn.Embedding(config.vocab_size + 1, config.width)  # one more id: the start of a caption
        self.places = nn.Embedding(config.longest, config.width)
        layer = nn.TransformerDecoderLayer(
            config.width, config.heads, 4 * config.width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.layers, norm=nn.LayerNorm(config.width))
        self.head = nn.Linear(config.width, config.vocab_size)

    def forward(self, pictures: Sequence[Tensor], captions: Tensor) -> Tensor:
        """Mean cross entropy in nats of captions int64 [B, T], padded with -100, given features [n, C] each."""
        device = captions.device
        memory = nn.utils.rnn.pad_sequence([self.read(x) for x in pictures], batch_first=True)
        lengths = torch.tensor([len(x) for x in pictures], device=device)
        hidden = torch.arange(memory.shape[1], device=device)[None] >= lengths[:, None]
        before = captions.clamp(min=0).roll(1, dims=1)
        before[:, 0] = self.config.vocab_size
        words = self.words(before) + self.places(torch.arange(captions.shape[1], device=device))
        future = nn.Transformer.generate_square_subsequent_mask(captions.shape[1], device=device)
        read = self.decoder(words, memory, tgt_mask=future, memory_key_padding_mask=hidden, tgt_is_causal=True)
        return F.cross_entropy(self.head(read).flatten(0, 1), captions.flatten(), ignore_index=IGNORED)


class CodebookTrainer:
    """The state of a stage: networks, optimizer, and how long each code has been idle."""

    def __init__(self, stage: CodebookStage, start: SigLIPVQ | None = None, device: str = "cpu") -> None:
        """Start from `start` (a pre-trained tower, say), or from seeded random weights, on `device`."""
        self.stage = stage
        self.device = device
        self.tokenizer = (start or SigLIPVQ.random(stage.tokenizer, stage.seed)).to(device)
        if self.tokenizer.config != stage.tokenizer:
            raise ValueError("the tokenizer to start from has another configuration than the stage")
        self.generator = torch.Generator().manual_seed(stage.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stage.seed)
            self.captioner = Captioner(stage.captioner, stage.tokenizer.vq_config.latent_channels).to(device)
        self.tokenizer.model.visual.requires_grad_(stage.train_tower)
        trained = [p for m in (self.tokenizer, self.captioner) for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=0.0)
        self.idle = torch.zeros(self.tokenizer.codes, dtype=torch.int64, device=device)
        self.counts = torch.zeros_like(self.idle)
        self.step_number = 0

    def step(self, batch: Sequence[CaptionedPicture]) -> StepReport:
        """One optimizer step.

        Raises:
            ValueError: a picture that is no whole patches, or a caption that is empty, too long or outside
            the
                vocabulary; the message names its place in the batch.
        """
        captions = self._captions(batch)
        grids = [check_pixels(example.image, self.tokenizer.patch) for example in batch]
        areas = [grid.area for grid in grids]
        rows = torch.cat([self.tokenizer.patch_rows(example.image) for example in batch])
        quantiser = self.tokenizer.model.vqmodel
        found = quantise(quantiser, self.tokenizer.features(rows, grids, len(rows)))
        caption_loss = self.captioner(torch.split(quantiser.unproject(found.passed), areas), captions)
        beta = self.stage.tokenizer.vq_config.beta
        loss = caption_loss + found.codebook_loss + beta * found.commitment_loss

        warm_up = max(1, self.stage.steps // 10)
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.learning_rate * min(1.0, (self.step_number + 1) / warm_up)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        counts = torch.bincount(found.codes, minlength=self.tokenizer.codes)
        self.counts += counts
        report = StepReport(
            step=self.step_number,
            caption_loss=caption_loss.item(),
            codebook_loss=found.codebook_loss.item(),
            commitment_loss=found.commitment_loss.item(),
            use=CodeUse.of(counts),
            revived=self._revive(counts, found.unit.detach()),
        )
        self.step_number += 1
        return report

    @torch.no_grad()
    def _revive(self, counts: Tensor, unit: Tensor) -> int:
        """Give codes that have been idle too long the direction of live features; returns how many."""
        self.idle = torch.where(counts > 0, 0, self.idle + 1)
        if not self.stage.revive_after:
            return 0
        dead = (self.idle >= self.stage.revive_after).nonzero().flatten()[: len(unit)]
        if len(dead) == 0:
            return 0
        book = self.tokenizer.model.vqmodel.quantize.embedding.weight
        chosen = torch.randperm(len(unit), generator=self.generator)[: len(dead)].to(self.device)
        book[dead] = (unit[chosen] * book.norm(dim=-1).mean()).to(book.dtype)
        # Moments of the old direction would pull the new one away at once.
        for moment in ("exp_avg", "exp_avg_sq"):
            self.optimizer.state[book][moment][dead] = 0
        self.idle[dead] = 0
        return len(dead)

    def _captions(self, batch: Sequence[CaptionedPicture]) -> Tensor:
        config = self.stage.captioner
        for i, example in enumerate(batch):
            if not 0 < len(example.caption) <= config.longest:
                raise ValueError(f"caption {i} has {len(example.caption)} ids; 1..{config.longest} fit")
            outside = [n for n in example.caption if not 0 <= n < config.vocab_size]
            if outside:
                raise ValueError(f"caption {i} has id {outside[0]}, outside 0..{config.vocab_size - 1}")
        rows = [torch.tensor(example.caption, device=self.device) for example in batch]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)


def batches(count: int, stage: CodebookStage) -> Iterator[list[int]]:
    """Indices of every step's examples: seeded permutations of 0..count-1, one after another."""
    generator = torch.Generator().manual_seed(stage.seed)
    waiting: list[int] = []
    for _ in range(stage.steps):
        while len(waiting) < stage.batch:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[: stage.batch]
        del waiting[: stage.batch]


def train_codebook(
    stage: CodebookStage,
    examples: Sequence[CaptionedPicture],
    start: SigLIPVQ | None = None,
    device: str = "cpu",
) -> tuple[SigLIPVQ, list[StepReport]]:
    """Run a stage; `SigLIPVQ.save` then writes a tokenizer in the released form.

    Args:
        stage: what to do.
        examples: captioned pictures, of any sizes.
        start: the tokenizer to start from.
        device: where to train.

    Returns:
        The trained tokenizer in evaluation mode, and a report of every step.
    """
    if not examples:
        raise ValueError("no examples to train on")
    trainer = CodebookTrainer(stage, start, device)
    reports = [trainer.step([examples[i] for i in chosen]) for chosen in batches(len(examples), stage)]
    return trainer.tokenizer.requires_grad_(False).eval(), reports
