"""Weights become whole samples: exact totals, never beyond a capacity, and more never means fewer for anybody."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.apportion import apportion, copies_of, count_within, exact, greatest, within

FEW = settings(max_examples=40)
WEIGHTS = st.lists(st.fractions(Fraction(1, 20), 20, max_denominator=20), min_size=1, max_size=7)


@FEW
@given(WEIGHTS, st.integers(0, 500))
def test_a_total_is_shared_out_exactly_and_near_the_weights(weights: list[Fraction], total: int) -> None:
    counts = apportion(weights, total)
    assert sum(counts) == total
    for place, count in enumerate(counts):
        assert abs(count - total * weights[place] / sum(weights)) <= within(weights, place)


@FEW
@given(WEIGHTS, st.integers(0, 500))
def test_a_larger_total_takes_nothing_from_anybody(weights: list[Fraction], total: int) -> None:
    assert all(
        fewer <= more for fewer, more in zip(apportion(weights, total), apportion(weights, total + 1), strict=True)
    )


def by_largest_remainders(weights: list[Fraction], total: int) -> list[int]:
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda place: counts[place] - shares[place])
    for place in order[: total - sum(counts)]:
        counts[place] += 1
    return counts


def test_largest_remainders_would_take_a_sample_away() -> None:
    weights = [Fraction(weight) for weight in (6, 6, 2)]
    assert [by_largest_remainders(weights, total)[2] for total in (10, 11)] == [2, 1]
    assert [apportion(weights, total)[2] for total in (10, 11)] == [1, 1]


@FEW
@given(WEIGHTS, st.integers(1, 300), st.data())
def test_a_higher_weight_takes_nothing_from_its_part(weights: list[Fraction], total: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(weights) - 1))
    higher = [*weights]
    higher[place] += data.draw(st.fractions(0, 10, max_denominator=10))
    assert apportion(higher, total)[place] >= apportion(weights, total)[place]


@FEW
@given(
    st.lists(st.tuples(st.fractions(Fraction(1, 9), 20, max_denominator=9), st.integers(1, 60)), min_size=1, max_size=6)
)
def test_the_greatest_total_is_the_last_before_a_part_has_too_few(pairs: list[tuple[Fraction, int]]) -> None:
    weights, capacities = [weight for weight, _ in pairs], [capacity for _, capacity in pairs]
    counts = greatest(weights, capacities)
    assert all(count <= capacity for count, capacity in zip(counts, capacities, strict=True))
    assert apportion(weights, sum(counts)) == counts
    more = apportion(weights, sum(counts) + 1)
    assert any(count > capacity for count, capacity in zip(more, capacities, strict=True))


def test_a_weight_is_the_number_that_was_written() -> None:
    assert exact(0.1) == Fraction(1, 10)
    assert [exact(value) for value in (2.5, 3, 1e-7)] == [Fraction(5, 2), 3, Fraction(1, 10**7)]


RANKS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30)


@FEW
@given(RANKS, st.integers(0, 100))
def test_everybody_comes_once_before_anybody_comes_again(ranks: list[int], count: int) -> None:
    array = np.array(ranks, np.uint64)
    copies = copies_of(array, count)
    assert copies.sum() == count
    assert copies.max() - copies.min() <= 1
    assert (copies_of(array, count + 1) >= copies).all()
    ahead = array[copies > copies.min()]
    assert not len(ahead) or ahead.max() <= array[copies == copies.min()].min()


@FEW
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 50)), min_size=1, max_size=20), st.fractions(0, 3000)
)
def test_as_many_samples_as_fit_into_so_many_tokens(pairs: list[tuple[int, int]], most: Fraction) -> None:
    ranks, tokens = np.array([rank for rank, _ in pairs], np.uint64), np.array([size for _, size in pairs], np.int64)
    count = count_within(ranks, tokens, most)
    assert copies_of(ranks, count) @ tokens <= most
    assert copies_of(ranks, count + 1) @ tokens > most
