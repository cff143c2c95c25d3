"""Near-duplicates by embedding: seeded clusters say which records are compared, the exact cosine decides.

A vector is a row of half-precision numbers of length 1. As in `catalog.duplicates`, rows are numbered 0 to n - 1,
`order` [rows] ranks them without ties, and rows of one `lineage` (>= 0; negative: none) are never duplicates of one
another.

No schedule, thread count or library can change a verdict, for every number that decides is exact: half-precision
numbers are multiples of 2^-24, so their products are multiples of 2^-48, and no partial sum of the products of two
vectors of length 1 reaches 2. In double precision, which has room for 53 bits, no addition rounds, in whatever order.
Single precision, twice as quick, only proposes pairs, with room for its rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from catalog.duplicates import KEPT, Duplicates, settle, strangers, visiting
from catalog.errors import UserError
from catalog.hamming import Ints

Vectors = NDArray[np.float16]
"""Embeddings [rows, numbers], each of length 1 but for the rounding."""

EXACT_ROWS = 20_000
"""Up to so many rows every row is compared with every other, unless the recipe says otherwise."""

PER_TEN_THOUSAND = 10_000
"""A `distance` is 1 - cosine in ten-thousandths."""

_CLUSTER_ROWS = 2_500
# Rounds of k-means, and rows of the sample it looks at: so many a cluster, and at least so many.
_ROUNDS, _SAMPLE_PER_CLUSTER, _SAMPLE = 10, 64, 10_000
# Each row belongs to so many clusters, so that few pairs are parted by a border.
_HOMES = 2
# Steps of a cluster's middle: multiples of 2^-12, with which products and sums of squares stay exact.
_STEPS = 4096.0
# Lengths that the rounding of a vector of length 1 can explain, squared.
_SHORT, _LONG = 0.98, 1.02
_LEFT, _RIGHT, _AT_ONCE = 1024, 4096, 4096


def cluster_count(rows: int, wanted: int | None) -> int:
    """How many clusters so many rows are put into: `wanted`, else one up to EXACT_ROWS and one for 2,500 above."""
    if wanted is not None:
        return max(1, min(wanted, rows))
    return 1 if rows <= EXACT_ROWS else math.ceil(rows / _CLUSTER_ROWS)


def check_vectors(vectors: Vectors, column: str) -> None:
    """Raise UserError for rows that are no vectors of length 1: zeros, NaN, infinity, numbers of another kind."""
    lengths = _squares(vectors)
    wrong = np.flatnonzero(~((lengths >= _SHORT) & (lengths <= _LONG)))
    if len(wrong):
        first = _length(lengths[wrong[0]])
        raise UserError(
            f"{column}: {len(wrong)} of {len(vectors)} vectors are not of length 1, the first of {first}; "
            "`measure: embedding` writes unit vectors, or null where there is none"
        )


def alike(
    vectors: Vectors,
    order: Ints,
    cosine: float,
    hashed: NDArray[np.uint64],
    clusters: int | None = None,
    lineage: Ints | None = None,
) -> Duplicates:
    """Greedy duplicates by cosine.

    Rows are visited by `order`. A row is a duplicate if and only if an earlier kept row that shares a cluster with it
    has a cosine of `cosine` or more with it; it names the one of greatest cosine, the earliest among equals. `distance`
    is 1 - cosine in ten-thousandths, rounded. `hashed` [rows], a hash of each row's key, chooses the rows that the
    clusters are made of.
    """
    visit = visiting(order, len(vectors))
    representative = np.full(len(vectors), KEPT, np.int64)
    distance = np.full(len(vectors), -1, np.int64)
    if not len(vectors):
        return Duplicates(representative, distance)
    # From here on rows are numbered by the order of visiting; `visit` leads to their vectors.
    pairing = _Pairing(
        vectors, visit, _homes(vectors, hashed, cluster_count(len(vectors), clusters))[visit], cosine,
        None if lineage is None else lineage[visit],
    )  # fmt: skip
    kept = settle(np.arange(len(visit)), lambda one, two: ((a, b) for a, b, _ in pairing.pairs(one, two)))
    lost = np.flatnonzero(~kept)
    leader, best = pairing.nearest(lost, np.flatnonzero(kept))
    representative[visit[lost]] = visit[leader]
    distance[visit[lost]] = np.maximum(0, np.rint((1 - best) * PER_TEN_THOUSAND)).astype(np.int64)
    return Duplicates(representative, distance)


@dataclass(frozen=True)
class _Pairing:
    """Finds pairs of rows that share a cluster and are alike; rows are numbered by the order of visiting."""

    vectors: Vectors
    visit: Ints
    homes: NDArray[np.int32]
    cosine: float
    lines: Ints | None

    def pairs(self, one: Ints, two: Ints | None) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        """Left rows, right rows and cosines of pairs of `one` and `two`, in blocks; some pairs come twice.

        Without `two`, pairs lie within `one` and left < right.
        """
        count = int(self.homes.max()) + 1
        left = _grouped(self.homes, one, count)
        right = left if two is None else _grouped(self.homes, two, count)
        for mine, others in zip(left, right, strict=True):
            if len(mine) and len(others):
                yield from self._cluster(mine, others, within=two is None)

    def _cluster(self, mine: Ints, others: Ints, within: bool) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        slack = np.float32(self.cosine - (self.vectors.shape[1] + 16) * 2.0**-23)
        for start in range(0, len(mine), _LEFT):
            rows = mine[start : start + _LEFT]
            some = self._single(rows)
            for low in range(start if within else 0, len(others), _RIGHT):
                columns = others[low : low + _RIGHT]
                i, j = np.nonzero(some @ self._single(columns).T >= slack)
                if within:
                    i, j = i[rows[i] < columns[j]], j[rows[i] < columns[j]]
                if self.lines is not None:
                    apart = strangers(self.lines, rows[i], columns[j])
                    i, j = i[apart], j[apart]
                if len(i):
                    found = self._exact(rows, columns, i, j)
                    good = found >= self.cosine
                    yield rows[i[good]], columns[j[good]], found[good]

    def _single(self, rows: Ints) -> NDArray[np.float32]:
        """Vectors in single precision, of length 1 but for that rounding."""
        some = self.vectors[self.visit[rows]]
        return some.astype(np.float32) / np.sqrt(_squares(some)).astype(np.float32)[:, None]

    def _exact(self, rows: Ints, columns: Ints, i: Ints, j: Ints) -> NDArray[np.float64]:
        """Cosines of the pairs (rows[i], columns[j])."""
        left, right = self.vectors[self.visit[rows]], self.vectors[self.visit[columns]]
        if len(i) > _AT_ONCE:
            # Many pairs cost less as one product.
            products = (left.astype(np.float64) @ right.astype(np.float64).T)[i, j]
        else:
            products = np.einsum("ij,ij->i", left[i].astype(np.float64), right[j].astype(np.float64))
        cosines: NDArray[np.float64] = products / np.sqrt(_squares(left)[i] * _squares(right)[j])
        return cosines

    def nearest(self, lost: Ints, kept: Ints) -> tuple[Ints, NDArray[np.float64]]:
        """For each lost row the earlier kept one of greatest cosine (ties: the earliest), and that cosine; [lost]."""
        row = np.full(len(self.visit), KEPT, np.int64)
        best = np.full(len(self.visit), -np.inf)
        for one, two, cosines in self.pairs(lost, kept):
            by = np.lexsort((two, -cosines, one))
            by = by[two[by] < one[by]]
            by = by[np.diff(one[by], prepend=-1) > 0]
            mine, other, found = one[by], two[by], cosines[by]
            better = (found > best[mine]) | ((found == best[mine]) & (other < row[mine]))
            row[mine[better]], best[mine[better]] = other[better], found[better]
        return row[lost], best[lost]


def _grouped(homes: NDArray[np.int32], rows: Ints, count: int) -> list[Ints]:
    """Of some ascending rows those of each cluster."""
    flat = homes[rows].ravel()
    by_home = np.argsort(flat, kind="stable")
    members = np.repeat(rows, homes.shape[1])[by_home]
    bounds = np.searchsorted(flat[by_home], np.arange(count + 1))
    return [members[low:high] for low, high in pairwise(bounds.tolist())]


def _homes(vectors: Vectors, hashed: NDArray[np.uint64], clusters: int) -> NDArray[np.int32]:
    """The clusters each row belongs to, nearest first [rows, homes]."""
    if clusters == 1:
        return np.zeros((len(vectors), 1), np.int32)
    middles = _middles(vectors, hashed, clusters)
    homes = np.zeros((len(vectors), min(_HOMES, len(middles))), np.int32)
    for start in range(0, len(vectors), _RIGHT):
        part = slice(start, start + _RIGHT)
        scores = vectors[part].astype(np.float64) @ middles.T
        for place in range(homes.shape[1]):
            nearest = scores.argmax(axis=1)
            homes[part, place] = nearest
            scores[np.arange(len(scores)), nearest] = -np.inf
    return homes


def _middles(vectors: Vectors, hashed: NDArray[np.uint64], clusters: int) -> NDArray[np.float64]:
    """Middles of clusters by spherical k-means [clusters or fewer, numbers]: fixed rounds over a sample by hash.

    A middle is rounded to multiples of 2^-12, so that this too is exact: neither threads nor blocks move a row.
    """
    count = min(len(vectors), max(_SAMPLE, _SAMPLE_PER_CLUSTER * clusters))
    chosen = np.argsort(hashed, kind="stable")[:count]
    sample = vectors[chosen]
    middles = np.stack([_middle(row) for row in sample[:clusters].astype(np.float64)])
    for _ in range(_ROUNDS):
        home = np.concatenate(
            [
                (sample[start : start + _RIGHT].astype(np.float64) @ middles.T).argmax(axis=1)
                for start in range(0, count, _RIGHT)
            ]
        )
        for cluster, members in enumerate(_grouped(home[:, None].astype(np.int32), np.arange(count), clusters)):
            # Multiples of 2^-24 below 2^29 in sum: exact. What lost its rows, or balances to nothing, stays.
            total = sample[members].astype(np.float64).sum(axis=0)
            if total.any():
                middles[cluster] = _middle(total)
    kept = np.sort(np.unique(middles, axis=0, return_index=True)[1])
    return middles[kept]


def _middle(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """A vector of the direction of `total` and of length 1, in multiples of 2^-12."""
    steps = np.rint(total / np.abs(total).max() * _STEPS)
    # Whole numbers up to 2^12: the sum of their squares is exact.
    unit: NDArray[np.float64] = np.rint(steps / np.sqrt(np.square(steps).sum()) * _STEPS) / _STEPS
    return unit


def _squares(vectors: Vectors) -> NDArray[np.float64]:
    """Exact squares of lengths [rows]."""
    squares = np.empty(len(vectors))
    for start in range(0, len(vectors), _RIGHT):
        some = vectors[start : start + _RIGHT].astype(np.float64)
        squares[start : start + _RIGHT] = np.einsum("ij,ij->i", some, some)
    return squares


def _length(square: float) -> str:
    return f"{math.sqrt(square):.3g}" if math.isfinite(square) else "no finite length"
