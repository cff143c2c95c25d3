"""Pairs of 64-bit hashes that differ in few bits, found exactly and in bounded memory.

Multi-index hashing (Norouzi, Punjani, Fleet 2012) in its "any k of b bands agree" form: cut the hash into
`distance + k` bands; `distance` differing bits touch at most `distance` of them, so at least k bands of a
near pair are equal. For every choice of k bands, only rows equal there are compared. More agreeing bands mean
smaller groups and more passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

HASH_BITS = 64
# Rows compared in one go: temporaries stay in the cache, and memory is bounded whatever the groups look like.
_BLOCK = 1 << 18
# A row with more partners than this is compared in a matrix, where one comparison costs a fifth.
_WIDE = 96
# Nanoseconds per row and pass, per comparison in small groups, per comparison in a matrix: measured; they
# only choose among equally exact plans.
_COST_ROW, _COST_PAIR, _COST_CELL = 45.0, 12.0, 2.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Near pairs: `left` and `right` are row numbers [pairs], `distance` the differing bits [pairs], 0-64."""

    left: Ints
    right: Ints
    distance: Ints


@dataclass(frozen=True, slots=True)
class _Plan:
    """Bands as (shift, width) in bits, and how many of them must agree."""

    bands: tuple[tuple[int, int], ...]
    agreeing: int


@dataclass(frozen=True, slots=True)
class _Side:
    """Rows sorted by (key, row): key, row number and hash, each [rows]."""

    keys: Words
    rows: Ints
    words: Words


def as_words(hashes: Ints) -> Words:
    """The bits of int64 hashes as uint64, without a copy; raises TypeError for anything else."""
    if hashes.dtype != np.int64:
        raise TypeError(f"hashes are {hashes.dtype}; stores keep 64-bit hashes bit-cast to int64")
    return np.ascontiguousarray(hashes).view(np.uint64)


def near_pairs(hashes: Ints, others: Ints | None = None, *, distance: int) -> Iterator[Pairs]:
    """All pairs within `distance` bits, each exactly once, in blocks of bounded size and in a fixed order.

    `hashes` and `others` are int64 [rows]; without `others`, pairs lie inside `hashes` and left < right.
    Memory is about 60 bytes a row beside the block being compared, whatever the number of pairs.
    """
    if not 0 <= distance <= HASH_BITS:
        raise ValueError(f"distance {distance}: a 64-bit hash has distances 0 to 64")
    left = as_words(hashes)
    if others is None:
        yield from _join(left, None, distance)
        return
    right = as_words(others)
    if len(left) <= len(right):
        yield from _join(left, right, distance)
        return
    for pairs in _join(right, left, distance):
        yield Pairs(pairs.right, pairs.left, pairs.distance)


def _join(left: Words, right: Words | None, distance: int) -> Iterator[Pairs]:
    rows = max(len(left), 0 if right is None else len(right))
    if len(left) == 0 or rows == 0 or (right is None and rows < 2):
        return
    plan = _plan(distance, len(left), None if right is None else len(right))
    for chosen in combinations(range(len(plan.bands)), plan.agreeing):
        bands = [plan.bands[band] for band in chosen]
        one = _side(left, bands)
        if right is None:
            two = one
            starts, ends = np.arange(1, len(left) + 1, dtype=np.int64), _run_ends(one.keys)
        else:
            two = _side(right, bands)
            starts = np.searchsorted(two.keys, one.keys, side="left")
            ends = np.searchsorted(two.keys, one.keys, side="right")
        # A pair whose first agreeing bands are others has been given in an earlier pass.
        last = chosen[-1] if chosen else 0
        given = tuple(_mask(plan.bands[band]) for band in range(last) if band not in chosen)
        yield from _Pass(one, two, starts, ends, distance, given).pairs()


