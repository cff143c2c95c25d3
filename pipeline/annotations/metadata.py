"""Annotate `metadata`: a sentence made of what the source and the measures say. It never looks at the picture.

The embedded provider: it needs no network and no model, and labels itself so. Where the source has a text, that text
is the caption; where it has none, only measured facts are told.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from catalog.keys import fingerprint
from pipeline.annotations.columns import NAME_PATTERN, Annotation, annotation_columns, as_text
from pipeline.operator import Column, Measure, Params, Quarantine, Record

LABEL = "metadata (embedded)"

_STEPS: dict[str, tuple[tuple[float, str], ...]] = {
    "brightness": ((0.25, "dark"), (0.7, ""), (math.inf, "bright")),
    "contrast": ((0.25, "of low contrast"), (0.65, ""), (math.inf, "of high contrast")),
    "colourfulness": ((5, "without colour"), (33, "of muted colour"), (59, ""), (math.inf, "of strong colour")),
    "sharpness": ((50, "blurred"), (math.inf, "")),
}
"""Measure -> (below this value, say that). The steps of colourfulness are Hasler and Suesstrunk's, 2003."""

FACTS = ("width", "height", *_STEPS, "frames", "has_alpha")
"""Columns that can be put into words, in the order in which they are told."""

_WORDING = fingerprint({"version": 1, "facts": FACTS, "steps": {k: [s[1] for s in v] for k, v in _STEPS.items()}})


class MetadataParams(Params):
    """Parameters of `metadata`.

    `text` names the column or field that holds the source's text (null: none), `facts` the measures to tell, see FACTS.
    `short` tells facts only where there is no text; `long` tells them after it. A text longer than `max_words` is cut.
    """

    into: str = Field(default="caption", pattern=NAME_PATTERN)
    style: Literal["short", "long"] = "short"
    text: str | None = "text"
    facts: tuple[str, ...] = ()
    max_words: int = Field(default=200, ge=1)

    @field_validator("facts")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in FACTS:
                raise ValueError(f"{name!r} cannot be put into words; there are: {', '.join(FACTS)}")
        if ("width" in value) != ("height" in value):
            raise ValueError("width and height are told together; name both")
        return tuple(name for name in FACTS if name in value)

    @model_validator(mode="after")
    def _something(self) -> MetadataParams:
        if self.text is None and not self.facts:
            raise ValueError("name a `text` column, or `facts` to tell")
        return self


class Metadata(Measure):
    """A caption from the source's own words and from measured facts. Quarantines a record that offers neither."""

    name = "metadata"
    version = 1
    Params = MetadataParams
    params: MetadataParams

    @property
    def reads(self) -> tuple[str, ...]:
        """The text column and the facts."""
        text = () if self.params.text is None else (self.params.text,)
        return (*text, *(name for name in self.params.facts if name not in text))

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/annotations.md."""
        return annotation_columns(self.params.into)

    @property
    def embedded(self) -> tuple[str, ...]:
        """It stands in for a model that looks."""
        return (LABEL,)

    def fingerprint_parts(self) -> dict[str, Any]:
        """The wording, which decides the sentence."""
        return {"wording": _WORDING}

    def process(self, record: Record) -> Sequence[Any]:
        """The caption, labelled as metadata."""
        source = "" if self.params.text is None else clean(as_text(record.values.get(self.params.text)))
        text, finish = cut(source, self.params.max_words)
        facts = tell(record.values, self.params.facts)
        if text and facts and self.params.style == "long":
            text = f"{_closed(text)} {facts}"
        text = text or facts
        if not text:
            raise Quarantine("nothing to say", "the source has no text and no measured fact for this record")
        prompt = f"metadata_{self.params.style}/v{self.version}#{_WORDING[:12]}"
        return Annotation(text, LABEL, prompt, finish, None)


def clean(text: str) -> str:
    """The text in NFC on one line, single spaces, without control and invisible formatting characters."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept = (char for char in unicodedata.normalize("NFC", text) if char.isspace() or not _invisible(char))
    return " ".join("".join(kept).split())


_JOINERS = frozenset("\u200c\u200d")
"""Zero-width joiners are part of how Persian, Hindi and emoji are written."""


def _invisible(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn"} and char not in _JOINERS


_WORD = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""A word between blanks, or one Han or kana character: those are written without blanks."""

_SENTENCE_END = re.compile("[.!?](?= |$)|[。！？]")


def cut(text: str, max_words: int) -> tuple[str, str]:
    """The text and `stop`; or its first words, up to the end of a sentence where there is one, and `length`."""
    words = list(_WORD.finditer(text))
    if len(words) <= max_words:
        return text, "stop"
    start = text[: words[max_words - 1].end()]
    ends = [match.end() for match in _SENTENCE_END.finditer(start)]
    return (start[: ends[-1]] if ends else start), "length"


def tell(values: Mapping[str, Any], facts: Sequence[str]) -> str:
    """One sentence of measured facts; empty where none is known. Values that are null are left out."""
    known = {name: values[name] for name in facts if values.get(name) is not None}
    size = (
        f" of {as_text(known['width'])} by {as_text(known['height'])} pixels"
        if {"width", "height"} <= set(known)
        else ""
    )
    qualities = [phrase for name in _STEPS if name in known and (phrase := _step(name, known[name]))]
    if (frames := known.get("frames", 1)) > 1:
        qualities.append(f"the first of {as_text(frames)} frames")
    if known.get("has_alpha"):
        qualities.append("partly transparent")
    if not size and not qualities:
        return ""
    return f"A picture{size}{''.join(f', {quality}' for quality in qualities)}."


def _step(name: str, value: float) -> str:
    return next(phrase for below, phrase in _STEPS[name] if value < below)


def _closed(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…", "。", "！", "？")) else f"{text}."
