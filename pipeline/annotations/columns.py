"""The columns every annotation writes: the text, and who wrote it how."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from catalog.columns import Column

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"
"""What a column may be called, so that rules can name it without quotes."""


class Annotation(NamedTuple):
    """The values of `annotation_columns`, in their order."""

    text: str
    by: str
    prompt: str | None
    finish: str
    tokens: int | None


def annotation_columns(into: str) -> tuple[Column, ...]:
    """The columns of an annotation whose text goes into the column `into`."""
    return (
        Column(into, pa.string(), "the text"),
        Column(f"{into}_by", pa.string(), "who wrote it: provider, provider:MODEL@REVISION, or `source text`"),
        Column(f"{into}_prompt", pa.string(), "what was asked: name/vVERSION#hash; null where nobody was"),
        Column(f"{into}_finish", pa.string(), "why it ends: stop, length (it was cut), or the server's word"),
        Column(f"{into}_tokens", pa.int64(), "tokens the model wrote; null where none were counted", 0),
    )


def as_text(value: Any) -> str:
    """A column's value as it stands in a sentence: whole numbers without a point, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
