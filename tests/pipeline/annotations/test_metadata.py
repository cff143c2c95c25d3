from __future__ import annotations

import math
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.annotations.metadata import _STEPS, FACTS, LABEL, Metadata, MetadataParams, clean, cut, tell
from pipeline.operator import Quarantine, load_operator

from .conftest import Place

MEASURED = {
    "width": 640,
    "height": 422,
    "brightness": 0.9,
    "contrast": 0.1,
    "colourfulness": 2.0,
    "sharpness": 10.0,
    "frames": 3,
    "has_alpha": True,
}


def test_the_short_caption_is_the_text_of_the_source_and_nothing_else(place: Place) -> None:
    record = place.record("a", title="  Four persons\n sitting\tat a table ", **MEASURED)
    (row,) = place.run("metadata", {"text": "title", "facts": list(FACTS)}, [record])
    assert row["status"] == "ok"
    assert row["caption"] == "Four persons sitting at a table"
    assert (row["caption_by"], row["caption_finish"], row["caption_tokens"]) == (LABEL, "stop", None)
    assert row["caption_prompt"].startswith("metadata_short/v1#")


def test_the_long_caption_tells_measured_facts_after_the_text(place: Place) -> None:
    record = place.record("a", title="a cake", **MEASURED)
    (row,) = place.run("metadata", {"text": "title", "facts": list(FACTS), "style": "long", "into": "story"}, [record])
    assert row["story"] == (
        "a cake. A picture of 640 by 422 pixels, bright, of low contrast, without colour, blurred, "
        "the first of 3 frames, partly transparent."
    )
    assert row["story_by"] == LABEL


@pytest.mark.parametrize("text", [None, "", " \n\u200b"])
def test_without_a_text_the_caption_is_measured_facts_alone(place: Place, text: str | None) -> None:
    record = place.record("a", title=text, width=640, height=422, brightness=0.5)
    params = {"text": "title", "facts": ["brightness", "width", "height"]}
    (row,) = place.run("metadata", params, [record, place.record("b", title="so that it is a text column")])[:1]
    assert row["caption"] == "A picture of 640 by 422 pixels."


def test_a_record_with_neither_text_nor_facts_is_set_aside(place: Place) -> None:
    first, second = place.record("a", title=None, sharpness=None), place.record("b", title="b", sharpness=1.0)
    rows = place.run("metadata", {"text": "title", "facts": ["sharpness"]}, [first, second])
    assert [row["reason"] for row in rows] == ["nothing to say", None]


def test_it_asks_for_the_columns_it_tells_and_no_others() -> None:
    operator = Metadata(MetadataParams(text="title", facts=("height", "width", "sharpness")))
    assert operator.reads == ("title", "width", "height", "sharpness")
    assert operator.embedded == (LABEL,)
    assert [column.name for column in operator.columns][:2] == ["caption", "caption_by"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"text": None}, "name a `text` column"),
        ({"facts": ["licence"]}, "'licence' cannot be put into words"),
        ({"facts": ["width"]}, "told together"),
        ({"text": "t", "into": "Not a column"}, "String should match"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        load_operator("metadata").build(params)


def test_a_text_is_cut_after_its_last_whole_sentence() -> None:
    assert cut("One. Two three. Four five six", 5) == ("One. Two three.", "length")
    assert cut("one two three", 2) == ("one two", "length")
    assert cut("一二三。四五六", 4) == ("一二三。", "length")
    assert cut("one two", 2) == ("one two", "stop")


def test_a_text_that_was_cut_says_so(place: Place) -> None:
    (row,) = place.run("metadata", {"text": "title", "max_words": 1}, [place.record("a", title="one two")])
    assert (row["caption"], row["caption_finish"]) == ("one", "length")


@given(st.text())
def test_clean_text_is_one_visible_line_and_cleaning_again_changes_nothing(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert cleaned == cleaned.strip()
    assert all(char == " " or not char.isspace() for char in cleaned)
    assert not any(unicodedata.category(char) == "Cc" for char in cleaned)


def test_joiners_survive_cleaning() -> None:
    assert clean("می\u200cخواهم 👩\u200d🚀\ufeff") == "می\u200cخواهم 👩\u200d🚀"


@given(st.fixed_dictionaries({}, optional={name: st.floats(0, 500) for name in _STEPS}))
def test_every_measured_value_has_a_wording(values: dict[str, float]) -> None:
    said = tell(values, FACTS)
    expected = [
        next(phrase for below, phrase in _STEPS[name] if values[name] < below) for name in _STEPS if name in values
    ]
    assert said == "" or said.startswith("A picture, ")
    assert [phrase for phrase in expected if phrase] == said.removesuffix(".").split(", ")[1:]


def test_the_steps_rise_and_end_at_infinity() -> None:
    for steps in _STEPS.values():
        limits = [below for below, _ in steps]
        assert limits == sorted(limits)
        assert limits[-1] == math.inf


def test_process_raises_the_quarantine_itself(place: Place) -> None:
    with pytest.raises(Quarantine, match="no text"):
        Metadata(MetadataParams(text="title")).process(place.record("a", title=None))
