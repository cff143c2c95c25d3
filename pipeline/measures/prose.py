"""Measure `prose`: whether a text reads as running text, whole and undamaged.

After the heuristics of C4 (Raffel et al. 2020: lines that end a sentence), Gopher (Rae et al. 2021: repeated lines) and
FineWeb (Penedo et al. 2024: short lines), and two of damage: words with signs in them, as bad character recognition
leaves them, and UTF-8 read as Latin-1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.measures.text import split_words
from pipeline.operator import Column, Measure, Params, Record, text_field

_CLOSING = "\"'”’»)]}」』*_`"
_ENDS = frozenset(".!?…:;。！？．：；।॥؟۔。།။።")
_ODD = re.compile(
    r"[^\W\d_][~^|\\<>{}=+*#][^\W\d_]|[a-z]_[a-z]"  # a sign between two letters
    r"|[^\W\d_]\d[^\W\d_]|[~^|][^\W\d_]|[^\W\d_][~^|]"  # a digit between two letters, a sign that no language has
    r"|[a-z][OI][a-z]",  # a capital that stands for another sign
)
_CP1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(
    f"[\u00c2-\u00df][\u0080-\u00bf{_CP1252}]|[\u00e0-\u00ef][\u0080-\u00bf{_CP1252}]{{2}}"
    f"|[\u00f0-\u00f4][\u0080-\u00bf{_CP1252}]{{3}}"
)


def ends_sentence(line: str) -> bool:
    """Whether a line ends with the punctuation of a sentence, closing quotes and brackets aside."""
    bare = line.rstrip().rstrip(_CLOSING)
    return bool(bare) and bare[-1] in _ENDS


def odd_share(words: Sequence[str]) -> float:
    """Share of words with signs or digits between letters or capitals out of place; 0 without words."""
    return sum(_ODD.search(word) is not None for word in words) / len(words) if words else 0.0


def mojibake_share(text: str) -> float:
    """Share of the characters that are UTF-8 sequences read as Latin-1 or Windows-1252."""
    wrong = 0
    for match in _MOJIBAKE.finditer(text):
        if unicodedata.category(_repaired(match.group()))[0] != "C":
            wrong += len(match.group())
    return wrong / len(text) if text else 0.0


def _repaired(sequence: str) -> str:
    """The character that a sequence stands for, U+0000 if for none."""
    try:
        return b"".join(_byte(one) for one in sequence).decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        return "\0"


def _byte(one: str) -> bytes:
    return one.encode("latin-1") if ord(one) < 256 else one.encode("cp1252")


class ProseParams(Params):
    """Which field is read, and how many words make a line short."""

    field: str = "text"
    short: int = Field(default=6, ge=1, le=100)


class Prose(Measure):
    """Whether a text reads as whole, undamaged running text; nulls without a text."""

    name = "prose"
    version = 1
    Params = ProseParams
    params: ProseParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        share, short = pa.float64(), self.params.short
        return (
            Column("lines", pa.int64(), "lines that are not blank", 0),
            Column("ends_whole", pa.bool_(), "the text ends with the punctuation of a sentence"),
            Column("ended_lines", share, "share of the lines that do", 0, 1, "higher"),
            Column(
                "short_lines", share, f"share of lines under {short} words that do not: menus, lists", 0, 1, "lower"
            ),
            Column("repeated_lines", share, "share of the characters in lines that occurred before", 0, 1, "lower"),
            Column("odd_words", share, "share of words with signs, digits or capitals out of place", 0, 1, "lower"),
            Column("mojibake", share, "share of characters of UTF-8 read as Latin-1", 0, 1, "lower"),
        )

    def fingerprint_parts(self) -> dict[str, Any]:
        """The version of the Unicode tables, which comes with Python."""
        return {"unicode": unicodedata.unidata_version}

    def process(self, record: Record) -> Sequence[Any]:
        """The text's columns; raises Quarantine when the field holds something else than text."""
        text = text_field(record.fields, self.params.field)
        lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
        if not text or not lines:
            return (0, *[None] * (len(self.columns) - 1))
        ended = [ends_sentence(line) for line in lines]
        short = [len(split_words(line)) < self.params.short for line in lines]
        again = sum(map(len, lines)) - sum(map(len, set(lines)))
        return (
            len(lines),
            ended[-1],
            sum(ended) / len(lines),
            sum(few and not end for few, end in zip(short, ended, strict=True)) / len(lines),
            again / sum(map(len, lines)),
            odd_share(split_words(text)),
            mojibake_share(text),
        )
