"""The score contract: what a column is, and what it may be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One output of an operator.

    `low` and `high` bound what the operator may emit and what a rule may compare it with; None means unbounded.
    `better` says which direction is the good one, None that there is none.
    """

    name: str
    type: pa.DataType
    about: str
    low: float | None = None
    high: float | None = None
    better: Literal["higher", "lower"] | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies in the declared range."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    @property
    def range_text(self) -> str:
        """The range as a person reads it."""
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        return f"{low} to {high}"
