"""Measure `text`: length, language, repetition and clutter of one text field."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import Field

from pipeline.measures.language import DETECTOR, guess_language
from pipeline.operator import Column, Measure, Params, Record, text_field

_URL = re.compile(
    r"(?:https?|ftp)://[^\s<>\"]+|www\.[^\s<>\"]+"
    r"|\b[a-z0-9-]{1,63}\.(?:com|org|net|edu|gov|info|io|co|de|fr|uk|ru|cn|jp)\b(?:/[^\s<>\"]*)?",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"</?[a-z!][^<>]{0,500}>"  # HTML and XML tags
    r"|&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,10});"  # their entities
    r"|!?\[[^\[\]]{0,300}\]\([^()\s]{0,500}\)"  # Markdown links
    r"|\[/?[a-z]{1,10}(?:=[^\[\]]{0,300})?\]"  # BBCode
    r"|\{\{[^{}]{0,300}\}\}|\[\[[^\[\]]{0,300}\]\]",  # wiki templates and links
    re.IGNORECASE,
)
_UNSPACED = re.compile("([\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Alphabet(NamedTuple):
    """Shares and counts of kinds of characters."""

    upper_share: float
    digit_share: float
    alpha_share: float
    control_chars: int
    bidi_chars: int
    invalid_chars: int


def split_words(text: str) -> list[str]:
    """Words in order: what stands between blanks and holds a letter or digit; a Han or kana character is one.

    Scripts that neither use blanks nor those characters (Thai, Lao, Khmer) are not cut up: a run is one word.
    """
    return [word for word in _UNSPACED.sub(r" \1 ", text).split() if any(map(str.isalnum, word))]


def repeated_share(words: Sequence[str], n: int) -> float:
    """Share of word n-grams that occurred before, letter case aside; 0 for texts of fewer than n words."""
    lowered = [word.casefold() for word in words]
    total = len(lowered) - n + 1
    if total < 1:
        return 0.0
    return 1 - len(set(zip(*(lowered[start:] for start in range(n)), strict=False))) / total


def matched_share(pattern: re.Pattern[str], text: str) -> float:
    """Share of the characters that lie in matches of a pattern."""
    return sum(match.end() - match.start() for match in pattern.finditer(text)) / len(text) if text else 0.0


def alphabet(text: str) -> Alphabet:
    """Kinds of characters, by Unicode general category."""
    kinds: Counter[str] = Counter()
    bidi = replaced = 0
    for character, count in Counter(text).items():
        category = unicodedata.category(character)
        if category == "Cc" and character in "\t\n\r":
            category = "Zs"
        kinds[category] += count
        bidi += count if character in _BIDI else 0
        replaced += count if character == "\ufffd" else 0
    length = len(text) or 1
    cased = kinds["Lu"] + kinds["Lt"] + kinds["Ll"]
    return Alphabet(
        upper_share=(kinds["Lu"] + kinds["Lt"]) / cased if cased else 0.0,
        digit_share=kinds["Nd"] / length,
        alpha_share=sum(count for kind, count in kinds.items() if kind[0] in "LM") / length,
        control_chars=kinds["Cc"],
        bidi_chars=bidi,
        # Unassigned code points and lone surrogates come from bytes read in a wrong encoding.
        invalid_chars=replaced + kinds["Cn"] + kinds["Cs"],
    )


class TextParams(Params):
    """Parameters of `text`: which field is read, and how many words make an n-gram of `repetition`."""

    field: str = "text"
    ngram: int = Field(default=3, ge=1, le=20)


class Text(Measure):
    """Length, words, language, repetition and clutter of a field; nulls, and `chars` 0, without a text."""

    name = "text"
    version = 1
    Params = TextParams
    params: TextParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        n = self.params.ngram
        share = pa.float64()
        return (
            Column("chars", pa.int64(), "length in Unicode code points; 0 when there is no text", 0, None),
            Column("words", pa.int64(), "words between blanks; each Han or kana character is one", 0, None),
            Column("script", pa.string(), "script of most letters, in English; null without letters"),
            Column(
                "language",
                pa.string(),
                f"ISO 639-1 code by {DETECTOR}: script, then common short words; a guess, or `und`",
            ),
            Column("repetition", share, f"share of runs of {n} words that occurred before", 0, 1, "lower"),
            Column("url_share", share, "share of the characters in web addresses", 0, 1, "lower"),
            Column("markup_share", share, "share in HTML, BBCode, wiki or Markdown markup", 0, 1, "lower"),
            Column("upper_share", share, "share of upper case among cased letters", 0, 1),
            Column("digit_share", share, "share of decimal digits", 0, 1),
            Column("alpha_share", share, "share of letters and their marks", 0, 1, "higher"),
            Column("control_chars", pa.int64(), "control characters, tab and line ends aside", 0, None, "lower"),
            Column("bidi_chars", pa.int64(), "controls that reorder text (embeds, overrides)", 0, None, "lower"),
            Column("invalid_chars", pa.int64(), "replacement or unassigned characters", 0, None, "lower"),
        )

    def fingerprint_parts(self) -> dict[str, Any]:
        """The version of the Unicode tables, which comes with Python."""
        return {"unicode": unicodedata.unidata_version}

    def process(self, record: Record) -> Sequence[Any]:
        """The text's columns; raises Quarantine when the field holds something else than text."""
        text = text_field(record.fields, self.params.field)
        if text is None:
            return (0, *[None] * (len(self.columns) - 1))
        words = split_words(text)
        script, language = guess_language(text, words)
        return (
            len(text),
            len(words),
            script,
            language,
            repeated_share(words, self.params.ngram),
            matched_share(_URL, text),
            matched_share(_MARKUP, text),
            *alphabet(text),
        )
