from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from catalog.errors import UserError
from pipeline.annotations.answers import Answer, Question, find, keep, stored

from .conftest import Place

QUESTION = Question(
    provider="openai",
    model="m",
    revision="r",
    prompt="p/v1#abc",
    prompt_hash="abc",
    sampling={"temperature": 0.0},
    media=("d" * 64,),
    picture={"max_side": 1024},
    text="What is it? A secret place.",
)
ANSWER = Answer("a cake", "stop", 10, 5, "m", "fp")


def test_an_answer_is_found_again_with_all_that_is_known_of_it(place: Place) -> None:
    assert find(place.storage, QUESTION) is None
    assert keep(place.storage, QUESTION, ANSWER) == ANSWER
    assert find(place.storage, QUESTION) == ANSWER
    ((provenance, answer),) = stored(place.storage)
    assert answer == ANSWER
    names = ("provider", "model", "revision", "prompt", "prompt_hash", "sampling", "media", "picture")
    asked: dict[str, Any] = {name: getattr(QUESTION, name) for name in names}
    assert {name: provenance[name] for name in names} == {**asked, "media": list(QUESTION.media)}


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "other"},
        {"model": "n"},
        {"revision": "s"},
        {"prompt_hash": "abd"},
        {"sampling": {"temperature": 0.5}},
        {"media": ("e" * 64,)},
        {"media": ()},
        {"picture": {"max_side": 512}},
        {"text": "What?"},
    ],
)
def test_whatever_decides_an_answer_makes_another_question(place: Place, change: dict[str, Any]) -> None:
    other = replace(QUESTION, **change)
    assert other.key != QUESTION.key
    keep(place.storage, QUESTION, ANSWER)
    assert find(place.storage, other) is None


def test_the_first_stored_answer_is_the_answer(place: Place) -> None:
    keep(place.storage, QUESTION, ANSWER)
    before = place.storage.read(QUESTION.place)
    assert keep(place.storage, QUESTION, replace(ANSWER, text="another")) == ANSWER
    assert place.storage.read(QUESTION.place) == before


def test_the_text_that_was_asked_is_not_in_the_store(place: Place) -> None:
    keep(place.storage, QUESTION, ANSWER)
    assert b"secret place" not in place.storage.read(QUESTION.place)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is damaged; delete it"),
        (b"[]", "is damaged"),
        (orjson.dumps({"format": 1, "question": {}, "answer": {"text": "x"}}), "is damaged"),
        (orjson.dumps({"format": 2}), "has format 2, this version reads 1"),
    ],
)
def test_a_stored_answer_that_cannot_be_read_stops_the_run(place: Place, data: bytes, message: str) -> None:
    place.storage.write(QUESTION.place, data)
    with pytest.raises(UserError, match=f"{QUESTION.place}: {message}"):
        find(place.storage, QUESTION)
