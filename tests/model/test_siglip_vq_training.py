from __future__ import annotations

import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from model.configs import ConfigError
from model.siglip_vq import SigLIPVQ
from model.siglip_vq_training import (
    CaptionedPicture,
    CodebookStage,
    CodebookTrainer,
    CodeUse,
    StepReport,
    batches,
    quantise,
    train_codebook,
)

STAGE = CodebookStage.tiny(steps=100)
END = 0


def scenes(count: int, seed: int = 0) -> list[CaptionedPicture]:
    """A square of one of three colours on a ground of one of three, said in the caption; sizes differ."""
    rng = np.random.default_rng(seed)
    colours = np.array([[200, 40, 40], [40, 180, 60], [50, 70, 210]])
    examples = []
    for _ in range(count):
        ground, square = rng.integers(3, size=2)
        height, width = 8 * rng.integers(2, 5, size=2)
        image = np.empty((height, width, 3), np.int64)
        image[:] = colours[ground] // 2
        image[4:14, 4:14] = colours[square]
        image += rng.integers(-8, 9, image.shape)
        caption = (1 + int(square), 10 + int(ground), END)
        examples.append(CaptionedPicture(image.clip(0, 255).astype(np.uint8), caption))
    return examples


@pytest.fixture(scope="module")
def trained() -> tuple[SigLIPVQ, list[StepReport]]:
    return train_codebook(STAGE, scenes(48))


def mean(reports: list[StepReport]) -> float:
    return sum(r.caption_loss for r in reports) / len(reports)


def test_captions_are_learned_from_quantised_features(trained: tuple[SigLIPVQ, list[StepReport]]) -> None:
    reports = trained[1]
    assert len(reports) == 100
    # Below what colour-blind guessing reaches: two words of three, one certain, per caption of three ids.
    blind = 2 * math.log(3) / 3
    assert mean(reports[:3]) > 2.5
    assert mean(reports[-10:]) < 0.75 * blind


def test_the_caption_loss_depends_on_the_picture() -> None:
    """With the pictures of other captions the same stage cannot beat guessing."""
    examples = scenes(48)
    shuffled = [CaptionedPicture(a.image, b.caption) for a, b in zip(examples, scenes(48, seed=9), strict=True)]
    trainer = CodebookTrainer(STAGE)
    for chosen in batches(48, STAGE):
        trainer.step([examples[i] for i in chosen])
    captions = trainer._captions
    right, wrong = (
        trainer.captioner(
            [trainer.tokenizer.model.vqmodel.unproject(_passed(trainer, e)) for e in examples[:16]],
            captions(said),
        ).item()
        for said in (examples[:16], shuffled[:16])
    )
    assert right < 0.7 * wrong


def _passed(trainer: CodebookTrainer, example: CaptionedPicture) -> torch.Tensor:
    codes = torch.from_numpy(trainer.tokenizer.encode(example.image)).long().flatten()
    return trainer.tokenizer.model.vqmodel.directions()[codes]


def test_every_step_reports_code_use(trained: tuple[SigLIPVQ, list[StepReport]]) -> None:
    for report in trained[1]:
        assert 0 < report.use.used <= 1
        assert 1 <= report.use.perplexity <= report.use.used * 32 + 1e-6
    assert trained[1][-1].use.perplexity > 2


def test_code_use_is_share_and_exponential_entropy() -> None:
    assert asdict(CodeUse.of(torch.tensor([3, 3, 3, 0]))) == pytest.approx({"used": 0.75, "perplexity": 3.0})
    assert CodeUse.of(torch.tensor([5, 0])).perplexity == pytest.approx(1.0)
    assert CodeUse.of(torch.tensor([0, 0])).used == 0


def test_a_stage_is_a_function_of_its_config_and_examples(trained: tuple[SigLIPVQ, list[StepReport]]) -> None:
    again, reports = train_codebook(STAGE, scenes(48))
    assert reports == trained[1]
    assert again.fingerprint() == trained[0].fingerprint()
    other, _ = train_codebook(STAGE.model_copy(update={"seed": 1}), scenes(48))
    assert other.fingerprint() != again.fingerprint()


