"""Measure `turns`: whether a conversation of several turns holds together, and the conversation in one layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from catalog.keys import canonical
from pipeline.measures.chain import references
from pipeline.measures.choices import asked_digest
from pipeline.operator import Column, Measure, Params, Record

Speaker = Literal["question", "answer"]
ROLES: dict[str, Speaker] = {
    "user": "question",
    "human": "question",
    "assistant": "answer",
    "gpt": "answer",
    "model": "answer",
}
"""What data sets call the two sides, in lower case."""
_PLACE = re.compile(r"<\s*image\s*>", re.IGNORECASE)


@dataclass(frozen=True)
class Exchange:
    """A question, its answer, and the number of pictures that are shown with the question."""

    question: str
    answer: str
    pictures: int = 0


class TurnsError(ValueError):
    """A conversation that does not hold together; `fault` is a word that groups, the message the particulars."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def said_of(value: Any) -> list[tuple[Speaker, str]]:
    """Who said what, in order, from a list of {question, answer}, {role, content} or {from, value}.

    Raises TurnsError with `malformed` for anything else, and with `role` for a side that is neither of the two.
    """
    if not isinstance(value, list):
        raise TurnsError("malformed", f"the turns are {type(value).__name__}, not a list")
    said: list[tuple[Speaker, str]] = []
    for place, turn in enumerate(value):
        names = set(turn) if isinstance(turn, dict) else set()
        if names >= {"question", "answer"}:
            parts = [("question", turn["question"]), ("answer", turn["answer"])]
        elif names >= {"role", "content"}:
            parts = [(turn["role"], turn["content"])]
        elif names >= {"from", "value"}:
            parts = [(turn["from"], turn["value"])]
        else:
            raise TurnsError("malformed", f"turn {place} has neither question and answer nor role and content")
        for who, text in parts:
            if not isinstance(who, str) or not isinstance(text, str):
                raise TurnsError("malformed", f"turn {place} holds something else than text")
            role = ROLES.get(who.lower(), who)
            if role not in ("question", "answer"):
                raise TurnsError("role", f"turn {place} is said by {who!r}")
            said.append((role, text))  # type: ignore[arg-type]
    return said


def exchanges_of(value: Any, images: int) -> list[Exchange]:
    """The exchanges of a conversation over so many pictures; [] for none.

    Every `<image>` of a question stands for the next picture: at the edge of a question it goes, within a sentence the
    number of the picture takes its place. Without any, all pictures belong to the first question. Raises TurnsError:
    `malformed`, `role`, `order` (not question and answer in turn), `empty`, `unanswered` (ends with a question),
    `pictures` (placeholders and pictures do not match).
    """
    if value is None:
        return []
    said = said_of(value)
    for place, (role, _) in enumerate(said):
        if role != ("question", "answer")[place % 2]:
            raise TurnsError("order", f"turn {place} is a second {role} in a row" if place else "an answer comes first")
    for place, (role, text) in enumerate(said):
        if not _PLACE.sub("", text).strip():
            raise TurnsError("empty", f"{role} {place // 2 + 1} says nothing")
    if len(said) % 2:
        raise TurnsError("unanswered", "the last question has no answer")
    _check_pictures(said, images)
    found = []
    shown = 0
    for (_, question), (_, answer) in zip(said[::2], said[1::2], strict=True):
        here = len(_PLACE.findall(question))
        found.append(Exchange(_without_places(question, shown), answer.strip(), here))
        shown += here
    if found and not shown:
        found[0] = Exchange(found[0].question, found[0].answer, images)
    return found


def _check_pictures(said: Sequence[tuple[Speaker, str]], images: int) -> None:
    placed = sum(len(_PLACE.findall(text)) for role, text in said if role == "question")
    if placed not in (0, images):
        raise TurnsError("pictures", f"{placed} placeholders for {images} pictures")
    for place, (role, text) in enumerate(said):
        if role == "answer" and _PLACE.search(text):
            raise TurnsError("pictures", f"answer {place // 2 + 1} has a placeholder")
        if references(_PLACE.sub("", text), (), images).missing:
            raise TurnsError("pictures", f"{role} {place // 2 + 1} refers to a picture that is not there")


def _without_places(question: str, before: int) -> str:
    """A question without placeholders at its edges, those within by number; `before` pictures have been shown."""
    text = question.strip()
    while (match := _PLACE.match(text)) is not None:
        before += 1
        text = text[match.end() :].lstrip()
    ends = re.compile(rf"(?:\s*{_PLACE.pattern})+$", re.IGNORECASE).search(text)
    if ends is not None:
        text = text[: ends.start()].rstrip()
    numbers = iter(range(before + 1, before + 1 + len(_PLACE.findall(text))))
    return _PLACE.sub(lambda _: f"image {next(numbers)}", text)


class TurnsParams(Params):
    """`field` names the field with the list of turns."""

    field: str = "turns"


class Turns(Measure):
    """Whether a conversation holds together, and its exchanges in one layout; nulls without one."""

    name = "turns"
    version = 1
    Params = TurnsParams
    params: TurnsParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        about = "first fault: `malformed`, `role`, `order`, `empty`, `unanswered`, `pictures`; null without one"
        return (
            Column("turn_count", pa.int64(), "questions with their answers; 0 without any, null with a fault", 0),
            Column("turns_fault", pa.string(), about),
            Column("turns_detail", pa.string(), "that fault in words"),
            Column("repeated_questions", pa.float64(), "share of the questions that were asked before", 0, 1, "lower"),
            Column("shortest_answer", pa.int64(), "characters of the shortest answer", 1),
            Column("asked_digest", pa.string(), "digest of pictures and questions: equal ones ask the same"),
            Column("conversation", pa.string(), "the exchanges as JSON, for `encode: conversation`"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The conversation's columns."""
        try:
            found = exchanges_of(record.fields.get(self.params.field), len(record.media))
        except TurnsError as broken:
            return None, broken.fault, str(broken), None, None, None, None
        if not found:
            return 0, None, None, None, None, None, None
        questions = [" ".join(one.question.casefold().split()) for one in found]
        told = [{"question": one.question, "answer": one.answer, "pictures": one.pictures} for one in found]
        return (
            len(found),
            None,
            None,
            1 - len(set(questions)) / len(questions),
            min(len(one.answer) for one in found),
            asked_digest(record, questions),
            canonical(told).decode(),
        )
