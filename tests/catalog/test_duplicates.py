"""Duplicates: what the fast search decides is what the plain double loop decides."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import duplicates
from catalog.duplicates import KEPT, exact, greedy, placeholders
from tests.catalog.test_hamming import bits_between, hash_sets


def ranks(draw: st.DrawFn, rows: int) -> np.ndarray:
    return np.array(draw(st.permutations(range(rows))), np.int64) * 3 - 7


def plain_greedy(hashes, order, distance, lineage=None):
    kept, representative, between = [], [KEPT] * len(hashes), [-1] * len(hashes)
    for row in np.argsort(order).tolist():
        near = [
            (bits_between(int(hashes[row]), int(hashes[leader])), rank, leader)
            for rank, leader in enumerate(kept)
            if lineage is None or lineage[row] < 0 or lineage[row] != lineage[leader]
        ]
        near = [found for found in near if found[0] <= distance]
        if near:
            between[row], _, representative[row] = min(near)
        else:
            kept.append(row)
    return representative, between


@given(st.data(), st.integers(0, 10), st.booleans())
@settings(max_examples=250, deadline=None)
def test_greedy_is_the_plain_loop(data, distance, with_lineage):
    hashes = data.draw(hash_sets())
    order = ranks(data.draw, len(hashes))
    lineage = None
    if with_lineage:
        lineage = np.array([data.draw(st.integers(-1, 3)) for _ in hashes], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_MOST_PAIRS", data.draw(st.sampled_from([1, 10, 10_000])))
        found = greedy(hashes, order, distance, lineage)
    representative, between = plain_greedy(hashes, order, distance, lineage)
    assert found.representative.tolist() == representative
    assert found.distance.tolist() == between


def test_greedy_decides_a_dense_group_of_thousands_like_the_plain_loop(monkeypatch):
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 50_000)
    draw = np.random.default_rng(3)
    hashes = np.full(3_000, 12345, np.int64)
    for _ in range(3):
        hashes ^= np.int64(1) << draw.integers(0, 64, len(hashes))
    order = draw.permutation(len(hashes))
    found = greedy(hashes, order, 4)
    representative, between = plain_greedy(hashes, order, 4)
    assert found.representative.tolist() == representative
    assert found.distance.tolist() == between
    assert 1 < (~found.duplicate).sum() < 200


def test_a_chain_keeps_every_row_that_no_kept_row_is_near():
    hashes = np.array([(1 << steps * 3) - 1 for steps in range(10)], np.int64)
    found = greedy(hashes, np.arange(10), 3)
    assert found.representative.tolist() == [KEPT, 0, KEPT, 2, KEPT, 4, KEPT, 6, KEPT, 8]


def test_rows_of_one_lineage_stay_though_equal():
    hashes = np.array([7, 7, 7], np.int64)
    found = greedy(hashes, np.arange(3), 4, np.array([5, 5, -1]))
    assert found.representative.tolist() == [KEPT, KEPT, 0]


def test_equal_ranks_are_refused():
    with pytest.raises(ValueError, match="break ties by key"):
        greedy(np.zeros(2, np.int64), np.zeros(2, np.int64), 1)


def test_an_order_of_another_length_is_refused():
    with pytest.raises(ValueError, match="3 ranks for 2 rows"):
        greedy(np.zeros(2, np.int64), np.arange(3), 1)


def test_greedy_of_nothing_is_nothing():
    assert len(greedy(np.zeros(0, np.int64), np.zeros(0, np.int64), 4).representative) == 0


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_exact_names_the_first_of_each_digest(data):
    digests = data.draw(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=20))
    order = ranks(data.draw, len(digests))
    found = exact(pl.Series(digests, dtype=pl.String), order).tolist()
    for row, digest in enumerate(digests):
        same = [other for other in range(len(digests)) if digests[other] == digest and digest is not None]
        first = min(same, key=lambda other: order[other], default=row)
        assert found[row] == (KEPT if first == row else first)


def test_a_digest_under_many_sources_is_a_placeholder_in_every_row():
    digests = pl.Series(["error", "error", "error", "photo", "photo", "photo", None, None, None])
    sources = pl.Series(["x", "y", "z", "x", "x", None, "x", "y", "z"])
    assert placeholders(digests, sources, 3).tolist() == [True] * 3 + [False] * 6
    assert placeholders(digests, sources, 2).tolist() == [True] * 3 + [False] * 6


def test_a_placeholder_of_one_source_is_a_mistake():
    with pytest.raises(ValueError, match="at least 2"):
        placeholders(pl.Series(["a"]), pl.Series(["x"]), 1)
