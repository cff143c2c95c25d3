"""Pairs made from one picture alone: which side is the picture, what the other shows, and what it costs the store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catalog.store import open_store
from pipeline.embedded.scenes import skyline
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Child, Expander, Quarantine, Record, load_operator
from pipeline.related import TASKS, edge_map, framed, greyed, haze, holed, pencilled, region_map, washed
from tests.pipeline.pictures import columns_of, encode, measure, scene
from tests.pipeline.runs import curate, entry, plan_of, write_manifest, write_picture

TOWN = np.asarray(skyline("town", (320, 240), "at sunset").image)


def chance() -> np.random.Generator:
    return np.random.default_rng(0)


def reader(root: Path) -> MediaReader:
    (root / "store").mkdir(exist_ok=True)
    return MediaReader(str(root), str(root / "store"))


def record(root: Path, picture: np.ndarray = TOWN, values: dict[str, Any] | None = None) -> Record:
    (root / "town").write_bytes(encode(picture))
    media = (MediaRef("image", "file", "town", digest="d" * 64),)
    return Record("0" * 32, media, orjson.dumps({"licence": "MIT"}), values or {}, reader(root))


def children(given: Record, **params: Any) -> list[Child]:
    made = load_operator("related").build(params)
    assert isinstance(made, Expander)
    return list(made.expand(given))


def side(child: Child, role: str) -> MediaRef:
    return next(ref for ref in child.media if ref.role == role)


def test_every_task_is_one_pair_with_the_picture_on_its_right_side(tmp_path: Path) -> None:
    made = {child.role: child for child in children(record(tmp_path), tasks=list(TASKS))}
    assert list(made) == list(TASKS)
    for task, child in made.items():
        original = "source" if task in {"edges", "regions", "depth", "pencil", "watercolour"} else "target"
        assert side(child, original).path == "town"
        assert side(child, "source" if original == "target" else "target").container == "store"
        assert child.fields == {"licence": "MIT", "text": TASKS[task].asked, "task": task}  # type: ignore[index]


def test_both_sides_have_one_size_and_belong_together(tmp_path: Path) -> None:
    given = record(tmp_path)
    for child in children(given):
        found = columns_of(measure("pair"), Record("0" * 32, child.media, b"{}", {}, given.reader))
        assert found["pair_scale"] == 1, child.role
        assert found["structure"] >= 10 or found["pair_match"] >= 0.6, child.role
        assert found["change_share"] > 0.0005, child.role


def test_the_way_there_and_the_way_back_share_one_object_of_the_store(tmp_path: Path) -> None:
    made = {child.role: child for child in children(record(tmp_path))}
    assert side(made["edges"], "target").path == side(made["from_edges"], "source").path
    again = children(record(tmp_path))
    assert [child.media for child in again] == [child.media for child in made.values()]
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 5


def test_a_caption_is_told_where_the_picture_is_to_be_drawn(tmp_path: Path) -> None:
    given = record(tmp_path, values={"caption": "a town"})
    there, back = children(given, tasks=["edges", "from_edges"], caption="caption")
    assert "town" not in there.fields["text"]
    assert back.fields["text"].endswith("It shows: a town")


def test_the_other_side_of_a_large_picture_is_drawn_smaller(tmp_path: Path) -> None:
    given = record(tmp_path, np.asarray(Image.fromarray(TOWN).resize((2000, 1500))))
    for child in children(given, tasks=["edges", "pencil", "outpaint"]):
        made = next(ref for ref in child.media if ref.container == "store")
        assert Image.open(io.BytesIO(given.reader.read(made))).size == (1024, 768)


BOXES = [
    {"label": "speck", "x0": 0.0, "y0": 0.0, "x1": 0.1, "y1": 0.1},
    {"label": "tower", "x0": 0.25, "y0": 0.5, "x1": 0.75, "y1": 1.0},
    {"label": "all", "x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 0.9},
]


def test_a_subject_is_cut_out_by_a_box_of_fitting_size_and_drawn_into_the_picture(tmp_path: Path) -> None:
    given = record(tmp_path, values={"boxes": BOXES, "caption": "a town"})
    (child,) = children(given, tasks=["subject"], boxes="boxes", caption="caption")
    assert child.fields["text"] == "Draw a picture with this tower. It shows: a town"
    assert side(child, "target").path == "town"
    cut = np.asarray(Image.open(io.BytesIO(given.reader.read(side(child, "source")))), np.float64)
    across, down = round(320 * 0.025), round(240 * 0.025)
    wanted = TOWN[120 - down :, 80 - across : 240 + across]
    assert cut.shape == wanted.shape
    assert np.abs(cut - wanted).mean() < 6  # JPEG


@pytest.mark.parametrize("boxes", [None, [], [BOXES[0], BOXES[2]]])
def test_a_picture_without_a_fitting_box_has_no_subject(tmp_path: Path, boxes: Any) -> None:
    assert children(record(tmp_path, values={"boxes": boxes}), tasks=["subject"], boxes="boxes") == []


def test_subjects_without_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="`subject` needs `boxes`, a column of verified boxes"):
        children(None, tasks=["subject"])  # type: ignore[arg-type]


def test_haze_makes_what_is_pale_far_and_what_is_dark_near() -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:60] = (190, 200, 215)
    picture[60:] = (60, 90, 20)
    made = haze(picture, chance())
    assert made[:40].max() < 40
    assert made[80:].min() > 215
    assert (made[..., 0] == made[..., 1]).all()


def test_a_pencil_has_no_colour_and_water_has() -> None:
    drawn, painted = pencilled(TOWN, chance()), washed(TOWN, chance())
    assert (drawn[..., 0] == drawn[..., 1]).all()
    assert np.abs(painted.astype(int).max(axis=2) - painted.min(axis=2)).mean() > 5
    assert np.abs(painted.astype(int) - TOWN).mean() > 5


def test_a_hole_is_grey_and_the_rest_as_it_was() -> None:
    made = holed(TOWN, chance())
    hole = (made == 128).all(axis=2)
    rows, columns = np.flatnonzero(hole.mean(axis=1) > 0.2), np.flatnonzero(hole.mean(axis=0) > 0.2)
    inside = np.zeros(hole.shape, bool)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    assert hole[inside].all()
    assert (made == TOWN)[~inside].all()
    assert 0.25**2 * 0.9 < inside.mean() < 0.5**2 * 1.1


def test_a_widened_picture_starts_from_a_window_of_it() -> None:
    made = framed(TOWN, chance())
    kept = (made == TOWN).all(axis=2)
    assert 0.3 < kept.mean() < 0.7
    assert (made[~kept] == 128).all()


def test_edges_are_black_and_white_and_lie_on_edges() -> None:
    made = edge_map(TOWN, chance())
    assert set(np.unique(made)) == {0, 255}
    assert not edge_map(np.full((80, 80, 3), 200, np.uint8), chance()).any()
    faint = np.random.default_rng(0).normal(120, 4, (80, 80, 1)).astype(np.uint8).repeat(3, axis=2)
    assert not edge_map(faint, chance()).any()
    halves = np.zeros((100, 100, 3), np.uint8)
    halves[:, 50:] = 255
    assert set(np.nonzero(edge_map(halves, chance())[..., 0])[1]) <= {48, 49, 50, 51}


def test_regions_are_few_flat_colours() -> None:
    made = region_map(TOWN, chance())
    assert 2 <= len(np.unique(made.reshape(-1, 3), axis=0)) <= 8
    assert made.shape == TOWN.shape


def test_a_grey_picture_has_no_colour() -> None:
    made = greyed(TOWN, chance())
    assert (made[..., 0] == made[..., 1]).all()
    assert (made[..., 0] == made[..., 2]).all()


def test_nothing_that_ran_before_changes_a_map() -> None:
    import cv2

    first = region_map(TOWN, chance())
    cv2.setRNGSeed(7)
    assert (region_map(TOWN, chance()) == first).all()


def test_a_picture_too_small_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(Quarantine) as caught:
        children(record(tmp_path, scene(63, 200)))
    assert caught.value.reason == "too small"


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 2**16))
def test_every_picture_can_be_drawn_in_every_way(height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for recipe in TASKS.values():
        drawn = recipe.draw(picture, chance())
        assert (drawn.shape, drawn.dtype) == (picture.shape, np.uint8)


def test_born_pairs_go_through_a_run_and_share_their_roots_split(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / f"data/files/{number:03d}.jpg", number, 120)
    write_manifest(tmp_path / "data", map(entry, range(4)))
    nodes = """
    related: {expand: related, params: {tasks: [from_edges, inpaint], least_side: 64}}
    pair: {measure: pair, needs: [related]}
    related_too: {decide: rules, needs: [pair], rules: {size: pair_scale = 1}}
    split: {decide: split, needs: [related_too], validation: 0.5}
    """
    curate(plan_of(nodes), tmp_path / "data", tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    rows = store.records("tiny").read(["record_key", "node", "split_group", "media"]).to_dicts()
    born = [row for row in rows if row["node"] == "related"]
    assert len(born) == 8
    assert {row["split_group"] for row in born} <= {row["record_key"] for row in rows if row["node"] != "related"}
    for row in born:
        made = next(ref for ref in row["media"] if ref["container"] == "store")
        Image.open(io.BytesIO(store.storage.read(made["path"]))).load()
