"""Pairs of pictures worth comparing, and the greedy decision over pairs that were compared.

Hashes only propose: a row's full hash may lie near another's full hash, or near a *variant* of it (the
mirrored picture, a window of it), or variants near each other. An expensive operator then says of a pair
whether it shows the same picture. As in `catalog.duplicates`, rows are numbered 0 to n - 1, `order` [rows]
ranks them without ties, and rows of one `lineage` (>= 0; negative: none) are never duplicates of one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.duplicates import KEPT, strangers, visiting
from catalog.hamming import Ints, near_pairs

UNDECIDED = -2
"""In `Round.representative`: a comparison that decides the row is still to be made."""

# Pairs gathered before they are cut down to each row's best.
_MOST_GATHERED = 2_000_000
# A row that has its fill at a small distance is not searched for at the next one, so that a dense group costs
# little.
_FIRST_DISTANCES = (2, 4)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs to compare [pairs]: `other` comes before `row` in the order.

    `distance` is the least that any comparison of hashes found, `via` the first comparison that found it: 0
    full hashes, 1 one's full hash and the other's variant, 2 the first of the `further` ones, and so on.
    Sorted by rank of `row`, then nearest first, then rank of `other`.
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
    further: Sequence[tuple[Variants, Variants | None]] = (),
    lineage: Ints | None = None,
) -> Candidates:
    """For each row its `most` nearest earlier rows within `distance` bits (ties: the earliest).

    Compared are the full hashes (`hashes`, int64 [rows]) with one another and with the `variants` of other
    rows; each pair of `further` sets, both ways; and each single further set within itself. So windows
    without a caption band are compared with the same windows of other rows, and mirror images with windows.

    Exact; memory grows with rows, variants and rows x `most`, never with the pairs of a dense group.
    """
    visit = visiting(order, len(hashes))
    lines = None if lineage is None else lineage[visit]
    place = np.empty_like(visit)
    place[visit] = np.arange(len(visit))
    full = _Set(hashes[visit], np.arange(len(visit)))
    comparisons: list[tuple[_Set, _Set | None]] = [(full, None)]
    # An empty set keeps the numbers of `via`.
    windows = variants or Variants(np.zeros(0, np.int64), np.zeros(0, np.int64))
    comparisons.append((full, _distinct(windows, place, full.words)))
    for one, two in further:
        comparisons.append((_distinct(one, place), None if two is None else _distinct(two, place)))

    best = _Best(len(visit), most, lines)
    for via, (one_set, two_set) in enumerate(comparisons):
        for left, right in _equal(one_set, two_set, most):
            best.add(left, right, np.zeros_like(left), via)
    # Kin may have taken places among the equal ones, so rows that have some are searched for again.
    searched = best.unfilled() if lines is None else best.unfilled() | (lines >= 0)
    for radius in [near for near in _FIRST_DISTANCES if near < distance] + [distance]:
        for via, (one_set, two_set) in enumerate(comparisons):
            for left, right, bits in _near(one_set, two_set, searched, radius):
                best.add(left, right, bits, via)
        searched = best.unfilled()
    row, other, bits, ways = best.cut()
    return Candidates(visit[row], visit[other], bits, ways)


@dataclass(frozen=True, slots=True)
class _Set:
    """Hashes and the rows they belong to, in visiting order; sorted by row."""

    words: Ints
    owner: Ints


def _distinct(variants: Variants, place: Ints, full: Ints | None = None) -> _Set:
    """Variants of each row that differ among themselves and from its full hash: those of a flat picture do not."""
    owner = place[variants.owner]
    by_owner = np.lexsort((variants.hashes, owner))
    owner, words = owner[by_owner], variants.hashes[by_owner]
    new = np.ones(len(words), np.bool_) if full is None else words != full[owner]
    new[1:] &= (words[1:] != words[:-1]) | (owner[1:] != owner[:-1])
    return _Set(words[new], owner[new])


def _equal(one: _Set, two: _Set | None, most: int) -> Iterator[tuple[Ints, Ints]]:
    """Rows with equal hashes, each with the first of its group: enough of them to find `most` others."""
    for left, right in [(one, one)] if two is None else [(one, two), (two, one)]:
        by_word = np.argsort(right.words, kind="stable")
        words, owner = right.words[by_word], right.owner[by_word]
        start = np.searchsorted(words, left.words, side="left")
        end = np.searchsorted(words, left.words, side="right")
        # Groups are in visiting order: what stands at or after a row's own place is no earlier other of it.
        for step in range(most):
            at = np.flatnonzero(start + step < end)
            if len(at) == 0:
                break
            yield left.owner[at], owner[start[at] + step]


def _near(one: _Set, two: _Set | None, searched: NDArray[np.bool_], radius: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Pairs of near hashes of which at least one row is searched for."""
    open_one, done_one = np.flatnonzero(searched[one.owner]), np.flatnonzero(~searched[one.owner])
    if two is None:
        for near in near_pairs(one.words[open_one], distance=radius):
            yield one.owner[open_one[near.left]], one.owner[open_one[near.right]], near.distance
        sides = [(open_one, done_one)]
        two = one
    else:
        open_two = np.flatnonzero(searched[two.owner])
        sides = [(open_one, np.arange(len(two.words))), (done_one, open_two)]
    for left, right in sides:
        for near in near_pairs(one.words[left], two.words[right], distance=radius):
            yield one.owner[left[near.left]], two.owner[right[near.right]], near.distance


class _Best:
    """The nearest earlier others of each row, gathered in any order and cut down now and then."""

    def __init__(self, rows: int, most: int, lines: Ints | None) -> None:
        self._rows, self._most, self._lines = np.int64(rows), most, lines
        self._parts: list[tuple[Ints, Ints, Ints, Ints]] = []
        self._gathered = 0
        # Distance and other row in one number: what a row with its fill can still use.
        self._limit = np.full(rows, np.iinfo(np.int64).max)

    def add(self, one: Ints, two: Ints, bits: Ints, via: int) -> None:
        """Take note of pairs of rows, in either order, that a comparison of hashes found."""
        row, other = np.maximum(one, two), np.minimum(one, two)
        fit = (row != other) & (bits * self._rows + other <= self._limit[row])
        if self._lines is not None:
            fit &= strangers(self._lines, row, other)
        row, other, bits = row[fit], other[fit], bits[fit]
        self._parts.append((row, other, bits, np.full_like(row, via)))
        self._gathered += len(row)
        if self._gathered > _MOST_GATHERED:
            self.cut()

    def unfilled(self) -> NDArray[np.bool_]:
        """Rows with fewer than `most` others so far [rows]."""
        self.cut()
        unfilled: NDArray[np.bool_] = self._limit == np.iinfo(np.int64).max
        return unfilled

    def cut(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Each row's nearest others: row, other, distance, via; sorted by the first, third and second."""
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
