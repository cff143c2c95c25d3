from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.boxes import (
    GRID,
    REASONS,
    Box,
    Form,
    Limits,
    check_boxes,
    grid_text,
    iou,
    names,
    read_grid_text,
    to_grid,
)
from pipeline.measures.ngrams import normal_words

SIZE = (200, 100)
GOOD = {"label": "cat", "bbox_xywh": [20, 10, 100, 50], "area": 4000.0, "iscrowd": 0}

shares = st.floats(0, 1, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Any box that the checks let through."""
    x = sorted(draw(st.lists(shares, min_size=2, max_size=2).filter(lambda x: abs(x[0] - x[1]) >= 0.002)))
    y = sorted(draw(st.lists(shares, min_size=2, max_size=2).filter(lambda y: abs(y[0] - y[1]) >= 0.002)))
    return Box(draw(st.text(min_size=1, max_size=8)), x[0], y[0], x[1], y[1])


def reasons(thing: Any, **given: Any) -> dict[str, int]:
    return dict(check_boxes([thing], SIZE, **given).broken)


def test_a_good_box_is_written_in_shares_of_the_picture() -> None:
    found = check_boxes([GOOD], SIZE)
    assert found.verified == [Box("cat", 0.1, 0.1, 0.6, 0.6)]
    assert (found.given, found.crowds, found.broken, found.uncountable) == (1, 0, Counter(), [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox_xywh": None}, "malformed"),
        ({"bbox_xywh": [1, 2, 3]}, "malformed"),
        ({"bbox_xywh": [20, 10, None, 50]}, "malformed"),
        ({"bbox_xywh": [20, 10, math.inf, 50]}, "malformed"),
        ({"bbox_xywh": [20, 10, True, 50]}, "malformed"),
        ({"label": ""}, "unlabelled"),
        ({"label": None}, "unlabelled"),
        ({"bbox_xywh": [20, 10, 0, 50]}, "reversed"),
        ({"bbox_xywh": [120, 10, -100, 50]}, "reversed"),
        ({"bbox_xywh": [-3, 10, 100, 50]}, "outside"),
        ({"bbox_xywh": [110, 10, 100, 50]}, "outside"),
        ({"bbox_xywh": [20, 10, 4, 4]}, "tiny"),
        ({"bbox_xywh": [20, 0, 0.3, 100]}, "tiny"),
        ({"bbox_xywh": [0, 0, 200, 98]}, "whole"),
        ({"area": 9000.0}, "area"),
        ({"score": 0.2}, "unsure"),
    ],
)
def test_a_broken_box_is_charged_with_its_reason(change: dict[str, Any], reason: str) -> None:
    assert reasons({**GOOD, **change}, limits=Limits(least_area=0.002, least_score=0.3)) == {reason: 1}


@pytest.mark.parametrize("thing", [None, 3, "cat", [], {}])
def test_what_is_no_object_at_all_is_malformed(thing: Any) -> None:
    assert reasons(thing) == {"malformed": 1}


def test_a_box_just_outside_is_cut_off_at_the_rim() -> None:
    found = check_boxes([{**GOOD, "bbox_xywh": [-1, 10, 101, 50]}], SIZE)
    assert found.verified == [Box("cat", 0.0, 0.1, 0.5, 0.6)]


def test_a_picture_of_another_size_than_the_annotator_saw_verifies_nothing() -> None:
    assert reasons(GOOD, stated_size=(100, 200)) == {"frame": 1}
    assert reasons(GOOD, stated_size=(200, 100)) == {}
    assert reasons(GOOD, stated_size=(None, None)) == {"frame": 1}


def test_a_label_must_be_named_by_a_text_where_there_are_texts() -> None:
    assert reasons(GOOD, texts=["Two dogs."]) == {"unsaid": 1}
    assert reasons(GOOD, texts=["Two dogs.", "Cats on a sofa!"]) == {}
    assert reasons(GOOD, texts=["", "  "]) == {}


@pytest.mark.parametrize(
    ("text", "label", "named"),
    [
        ("a potted plant", "potted plant", True),
        ("many Potted-Plants", "potted plant", False),
        ("many potted plants,", "potted plant", True),
        ("three strawberries", "strawberry", True),
        ("two benches", "bench", True),
        ("a catalogue", "cat", False),
        ("plant, potted", "potted plant", False),
        ("anything", "", False),
    ],
)
def test_labels_are_named_as_whole_words_in_order_or_in_the_plural(text: str, label: str, named: bool) -> None:
    assert names(normal_words(text), label) is named


def test_the_second_box_of_one_thing_is_a_duplicate_and_does_not_spoil_the_count() -> None:
    again = {**GOOD, "bbox_xywh": [20, 10, 101, 51]}
    other = {"label": "cat", "bbox_xywh": [120, 10, 50, 50]}
    dog = {**GOOD, "label": "dog"}
    found = check_boxes([GOOD, again, other, dog], SIZE)
    assert (len(found.verified), found.broken, found.uncountable) == (3, {"duplicate": 1}, [])


def test_crowds_are_not_verified_and_their_labels_not_counted() -> None:
    found = check_boxes([{**GOOD, "iscrowd": 1}, {"label": "cat", "bbox_xywh": [120, 10, 50, 50]}], SIZE)
    assert (found.crowds, len(found.verified), found.uncountable) == (1, 1, ["cat"])


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        (Form(layout="xyxy"), [20, 10, 120, 60]),
        (Form(units="share"), [0.1, 0.1, 0.5, 0.5]),
        (Form(units="grid", layout="xyxy"), [100, 100, 600, 600]),
        (Form(box="b"), [20, 10, 100, 50]),
    ],
)
def test_all_forms_of_a_box_come_to_the_same(form: Form, numbers: list[float]) -> None:
    found = check_boxes([{"label": "cat", form.box: numbers}], SIZE, form).verified
    assert [pytest.approx(one) for one in found[0][1:]] == [0.1, 0.1, 0.6, 0.6]


numbers = st.one_of(st.none(), st.floats(), st.integers(-50, 250), st.text(max_size=2))
things = st.fixed_dictionaries(
    {"label": st.sampled_from(["cat", "dog", "", None]), "bbox_xywh": st.lists(numbers, min_size=3, max_size=5)},
    optional={"iscrowd": st.sampled_from([0, 1]), "area": numbers, "score": numbers},
)


@given(st.lists(st.one_of(things, st.none()), max_size=12))
def test_every_object_is_verified_a_crowd_or_broken_and_what_is_verified_holds(objects: list[Any]) -> None:
    found = check_boxes(objects, SIZE)
    assert len(found.verified) + found.crowds + sum(found.broken.values()) == found.given == len(objects)
    assert set(found.broken) <= set(REASONS)
    for box in found.verified:
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
        assert box.label
    assert len(read_grid_text(grid_text(found.verified))) == len(found.verified)


@given(st.lists(things, max_size=8), st.integers(0, 99))
def test_the_order_of_the_objects_does_not_matter(objects: list[Any], seed: int) -> None:
    shuffled = random.Random(seed).sample(objects, len(objects))
    assert check_boxes(objects, SIZE) == check_boxes(shuffled, SIZE)


def test_the_first_of_two_near_boxes_stays_whatever_the_order() -> None:
    near = [{"label": "cat", "bbox_xywh": [20 + shift, 10, 100, 50]} for shift in (0, 4, 8, 12)]
    found = [check_boxes(some, SIZE).verified for some in (near, near[::-1], [near[2], near[0], near[3], near[1]])]
    assert found == [[Box("cat", 0.1, 0.1, 0.6, 0.6), Box("cat", 0.14, 0.1, 0.64, 0.6)]] * 3


@given(boxes(), boxes())
def test_intersection_over_union_is_symmetric_and_one_for_a_box_itself(a: Box, b: Box) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= 1 + 1e-9
    assert iou(a, a) == pytest.approx(1)


@given(st.integers(0, GRID))
def test_a_line_of_the_grid_is_written_as_it_was(line: int) -> None:
    assert to_grid(line / GRID) == line


@given(boxes())
def test_a_box_read_back_lies_within_half_a_line(box: Box) -> None:
    (back,) = read_grid_text(grid_text([box]))
    assert back.label == box.label
    assert all(abs(one - other) <= 0.5 / GRID + 1e-12 for one, other in zip(back[1:], box[1:], strict=True))
    assert grid_text([back]) == grid_text([box])


def test_halves_go_upwards() -> None:
    assert [to_grid(share) for share in (0.0004, 0.0005, 0.0015, 0.9995, 1.0)] == [0, 1, 2, 1000, 1000]


def test_the_text_form_is_the_one_of_the_page() -> None:
    assert grid_text([Box("tall cat", 0.1, 0.2, 0.5555, 1.0)]) == (
        '[{"bbox_2d":[100,200,556,1000],"label":"tall cat"}]'
    )
    assert grid_text([]) == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "cat at 1 2 3 4",
        "{}x",
        "7",
        '[{"bbox_2d":[1,2,3],"label":"a"}]',
        '[{"bbox_2d":[1,2,3,1001],"label":"a"}]',
        '[{"bbox_2d":[1,2,3.5,7],"label":"a"}]',
        '[{"bbox_2d":[5,2,3,7],"label":"a"}]',
        '[{"bbox_2d":[1,2,3,4]}]',
    ],
)
def test_an_answer_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_grid_text(text)
