"""Candidates are the nearest earlier rows; what verified pairs decide depends on no schedule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import candidates as module
from catalog.candidates import UNDECIDED, Candidates, Checked, Variants, candidates, decide, next_round
from catalog.duplicates import KEPT
from tests.catalog.test_duplicates import ranks
from tests.catalog.test_hamming import bits_between, hash_sets

NOTHING = Checked(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))


def plain_candidates(hashes, order, distance, most, variants, further, lineage):
    full = [(int(word), row) for row, word in enumerate(hashes)]
    sets = [full, *([(int(w), int(o)) for w, o in zip(v.hashes, v.owner, strict=True)] for v in variants)]
    least: dict[tuple[int, int], tuple[int, int]] = {}
    for via, (one, two) in enumerate([(0, 0), (0, 1), *further]):
        for word, owner in sets[one]:
            for word_two, owner_two in sets[two]:
                pair = tuple(sorted((owner, owner_two), key=lambda row: order[row]))
                least[pair] = min(least.get(pair, (65, 0)), (bits_between(word, word_two), via))
    found = []
    for row in np.argsort(order).tolist():
        others = []
        for other in range(len(hashes)):
            kin = lineage is not None and lineage[row] >= 0 and lineage[row] == lineage[other]
            near, via = least.get((other, row), (65, 0))
            if other != row and not kin and near <= distance:
                others.append((near, order[other], other, via))
        found += [(row, other, near, via) for near, _, other, via in sorted(others)[:most]]
    return found


@given(st.data(), st.integers(0, 10), st.integers(1, 4), st.booleans())
@settings(max_examples=250, deadline=None)
def test_candidates_are_the_nearest_earlier_rows_by_any_comparison(data, distance, most, with_lineage):
    hashes = data.draw(hash_sets(25))
    order = ranks(data.draw, len(hashes))
    variants = []
    for _ in range(3):
        owners = data.draw(st.lists(st.integers(0, len(hashes) - 1), max_size=20)) if len(hashes) else []
        # Variants near some other row's hash, or equal to their own row's.
        near = [data.draw(st.tuples(st.integers(0, len(hashes) - 1), st.integers(0, 9))) for _ in owners]
        words = [int(hashes[row]) ^ flips for row, flips in near]
        variants.append(Variants(np.array(words, np.int64), np.array(owners, np.int64)))
    further = data.draw(st.lists(st.sampled_from([(2, 2), (2, 3), (3, 1), (3, 3)]), unique=True, max_size=3))
    lineage = np.array([data.draw(st.integers(-1, 2)) for _ in hashes], np.int64) if with_lineage else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_GATHERED", data.draw(st.sampled_from([1, 20, 10_000])))
        found = candidates(
            hashes,
            order,
            distance=distance,
            most=most,
            variants=variants[0],
            further=[(variants[i - 1], None if i == j else variants[j - 1]) for i, j in further],
            lineage=lineage,
        )
    parts = (found.row, found.other, found.distance)
    got = list(zip(*(part.tolist() for part in parts), strict=True))
    expected = plain_candidates(hashes, order, distance, most, variants, further, lineage)
    assert got == [pair[:3] for pair in expected]


def test_kin_take_no_places():
    hashes = np.array([7, 7, 7, 2**50, 7], np.int64)
    windows = Variants(np.array([7], np.int64), np.array([3]))
    lineage = np.array([5, 5, -1, -1, 5])
    found = candidates(hashes, np.arange(5), distance=3, most=1, variants=windows, lineage=lineage)
    assert found.other[found.row == 4].tolist() == [2]


def test_a_row_with_its_fill_is_still_found_by_others():
    hashes = np.array([0, 0b11, 2**62 - 1], np.int64)
    windows = Variants(np.array([0b11111], np.int64), np.array([2]))
    found = candidates(hashes, np.arange(3), distance=3, most=1, variants=windows)
    assert list(zip(found.row.tolist(), found.other.tolist(), strict=True)) == [(1, 0), (2, 1)]


def test_the_earliest_of_equal_ones_is_found_over_either_side():
    high, other = 2**40 - 1, 2**62 - 1
    hashes = np.array([2**20 - 1, high, other, other], np.int64)
    windows = Variants(np.array([high, high], np.int64), np.array([0, 3]))
    found = candidates(hashes, np.arange(4), distance=0, most=1, variants=windows)
    assert list(zip(found.row.tolist(), found.other.tolist(), strict=True)) == [(1, 0), (3, 1)]


def test_via_says_which_comparison_found_a_pair():
    hashes = np.array([0, 2**40 - 1, 2**30 - 1, 2**50 - 1], np.int64)
    one_each = Variants(np.array([2**62 - 1, 2**61 - 1], np.int64), np.array([0, 3]))
    windows = Variants(np.array([2**40 - 1, 2**62 - 1], np.int64), np.array([0, 1]))
    found = candidates(
        hashes, np.arange(4), distance=2, most=3, variants=windows, further=[(one_each, None), (one_each, windows)]
    )
    pairs = zip(found.row.tolist(), found.other.tolist(), found.distance.tolist(), found.via.tolist(), strict=True)
    assert list(pairs) == [(1, 0, 0, 1), (3, 0, 1, 2), (3, 1, 1, 3)]


def test_a_dense_group_gives_each_row_its_share_only():
    hashes = np.full(3_000, 99, np.int64)
    hashes[1_000:] ^= np.int64(1) << (np.arange(2_000) % 60)
    variants = Variants(np.repeat(hashes, 3), np.repeat(np.arange(3_000), 3))
    same = Variants(np.full(3_000, 5, np.int64), np.arange(3_000))
    found = candidates(hashes, np.arange(3_000), distance=10, most=5, variants=variants, further=[(same, None)])
    assert len(found.row) == 2_995 * 5 + 10
    assert found.other[found.row == 2_999].tolist() == [0, 1, 2, 3, 4]


def plain_rule(proposed, order, same, lineage):
    listed = {}
    for row, other in zip(proposed.row.tolist(), proposed.other.tolist(), strict=True):
        listed.setdefault(row, []).append(other)
    representative = [KEPT] * len(order)
    for row in np.argsort(order).tolist():
        for candidate in listed.get(row, []):
            leader = candidate if representative[candidate] == KEPT else representative[candidate]
            kin = lineage is not None and lineage[row] >= 0 and lineage[row] == lineage[leader]
            if not kin and same(row, leader):
                representative[row] = leader
                break
    return representative


@st.composite
def pictures(draw):
    """Candidates among random rows, and which pairs show the same picture: by hidden groups, or by a coin."""
    rows = draw(st.integers(1, 14))
    order = ranks(draw, rows)
    pairs = []
    for row in np.argsort(order).tolist():
        before = [other for other in range(rows) if order[other] < order[row]]
        listed = draw(st.lists(st.sampled_from(before), unique=True, max_size=4)) if before else []
        pairs += [(row, other, step, 0) for step, other in enumerate(listed)]
    proposed = Candidates(*np.array(pairs, np.int64).reshape(-1, 4).T)
    group = draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    odd = draw(st.integers(0, 50))

    def same(row: int, other: int) -> bool:
        low, high = sorted((row, other))
        return (group[row] == group[other]) != ((low * 31 + high * 17 + odd) % 7 == 0)

    lineage = np.array(draw(st.lists(st.integers(-1, 2), min_size=rows, max_size=rows)), np.int64)
    return proposed, order, same, draw(st.sampled_from([None, lineage]))


@given(st.data(), pictures())
@settings(max_examples=300, deadline=None)
def test_rounds_end_where_the_rule_ends_whatever_was_compared_when(data, case):
    proposed, order, same, lineage = case
    expected = plain_rule(proposed, order, same, lineage)
    # Some pairs are known from earlier runs; of what a round wants, only a part is compared before the next.
    row, other = np.nonzero(~np.eye(len(order), dtype=bool))
    known = data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row)))
    known = np.array(known, bool) & data.draw(st.booleans())
    pairs = list(zip(row[known].tolist(), other[known].tolist(), strict=True))
    for _ in range(500):
        one, two = np.array(pairs, np.int64).reshape(-1, 2).T
        checked = Checked(one, two, np.array([same(*pair) for pair in pairs], bool))
        found = next_round(proposed, order, checked, lineage)
        decided = found.representative != UNDECIDED
        assert found.representative[decided].tolist() == np.array(expected)[decided].tolist()
        if not len(found.row):
            break
        assert (order[found.other] < order[found.row]).all()
        wanted = list(zip(found.row.tolist(), found.other.tolist(), strict=True))
        assert not set(wanted) & set(pairs)
        pairs += wanted[: data.draw(st.integers(1, len(wanted)))]
    assert found.representative.tolist() == expected


def nearest_before(rows: int, most: int) -> Candidates:
    pairs = [(row, row - step, step, 0) for row in range(rows) for step in range(1, most + 1) if row >= step]
    return Candidates(*np.array(pairs, np.int64).T)


@pytest.mark.parametrize(
    ("same", "rounds", "compared"),
    [
        pytest.param(lambda row, other: row >= 0, 1, 1.0, id="all copies of one"),
        pytest.param(lambda row, other: row < 0, 9, 9.0, id="all different though alike"),
        pytest.param(lambda row, other: row - other <= 20, 80, 13.0, id="each like the twenty before"),
        pytest.param(lambda row, other: row // 5 == other // 5, 10, 9.1, id="fives"),
    ],
)
def test_rounds_and_comparisons_stay_few(same, rounds, compared):
    rows, seen, calls = 1_000, 0, 0

    def compare(row, other):
        nonlocal seen, calls
        seen, calls = seen + len(row), calls + 1
        return same(row, other)

    proposed = nearest_before(rows, 8)
    found = decide(proposed, np.arange(rows), compare)
    assert found.tolist() == plain_rule(proposed, np.arange(rows), same, None)
    assert calls <= rounds
    assert seen <= compared * rows


def test_a_duplicate_names_a_kept_row_though_only_a_duplicate_was_listed():
    proposed = Candidates(*np.array([[1, 0, 1, 0], [2, 1, 1, 0]]).T)
    found = decide(proposed, np.arange(3), lambda row, other: np.ones(len(row), bool))
    assert found.tolist() == [KEPT, 0, 0]


def test_candidates_of_another_order_are_refused():
    with pytest.raises(ValueError, match="another order"):
        next_round(nearest_before(3, 1), np.array([2, 1, 0]), NOTHING)
