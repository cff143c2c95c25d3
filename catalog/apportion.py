"""Sharing a total out by weights, exactly: a larger total never takes anything away from anybody.

The method is Sainte-Laguë's: the next sample goes to the part with the least (samples + 1/2) / weight. Largest
remainders, the better known method, can take a sample away from a part when the total grows (the Alabama paradox), and
a training set that was made larger would then lack samples it had. Every part ends within 1/2 + (its share) *
(parts / 2) of its exact share.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

_HALF = Fraction(1, 2)


def exact(value: float) -> Fraction:
    """The number as it was written: 0.1 is a tenth."""
    return Fraction(repr(value))


def apportion(weights: Sequence[Fraction], total: int) -> list[int]:
    """`total` samples shared out by weights (> 0); of equal claims the earlier part's comes first."""
    level = (total - Fraction(len(weights), 2)) / sum(weights)
    counts = [max(0, -((_HALF - level * weight) // 1)) for weight in weights]
    claims = [
        ((count + _HALF) / weight, place) for place, (count, weight) in enumerate(zip(counts, weights, strict=True))
    ]
    heapq.heapify(claims)
    for _ in range(total - sum(counts)):
        _, place = claims[0]
        counts[place] += 1
        heapq.heapreplace(claims, ((counts[place] + _HALF) / weights[place], place))
    return counts


def greatest(weights: Sequence[Fraction], capacities: Sequence[int]) -> list[int]:
    """The shares of the greatest total at which no part gets more than its capacity."""
    last = min(
        ((capacity + _HALF) / weight, place)
        for place, (capacity, weight) in enumerate(zip(capacities, weights, strict=True))
    )
    level, first_refused = last
    counts = []
    for place, weight in enumerate(weights):
        claim = level * weight - _HALF
        # Claims below the first one that cannot be met are met; of equal ones those of earlier parts.
        counts.append(max(0, claim // 1 + 1 if place < first_refused else -(-claim // 1)))
    return counts


def within(weights: Sequence[Fraction], place: int) -> Fraction:
    """How far a part's count may lie from its exact share."""
    return _HALF + weights[place] / sum(weights) * Fraction(len(weights), 2)


def copies_of(ranks: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int32]:
    """How often each of some samples comes when `count` are drawn: all of them in the order of their ranks, then again.

    ranks: uint64 [n], ties in the given order. Whoever draws more draws these and others. Returns int32 [n].
    """
    rounds, rest = divmod(count, len(ranks))
    copies = np.full(len(ranks), rounds, np.int32)
    copies[np.argsort(ranks, kind="stable")[:rest]] += 1
    return copies


def count_within(ranks: npt.NDArray[np.uint64], tokens: npt.NDArray[np.int64], most: Fraction) -> int:
    """How many samples, drawn in the order of `copies_of`, have at most `most` tokens together."""
    whole = int(tokens.sum())
    if not whole:
        return 0
    rounds, rest = divmod(most, whole)
    sums = np.cumsum(tokens[np.argsort(ranks, kind="stable")])
    return int(rounds) * len(ranks) + int(np.searchsorted(sums, int(rest), side="right"))
