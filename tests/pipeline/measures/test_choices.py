"""For every way to write options and answers what is asked, and which option is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.choices import LETTERS, asked, chosen, options_of
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, measure

QUESTION = "Which colour is the boat?"
COLOURS = ["red", "dark blue", "green"]
PROMPT = "Which colour is the boat?\nA. red\nB. dark blue\nC. green"


def look(digest: str = "d" * 64, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    made = measure("choices", **(params or {}))
    given_fields = {"question": QUESTION, "options": COLOURS, "answer": "B", **fields}
    media = (MediaRef("image", "file", "a.jpg", digest=digest),)
    record = Record("0" * 32, media, orjson.dumps(given_fields), {}, MediaReader("."))
    check_row(made.columns, made.process(record))
    return columns_of(made, record)


def test_a_question_is_joined_with_its_options_and_its_answer_named() -> None:
    found = look()
    assert len(found.pop("asked_digest")) == 64
    assert found == {
        "prompt": PROMPT, "choice_count": 3, "choices_differ": True, "choice_answered": True, "choice_letter": "B",
        "choice_answer": "B",
    }  # fmt: skip


def test_an_answer_that_is_none_of_the_options_is_told() -> None:
    found = look(answer="yellow")
    assert (found["choice_answered"], found["choice_letter"], found["choice_answer"]) == (False, None, "yellow")


@pytest.mark.parametrize(
    "options",
    [
        COLOURS,
        "['red', 'dark blue', 'green']",
        "('red', 'dark blue', 'green')",
        '["red", "dark blue", "green"]',
        {"A": "red", "B": "dark blue", "C": "green"},
        "{'A': 'red', 'B': 'dark blue', 'C': 'green'}",
        ["A. red", "B. dark blue", "C. green"],
        ["(A) red", "(B) dark blue", "(C) green"],
        ["A: red ", "B: dark blue", "C: green"],
    ],
)
def test_every_way_to_write_options_gives_one_prompt(options: Any) -> None:
    assert look(options=options)["prompt"] == PROMPT


@pytest.mark.parametrize("options", [None, [], "", "[]", "None", "null"])
def test_a_question_without_options_is_its_own_prompt(options: Any) -> None:
    found = look(options=options, answer="dark blue")
    assert (found["prompt"], found["choice_count"], found["choice_answered"]) == (QUESTION, 0, None)
    assert found["choice_answer"] == "dark blue"


@pytest.mark.parametrize(
    "options",
    ["red, dark blue", "['red', 'dark", "__import__('os').getcwd()", {"B": "red"}, [["red"]], [None], 3, "[" * 9999],
)
def test_options_that_cannot_be_read_are_told_and_never_run(options: Any) -> None:
    found = look(options=options)
    assert (found["prompt"], found["choice_count"], found["choice_answered"]) == (QUESTION, None, None)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("B", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("Option B", 1), ("dark blue", 1), ("The dark blue.", 1),
        ("B. dark blue", 1), ("(B) dark blue", 1), (1, 1), (0, 0), ("C: green", 2),
        ("D", None), ("blue", None), ("B. red", None), ("B. yellow", None), ("", None), (3, None), (-1, None),
    ],
)  # fmt: skip
def test_the_option_an_answer_names(answer: str | int, place: int | None) -> None:
    assert chosen(answer, COLOURS) == place


def test_a_letter_that_is_the_text_of_another_option_names_none() -> None:
    assert chosen("C", ["C", "A", "B"]) is None
    assert chosen("C", ["A", "B", "C"]) == 2


@pytest.mark.parametrize(
    ("form", "said"), [("letter", "B"), ("text", "dark blue"), ("both", "B. dark blue"), ("as_is", "(b)")]
)
def test_the_answer_takes_the_form_that_was_asked_for(form: str, said: str) -> None:
    assert look(answer="(b)", params={"answers": form})["choice_answer"] == said


@pytest.mark.parametrize("question", [PROMPT, "Which colour? (A) red (B) dark blue (C) green"])
def test_options_that_stand_in_the_question_are_not_told_twice(question: str) -> None:
    assert look(question=question)["prompt"] == question


@pytest.mark.parametrize("options", [["red", "Red", "blue"], ["red", ""]])
def test_options_that_are_the_same_or_empty_are_told(options: list[str]) -> None:
    assert look(options=options)["choices_differ"] is False


def test_equal_digests_ask_the_same_of_the_same_pictures() -> None:
    one = look()["asked_digest"]
    assert one == look(question=" which  colour is the BOAT?", answer="A")["asked_digest"]
    others = {look(digest="e" * 64)["asked_digest"], look(options=COLOURS[::-1])["asked_digest"]}
    assert len(others | {one}) == 3


def test_nothing_is_said_of_no_question() -> None:
    assert set(look(question=" ").values()) == {None}


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({"question": 3}, "text is not a string", "field 'question' holds int"),
        ({"answer": ["A", "B"]}, "text is not a string", "field 'answer' holds list"),
        ({"answer": True}, "text is not a string", "field 'answer' holds bool"),
        ({"options": list(range(27))}, "too many options", "27 options, at most 26 have a letter"),
    ],
)
def test_what_is_no_question_is_set_aside(fields: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(Quarantine) as aside:
        look(**fields)
    assert (aside.value.reason, str(aside.value)) == (reason, message)


@given(st.lists(st.text("abcdefg ", min_size=3).map(lambda text: f"x{text}x"), min_size=2, max_size=26, unique=True))
def test_letter_text_and_place_name_the_same_option(options: list[str]) -> None:
    assert options_of(str(options)) == options_of(orjson.dumps(options).decode()) == options
    for place in (0, len(options) - 1):
        names = (place, LETTERS[place], f"{LETTERS[place]}. {options[place]}")
        assert {chosen(name, options) for name in names} == {place}
    assert asked("Why?", options).splitlines()[1:] == [f"{L}. {o}" for L, o in zip(LETTERS, options, strict=False)]
