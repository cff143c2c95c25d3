"""Ids must be unique within a source: remembering millions of them in 24 bytes each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import UserError
from pipeline.sources.base import BadRow, Source, SourceRow
from pipeline.sources.fields import show

_CHUNK = 1024
_LARGEST_RUN = 2**20


def with_unique_ids(
    source: Source, rows: Iterator[tuple[int, SourceRow]], place_of: Callable[[int], str]
) -> Iterator[SourceRow]:
    """The rows, those whose id an earlier row has turned into bad rows that name both.

    Each row comes with its position, rising; `place_of` words a position for the message. A row without an
    id is unique.
    """
    if "id" not in source.map:
        yield from (row for _, row in rows)
        return
    seen = SeenIds()
    stopped: UserError | None = None
    while stopped is None:
        chunk: list[tuple[int, SourceRow]] = []
        try:
            for entry in islice(rows, _CHUNK):
                chunk.append(entry)
        except UserError as error:
            # What was read before the bad row is still to be checked: its fault stands earlier in the source.
            stopped = error
        firsts = seen.add([(row.fields.get("id"), position) for position, row in chunk])
        for (_, row), first in zip(chunk, firsts, strict=True):
            if first is None or row.problem is not None:
                yield row
            else:
                message = f"id {show(row.fields['id'])} stands in {place_of(first)} already"
                yield source.refuse(row.place, BadRow("duplicate id", message), row.fields)
        if len(chunk) < _CHUNK and stopped is None:
            return
    raise stopped


@dataclass(frozen=True, slots=True)
class _Run:
    """128-bit hashes sorted by their high halves, with the positions of the ids they stand for."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    position: npt.NDArray[np.int64]

    def take(self, index: npt.NDArray[Any]) -> _Run:
        return _Run(self.high[index], self.low[index], self.position[index])

    def joined(self, other: _Run) -> _Run:
        both = _Run(
            np.concatenate([self.high, other.high]),
            np.concatenate([self.low, other.low]),
            np.concatenate([self.position, other.position]),
        )
        return both.take(np.argsort(both.high, kind="stable"))


class SeenIds:
    """Which ids came before, and where. Runs are merged as they grow, up to a size: no merge is large."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def add(self, ids: list[tuple[str | None, int]]) -> list[int | None]:
        """For each (id, position) the position of the same id's first appearance, None where this is it."""
        digests = [_digest(value) for value, _ in ids]
        first_here: dict[bytes, int] = {}
        for digest, (_, position) in zip(digests, ids, strict=True):
            if digest:
                first_here.setdefault(digest, position)
        hashes = np.frombuffer(b"".join(first_here), np.uint64).reshape(-1, 2)
        positions = np.fromiter(first_here.values(), np.int64, len(first_here))
        new = _Run(np.ascontiguousarray(hashes[:, 0]), np.ascontiguousarray(hashes[:, 1]), positions)
        first = positions.copy()
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.high, new.high), len(run.high) - 1)
            same = (run.high[at] == new.high) & (run.low[at] == new.low)
            first[same] = run.position[at[same]]
        self._keep(new.take(np.flatnonzero(first == positions)))
        if len(first_here) == len(ids) and np.array_equal(first, positions):
            return [None] * len(ids)
        first_ever = dict(zip(first_here, first.tolist(), strict=True))
        found = [first_ever[digest] if digest else None for digest in digests]
        return [None if there == here else there for there, (_, here) in zip(found, ids, strict=True)]

    def _keep(self, new: _Run) -> None:
        run = new.take(np.argsort(new.high, kind="stable"))
        while self._runs and len(self._runs[-1].high) <= min(2 * len(run.high), _LARGEST_RUN):
            run = self._runs.pop().joined(run)
        if len(run.high):
            self._runs.append(run)


def _digest(value: str | None) -> bytes | None:
    return None if value is None else blake2b(value.encode(), digest_size=16).digest()
