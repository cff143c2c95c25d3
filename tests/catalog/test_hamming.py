"""Near pairs of hashes: the banded search finds what the plain double loop finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import hamming
from catalog.hamming import near_pairs

BITS = 64


def bits_between(one: int, two: int) -> int:
    return ((one ^ two) & (2**64 - 1)).bit_count()


@st.composite
def hash_sets(draw: st.DrawFn, most: int = 60) -> np.ndarray:
    """Hashes with structure: rows some flips away from a centre or from the row before (chains)."""
    centres = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
    rows = []
    for _ in range(draw(st.integers(0, most))):
        base = rows[-1] if rows and draw(st.booleans()) else draw(st.sampled_from(centres))
        word = base % 2**64
        for bit in draw(st.lists(st.integers(0, BITS - 1), max_size=5)):
            word ^= 1 << bit
        rows.append(word - 2**64 if word >= 2**63 else word)
    return np.array(rows, np.int64)


@given(st.data(), st.integers(0, 12), st.sampled_from([None, 0, 1, 2, 3]))
@settings(max_examples=150, deadline=None)
def test_near_pairs_are_all_pairs_within_the_distance_each_once(data, distance, agreeing):
    hashes, others = data.draw(hash_sets()), data.draw(hash_sets())
    with pytest.MonkeyPatch.context() as patch:
        if agreeing is not None:
            bands = hamming._bands(distance + agreeing, 40) if distance + agreeing else ()
            patch.setattr(hamming, "_plan", lambda *_: hamming._Plan(bands, agreeing))
        patch.setattr(hamming, "_WIDE", data.draw(st.sampled_from([1, 4, 96])))
        patch.setattr(hamming, "_BLOCK", data.draw(st.sampled_from([1, 7, 1000])))
        inside = pairs_of(near_pairs(hashes, distance=distance))
        across = pairs_of(near_pairs(hashes, others, distance=distance))
    table = [[bits_between(int(one), int(two)) for two in hashes] for one in hashes]
    assert inside == sorted(
        (i, j, table[i][j]) for j in range(len(hashes)) for i in range(j) if table[i][j] <= distance
    )
    expected = [
        (i, j, bits_between(int(one), int(two))) for i, one in enumerate(hashes) for j, two in enumerate(others)
    ]
    assert across == sorted(pair for pair in expected if pair[2] <= distance)


def pairs_of(blocks):
    return sorted(
        (int(left), int(right), int(between))
        for block in blocks
        for left, right, between in zip(block.left, block.right, block.distance, strict=True)
    )


def test_plans_for_many_rows_find_what_the_plan_for_few_finds():
    draw = np.random.default_rng(5)
    hashes = draw.integers(-(2**63), 2**63 - 1, 12_000)
    flipped = hashes[:2_000] ^ (np.int64(1) << draw.integers(0, 64, 2_000))
    hashes[-2_000:] = flipped ^ (np.int64(1) << draw.integers(0, 64, 2_000))
    for distance in (0, 1, 2, 4):
        assert hamming._plan(distance, len(hashes), None).agreeing > 0
        found = pairs_of(near_pairs(hashes, distance=distance))
        rows = hashes.view(np.uint64)
        expected = []
        for start in range(0, len(rows), 500):
            table = np.bitwise_count(rows[start : start + 500, None] ^ rows[None])
            one, two = np.nonzero(table <= distance)
            expected += [(start + i, j, int(table[i, j])) for i, j in zip(one.tolist(), two.tolist(), strict=True)]
        assert found == [pair for pair in expected if pair[0] < pair[1]]


def test_hashes_that_are_not_int64_are_refused():
    with pytest.raises(TypeError, match="bit-cast to int64"):
        list(near_pairs(np.zeros(3, np.uint64), distance=1))  # type: ignore[arg-type]


def test_a_distance_no_hash_has_is_refused():
    with pytest.raises(ValueError, match="distance 65"):
        list(near_pairs(np.zeros(3, np.int64), distance=65))
