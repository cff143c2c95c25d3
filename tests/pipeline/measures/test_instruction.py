"""What the words of an edit ask for, and whether the change runs that way."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.instruction import KINDS, direction_agrees, wording
from pipeline.media import MediaReader
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, measure


def record(text: Any, **values: Any) -> Record:
    return Record("0" * 32, (), orjson.dumps({"text": text}), values, MediaReader("/"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Add a pendant with a ruby around her neck.", "add"),
        ("put a hat on the dog", "add"),
        ("Remove the bicycle in the lower centre.", "remove"),
        ("Get rid of the cars", "remove"),
        ("Remove the man and add a dog.", "replace"),
        ("Replace 'TRAIN' with 'PLANE'", "replace"),
        ("Change the man into a woman", "replace"),
        ("Change the colour of the pink kite to blue.", "colour"),
        ("Make the sky purple", "colour"),
        ("Move the red sign to the right.", "move"),
        ("Remove the background and leave the subject.", "background"),
        ("Make it look like a painting", "style"),
        ("Change image to anime style.", "style"),
        ("Add a painting to the wall", "add"),
        ("Add a mask to the man", "add"),
        ("Change her pose", "other"),
        ("Generate a Canny edge map for this image.", "map"),
        ("Extract the garment onto a neutral background.", "extract"),
        ("Let her cry.", "other"),
        ("把背景换成海滩", "other"),
    ],
)
def test_the_kind_of_edit_is_read_from_the_words(text: str, kind: str) -> None:
    assert wording(text).kind == kind


@pytest.mark.parametrize(
    ("text", "imperative"),
    [
        ("Could you please remove the dog?", True),
        ("Let her cry.", True),
        ("The dog is gone now and the house is blue", False),
        ("what is this?", False),
        ("把背景换成海滩", None),
        ("Удалите собаку с этой картины и сделайте небо синим", None),
    ],
)
def test_an_instruction_starts_with_a_verb(text: str, imperative: bool | None) -> None:
    assert wording(text).imperative is imperative


@pytest.mark.parametrize("text", ["Put <object> here", "Add a {colour} hat", "Paint it [COLOR]", "TODO", "add %s"])
def test_a_gap_left_open_is_counted(text: str) -> None:
    assert wording(text).placeholders == 1


@pytest.mark.parametrize("text", ["Make it like https://a.test/1.jpg", "Use photo_1.png as background"])
def test_an_address_is_counted(text: str) -> None:
    assert wording(text).addresses >= 1


def test_a_plain_instruction_has_neither() -> None:
    found = wording("Replace 'TRAIN' with 'PLANE' [and no more], 100 %")
    assert (found.placeholders, found.addresses) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "gain", "agrees"),
    [
        ("add", 0.6, True),
        ("add", -0.6, False),
        ("remove", -0.6, True),
        ("remove", 0.6, False),
        ("add", 0.1, None),
        ("remove", None, None),
        ("colour", 0.6, None),
    ],
)
def test_outlines_come_with_what_is_added_and_go_with_what_is_removed(
    kind: str, gain: float | None, agrees: bool | None
) -> None:
    assert direction_agrees(kind, gain) is agrees


def test_columns_of_a_record() -> None:
    found = columns_of(measure("instruction"), record("Please add a red hat.", outline_gain=-0.5))
    assert found == {
        "instruction_words": 5,
        "imperative": True,
        "placeholders": 0,
        "addresses": 0,
        "says_add": True,
        "says_remove": False,
        "says_replace": False,
        "says_style": False,
        "edit_kind": "add",
        "direction_agrees": False,
    }


def test_without_the_measure_of_pairs_there_is_no_direction() -> None:
    made = measure("instruction", outline_gain=None)
    assert made.reads == ()
    assert columns_of(made, record("Add a hat.", outline_gain=-0.5))["direction_agrees"] is None


@pytest.mark.parametrize("text", [None, ""])
def test_no_text_is_no_words_and_nulls(text: str | None) -> None:
    found = columns_of(measure("instruction"), record(text))
    assert found.pop("instruction_words") == 0
    assert set(found.values()) == {None}


def test_what_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine, match="'text' holds list"):
        measure("instruction").process(record(["Add a hat."]))


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    found = wording(text)
    assert found.kind in KINDS
    assert min(found.words, found.placeholders, found.addresses) >= 0
    made = measure("instruction")
    check_row(made.columns, made.process(record(text)))


def test_a_rewritten_wording_is_read_from_its_column_into_names_of_its_own() -> None:
    made = measure("instruction", column="better", prefix="final_")
    assert made.reads == ("better", "outline_gain")
    given = record("Please add a red hat.", better="Remove the hat.", outline_gain=-0.5)
    found = columns_of(made, given)
    plain = columns_of(measure("instruction"), record("Remove the hat.", outline_gain=-0.5))
    assert found == {f"final_{name}": value for name, value in plain.items()}
    assert found["final_direction_agrees"] is True


def test_another_place_of_the_wording_is_part_of_the_fingerprint() -> None:
    parts = [measure("instruction", **given).fingerprint_parts() for given in ({}, {"column": "a"}, {"prefix": "a_"})]
    assert parts == [{}, {"column": "a"}, {"prefix": "a_"}]
