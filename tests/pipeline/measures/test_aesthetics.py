from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import UserError
from catalog.rules import check_ranges, parse
from pipeline.measures.aesthetics import rate, read_head
from pipeline.operator import Quarantine, check_row, load_operator
from pipeline.pictures import open_picture
from pipeline.scorers.encoder import load_encoder
from tests.pipeline.conftest import Checkpoints
from tests.pipeline.measures.test_embedding import PICTURES, records
from tests.pipeline.pictures import measure
from tests.pipeline.scorers import checkpoints


class Released(torch.nn.Module):
    """The improved predictor as its authors wrote it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        linear, dropout = torch.nn.Linear, torch.nn.Dropout
        self.layers = torch.nn.Sequential(
            linear(width, 1024), dropout(0.2), linear(1024, 128), dropout(0.2), linear(128, 64), dropout(0.1),
            linear(64, 16), linear(16, 1),
        )  # fmt: skip


@pytest.fixture
def head(tmp_path: Path) -> Path:
    checkpoints.head(tmp_path / "head.pth")
    return tmp_path / "head.pth"


def test_the_rating_is_what_the_authors_network_makes_of_the_unit_vector(
    tiny: Checkpoints, tmp_path: Path, head: Path
) -> None:
    folder, _ = tiny("open_clip")
    made = measure("aesthetics", checkpoint=str(folder), head=str(head))
    released = Released(checkpoints.WIDTH).eval()
    released.load_state_dict(torch.load(head, weights_only=True))
    encoder = load_encoder(folder, "openclip", "cpu")
    rows = made.process_batch(records(tmp_path, PICTURES))
    ratings = []
    for row, data in zip(rows, PICTURES, strict=True):
        assert not isinstance(row, Quarantine)
        check_row(made.columns, row)
        with torch.no_grad():
            expected = released.layers(torch.from_numpy(encoder.pictures([open_picture(data)]))).item()
        assert row[0] == pytest.approx(expected, abs=1e-5)
        ratings.append(row[0])
    assert max(ratings) - min(ratings) > 1e-3
    assert list(rows) == [made.process(record) for record in records(tmp_path, PICTURES)]


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_linear_head_is_read_from_either_kind_of_file(tmp_path: Path, ending: str) -> None:
    tensors = {"weight": torch.arange(4.0)[None], "bias": torch.tensor([5.0])}
    path = tmp_path / f"sa_0_4_vit_l_14_linear.{ending}"
    if ending == "pth":
        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path)
    assert rate(read_head(path), np.array([0.5, 0.5, 0.5, 0.5])) == 8.0


def test_a_rating_outside_the_scale_sets_the_record_aside(tiny: Checkpoints, tmp_path: Path) -> None:
    checkpoints.head(tmp_path / "low.pth", centre=-3)
    made = measure("aesthetics", checkpoint=str(tiny("open_clip")[0]), head=str(tmp_path / "low.pth"))
    with pytest.raises(Quarantine, match=r"aesthetic is -.*, declared 1 to 10") as caught:
        check_row(made.columns, made.process(records(tmp_path, PICTURES[:1])[0]))
    assert caught.value.reason == "value out of range"


def test_the_head_is_part_of_the_fingerprint(tiny: Checkpoints, tmp_path: Path, head: Path) -> None:
    made = load_operator("aesthetics").build({"checkpoint": str(tiny("open_clip")[0]), "head": str(head)})
    before = made.fingerprint_parts()
    checkpoints.head(head, centre=6)
    after = made.fingerprint_parts()
    assert before["checkpoint"] == after["checkpoint"]
    assert before["head"] != after["head"]
    head.unlink()
    with pytest.raises(UserError, match=r"head\.pth: the head cannot be read: No such file or directory"):
        made.fingerprint_parts()


def test_a_threshold_of_the_scale_to_1_is_refused() -> None:
    (column,) = load_operator("aesthetics").build({}).columns  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"aesthetic.*0\.5.*1 to 10"):
        check_ranges(parse("aesthetic > 0.5", "R"), {"aesthetic": column}, "R")


def test_it_is_missing_without_a_checkpoint_or_without_a_head() -> None:
    kind = load_operator("aesthetics")
    assert kind.build({}).missing == "no checkpoint is given for 'aesthetics'"
    assert kind.build({"checkpoint": "x"}).missing == "no head is given for 'aesthetics'"


class Bomb:
    def __reduce__(self) -> tuple[Any, Any]:
        return (Path.touch, (Path("exploded"),))


def saved(tensors: Any) -> Callable[[Path], Any]:
    return lambda path: torch.save(tensors, path)


GOOD = {"weight": torch.zeros(1, 16), "bias": torch.zeros(1)}
WRONG: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: path.write_bytes(b"nothing of the kind"), "head.pth: "),
    (saved(Bomb()), "head.pth: holds more than tensors; such a file is not loaded"),
    (saved([1, 2]), "head.pth: holds no tensors by name"),
    (saved({}), "head.pth: is no head of LAION's predictors; it holds nothing"),
    (saved({"fc.weight": torch.zeros(1, 16)}), "head.pth: is no head of LAION's predictors; it holds fc.weight"),
    (saved({**GOOD, "more": torch.zeros(1)}), "it holds bias, more, weight"),
    (saved({**GOOD, "weight": torch.zeros(2, 16)}), "layers of the shapes [2, 16] are no head of LAION's predictors"),
    (saved({**GOOD, "weight": torch.zeros(16)}), "layers of the shapes [16] are no head of LAION's predictors"),
    (
        lambda path: checkpoints.head(path, width=20),
        "wants vectors of 20 numbers, CHECKPOINT gives 16; LAION's predictors belong to OpenAI's CLIP ViT-L/14",
    ),
]


@pytest.mark.parametrize(("write", "message"), WRONG, ids=[message[-40:] for _, message in WRONG])
def test_a_file_that_is_no_head_is_refused_before_any_record(
    tiny: Checkpoints, tmp_path: Path, write: Callable[[Path], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "head.pth")
    folder = str(tiny("open_clip")[0])
    made = load_operator("aesthetics").build({"checkpoint": folder, "head": str(tmp_path / "head.pth")})
    with pytest.raises(UserError) as caught:
        made.check()
    assert message.replace("CHECKPOINT", folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()