def _plan(distance: int, left: int, right: int | None) -> _Plan:
    """The cheapest of the exact plans for these sizes."""
    comparisons = left * (left - 1) / 2 if right is None else float(left) * right
    rows = left + (right or 0)
    room = HASH_BITS - max(left, right or 0).bit_length()
    best, best_cost = _Plan(((0, 0),) * distance, 0), comparisons * _COST_CELL
    for agreeing in range(1, 6):
        count = distance + agreeing
        if count > HASH_BITS:
            break
        width = min(HASH_BITS // count, room // agreeing)
        passes = comb(count, agreeing)
        cost = passes * (rows * _COST_ROW + comparisons / 2.0 ** (width * agreeing) * _COST_PAIR)
        if cost < best_cost:
            best, best_cost = _Plan(_bands(count, room // agreeing), agreeing), cost
    return best


def _bands(count: int, widest: int) -> tuple[tuple[int, int], ...]:
    edges = [HASH_BITS * band // count for band in range(count + 1)]
    return tuple((low, min(high - low, widest)) for low, high in pairwise(edges))


def _mask(band: tuple[int, int]) -> np.uint64:
    shift, width = band
    return np.uint64(((1 << width) - 1) << shift)


def _side(words: Words, bands: list[tuple[int, int]]) -> _Side:
    """Sort by the bands' bits: key and row number share one word, since numpy sorts plain words fastest."""
    row_bits = np.uint64(len(words).bit_length())
    packed = np.zeros(len(words), np.uint64)
    for shift, width in bands:
        packed <<= np.uint64(width)
        packed |= (words >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    packed <<= row_bits
    packed |= np.arange(len(words), dtype=np.uint64)
    packed.sort()
    rows = (packed & ((np.uint64(1) << row_bits) - np.uint64(1))).view(np.int64)
    packed >>= row_bits
    return _Side(packed, rows, words[rows])


def _run_ends(keys: Words) -> Ints:
    """For each position of a sorted array, the position after its run of equal values."""
    ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, len(keys))
    return np.repeat(ends, np.diff(ends, prepend=0))


@dataclass(frozen=True, slots=True)
class _Pass:
    """One choice of bands: row i of `one` is compared with the rows starts[i]..ends[i] of `two`.

    `given` are the bands that would have shown a pair in an earlier pass, had they agreed.
    """

    one: _Side
    two: _Side
    starts: Ints
    ends: Ints
    distance: int
    given: tuple[np.uint64, ...]

    def pairs(self) -> Iterator[Pairs]:
        wide: list[Ints] = []
        for begin in range(0, len(self.starts), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            partners = self.ends[block] - self.starts[block]
            wide.append(begin + np.flatnonzero(partners > _WIDE))
            found = self._narrow(begin + np.flatnonzero((partners > 0) & (partners <= _WIDE)))
            if found:
                yield self._emit(*(np.concatenate(side) for side in zip(*found, strict=True)))
        rows = np.concatenate(wide)
        while len(rows):
            # Rows with the same end share their partners, but for those before each one's start.
            end = self.ends[rows[0]]
            height = max(1, _BLOCK * 4 // int(end - self.starts[rows[0]]))
            some = rows[:height]
            some = some[self.ends[some] == end]
            rows = rows[len(some) :]
            yield from self._matrix(some, int(self.starts[some[0]]), int(end))

    def _narrow(self, at: Ints) -> list[tuple[Ints, Ints]]:
        """Rows with few partners: all first partners, all second ones, and so on."""
        found, partner = [], self.starts[at]
        while len(at):
            hit = np.flatnonzero(self._near(self.one.words[at] ^ self.two.words[partner]))
            if len(hit):
                found.append((at[hit], partner[hit]))
            partner = partner + 1
            more = partner < self.ends[at]
            at, partner = at[more], partner[more]
        return found

    def _matrix(self, rows: Ints, start: int, end: int) -> Iterator[Pairs]:
        """Neighbours in the sort order with many partners."""
        for low in range(start, end, _BLOCK * 4):
            high = min(end, low + _BLOCK * 4)
            near = self._near(self.one.words[rows][:, None] ^ self.two.words[None, low:high])
            row, column = np.nonzero(near)
            lefts, rights = rows[row], column + low
            inside = rights >= self.starts[lefts]
            if inside.any():
                yield self._emit(lefts[inside], rights[inside])

    def _near(self, difference: Words) -> NDArray[np.bool_]:
        near: NDArray[np.bool_] = np.bitwise_count(difference) <= self.distance
        if self.given and near.any():
            hit = np.nonzero(near)
            words = difference[hit]
            fresh = np.ones(len(words), np.bool_)
            for mask in self.given:
                fresh &= (words & mask) != 0
            near[hit] = fresh
        return near

    def _emit(self, lefts: Ints, rights: Ints) -> Pairs:
        bits = np.bitwise_count(self.one.words[lefts] ^ self.two.words[rights])
        return Pairs(self.one.rows[lefts], self.two.rows[rights], bits.astype(np.int64))
