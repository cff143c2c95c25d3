"""Numbers and texts from data as a report writes them."""

from __future__ import annotations

import unicodedata
from typing import Any


def number(value: float) -> str:
    """A number as people read it: thousands apart, and no more digits than matter."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def one_line(text: object, most: int) -> str:
    """A text from data on one line of at most `most` characters, without control and direction-changing characters."""
    kept = "".join(char if unicodedata.category(char) not in ("Cc", "Cf", "Cs") else " " for char in str(text or ""))
    words = " ".join(kept.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def brief(value: int) -> str:
    """A count in at most four characters and a unit: 36.9k, 2.1M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if value >= size:
            return f"{value / min(size, 1000 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,}"


def share(part: float) -> str:
    """A share in percent that says neither 0 % nor 100 % of what is not."""
    if 0 < part < 0.001:
        return "<0.1 %"
    if 0.999 < part < 1:
        return ">99.9 %"
    return f"{100 * part:.1f} %" if 0 < part < 0.1 or 0.99 < part < 1 else f"{100 * part:.0f} %"


def value_text(value: Any) -> str:
    """A value as it stands beside its name."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, (int, float)) else str(value)