def test_gradients_pass_straight_through_the_choice() -> None:
    quantiser = SigLIPVQ.random(STAGE.tokenizer, 0).model.vqmodel
    z = torch.randn(6, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = quantise(quantiser, z)
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((found.passed * weight).sum(), z, retain_graph=True)
    (direct,) = torch.autograd.grad((torch.nn.functional.normalize(z, dim=-1) * weight).sum(), z)
    torch.testing.assert_close(gradient, direct)
    torch.testing.assert_close(found.passed.detach(), quantiser.directions()[found.codes].detach())


def test_codes_and_features_move_towards_each_other_by_their_own_loss() -> None:
    quantiser = SigLIPVQ.random(STAGE.tokenizer, 0).model.vqmodel
    z = torch.randn(6, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    book = quantiser.quantize.embedding.weight
    found = quantise(quantiser, z)
    for loss, moves, rests in ((found.codebook_loss, book, z), (found.commitment_loss, z, book)):
        grads = torch.autograd.grad(loss, (moves, rests), retain_graph=True, allow_unused=True)
        assert grads[0].abs().sum() > 0
        assert grads[1] is None


def test_idle_codes_are_revived_from_live_features() -> None:
    dead = STAGE.model_copy(update={"revive_after": 0})
    examples = scenes(16)
    with_revival, without = CodebookTrainer(STAGE), CodebookTrainer(dead)
    revived = []
    for chosen in list(batches(16, STAGE))[:12]:
        revived.append(with_revival.step([examples[i] for i in chosen]).revived)
        assert without.step([examples[i] for i in chosen]).revived == 0
    assert revived[:3] == [0, 0, 0]
    assert sum(revived) > 0
    used = [(trainer.counts > 0).sum() for trainer in (with_revival, without)]
    assert used[0] > used[1]


def test_a_revived_code_is_a_live_direction_with_fresh_moments() -> None:
    trainer = CodebookTrainer(STAGE)
    trainer.step(scenes(4))
    trainer.idle[:] = 0
    trainer.idle[5] = STAGE.revive_after
    unit = torch.nn.functional.normalize(torch.randn(3, 32), dim=-1)
    counts = torch.ones(32, dtype=torch.int64)
    counts[5] = 0
    assert trainer._revive(counts, unit) == 1
    quantiser = trainer.tokenizer.model.vqmodel
    assert (quantiser.directions()[5] @ unit.T).max() > 0.9999
    moments = trainer.optimizer.state[quantiser.quantize.embedding.weight]
    assert moments["exp_avg"][5].abs().sum() == 0
    assert moments["exp_avg"].abs().sum() > 0


def test_a_frozen_tower_stays_as_it_was() -> None:
    start = SigLIPVQ.random(STAGE.tokenizer, 3)
    before = {n: p.clone() for n, p in start.named_parameters()}
    stage = STAGE.model_copy(update={"train_tower": False, "steps": 2})
    after, _ = train_codebook(stage, scenes(8), start)
    changed = {n for n, p in after.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(name.startswith("model.vqmodel.") for name in changed)


def test_the_result_is_a_tokenizer_in_the_released_form(
    trained: tuple[SigLIPVQ, list[StepReport]], tmp_path: Path
) -> None:
    trained[0].save(tmp_path)
    image = scenes(1, seed=5)[0].image
    assert np.array_equal(SigLIPVQ.load(tmp_path).encode(image), trained[0].encode(image))


def test_a_stage_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "stage.yaml"
    values = STAGE.model_dump(mode="json", exclude_none=True)
    path.write_text(yaml.safe_dump(values))
    assert CodebookStage.read(path) == STAGE
    values["captioner"]["widht"] = 3
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"unknown field 'captioner\.widht' \(value 3\), did you mean 'width'"):
        CodebookStage.read(path)
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="must hold a mapping, not list"):
        CodebookStage.read(path)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (CaptionedPicture(np.zeros((8, 8, 3), np.uint8), ()), "caption 0 has 0 ids; 1..8 fit"),
        (CaptionedPicture(np.zeros((8, 8, 3), np.uint8), (1,) * 9), "caption 0 has 9 ids; 1..8 fit"),
        (CaptionedPicture(np.zeros((8, 8, 3), np.uint8), (1, 64)), "caption 0 has id 64, outside 0..63"),
        (
            CaptionedPicture(np.zeros((8, 9, 3), np.uint8), (1,)),
            "picture of 9x8 pixels: both sides must be multiples of 8; resize first",
        ),
    ],
)
def test_an_example_that_cannot_be_learned_from_is_named(example: CaptionedPicture, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CodebookTrainer(STAGE).step([example])


def test_a_stage_needs_examples_and_a_fitting_start() -> None:
    with pytest.raises(ValueError, match="no examples"):
        train_codebook(STAGE, [])
    other = SigLIPVQ.random(CodebookStage.tiny().tokenizer.model_copy(update={"torch_dtype": "float32"}), 0)
    with pytest.raises(ValueError, match="another configuration"):
        CodebookTrainer(STAGE, other)
