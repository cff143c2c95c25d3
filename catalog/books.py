"""The books: per corpus and node, what came in equals what came out, by state. A run that does not balance fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

STATES = ("passed", "dropped", "duplicate", "quarantined", "expanded", "merged", "undecided", "tombstoned")
"""How a record can leave a node."""

FINAL = ("kept", *STATES[1:])
"""What can finally become of a record."""


class BooksError(Exception):
    """Records came from nowhere or went nowhere: a fault of the program, never of the data."""


@dataclass
class Book:
    """One node's account. `counts` is by state, `reasons` by state and reason."""

    node: str
    kind: str
    inputs: int = 0
    born: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, states: pl.DataFrame) -> None:
        """Count rows with the columns `state` and `reason`."""
        for state, reason, count in states.group_by("state", "reason").len().sort("state", "reason").iter_rows():
            self.counts[state] += count
            if reason is not None:
                self.reasons.setdefault(state, Counter())[reason] += count

    def check(self) -> None:
        """Raise BooksError unless in + born equals the sum over all states."""
        out = self.counts.total()
        if self.inputs + self.born != out or set(self.counts) - set(STATES):
            counts = ", ".join(f"{state} {count}" for state, count in sorted(self.counts.items()))
            raise BooksError(f"node {self.node}: in {self.inputs} + born {self.born} is not {counts or 'nothing'}")

    def row(self, position: int) -> dict[str, Any]:
        """A row of schemas.BOOKS."""
        reasons = {state: dict(sorted(some.items())) for state, some in sorted(self.reasons.items())}
        return {
            "position": position,
            "node": self.node,
            "kind": self.kind,
            "inputs": self.inputs,
            "born": self.born,
            **{state: self.counts[state] for state in STATES},
            "reasons": orjson.dumps(reasons).decode(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Book:
        """Inverse of `row`."""
        counts = Counter({state: row[state] for state in STATES if row[state]})
        reasons = {state: Counter(some) for state, some in orjson.loads(row["reasons"]).items()}
        return cls(row["node"], row["kind"], row["inputs"], row["born"], counts, reasons)


def check_all(books: Iterable[Book], final: Mapping[str, int], inputs: int, born: int) -> None:
    """Raise BooksError unless every node balances and every record has exactly one final state."""
    for book in books:
        book.check()
    total = sum(final.values())
    if total != inputs + born or set(final) - set(FINAL):
        raise BooksError(f"{inputs} inputs and {born} born records have {total} final states: {dict(final)}")
