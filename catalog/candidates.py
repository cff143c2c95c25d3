"""Pairs of pictures worth comparing, and the greedy decision over pairs that were compared.

Hashes only propose: a row's full hash may lie near another's full hash, or near a *variant* of it (the
mirrored picture, a window of it). An expensive operator then says of a pair whether it shows the same
picture. As in `catalog.duplicates`, rows are numbered 0 to n - 1, `order` [rows] ranks them without ties, and
rows of one `lineage` (>= 0; negative: none) are never duplicates of one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.duplicates import KEPT, strangers, visiting
from catalog.hamming import Ints, near_pairs

UNDECIDED = -2
"""In `Round.representative`: a comparison that decides the row is still to be made."""
FULL = -1
"""In `Candidates.via`: the two full hashes are the near ones."""

# Pairs gathered before they are cut down to each row's best.
_MOST_GATHERED = 2_000_000
# A row that has its fill at a small distance is not searched for at the next one, so that a dense group costs
# little.
_FIRST_DISTANCES = (2, 4)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs to compare [pairs]: `other` comes before `row` in the order.

    `distance` is the least between the full hashes or one row's full hash and the other's variants; `via` the
    variant (its number) that gave it, or FULL. Sorted by rank of `row`, then nearest first, then rank of
    `other`.
    """

    row: Ints
    other: Ints
    distance: Ints
    via: Ints


@dataclass(frozen=True, slots=True)
class Checked:
    """Pairs an operator has compared [pairs], in any order, and whether each shows the same picture."""

    row: Ints
    other: Ints
    same: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Round:
    """What is decided so far, and what to compare next.

    `representative` [rows] is the kept row each is a duplicate of, KEPT, or UNDECIDED.
    `row` and `other` [wanted] are the pairs to compare, each `other` before its `row` in the order. None are
    wanted exactly when nothing is undecided.
    """

    representative: Ints
    row: Ints
    other: Ints


@dataclass(frozen=True, slots=True)
class Variants:
    """Further hashes of rows: `hashes` int64 [variants] and the row each belongs to, `owner` [variants]."""

    hashes: Ints
    owner: Ints


