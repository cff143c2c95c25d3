from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.embedded.edits import INDEX, edges, edits, regions
from pipeline.embedded.item import EDITING, Item, Row
from pipeline.embedded.pairs import drawn_thing

BROKEN = "cut_00__output.jpg"


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, Item], dict[str, Row]]:
    everything = list(edits())
    files = {one.file: one for one in everything if isinstance(one, Item)}
    rows = {one.name: one for one in everything if isinstance(one, Row)}
    assert len(files) + len(rows) == len(everything)
    return files, rows


def opened(item: Item) -> Image.Image:
    image = Image.open(io.BytesIO(item.data or b""))
    image.load()
    return image


def test_pairs_name_files_that_are_there(made: tuple[dict[str, Item], dict[str, Row]]) -> None:
    files, rows = made
    named = set()
    for name, row in rows.items():
        line: dict[str, Any] = dict(row.content)
        assert (row.index, line["pair_id"], row.listed) == (INDEX, name, False)
        named |= {path.removeprefix("files/") for path in (*line["inputs"], line.get("output")) if path}
        assert ("output" in line) == (name != "no_output")
        assert (len(line["inputs"]) == 2) == ("two-inputs" in line["tags"])
        assert line["expected"] == {EDITING: {"state": row.expected[EDITING].state,
                                              "reason": row.expected[EDITING].reason}}  # fmt: skip
    assert named == set(files)


def test_all_files_but_one_are_whole_pictures(made: tuple[dict[str, Item], dict[str, Row]]) -> None:
    files, _ = made
    for name, item in files.items():
        if name == BROKEN:
            with pytest.raises(OSError, match="truncated"):
                opened(item)
            continue
        stated = item.facts["image"]
        assert opened(item).size == (stated["width"], stated["height"])


def test_the_kinds_of_good_pairs_are_there(made: tuple[dict[str, Item], dict[str, Row]]) -> None:
    good = [row.content["tags"] for row in made[1].values() if row.expected[EDITING].state == "kept"]
    kinds = {tags[1] for tags in good}
    assert kinds == {"added", "removed", "recoloured", "moved", "restyled", "map", "extract", "two-inputs"}


def test_an_edge_map_is_white_where_brightness_jumps() -> None:
    pixels = np.full((60, 80, 3), 40.0)
    pixels[:, 40:] = 220
    found = edges(pixels)
    assert set(np.unique(found)) == {0.0, 255.0}
    assert set(np.flatnonzero(found[30, :, 0])) <= {38, 39, 40, 41}
    assert found[30].any()


def test_regions_have_few_colours() -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((60, 80, 3), 60.0) + rng.normal(0, 4, (60, 80, 3))
    pixels[:, 40:] += 120
    found = regions(pixels).reshape(-1, 3)
    assert len(np.unique(found, axis=0)) <= 4


def test_a_reference_shows_the_thing_alone() -> None:
    shown = drawn_thing("test", "red sign", 160)
    assert shown.shape == (160, 160, 3)
    middle, corner = shown[60:70, 60:100].mean(axis=(0, 1)), shown[:20, :20].mean(axis=(0, 1))
    assert middle[0] > 2 * middle[1]
    assert np.ptp(corner) < 10
