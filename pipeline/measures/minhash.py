"""Measure `minhash`: what tells equal and nearly equal texts, a digest and a MinHash signature."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.operator import Column, Measure, Params, Record, text_field

_RUN_ON = re.compile(
    "[\u0e01-\u0e4e\u0e81-\u0edf\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3"  # Thai, Lao, Tibetan, Myanmar, Khmer
    "\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Characters of scripts that put no blanks between words."""
_WORD = re.compile(r"\w[\w\u0300-\u036f]*")
_AT_ONCE = 4096


def normalised(text: str) -> str:
    """The text as equal texts share it: NFC, every run of white space one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def shingles(text: str, words: int, characters: int) -> set[str]:
    """Runs of so many words, letter case and punctuation aside; empty without letters and digits.

    Where half of the letters or more belong to scripts without blanks between words, runs of so many characters in
    their place. A text shorter than a run is one shingle.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    run_on = len(_RUN_ON.findall(plain))
    parts: Sequence[str]
    if run_on and 2 * run_on >= sum(map(str.isalpha, plain)):
        parts = [one for one in plain if one.isalnum() or unicodedata.category(one)[0] == "M"]
        size, between = characters, ""
    else:
        parts = _WORD.findall(plain)
        size, between = words, " "
    if not parts:
        return set()
    return {between.join(parts[start : start + size]) for start in range(max(1, len(parts) - size + 1))}


def signature(found: set[str], permutations: int) -> NDArray[np.uint32]:
    """The MinHash signature of a set of shingles, not empty: uint32 [permutations]; the same on every machine."""
    from datasketch import MinHash  # type: ignore[import-untyped, unused-ignore]

    sketch = MinHash(num_perm=permutations, seed=1, scheme="affine32")
    # In pieces, so that a long text needs no large table.
    encoded = (shingle.encode() for shingle in found)
    for piece in iter(lambda: list(islice(encoded, _AT_ONCE)), []):
        sketch.update_batch(piece)
    values: NDArray[np.uint32] = sketch.digest()
    return values


class MinHashParams(Params):
    """Which fields are read (put one after the other), the length of shingles and of the signature."""

    field: str | tuple[str, ...] = "text"
    words: int = Field(default=5, ge=1, le=50)
    characters: int = Field(default=10, ge=1, le=100)
    permutations: int = Field(default=128, ge=16, le=1024)


class MinHash(Measure):
    """Digest and MinHash signature of a text, for `decide: duplicates`; nulls without a text."""

    name = "minhash"
    version = 1
    Params = MinHashParams
    params: MinHashParams
    packages: ClassVar[Mapping[str, str]] = {"datasketch": "text"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        given = self.params
        about = (
            f"MinHash signature of the runs of {given.words} words ({given.characters} characters in scripts without "
            f"blanks): {given.permutations} numbers; null without letters or digits"
        )
        return (
            Column("text_digest", pa.string(), "sha256 of the text, white space evened out"),
            Column("minhash", pa.list_(pa.int64()), about, 0, 2**32 - 1),
        )

    def fingerprint_parts(self) -> dict[str, Any]:
        """The version of the Unicode tables, which comes with Python."""
        return {"unicode": unicodedata.unidata_version}

    def setup(self) -> None:
        """Load the library, which takes longer than many texts."""
        signature({"warm"}, 16)

    def process(self, record: Record) -> Sequence[Any]:
        """The text's digest and signature; raises Quarantine when a field holds something else than text."""
        text = "\n".join(self._texts(record.fields))
        if not text.strip():
            return None, None
        found = shingles(text, self.params.words, self.params.characters)
        digest = hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass")).hexdigest()
        return digest, signature(found, self.params.permutations).tolist() if found else None

    def _texts(self, fields: dict[str, Any]) -> list[str]:
        names = (self.params.field,) if isinstance(self.params.field, str) else self.params.field
        return [text for name in names if (text := text_field(fields, name)) is not None]
