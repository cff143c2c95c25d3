"""Which rows are duplicates of which: exact, placeholder, near by hash.

Everything here is a pure function of arrays. Rows are numbered 0 to n - 1; `order` [rows] gives each its
rank, all ranks different, the lowest visited first. Rows of one `lineage` (>= 0; negative: none) are never
duplicates of one another: an edit's source and target are alike by nature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from catalog.hamming import Ints, near_pairs

KEPT = -1
"""In `representative`: the row is kept."""

PairsOf = Callable[[Ints, Ints | None], Iterator[tuple[Ints, Ints]]]
"""Given ascending rows, blocks of near pairs (left, right): between the two sets, or within the first, left < right."""

# Pairs held at once while deciding; a set with more is decided in halves.
_MOST_PAIRS = 4_000_000


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Per row: the kept row it is a duplicate of, or KEPT; its distance to that row in bits, -1 if kept."""

    representative: Ints
    distance: Ints

    @property
    def duplicate(self) -> NDArray[np.bool_]:
        """Which rows are duplicates [rows]."""
        return self.representative >= 0


def greedy(hashes: Ints, order: Ints, distance: int, lineage: Ints | None = None) -> Duplicates:
    """Greedy duplicates by 64-bit hashes (int64 bit-cast) [rows] within `distance` differing bits.

    Rows are visited by `order`. A row is a duplicate if and only if an earlier kept row lies within
    `distance`; it names the nearest of them, the earliest among equally near.
    """
    visit = visiting(order, len(hashes))
    words = hashes[visit]
    lines = None if lineage is None else lineage[visit]
    head = _heads(words, lines)
    own = head == np.arange(len(head))
    heads = np.flatnonzero(own)
    near = _by_hash(words[heads], None if lines is None else lines[heads], distance)
    kept = heads[settle(np.arange(len(heads)), near)]

    # Rows equal to their head share its fate, but one outside any lineage is a duplicate of a kept head.
    head_kept = np.zeros(len(head), np.bool_)
    head_kept[kept] = True
    follows = head_kept[head] & ~own
    if lines is not None:
        follows &= lines < 0
    nearest = np.full(len(head), KEPT, np.int64)
    bits = np.full(len(head), -1, np.int64)
    nearest[follows], bits[follows] = head[follows], 0
    lost = np.flatnonzero(~head_kept[head])
    nearest[lost], bits[lost] = _nearest(words, lines, lost, kept, distance)

    representative, between = np.empty_like(nearest), np.empty_like(bits)
    representative[visit] = np.where(nearest >= 0, visit[nearest], KEPT)
    between[visit] = bits
    return Duplicates(representative, between)


def visiting(order: Ints, rows: int) -> Ints:
    """Row numbers in the order of visiting; raises ValueError for ranks that are too few or equal."""
    if len(order) != rows:
        raise ValueError(f"order has {len(order)} ranks for {rows} rows")
    visit = np.argsort(order).astype(np.int64, copy=False)
    ranks = order[visit]
    if (ranks[1:] == ranks[:-1]).any():
        raise ValueError("order has equal ranks; break ties by key")
    return visit


def _heads(words: Ints, lines: Ints | None) -> Ints:
    """For each row the first with the same hash and lineage."""
    by_word = np.argsort(words, kind="stable") if lines is None else np.lexsort((lines, words))
    new = np.ones(len(words), np.bool_)
    new[1:] = words[by_word[1:]] != words[by_word[:-1]]
    if lines is not None:
        new[1:] |= lines[by_word[1:]] != lines[by_word[:-1]]
    first = by_word[np.flatnonzero(new)]
    head = np.empty(len(words), np.int64)
    head[by_word] = np.repeat(first, np.diff(np.flatnonzero(new), append=len(words)))
    return head


def settle(rows: Ints, near: PairsOf) -> NDArray[np.bool_]:
    """Which rows greedy keeps of 0 to n - 1, visited as they stand [n]; `near` finds the pairs among some of them.

    A set with few near pairs is walked pair by pair. One with many is decided in halves: what the first half
    keeps takes its duplicates out of the second, which leaves little of a dense group.
    """
    kept = np.ones(len(rows), np.bool_)
    _settle(rows, near, kept)
    return kept


