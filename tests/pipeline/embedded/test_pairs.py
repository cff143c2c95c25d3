from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.embedded.pairs import KINDS, STYLES, EditPair, edit_pair, pairs, write_pairs


def opened(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image if size in (None, image.size) else image.resize(size), np.int64)


def both(pair: EditPair) -> tuple[np.ndarray, np.ndarray]:
    source = opened(pair.source)
    return source, opened(pair.target, (source.shape[1], source.shape[0]))


def test_a_pair_follows_from_its_kind_and_number() -> None:
    assert edit_pair("moved", 3) == edit_pair("moved", 3)
    assert edit_pair("moved", 3).source != edit_pair("moved", 4).source


def test_there_are_as_many_of_every_kind() -> None:
    assert Counter(pair.kind for pair in pairs(1)) == dict.fromkeys(KINDS, 1)


@pytest.mark.parametrize("kind", ["added", "removed", "recoloured", "moved", "swapped"])
def test_nothing_changes_outside_the_box_and_much_inside(kind: str) -> None:
    for number in range(3):
        pair = edit_pair(kind, number)  # type: ignore[arg-type]
        source, target = both(pair)
        height, width = source.shape[:2]
        assert pair.box is not None
        left, top, right, bottom = pair.box
        inside = np.zeros((height, width), bool)
        inside[int(top * height) - 6 : int(bottom * height) + 7, int(left * width) - 6 : int(right * width) + 7] = True
        far = np.abs(source - target).max(axis=2)
        assert np.quantile(far[~inside], 0.99) < 40, pair.name
        assert (far[inside] > 40).mean() > 0.1, pair.name


def test_an_unchanged_pair_differs_by_no_more_than_tone() -> None:
    source, target = both(edit_pair("unchanged", 0))
    assert np.abs(source - target).mean() < 8


@pytest.mark.parametrize("number", range(len(STYLES)))
def test_a_restyled_pair_differs_everywhere(number: int) -> None:
    source, target = both(edit_pair("restyled", number))
    far = np.abs(source - target).max(axis=2)
    assert all((quarter > 8).mean() > 0.2 for half in np.array_split(far, 2) for quarter in np.array_split(half, 2, 1))


def test_pairs_are_written_in_the_layout_of_the_sample_corpora(tmp_path: Path) -> None:
    made = write_pairs(tmp_path, pairs(1))
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [line["pair_id"] for line in lines] == [pair.name for pair in made]
    for line, pair in zip(lines, made, strict=True):
        assert (tmp_path / line["inputs"][0]).read_bytes() == pair.source
        assert (tmp_path / line["output"]).read_bytes() == pair.target
        assert line["instruction"] == pair.instruction
