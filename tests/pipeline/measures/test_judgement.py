from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.annotations.prompt import load_prompt
from pipeline.measures.judgement import REASON, Judgement
from pipeline.media import MediaReader
from pipeline.operator import Quarantine, Record, check_row

PARAMS: dict[str, Any] = {
    "answer": "verdict",
    "scores": {
        "followed": {"field": "instruction_followed", "low": 1, "high": 5},
        "noise": {"field": "noise", "low": 0, "high": 0.5, "better": "lower", "about": "how noisy"},
    },
    "flags": {"unchanged": "no_change"},
    "texts": {"why": "reason"},
}
GOOD: dict[str, Any] = {"instruction_followed": 4, "noise": 0.25, "no_change": False, "reason": " a balloon came "}


def judged(answer: Any, params: dict[str, Any] = PARAMS) -> list[Any]:
    measure = Judgement.build(params)
    assert isinstance(measure, Judgement)
    row = list(measure.process(Record("0" * 32, (), b"{}", {"verdict": answer}, MediaReader("."))))
    check_row(measure.columns, row)
    return row


def test_the_answer_becomes_the_declared_columns() -> None:
    assert judged(json.dumps(GOOD)) == [4.0, 0.25, False, "a balloon came"]
    measure = Judgement.build(PARAMS)
    assert isinstance(measure, Judgement)
    assert measure.reads == ("verdict",)
    found = [(column.name, column.type, column.low, column.high, column.better) for column in measure.columns]
    assert found == [
        ("followed", pa.float64(), 1, 5, "higher"),
        ("noise", pa.float64(), 0, 0.5, "lower"),
        ("unchanged", pa.bool_(), None, None, None),
        ("why", pa.string(), None, None, None),
    ]
    assert measure.columns[0].about == "'instruction_followed' of the answer in verdict"
    assert measure.columns[1].about == "how noisy"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        # What is no mapping is the whole answer, a mapping is what is changed in a good one.
        (None, "not JSON: None"),
        ("five", "not JSON: 'five'"),
        ("[5]", "no JSON object: [5]"),
        ({"no_change": 1}, "'no_change' is neither true nor false: 1"),
        ({"no_change": "false"}, "'no_change' is neither true nor false: 'false'"),
        ({"no_change": None}, "'no_change' is neither true nor false: None"),
        ({"instruction_followed": 0}, "'instruction_followed' is 0, declared 1 to 5"),
        ({"instruction_followed": 6}, "'instruction_followed' is 6, declared 1 to 5"),
        ({"instruction_followed": -5}, "'instruction_followed' is -5, declared 1 to 5"),
        ({"instruction_followed": 10**25}, "'instruction_followed' is 1e+25, declared 1 to 5"),
        ({"instruction_followed": "5"}, "'instruction_followed' is no number: '5'"),
        ({"instruction_followed": True}, "'instruction_followed' is no number: True"),
        ({"instruction_followed": None}, "'instruction_followed' is no number: None"),
        ({"instruction_followed": [5]}, "'instruction_followed' is no number: [5]"),
        ({"noise": 0.51}, "'noise' is 0.51, declared 0 to 0.5"),
        ({"reason": ""}, "'reason' is no text: ''"),
        ({"reason": 7}, "'reason' is no text: 7"),
    ],
)
def test_an_answer_that_does_not_fit_sets_the_record_aside(answer: Any, message: str) -> None:
    text = json.dumps({**GOOD, **answer}) if isinstance(answer, dict) else answer
    with pytest.raises(Quarantine) as caught:
        judged(text)
    assert caught.value.reason == REASON == "judgement does not fit"
    assert str(caught.value) == message


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_that_leaves_something_out_sets_the_record_aside(name: str) -> None:
    rest = {other: value for other, value in GOOD.items() if other != name}
    with pytest.raises(Quarantine, match=f"no '{name}' in"):
        judged(json.dumps(rest))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD]), inner, max_size=4),
    max_leaves=6,
)


@given(_JSON)
def test_nothing_passes_that_is_not_what_was_declared(answer: Any) -> None:
    try:
        followed, noise, unchanged, why = judged(json.dumps(answer))
    except Quarantine:
        return
    assert 1 <= followed <= 5
    assert 0 <= noise <= 0.5
    assert isinstance(unchanged, bool)
    assert why.strip()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "name what the answer says in `scores`, `flags` or `texts`"),
        ({"flags": {"a": "x"}, "texts": {"a": "y"}}, "'a' is written twice"),
        ({"flags": {"A b": "x"}}, "should match pattern"),
        ({"scores": {"a": {"field": "x", "low": 5, "high": 1}}}, "low must be below high, found 5.0 and 1.0"),
        ({"scores": {"a": {"field": "x", "low": 1}}}, "Field required"),
        ({"scores": {"a": {"field": "x", "low": 1, "high": 5, "best": "low"}}}, "Extra inputs"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Judgement.build({"answer": "verdict", **params})


@pytest.mark.parametrize(
    ("prompt", "scores"),
    [
        ("edit_judge/v1", ["instruction_followed", "rest_unchanged", "artefacts"]),
        ("response_check/v1", ["agrees", "complete"]),
        ("turn_quality/v1", ["relevance", "visual_dependency", "image_correspondence", "formatting"]),
    ],
)
def test_the_shipped_prompts_ask_for_scores_from_1_to_5(prompt: str, scores: list[str]) -> None:
    schema = load_prompt(prompt).answer_schema
    assert schema is not None
    properties: Any = schema["properties"]
    assert [name for name, kind in properties.items() if kind["type"] == "integer"] == scores
    assert all(properties[name]["enum"] == [1, 2, 3, 4, 5] for name in scores)
    assert schema["required"] == [*properties]
    assert schema["additionalProperties"] is False


def test_the_page_on_measures_shows_it() -> None:
    assert "## judgement, version 1" in Path("docs/measures.md").read_text()
