"""The image decoder: codes are looked up, enlarged twofold and turned into pixels by a Z-Image transformer.

The transformer and the autoencoder are those of diffusers; own are the conditioning (*SigVQ*), the released
names and the assembly. A grid of h x w codes becomes 2h x 2w condition tokens, latents [16, 1, 4h, 4w] and a
picture of 32h x 32w pixels, twice the size of what the tokenizer read. Sources: PAPER 2.3; released
`decoder/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blank import Embedding, Linear
from model.checkpoint import (
    DTYPES,
    CheckpointError,
    StoredTensor,
    compare,
    load_weights,
    slots,
    stored_tensors,
)
from model.configs import ConfigError, DecoderConfig
from model.decoder_sampling import GUIDANCE, NORMAL_STEPS, TURBO_STEPS, euler, guided, turbo
from model.image_tokenizer import Codes, Pixels
from model.libraries import library

Mode = Literal["normal", "turbo"]

ENLARGE = 2  # condition tokens per code and axis
LATENT_PER_CODE = 4  # latent pixels per code and axis
FOLDERS: dict[Mode, str] = {"normal": "decoder", "turbo": "decoder-turbo"}
WEIGHT_FILES = ("model.safetensors", "decoder_model.safetensors", "diffusion_pytorch_model.safetensors")
LONGEST_AXES = (32768, 1024, 1024)
TABLE = "prior_token_embedding.weight"


class Projector(nn.Module):
    """Linear, SiLU, Linear, under the released names `net.0.proj` and `net.2`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([nn.ModuleDict({"proj": Linear(channels, channels)})])
        self.net.extend([nn.Identity(), Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """[..., channels] -> the same."""
        first = self.net[0]
        assert isinstance(first, nn.ModuleDict)
        projected: Tensor = self.net[2](F.silu(first["proj"](x)))
        return projected


class Conditioner(nn.Module):
    """SigVQ: what a code means to the decoder (`sigvq_embedding`)."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.prior_token_embedding = Embedding(codes, channels)
        self.prior_projector = Projector(channels)

    def forward(self, codes: Tensor) -> Tensor:
        """Int64 codes [..., N] -> condition tokens [..., N, channels]."""
        projected: Tensor = self.prior_projector(self.prior_token_embedding(codes))
        return projected

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> Conditioner:
        """The conditioning of an `image_tokenizer/` folder.

        Reads `sigvq_embedding.safetensors`, or else the released `sigvq_embedding.pt` (tensors only, no
        code).

        Raises:
            CheckpointError: neither file is there, or it does not fit.
        """
        safe, released = folder / "sigvq_embedding.safetensors", folder / "sigvq_embedding.pt"
        if safe.is_file():
            with torch.device("meta"):
                conditioner = cls(*_table_shape(safe, stored_tensors(safe)))
            load_weights(conditioner, safe, device=device, dtype=dtype)
            return conditioner.eval()
        if not released.is_file():
            raise CheckpointError(f"{folder}: neither {safe.name} nor {released.name}")
        tensors: dict[str, Tensor] = torch.load(released, map_location="cpu", weights_only=True, mmap=True)
        names = {dtype: name for name, dtype in DTYPES.items()}
        stored = {
            name: StoredTensor(released, name, tuple(t.shape), names.get(t.dtype, str(t.dtype)))
            for name, t in tensors.items()
        }
        with torch.device("meta"):
            conditioner = cls(*_table_shape(released, stored))
        problems = compare(slots(conditioner, "dense"), stored)
        if problems:
            raise CheckpointError(f"{released} does not fit the model:\n  " + "\n  ".join(problems))
        conditioner.load_state_dict(tensors, assign=True)
        return conditioner.to(device=device, dtype=dtype).eval()


@dataclass(frozen=True)
class ImageDecoder:
    """Codes in, picture out.

    Attributes:
        conditioner: SigVQ.
        transformer: diffusers' Z-Image transformer, its caption embedder fed with condition tokens.
        autoencoder: diffusers' AutoencoderKL with 16 latent channels and eightfold reduction.
        mode: `turbo` for the distilled transformer, which is sampled in another way.
    """

    conditioner: Conditioner
    transformer: Any
    autoencoder: Any
    mode: Mode = "normal"

    @classmethod
    def load(
        cls, folder: Path, *, mode: Mode = "normal", device: str = "cpu", dtype: torch.dtype | None = None
    ) -> ImageDecoder:
        """The decoder of a checkpoint folder (`image_tokenizer/`, `decoder/` or `decoder-turbo/`, `vae/`).

        Args:
            folder: the checkpoint.
            mode: which of the two transformers, and how it is sampled.
            device: where it runs.
            dtype: what it computes in; default as released: bf16 on a GPU, fp32 on CPU.

        Raises:
            ConfigError, CheckpointError: name the file, field or tensor at fault.
        """
        dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
        conditioner = Conditioner.load(folder / "image_tokenizer", device=device, dtype=dtype)
        source = folder / FOLDERS[mode]
        config = DecoderConfig.read(source / "config.json")
        # As the released code does: the file's caption width is Z-Image's own, the table's is what counts.
        config = config.model_copy(update={"cap_feat_dim": conditioner.prior_token_embedding.embedding_dim})
        with torch.device("meta"):
            transformer = build_transformer(config)
        load_weights(transformer, source, device=device, dtype=dtype, preferred=WEIGHT_FILES, rename=released_name)
        with torch.device("meta"):
            autoencoder = build_autoencoder(folder / "vae" / "config.json")
        load_weights(autoencoder, folder / "vae", device=device, dtype=dtype, preferred=WEIGHT_FILES[::-1])
        return cls(conditioner, transformer.eval(), autoencoder.eval(), mode)

    def condition(self, codes: Codes) -> Tensor:
        """Condition tokens of a grid: int32 codes [h, w] -> [4 h w, channels], each code enlarged to 2 x 2.

        Raises:
            ValueError: no grid of integers, or a code outside the table.
        """
        table = self.conditioner.prior_token_embedding
        if codes.ndim != 2 or codes.size == 0 or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"codes must be integers [height, width], got {codes.dtype} {list(codes.shape)}")
        if codes.min() < 0 or codes.max() >= table.num_embeddings:
            row, column = np.argwhere((codes < 0) | (codes >= table.num_embeddings))[0].tolist()
            outside = f"code {codes[row, column]} at row {row}, column {column}"
            raise ValueError(f"{outside} is outside the table's 0..{table.num_embeddings - 1}")
        large = codes.repeat(ENLARGE, axis=0).repeat(ENLARGE, axis=1)
        conditions: Tensor = self.conditioner(
            torch.from_numpy(large.astype(np.int64)).flatten().to(table.weight.device)
        )
        return conditions

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """One evaluation: fp32 velocities of latents `x` [B, 16, 1, H, W] at `t` [B], a condition each."""
        dtype = self.transformer.x_pad_token.dtype
        found = self.transformer(
            list(x.to(dtype).unbind(0)), t.float(), [c.to(dtype) for c in conditions], return_dict=False
        )[0]
        return torch.stack([v.float() for v in found])

    def guided_velocity(self, x: Tensor, t: Tensor, condition: Tensor, scale: float = GUIDANCE) -> Tensor:
        """Velocity with guidance away from the null condition (zeros), both branches in one batch."""
        null = torch.zeros_like(condition)
        both = self.velocity(x.repeat(2, 1, 1, 1, 1), t.repeat(2), [condition] * len(x) + [null] * len(x))
        return guided(both[: len(x)], both[len(x) :], scale)

    @torch.no_grad()
    def latents(self, codes: Codes, seed: int, steps: int | None = None) -> Tensor:
        """Latents [1, 16, 1, 4h, 4w] of a grid; the noise depends on the seed alone, not on the device.

        Args:
            codes: int32 [h, w].
            seed: of this picture's noise.
            steps: points of the time grid (normal, 50) or evaluations (turbo, 8).
        """
        condition = self.condition(codes)
        shape = (1, self.transformer.in_channels, 1, *(LATENT_PER_CODE * side for side in codes.shape))
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(shape, generator=generator).to(condition.device)
        if self.mode == "normal":
            pushed = lambda x, t: self.guided_velocity(x, t, condition)  # noqa: E731
            return euler(pushed, noise, steps or NORMAL_STEPS)[-1]

        def fresh() -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(condition.device)

        return turbo(lambda x, t: self.velocity(x, t, [condition]), noise, fresh, steps or TURBO_STEPS)

    @torch.no_grad()
    def draw(self, codes: Codes, seed: int = 0, steps: int | None = None) -> Pixels:
        """The picture of a grid: uint8 RGB [32h, 32w, 3]. Arguments as for `latents`."""
        z = self.latents(codes, seed, steps).squeeze(2).to(self.autoencoder.dtype)
        settings = self.autoencoder.config
        decoded = self.autoencoder.decode(z / settings.scaling_factor + settings.shift_factor, return_dict=False)
        pixels = (decoded[0][0].float() / 2 + 0.5).clamp(0, 1) * 255
        picture: Pixels = pixels.byte().permute(1, 2, 0).cpu().numpy()
        return picture


def build_transformer(config: DecoderConfig) -> Any:
    """diffusers' Z-Image transformer of that shape, without meaningful weights.

    Position tables are as long as the released code makes them, whatever the file says; that changes no
    number.
    """
    library("diffusers")
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    fields = config.model_dump(exclude={"class_name", "diffusers_version", "name_or_path", "axes_lens"})
    longest = [max(pair) for pair in zip(config.axes_lens, LONGEST_AXES, strict=True)]
    return ZImageTransformer2DModel(**fields, axes_lens=longest)


def build_autoencoder(config: Path) -> Any:
    """diffusers' AutoencoderKL as a `config.json` describes it, without meaningful weights."""
    library("diffusers")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise ConfigError(f"{config}: not readable ({problem})") from None
    return AutoencoderKL.from_config(values)


def released_name(name: str) -> str:
    """diffusers' name of a transformer tensor -> the released one."""
    return name.replace("cap_embedder.", "semantic_embedder.", 1)


def _table_shape(file: Path, stored: dict[str, StoredTensor]) -> tuple[int, int]:
    if TABLE not in stored or len(stored[TABLE].shape) != 2:
        raise CheckpointError(f"{file}: missing tensor {TABLE!r} of shape [codes, channels]")
    codes, channels = stored[TABLE].shape
    return codes, channels
