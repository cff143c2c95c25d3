"""Near-duplicate texts: bands of MinHash signatures propose pairs, the agreement of whole signatures decides.

A signature is a row of numbers; two signatures agree at a position with the probability of the Jaccard similarity of
the two texts' sets of shingles (Broder 1997). As in `catalog.duplicates`, rows are numbered 0 to n - 1, `order` [rows]
ranks them without ties, and rows of one `lineage` (>= 0; negative: none) are never duplicates of one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.duplicates import KEPT, Duplicates, strangers, visiting
from catalog.errors import UserError
from catalog.hamming import Ints

Signatures = NDArray[np.uint32]
"""MinHash signatures [rows, permutations]."""

_PROPOSED = 0.99
"""Chance that a pair of just the wanted similarity shares a band."""
_SCHEME = "affine32"
"""How datasketch permutes; signatures of another scheme cannot be compared with these."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What makes two signatures alike: one of `bands` bands of `rows` positions equal, and `least` positions in all."""

    bands: int
    rows: int
    least: int


def cut_for(jaccard: float, permutations: int) -> Cut:
    """The cut that finds pairs of texts of a Jaccard similarity of `jaccard` (0 to 1, 0 excluded) or more.

    Bands are as long as they can be while such a pair shares one with a chance of 0.99; a pair is alike if its
    signatures agree at no fewer positions than two and a half standard errors below what that similarity makes one
    expect, which 99.3 of 100 such pairs do. Raises UserError for signatures too short for any band.
    """
    share = jaccard * permutations - 2.5 * math.sqrt(permutations * jaccard * (1 - jaccard))
    for rows in range(permutations // 2, 0, -1):
        bands = permutations // rows
        if 1 - (1 - jaccard**rows) ** bands >= _PROPOSED:
            return Cut(bands, rows, max(1, math.ceil(share)))
    raise UserError(f"{permutations} permutations cannot tell texts of similarity {jaccard}; measure more")


def alike(signatures: Signatures, order: Ints, jaccard: float, lineage: Ints | None = None) -> Duplicates:
    """Greedy duplicates by signature.

    Rows are visited by `order`. A row is a duplicate if and only if an earlier kept row is alike (see `cut_for`); it
    names the one whose signature agrees most, the earliest among equals. `distance` counts positions that differ.
    """
    from datasketch import LeanMinHash, MinHashLSH  # type: ignore[import-untyped, unused-ignore]

    visit = visiting(order, len(signatures))
    representative = np.full(len(signatures), KEPT, np.int64)
    distance = np.full(len(signatures), -1, np.int64)
    if not len(signatures):
        return Duplicates(representative, distance)
    permutations = signatures.shape[1]
    cut = cut_for(jaccard, permutations)
    index = MinHashLSH(num_perm=permutations, params=(cut.bands, cut.rows))
    rank = np.empty_like(visit)
    rank[visit] = np.arange(len(visit))
    # Few rows share a band with any other: only they are looked up, and only they are held in the index.
    for row in visit[_sharing(signatures, cut)[visit]].tolist():
        signature = LeanMinHash(seed=1, hashvalues=signatures[row], scheme=_SCHEME)
        found = np.array(sorted(index.query(signature), key=rank.__getitem__), np.int64)
        if lineage is not None and len(found):
            found = found[strangers(lineage, np.full_like(found, row), found)]
        if len(found):
            agreeing = np.count_nonzero(signatures[found] == signatures[row], axis=1)
            best = int(np.argmax(agreeing))
            if agreeing[best] >= cut.least:
                representative[row], distance[row] = found[best], permutations - agreeing[best]
                continue
        index.insert(row, signature)
    return Duplicates(representative, distance)


def _sharing(signatures: Signatures, cut: Cut) -> NDArray[np.bool_]:
    """Rows of which some band equals the same band of another row [rows]."""
    sharing = np.zeros(len(signatures), np.bool_)
    for band in range(cut.bands):
        part = np.ascontiguousarray(signatures[:, band * cut.rows : (band + 1) * cut.rows])
        words = part.view(f"V{part.itemsize * cut.rows}").ravel()
        _, group, size = np.unique(words, return_inverse=True, return_counts=True)
        sharing |= size[group] > 1
    return sharing