def _settle(rows: Ints, near: PairsOf, kept: NDArray[np.bool_]) -> None:
    pairs = _few_pairs(rows, near)
    if pairs is not None:
        earlier, later = pairs
        leaders, starts = np.unique(earlier, return_index=True)
        ends = starts + np.diff(starts, append=len(earlier))
        for row, start, end in zip(leaders.tolist(), starts.tolist(), ends.tolist(), strict=True):
            if kept[row]:
                kept[later[start:end]] = False
        return
    half = len(rows) // 2
    first, second = rows[:half], rows[half:]
    _settle(first, near, kept)
    for _, later in near(first[kept[first]], second):
        kept[later] = False
    _settle(second[kept[second]], near, kept)


def _few_pairs(rows: Ints, near: PairsOf) -> tuple[Ints, Ints] | None:
    """All near pairs sorted by the earlier row, or None when there are too many to hold."""
    lefts, rights, held = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for one, two in near(rows, None):
        lefts.append(one)
        rights.append(two)
        held += len(one)
        # Of two rows there is nothing to halve.
        if held > _MOST_PAIRS and len(rows) > 2:
            return None
    left, right = np.concatenate(lefts), np.concatenate(rights)
    by_left = np.argsort(left, kind="stable")
    return left[by_left], right[by_left]


def _by_hash(words: Ints, lines: Ints | None, distance: int) -> PairsOf:
    """Pairs of rows within `distance` bits and of different lineage."""

    def near(one: Ints, two: Ints | None) -> Iterator[tuple[Ints, Ints]]:
        others = one if two is None else two
        for pairs in near_pairs(words[one], None if two is None else words[two], distance=distance):
            left, right = one[pairs.left], others[pairs.right]
            if lines is not None:
                apart = strangers(lines, left, right)
                left, right = left[apart], right[apart]
            yield left, right

    return near


def strangers(lines: Ints, one: Ints, two: Ints) -> NDArray[np.bool_]:
    """Which pairs may be duplicates, being of different lineage or of none [pairs]."""
    apart: NDArray[np.bool_] = (lines[one] < 0) | (lines[one] != lines[two])
    return apart


def _nearest(words: Ints, lines: Ints | None, lost: Ints, kept: Ints, distance: int) -> tuple[Ints, Ints]:
    """For each lost row the nearest earlier kept one (ties: the earliest) and its distance; both [lost]."""
    rows = np.int64(len(words) + 1)
    best = np.full(len(lost), np.iinfo(np.int64).max)
    for near in near_pairs(words[lost], words[kept], distance=distance):
        one, two = lost[near.left], kept[near.right]
        valid = two < one
        if lines is not None:
            valid &= strangers(lines, one, two)
        np.minimum.at(best, near.left[valid], near.distance[valid] * rows + two[valid])
    bits, row = np.divmod(best, rows)
    return row, bits


def exact(digests: pl.Series, order: Ints) -> Ints:
    """For each row the first by `order` with the same digest, or KEPT if it is that row itself [rows].

    A null digest equals no other.
    """
    representative = np.full(len(digests), KEPT, np.int64)
    rows = _repeated(digests)
    frame = pl.DataFrame({"digest": digests.gather(rows), "row": rows, "order": order[rows]})
    first = frame.select(pl.col("row").sort_by("order").first().over("digest")).to_series().to_numpy()
    representative[rows] = np.where(first == rows, KEPT, first)
    return representative


def placeholders(digests: pl.Series, sources: pl.Series, least: int) -> NDArray[np.bool_]:
    """Rows whose digest stands under `least` (2 or more) different sources: no picture but a placeholder.

    All rows of such a digest are marked, the first too [rows]. Null digests and null sources count for
    nothing.
    """
    if least < 2:
        raise ValueError(f"least {least}: every picture has one source, a placeholder at least 2")
    rows = _repeated(digests)
    frame = pl.DataFrame({"digest": digests.gather(rows), "source": sources.gather(rows)})
    many = frame.select(pl.col("source").drop_nulls().n_unique().over("digest") >= least)
    marked = np.zeros(len(digests), np.bool_)
    marked[rows] = many.to_series().to_numpy()
    return marked


def _repeated(digests: pl.Series) -> Ints:
    """Rows whose digest may occur more than once, ascending: few, so that only they are grouped as text."""
    words = digests.hash().to_numpy()
    ordered = np.sort(words)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(twice) == 0:
        return np.zeros(0, np.int64)
    at = np.searchsorted(twice, words)
    at[at == len(twice)] = 0
    return np.flatnonzero((twice[at] == words) & digests.is_not_null().to_numpy())