def candidates(
    hashes: Ints,
    order: Ints,
    *,
    distance: int,
    most: int,
    variants: Variants | None = None,
    lineage: Ints | None = None,
) -> Candidates:
    """For each row its `most` nearest earlier rows within `distance` bits (ties: the earliest).

    `hashes` are the full ones, int64 [rows]. Exact; memory grows with rows, variants and rows x `most`, never
    with the pairs of a dense group.
    """
    visit = visiting(order, len(hashes))
    words = hashes[visit]
    lines = None if lineage is None else lineage[visit]
    extra = _Extra(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    if variants is not None:
        place = np.empty_like(visit)
        place[visit] = np.arange(len(visit))
        extra = _useful(variants, place, words)

    best = _Best(len(words), most, lines)
    every = np.ones(len(words), np.bool_)
    for found in _equal(words, most):
        best.add(*found)
    for found in _near_variants(words, extra, every, 0):
        best.add(*found)
    for radius in [near for near in _FIRST_DISTANCES if near < distance] + [distance]:
        searched = best.unfilled()
        for found in _near_words(words, searched, radius):
            best.add(*found)
        for found in _near_variants(words, extra, searched, radius):
            best.add(*found)
    row, other, bits, via = best.cut()
    return Candidates(visit[row], visit[other], bits, via)


# Two rows in either order, the bits between them, and via what.
_Found = tuple[Ints, Ints, Ints, Ints]


@dataclass(frozen=True, slots=True)
class _Extra:
    """Variants by rows in visiting order: hash, owner, and number among the caller's."""

    words: Ints
    owner: Ints
    number: Ints


def _useful(variants: Variants, place: Ints, words: Ints) -> _Extra:
    """Variants that add something: the windows of a flat picture all have its own hash."""
    owner = place[variants.owner]
    by_owner = np.lexsort((variants.hashes, owner))
    owner, extra = owner[by_owner], variants.hashes[by_owner]
    new = extra != words[owner]
    new[1:] &= (extra[1:] != extra[:-1]) | (owner[1:] != owner[:-1])
    return _Extra(extra[new], owner[new], by_owner[new])


def _equal(words: Ints, most: int) -> Iterator[_Found]:
    """Rows with equal hashes: each with the first, second, ... of its group, up to `most`."""
    by_word = np.argsort(words, kind="stable")
    new = np.ones(len(words), np.bool_)
    new[1:] = words[by_word[1:]] != words[by_word[:-1]]
    start = np.flatnonzero(new)[np.cumsum(new) - 1]
    for step in range(most):
        at = np.flatnonzero(start + step < np.arange(len(words)))
        if len(at) == 0:
            return
        yield by_word[at], by_word[start[at] + step], np.zeros_like(at), np.full_like(at, FULL)


def _near_words(words: Ints, searched: NDArray[np.bool_], radius: int) -> Iterator[_Found]:
    """Pairs of near full hashes of which at least one row is searched for."""
    wanted, done = np.flatnonzero(searched), np.flatnonzero(~searched)
    for near in near_pairs(words[wanted], distance=radius):
        yield wanted[near.left], wanted[near.right], near.distance, np.full_like(near.left, FULL)
    for near in near_pairs(words[wanted], words[done], distance=radius):
        yield wanted[near.left], done[near.right], near.distance, np.full_like(near.left, FULL)


def _near_variants(words: Ints, extra: _Extra, searched: NDArray[np.bool_], radius: int) -> Iterator[_Found]:
    """Pairs of a full hash near a variant of which at least one row is searched for."""
    wanted, done = np.flatnonzero(searched), np.flatnonzero(~searched)
    every, owned = np.arange(len(extra.words)), np.flatnonzero(searched[extra.owner])
    for rows, chosen in ((wanted, every), (done, owned)):
        for near in near_pairs(words[rows], extra.words[chosen], distance=radius):
            at = chosen[near.right]
            yield rows[near.left], extra.owner[at], near.distance, extra.number[at]


class _Best:
    """The nearest earlier others of each row, gathered in any order and cut down now and then."""

    def __init__(self, rows: int, most: int, lines: Ints | None) -> None:
        self._rows, self._most, self._lines = np.int64(rows), most, lines
        self._parts: list[_Found] = []
        self._gathered = 0
        # Distance and other row in one number: what a row with its fill can still use.
        self._limit = np.full(rows, np.iinfo(np.int64).max)

    def add(self, one: Ints, two: Ints, bits: Ints, via: Ints) -> None:
        row, other = np.maximum(one, two), np.minimum(one, two)
        fit = (row != other) & (bits * self._rows + other <= self._limit[row])
        if self._lines is not None:
            fit &= strangers(self._lines, row, other)
        self._parts.append((row[fit], other[fit], bits[fit], via[fit]))
        self._gathered += len(self._parts[-1][0])
        if self._gathered > _MOST_GATHERED:
            self.cut()

    def unfilled(self) -> NDArray[np.bool_]:
        """Rows with fewer than `most` others so far [rows]."""
        self.cut()
        unfilled: NDArray[np.bool_] = self._limit == np.iinfo(np.int64).max
        return unfilled

    def cut(self) -> _Found:
        """Each row's nearest others, sorted by row, distance, other."""
        none = np.zeros(0, np.int64)
        parts = [(none, none, none, none), *self._parts]
        row, other, bits, via = (np.concatenate(part) for part in zip(*parts, strict=True))
        by_pair = np.lexsort((via, bits, other, row))
        row, other, bits, via = row[by_pair], other[by_pair], bits[by_pair], via[by_pair]
        new = np.ones(len(row), np.bool_)
        new[1:] = (row[1:] != row[:-1]) | (other[1:] != other[:-1])
        row, other, bits, via = row[new], other[new], bits[new], via[new]

        by_near = np.lexsort((other, bits, row))
        row, other, bits, via = row[by_near], other[by_near], bits[by_near], via[by_near]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        last = place == self._most - 1
        self._limit[row[last]] = bits[last] * self._rows + other[last]
        kept = place < self._most
        self._parts = [(row[kept], other[kept], bits[kept], via[kept])]
        self._gathered = 0
        return self._parts[0]


def next_round(proposed: Candidates, order: Ints, checked: Checked, lineage: Ints | None = None) -> Round:
    """Decide what the pairs compared so far decide, and say which to compare next.

    The rule, which no schedule can change: rows are visited by `order`. A row goes through its candidates,
    nearest first; a candidate that is itself a duplicate stands for the row it is a duplicate of (each row is
    tried once, none of the same lineage). The first that shows the same picture is its representative. If
    none does, it is kept.

    So a row is decided only by comparisons with rows that stay, and names one of them. A candidate that is
    still undecided holds up the rows that need it; meanwhile they are compared with what they will probably
    need: first with the row at the end of the line, as if near pictures were the same, and where that fails
    with the candidates themselves. A wrong guess costs a comparison and changes nothing. Every round decides
    at least one row; most sets need no more rounds than a row has candidates.
    """
    if proposed.row.size and (order[proposed.other] >= order[proposed.row]).any():
        raise ValueError("a candidate comes after its row: these candidates were made for another order")
    walk = _Walk(len(order), checked, lineage)
    starts = np.flatnonzero(np.diff(proposed.row, prepend=-1))
    others = np.split(proposed.other, starts[1:])
    for row, listed in zip(proposed.row[starts].tolist(), others, strict=False):
        walk.visit(row, listed.tolist())
    representative = np.full(len(order), KEPT, np.int64)
    representative[list(walk.fate)] = list(walk.fate.values())
    wanted = np.array(walk.wanted, np.int64).reshape(-1, 2)
    return Round(representative, wanted[:, 0], wanted[:, 1])


class _Walk:
    """One visit of all rows in order, with what is known of the pairs."""

    def __init__(self, rows: int, checked: Checked, lineage: Ints | None) -> None:
        self._rows, self._lineage = rows, lineage
        one, two = np.maximum(checked.row, checked.other), np.minimum(checked.row, checked.other)
        self._same = dict(zip((one * rows + two).tolist(), checked.same.tolist(), strict=True))
        self._failed = set(checked.row[~checked.same].tolist())
        # The row an undecided one is expected to stand for.
        self._expected: dict[int, int] = {}
        self.fate: dict[int, int] = {}
        """Of rows with candidates: the row each is a duplicate of, KEPT or UNDECIDED."""
        self.wanted: list[tuple[int, int]] = []

    def visit(self, row: int, candidates: list[int]) -> None:
        """Decide a row, or note which pair to compare for it."""
        tried: set[int] = set()
        for candidate in candidates:
            leader = self._stands_for(candidate)
            if leader == UNDECIDED:
                self._wait(row, candidates)
                return
            if leader in tried or self._kin(row, leader):
                continue
            tried.add(leader)
            same = self._known(row, leader)
            if same is None:
                self.fate[row] = UNDECIDED
                self._expected[row] = row if row in self._failed else leader
                self.wanted.append((row, leader))
                return
            if same:
                self.fate[row] = leader
                return
        self.fate[row] = KEPT

    def _wait(self, row: int, candidates: list[int]) -> None:
        """The row waits for an undecided candidate: guess what it will have to be compared with."""
        expected, wanted = row, None
        hopeful = row not in self._failed
        if not hopeful:
            direct = ((candidate, self._stands_for(candidate)) for candidate in candidates)
            near = (candidate if leader == UNDECIDED else leader for candidate, leader in direct)
            wanted = next((other for other in near if self._open(row, other)), None)
        for candidate in candidates:
            leader = self._stands_for(candidate)
            leader = self._expected[candidate] if leader == UNDECIDED else leader
            if wanted is None and self._open(row, leader):
                wanted = leader
            same = False if self._kin(row, leader) else self._known(row, leader)
            if same or (same is None and hopeful):
                expected = leader
                break
        self.fate[row], self._expected[row] = UNDECIDED, expected
        if wanted is not None:
            self.wanted.append((row, wanted))

    def _open(self, row: int, other: int) -> bool:
        return self._known(row, other) is None and not self._kin(row, other)

    def _stands_for(self, candidate: int) -> int:
        fate = self.fate.get(candidate, KEPT)
        return candidate if fate == KEPT else fate

    def _known(self, row: int, other: int) -> bool | None:
        return self._same.get(max(row, other) * self._rows + min(row, other))

    def _kin(self, row: int, other: int) -> bool:
        lines = self._lineage
        return lines is not None and lines[row] >= 0 and bool(lines[row] == lines[other])


def decide(
    proposed: Candidates,
    order: Ints,
    compare: Callable[[Ints, Ints], NDArray[np.bool_]],
    lineage: Ints | None = None,
) -> Ints:
    """All rounds at once: per row the kept row it is a duplicate of, or KEPT [rows].

    `compare(row, other)` says of each pair [pairs] whether it shows the same picture. A driver that spreads
    comparisons over processes or runs makes the rounds itself, with `next_round`.
    """
    none = np.zeros(0, np.int64)
    checked = Checked(none, none, np.zeros(0, np.bool_))
    while len((found := next_round(proposed, order, checked, lineage)).row):
        same = compare(found.row, found.other)
        checked = Checked(
            np.concatenate([checked.row, found.row]),
            np.concatenate([checked.other, found.other]),
            np.concatenate([checked.same, same]),
        )
    return found.representative
