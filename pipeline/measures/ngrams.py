"""Words of a text as contamination is looked for, and 64-bit hashes of runs of them.

Two writers of one question differ in case, quotes, commas and blanks: all of these go. Punctuation inside a word is
taken out (`$70,000` and `70000` are one word), elsewhere it parts words. In scripts that set no blanks between words
every character is a word of its own, and counts half of one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Ranges of code points of scripts that set no blanks between words."""

_CUT = "\x00"
_INSIDE = re.compile(f"(?<=[^ {_CUT}]){_CUT}+(?=[^ {_CUT}])")
# An odd number with no pattern in its bits (of the golden ratio, Knuth): the base of the polynomial.
_BASE = 0x9E3779B97F4A7C15


class _Kinds(dict[int, str]):
    """What becomes of each character, worked out when it is first seen."""

    def __missing__(self, code: int) -> str:
        kind = unicodedata.category(chr(code))
        if kind[0] == "M" and _is_unspaced(code):
            made = chr(code)  # stays with the character before it
        elif kind[0] in "LNM":
            made = f" {chr(code)}" if _is_unspaced(code) else chr(code)
        else:
            made = " " if kind[0] in "ZC" else _CUT
        self[code] = made
        return made


_KINDS = _Kinds()


def normal_words(text: str) -> list[str]:
    """Words in order, in lower case, without punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    cut = _INSIDE.sub("", folded.translate(_KINDS))
    return cut.replace(_CUT, " ").split()


def weight(words: Sequence[str]) -> int:
    """How many words a run is worth: a character of an unspaced script is half of one, rounded up."""
    halves = sum(_is_unspaced(ord(word[0])) for word in words)
    return len(words) - halves // 2


def run_hashes(words: Sequence[str], size: int) -> Hashes:
    """64-bit hashes of every run of `size` words, uint64 [len(words) - size + 1], empty for shorter texts."""
    return hashes_of_runs(word_hashes(words), size)


def word_hashes(words: Sequence[str]) -> Hashes:
    """Hashes of the words, uint64 [len(words)]; what runs of any size are made of."""
    return np.array([word_hash(word) for word in words], np.uint64)


def hashes_of_runs(words: Hashes, size: int) -> Hashes:
    """As `run_hashes`, from `word_hashes`: a polynomial, so that the same run has one hash wherever it stands."""
    count = len(words) - size + 1
    if count < 1 or size < 1:
        return np.zeros(0, np.uint64)
    found = np.zeros(count, np.uint64)
    for place in range(size):
        found = found * np.uint64(_BASE) + words[place : place + count]
    return found


@lru_cache(maxsize=65536)
def word_hash(word: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def joined_hash(question: int, answer: int) -> int:
    """The hash of an answer beside its question: who does not have the question cannot look up an answer of a word."""
    data = question.to_bytes(8, "little") + answer.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _is_unspaced(code: int) -> bool:
    return any(first <= code <= last for first, last in UNSPACED)
