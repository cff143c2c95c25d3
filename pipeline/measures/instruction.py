"""Measure `instruction`: what an edit's wording asks for, and whether the change in the pictures can be that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import Field

from pipeline.measures.language import guess_language
from pipeline.measures.text import split_words
from pipeline.operator import Column, Measure, Params, Record, text_field

ADD, REMOVE, REPLACE, COLOUR, MOVE = "add", "remove", "replace", "colour", "move"
BACKGROUND, STYLE, EXTRACT, MAP, OTHER = "background", "style", "extract", "map", "other"
KINDS = (ADD, REMOVE, REPLACE, COLOUR, MOVE, BACKGROUND, STYLE, EXTRACT, MAP, OTHER)
"""What `edit_kind` may be."""


def _words(text: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{text})\b", re.IGNORECASE)


_ADD = _words(r"add(?:s|ed|ing)?|insert|introduce|include|place|put|attach|equip|give (?:him|her|it|them|the)|draw in")
_REMOVE = _words(r"remov(?:e|es|ed|ing)|delet(?:e|ing)|eras(?:e|ing)|take away|get rid of|clear away|eliminate|without")
_REPLACE = _words(
    r"replac(?:e|es|ed|ing)|swap(?:ping)?|exchange|substitute|(?:turn|transform) [^.]{1,60} into"
    r"|change .{1,60} (?:in)?to"
)
_COLOUR_NAME = (
    "red|orange|yellow|green|blue|purple|violet|pink|white|black|brown|grey|gray|gold|golden|silver|teal|cyan|beige"
)
_COLOUR = _words(
    r"re-?colou?r(?:ed|ing)?|colou?r of|'s colou?rs?|dye|tint"
    rf"|(?:make|turn|paint|change) [\w ]{{1,40}} (?:to |into )?(?:{_COLOUR_NAME})(?=[\s.,!]*$)"
)
_MOVE = _words(
    r"move|shift|slide|rotate|flip|mirror|turn (?:around|left|right)|enlarge|shrink|resize|scale (?:up|down)"
)
_BACKGROUND = _words(r"backgrounds?|backdrop|scenery")
_STYLE = _words(
    r"style|styled|stylis(?:e|ed)|stylize|stylized|aesthetic|look like|painting|watercolou?r|oil paint(?:ing)?|anime"
    r"|cartoon|comic|mosaic|poster|pixel art|sepia|black and white|monochrome|vintage|impressionis[tm]\w*"
    r"|charcoal|pencil|sketch|ghibli|night scene|(?:in|at) (?:the )?(?:night|winter|summer|autumn|sunset)"
)
_MAP = _words(
    r"canny|mlsd|hed|holistically|(?:depth|normal|edge|boundary|segmentation|pose|probability|saliency)[ -]maps?"
    r"|(?:estimate|predict|show)\w* (?:the )?depth|segment(?:ed|ing|ation)?|(?:pose|human) skeleton|key ?points"
    r"|line ?art|scribble|bounding box(?:es)?|detect(?:ion|ions|ed)?"
)
_EXTRACT = _words(r"extract|cut out|isolate")
_IMPERATIVE = _words(
    "adapt|add|adjust|alter|animate|apply|attach|blur|brighten|bring|change|clean|clear|color|colorize|colour"
    "|convert|copy|create|crop|cut|darken|decorate|delete|depict|draw|dress|edit|eliminate|enhance|enlarge"
    "|erase|estimate|exchange|expand|extend|extract|fill|fix|flip|generate|get|give|hide|highlight|imagine"
    "|improve|include|increase|insert|introduce|isolate|keep|leave|let|lower|make|merge|mirror|modify|move"
    "|open|paint|perform|place|pose|present|produce|put|raise|recolor|recolour|reduce|remove|render|repaint"
    "|replace|reshape|resize|restore|restyle|rotate|scale|segment|set|shift|show|shrink|sketch|smooth|stylise"
    "|stylize|substitute|swap|switch|take|tint|transform|turn|update|use|wrap|write|zoom"
)
_POLITE = re.compile(
    r"^\W*(?:(?:please|kindly|now|then|could you|can you|would you|will you|i want you to|you should)\W+)+",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"<[^<>]{1,40}>|\{[^{}]{0,40}\}|\[(?:(?-i:[A-Z_ ]{2,40})|object|subject|colou?r|image|mask)\]|%[sd]\b|_{3,}"
    r"|\b(?:lorem ipsum|todo|tbd|n/?a|null|none|undefined|nan|xxx+)\b",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"https?://|www\.|\b[\w-]+\.(?:com|org|net|io|jpg|jpeg|png|webp)\b", re.IGNORECASE)

# Gain of outlines from which a thing has come or gone.
_SHOWN = 0.2
_DIRECTED = frozenset({ADD, REMOVE})


class Wording(NamedTuple):
    """What the words of an instruction say, whatever the pictures show."""

    words: int
    imperative: bool | None
    placeholders: int
    addresses: int
    says_add: bool
    says_remove: bool
    says_replace: bool
    says_style: bool
    kind: str


def wording(text: str) -> Wording:
    """Read an instruction. Verbs are English: `imperative` is None and the kind `other` for other languages."""
    words = split_words(text)
    english = _is_english(text, words)
    bare = _POLITE.sub("", text)
    first = re.match(r"\W*([A-Za-z-]+)", bare)
    return Wording(
        words=len(words),
        imperative=(first is not None and _IMPERATIVE.fullmatch(first[1]) is not None) if english and words else None,
        placeholders=len(_PLACEHOLDER.findall(text)),
        addresses=len(_ADDRESS.findall(text)),
        says_add=_ADD.search(text) is not None,
        says_remove=_REMOVE.search(text) is not None,
        says_replace=_REPLACE.search(text) is not None,
        says_style=_STYLE.search(text) is not None,
        kind=_kind(text),
    )


def _is_english(text: str, words: Sequence[str]) -> bool:
    """A short instruction holds too few common words to tell Latin languages apart: its letters must do."""
    _, language = guess_language(text, words)
    plain = not any(letter.isalpha() and not letter.isascii() for letter in text)
    return language == "en" or (plain and (language == "und" or len(words) < 12))


def _kind(text: str) -> str:
    """The first that fits, the most telling first: a style is named more surely than a verb."""
    adds, removes = _ADD.search(text) is not None, _REMOVE.search(text) is not None
    ordered = (
        (MAP, _MAP.search(text) is not None),
        (EXTRACT, _EXTRACT.search(text) is not None),
        (BACKGROUND, _BACKGROUND.search(text) is not None),
        # "Add a painting to the wall" is no new style.
        (STYLE, _STYLE.search(text) is not None and not adds and not removes),
        (REPLACE, adds and removes),
        (ADD, adds),
        (REMOVE, removes),
        (COLOUR, _COLOUR.search(text) is not None),
        (MOVE, _MOVE.search(text) is not None),
        (REPLACE, _REPLACE.search(text) is not None),
    )
    return next((kind for kind, fits in ordered if fits), OTHER)


def direction_agrees(kind: str, outline_gain: float | None) -> bool | None:
    """Whether a change can be what was asked: what is added brings outlines, what is removed takes its own along.

    None where outlines do not tell: other kinds of edits, no local change, or as many outlines as before (a thing
    removed from before a fence, a thing put over another).
    """
    if kind not in _DIRECTED or outline_gain is None or abs(outline_gain) < _SHOWN:
        return None
    return (outline_gain > 0) == (kind == ADD)


class InstructionParams(Params):
    """Parameters of `instruction`: the field with the wording, and the column of measure `pair` it is held against.

    `outline_gain: null` leaves the pictures out; `direction_agrees` is null then. `column` reads the wording from a
    column instead, one that a model has rewritten, say, and `prefix` goes before the names of the columns written.
    """

    field: str = "text"
    # Part of the fingerprint only where they are used, since they came later.
    column: str | None = Field(default=None, exclude=True)
    prefix: str = Field(default="", pattern=r"^([a-z][a-z0-9]*_)?$", exclude=True)
    outline_gain: str | None = Field(default="outline_gain", pattern=r"^[a-z_]+$")


class Instruction(Measure):
    """Words, imperative form, leftovers of templates, the kind of edit, and whether the change runs that way.

    Nulls, and `instruction_words` 0, without a text.
    """

    name = "instruction"
    version = 1
    Params = InstructionParams
    params: InstructionParams

    def fingerprint_parts(self) -> dict[str, Any]:
        """Another place of the wording, other names."""
        given = {"column": self.params.column, "prefix": self.params.prefix}
        return {name: value for name, value in given.items() if value}

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return tuple(replace(column, name=self.params.prefix + column.name) for column in self._unprefixed)

    @property
    def _unprefixed(self) -> tuple[Column, ...]:
        flag, whole = pa.bool_(), pa.int64()
        return (
            Column("instruction_words", whole, "words; each Han or kana character is one; 0 without a text", 0, None),
            Column(
                "imperative", flag, "starts with a verb of editing, `please` aside; null unless English, as a guess"
            ),
            Column("placeholders", whole, "gaps of templates left open, such as <object> or [COLOR]", 0, None, "lower"),
            Column("addresses", whole, "web addresses and names of picture files", 0, None, "lower"),
            Column("says_add", flag, "has a word of adding"),
            Column("says_remove", flag, "has a word of removing"),
            Column("says_replace", flag, "has a word of replacing"),
            Column("says_style", flag, "has a word of style"),
            Column("edit_kind", pa.string(), "one of " + ", ".join(KINDS)),
            Column(
                "direction_agrees",
                flag,
                "outlines came where the instruction adds, went where it removes; null where they do not tell",
            ),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the wording and the direction are read from."""
        return tuple(name for name in (self.params.column, self.params.outline_gain) if name is not None)

    def process(self, record: Record) -> Sequence[Any]:
        """The instruction's columns; raises Quarantine when the field holds something else than text."""
        column = self.params.column
        text = text_field(record.fields, self.params.field) if column is None else text_field(record.values, column)
        if text is None:
            return (0, *[None] * (len(self.columns) - 1))
        found = wording(text)
        gain = None if self.params.outline_gain is None else record.values.get(self.params.outline_gain)
        return (*found, direction_agrees(found.kind, gain))
