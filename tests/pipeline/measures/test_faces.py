"""Faces by a tiny file of YuNet's form and by the stand-in, on pictures whose faces are known."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import UserError
from pipeline.measures.faces import CASCADE, Faces, covered, sized
from pipeline.operator import Quarantine, check_row
from tests.pipeline.pictures import columns_of, encode, measure, record
from tests.pipeline.runs import plan_of
from tests.pipeline.yunet_file import write_yunet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("yunet") / "yunet.onnx"
    write_yunet(path)
    return path


def look(folder: Path, picture: np.ndarray, **params: Any) -> dict[str, Any]:
    made = measure("faces", **params)
    given_record = record(folder, encode(picture))
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def bright(height: int, width: int, *cells: tuple[int, int]) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    for row, column in cells:
        picture[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 255
    return picture


def test_a_checkpoint_of_yunets_form_is_loaded_and_its_boxes_are_measured(checkpoint: Path, tmp_path: Path) -> None:
    found = look(tmp_path, bright(192, 256, (1, 1), (4, 6)), checkpoint=str(checkpoint), side=192)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    # Each box has 32 x 48 pixels.
    one = 32 * 48 / (192 * 256)
    assert found == {
        "faces": 2, "face_share": 2 * one, "largest_face": one, "face_detector": f"yunet {digest[:12]}",
    }  # fmt: skip


def test_a_picture_without_faces_has_none(checkpoint: Path, tmp_path: Path) -> None:
    found = look(tmp_path, bright(192, 250), checkpoint=str(checkpoint))
    assert (found["faces"], found["face_share"], found["largest_face"]) == (0, 0.0, 0.0)


def test_a_large_picture_is_looked_at_small(checkpoint: Path, tmp_path: Path) -> None:
    picture = np.repeat(np.repeat(bright(192, 256, (1, 1)), 4, axis=0), 4, axis=1)
    assert look(tmp_path, picture, checkpoint=str(checkpoint), side=192)["faces"] == 1


def test_a_face_at_the_border_counts_by_what_lies_inside(checkpoint: Path, tmp_path: Path) -> None:
    found = look(tmp_path, bright(192, 256, (0, 0)), checkpoint=str(checkpoint), side=192)
    assert found["largest_face"] == 32 * 40 / (192 * 256)


def test_a_higher_score_is_asked_for_in_vain(checkpoint: Path, tmp_path: Path) -> None:
    grey = bright(192, 256, (1, 1)) // 255 * 200
    scores = {
        score: look(tmp_path, grey, checkpoint=str(checkpoint), side=192, score=score)["faces"] for score in (0.3, 1.0)
    }
    assert scores == {0.3: 1, 1.0: 0}


@given(st.lists(st.tuples(*[st.floats(-300, 300)] * 4), max_size=5))
def test_shares_lie_between_nothing_and_the_whole(boxes: list[tuple[float, float, float, float]]) -> None:
    count, share, largest = covered(boxes, 40, 60)
    assert 0 <= largest <= share <= 1
    assert (count > 0) == (largest > 0)


def test_overlapping_faces_are_covered_once() -> None:
    assert covered([(0, 0, 10, 10), (5, 0, 15, 10)], 10, 20) == (2, 0.75, 0.5)


def test_a_sliver_is_reduced_by_its_longer_side() -> None:
    assert sized(np.zeros((100, 4000, 3), np.uint8), 100).shape == (10, 400, 3)
    assert sized(np.zeros((50, 60, 3), np.uint8), 100).shape == (50, 60, 3)


def test_the_stand_in_finds_a_portrait_and_says_what_it_is(tmp_path: Path) -> None:
    from skimage.data import astronaut, coffee

    found = look(tmp_path, astronaut()[20:260, 80:400], cascade=True)
    assert (found["faces"], found["face_detector"]) == (1, "lbp-frontal")
    assert 0.1 < found["largest_face"] == found["face_share"] < 0.25
    assert look(tmp_path, coffee(), cascade=True)["faces"] == 0
    assert measure("faces", cascade=True).embedded == (CASCADE,)


def test_the_checkpoint_is_what_looks_where_both_are_given(checkpoint: Path) -> None:
    both = Faces.build({"checkpoint": str(checkpoint), "cascade": True})
    assert both.embedded == ()
    assert both.fingerprint_parts() == Faces.build({"checkpoint": str(checkpoint)}).fingerprint_parts()
    assert both.fingerprint_parts() != Faces.build({"cascade": True}).fingerprint_parts()


def test_another_file_is_another_fingerprint(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(checkpoint.read_bytes() + b"\x00")
    parts = [Faces.build({"checkpoint": str(path)}).fingerprint_parts() for path in (checkpoint, other)]
    assert parts[0] != parts[1]


NODES = """
faces: {{measure: faces, {requires}params: {params}}}
safe: {{decide: rules, needs: [faces], rules: {{people: {{keep: face_share <= 0.5, else: skip}}}}}}
"""


def test_without_a_checkpoint_the_plan_says_so() -> None:
    plan = plan_of(NODES.format(requires="requires: checkpoint, ", params="{checkpoint: null}"))
    assert plan.nodes["faces"].missing == "no checkpoint of YuNet is given, and `cascade: true` is not said"
    assert [rule.branch for rule in plan.nodes["safe"].rules] == ["skip"]
    with pytest.raises(UserError) as caught:
        plan_of(NODES.format(requires="", params="{}"))
    assert str(caught.value) == (
        "R: nodes.faces: faces cannot run: no checkpoint of YuNet is given, and `cascade: true` is not said; "
        "write `requires:` if rules have an `else`"
    )
    plan = plan_of(NODES.format(requires="", params="{cascade: true}"))
    assert [rule.branch for rule in plan.nodes["safe"].rules] == ["keep"]


def test_a_checkpoint_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"nowhere.onnx: the checkpoint cannot be read: No such file"):
        plan_of(NODES.format(requires="", params="{checkpoint: /nowhere.onnx}"))


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    words, graph = tmp_path / "words.onnx", tmp_path / "graph.onnx"
    words.write_bytes(b"no graph")
    write_yunet(graph, ("cls", "obj", "bbox"))
    for path in (words, graph):
        with pytest.raises(UserError, match=f"{path.name}: OpenCV cannot run it as YuNet: "):
            measure("faces", checkpoint=str(path))


def test_what_is_no_picture_is_set_aside(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Quarantine) as caught:
        measure("faces", checkpoint=str(checkpoint)).process(record(tmp_path, b"no picture"))
    assert caught.value.reason == "not an image"
