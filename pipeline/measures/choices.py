"""Measure `choices`: a question joined with its options, and which of them the answer names."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import orjson
import pyarrow as pa

from catalog.keys import canonical
from pipeline.measures.answers import option_of
from pipeline.operator import Column, Measure, Params, Quarantine, Record, text_field

LETTERS = string.ascii_uppercase
_LABEL = re.compile(r"^\s*\(?([A-Z])[.):]\)?\s+(?=\S)")
_BARE = re.compile(r"^[\s(]*([A-Za-z])[\s).:]*$")


def options_of(value: Any) -> list[str] | None:
    """The options of a question, in order: [] where there are none, None for a value that cannot be read as such.

    They come as a list, as an object by letter, or as the text of one in JSON or as Python prints it; that text is
    parsed, never run. Letters they bring along (`A. red`, `(B) blue`) are taken off.
    """
    if isinstance(value, str):
        value = _parsed(value) if value.strip() else []
    if isinstance(value, dict) and list(value) == list(LETTERS[: len(value)]):
        value = list(value.values())
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(one) in (str, int, float) for one in value):
        return None
    options = [str(one).strip() for one in value]
    labels = [match and match.group(1) for match in map(_LABEL.match, options)]
    if options and labels == list(LETTERS[: len(options)]):
        options = [_LABEL.sub("", option) for option in options]
    return options


def _parsed(text: str) -> Any:
    """The value that a text shows, False (which is no option) if it shows none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return list(found) if isinstance(found, tuple) else found


def chosen(answer: str | int, options: Sequence[str]) -> int | None:
    """The place of the option that an answer names: by letter, by its text, or as a number by its place from 0.

    None where it names none, or where its letter is that of one and its text that of another.
    """
    if isinstance(answer, int):
        return answer if 0 <= answer < len(options) else None
    place = option_of(answer, options)
    bare, label = _BARE.match(answer), _LABEL.match(answer)
    if bare is not None and place is not None:
        letter = LETTERS.find(bare.group(1).upper())
        return place if letter in (place, -1) or letter >= len(options) else None
    if label is not None and place == LETTERS.find(label.group(1)):
        return place if option_of(answer[label.end() :], options) == place else None
    return place


def asked(question: str, options: Sequence[str]) -> str:
    """The question, and below it a line for each option, unless they stand in it already."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    there = " ".join(question.split())
    if options and all(any(f"{mark} {option}" in there for mark in _marks(n)) for n, option in enumerate(options)):
        return question
    return "\n".join([question, *lines])


def _marks(place: int) -> tuple[str, ...]:
    letter = LETTERS[place]
    return f"{letter}.", f"{letter})", f"{letter}:", f"({letter})"


def asked_digest(record: Record, texts: Sequence[str]) -> str:
    """Digest of a record's pictures and of what is asked of them, white space and case evened out."""
    said = [" ".join(text.casefold().split()) for text in texts]
    return sha256(canonical([[ref.digest for ref in record.media], said])).hexdigest()


class ChoicesParams(Params):
    """Names of the fields read. `answers` is the form of `choice_answer`: `B`, `blue`, `B. blue`, or as it stands."""

    question: str = "question"
    options: str = "options"
    answer: str = "answer"
    answers: Literal["letter", "text", "both", "as_is"] = "letter"


class Choices(Measure):
    """A question with its options, and which of them the answer names; nulls without a question."""

    name = "choices"
    version = 1
    Params = ChoicesParams
    params: ChoicesParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column("prompt", pa.string(), "the question, then a line `A. ...` for each option"),
            Column(
                "choice_count", pa.int64(), "options; 0 where there are none, null where they cannot be read", 0, 26
            ),
            Column("choices_differ", pa.bool_(), "no two options are the same and none is empty; null without"),
            Column("choice_answered", pa.bool_(), "the answer names one of the options; null without options"),
            Column("choice_letter", pa.string(), "the letter of that option"),
            Column("choice_answer", pa.string(), "the answer in the form that was asked for; without options as it is"),
            Column("asked_digest", pa.string(), "digest of pictures, question and options: equal ones ask the same"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The columns; raises Quarantine when question or answer hold something else than text, or a number."""
        fields = record.fields
        question = (text_field(fields, self.params.question) or "").strip()
        if not question:
            return [None] * len(self.columns)
        answer = fields.get(self.params.answer)
        if type(answer) is not int:
            answer = (text_field(fields, self.params.answer) or "").strip()
        options = options_of(fields.get(self.params.options))
        if options is not None and len(options) > len(LETTERS):
            raise Quarantine("too many options", f"{len(options)} options, at most {len(LETTERS)} have a letter")
        plain = str(answer) or None
        if not options:
            count = None if options is None else 0
            return question, count, None, None, None, plain, asked_digest(record, [question])
        place = chosen(answer, options)
        prompt = asked(question, options)
        return (
            prompt,
            len(options),
            len({option.casefold() for option in options} - {""}) == len(options),
            place is not None,
            None if place is None else LETTERS[place],
            plain if place is None else self._said(plain, place, options),
            asked_digest(record, [question, *options]),
        )

    def _said(self, plain: str | None, place: int, options: Sequence[str]) -> str | None:
        form = self.params.answers
        if form == "as_is":
            return plain
        letter, text = LETTERS[place], options[place]
        return {"letter": letter, "text": text}.get(form, f"{letter}. {text}")
