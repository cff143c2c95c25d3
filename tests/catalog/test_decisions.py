"""Decisions: routes, licences, splits and quotas are pure functions of what enters, cut into buckets as you like."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from catalog.decisions import (
    LEADING,
    AnyDecision,
    Duplicates,
    Licence,
    Quota,
    Route,
    Rules,
    Split,
    decide_licence,
    decide_quota,
    decide_route,
    decide_rules,
    decide_split,
    hash_rank,
)
from catalog.keys import key_of
from catalog.schemas import VERDICT
from tests.catalog.frames import Population

HEX = "0123456789abcdef"


def population(rows: list[dict[str, Any]], buckets: Any = ("",), **schema: Any) -> Population:
    named = [{"record_key": key_of(b"%d" % i), **row} for i, row in enumerate(rows)]
    return Population(pl.DataFrame(named, schema={"record_key": pl.String, **schema}), buckets)


def collect(verdicts: Iterator[tuple[str, pl.DataFrame]]) -> dict[str, dict[str, Any]]:
    found = {}
    for bucket, frame in verdicts:
        assert tuple(frame.columns[: len(LEADING)]) == LEADING
        for row in frame.to_dicts():
            assert row["record_key"].startswith(bucket)
            assert row["record_key"] not in found
            found[row["record_key"]] = row
    return found


def in_order(found: dict[str, dict[str, Any]], count: int) -> list[dict[str, Any]]:
    assert len(found) == count
    return [found[key_of(b"%d" % i)] for i in range(count)]


def test_the_leading_columns_are_those_of_the_schema() -> None:
    assert list(LEADING) == VERDICT.names


# -- rules ------------------------------------------------------------------------------------------------------------


def test_rules_keep_every_value_they_read() -> None:
    inputs = population([{"a": 1.0, "b": "x"}, {"a": 9.0, "b": None}], a=pl.Float64, b=pl.String)
    rules = [("small", "a < 5", "undecided"), ("named", "b = 'x'", "drop")]
    one, two = in_order(collect(decide_rules(rules, inputs, ["a", "b"])), 2)
    assert (one["state"], one["reason"], one["failing"], one["a"], one["b"]) == ("passed", None, [], 1.0, "x")
    assert (two["state"], two["reason"], two["failing"]) == ("dropped", "small", ["small", "named"])
    assert (two["a"], two["b"]) == (9.0, None)


def test_when_every_rule_is_skipped_all_pass() -> None:
    inputs = population([{}, {}])
    assert {row["state"] for row in collect(decide_rules([], inputs, [])).values()} == {"passed"}


# -- routes -----------------------------------------------------------------------------------------------------------


def test_a_record_takes_the_first_route_that_holds() -> None:
    route = Route(decide="route", routes={"large": "a >= 512", "small": "a >= 256"}, otherwise="tiny")
    inputs = population([{"a": value} for value in (600, 300, 100, None)], a=pl.Int64)
    found = in_order(collect(decide_route(route, inputs, ["a"])), 4)
    assert [(row["state"], row["value"], row["reason"]) for row in found] == [
        ("passed", "large", None),
        ("passed", "small", None),
        ("dropped", None, "tiny"),
        ("undecided", None, "large"),
    ]


def test_a_route_that_is_unknown_is_not_passed_over() -> None:
    route = Route(decide="route", routes={"large": "a >= 512", "rest": "b >= 0"})
    inputs = population([{"a": None, "b": 1}, {"a": None, "b": -1}, {"a": 600, "b": None}], a=pl.Int64, b=pl.Int64)
    found = in_order(collect(decide_route(route, inputs, ["a", "b"])), 3)
    assert [(row["state"], row["value"], row["reason"]) for row in found] == [
        ("undecided", None, "large"),
        ("undecided", None, "large"),
        ("passed", "large", None),
    ]


def test_no_number_takes_no_route() -> None:
    route = Route(decide="route", routes={"large": "a >= 512"})
    inputs = population([{"a": float("nan")}], a=pl.Float64)
    assert in_order(collect(decide_route(route, inputs, ["a"])), 1)[0]["state"] == "undecided"


# -- licences ---------------------------------------------------------------------------------------------------------

licences = st.sampled_from(["CC-BY-4.0", "CC-BY-SA-4.0", "CC0", "MIT", "mit", "a.b", "axb", "", "CC BY\n4", "[x]"])
patterns = st.sampled_from(["CC-BY-*", "*BY*", "CC*4*0", "MIT", "a.b", "?IT", "[!C]*", "CC0*", "*", "[[]x]", "x|MIT"])


@given(st.lists(st.none() | licences, max_size=8), st.lists(patterns, min_size=1, max_size=3))
def test_a_licence_is_allowed_exactly_when_a_pattern_matches_it(some: list[str | None], allow: list[str]) -> None:
    decision = Licence(decide="licence", allow=tuple(allow))
    inputs = population([{"licence": licence} for licence in some], licence=pl.String)
    for licence, row in zip(some, in_order(collect(decide_licence(decision, inputs)), len(some)), strict=True):
        if licence is None:
            wanted = ("dropped", "no licence")
        elif any(fnmatchcase(licence, pattern) for pattern in allow):
            wanted = ("passed", None)
        else:
            wanted = ("dropped", "licence")
        assert (row["state"], row["reason"], row["licence"]) == (*wanted, licence)


# -- splits -----------------------------------------------------------------------------------------------------------


def split_of(decision: Split, groups: list[str], buckets: Any = ("",)) -> list[str]:
    inputs = population([{"split_group": group} for group in groups], buckets, split_group=pl.String)
    found = in_order(collect(decide_split(decision, inputs)), len(groups))
    assert {row["state"] for row in found} <= {"passed"}
    return [row["value"] for row in found]


shares = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))


@given(shares, st.lists(st.integers(0, 15), max_size=40), st.text(max_size=3))
def test_no_split_group_straddles_two_splits(share: tuple[float, float], groups: list[int], salt: str) -> None:
    decision = Split(decide="split", validation=share[0], test=share[1], salt=salt)
    keys = [key_of(b"group %d" % group) for group in groups]
    value_of: dict[str, set[str]] = defaultdict(set)
    for key, value in zip(keys, split_of(decision, keys), strict=True):
        value_of[key].add(value)
    assert all(len(values) == 1 for values in value_of.values())


@given(shares, st.lists(st.integers(0, 99), max_size=30, unique=True), st.data())
def test_a_record_keeps_its_split_whoever_else_is_there(
    share: tuple[float, float], groups: list[int], data: st.DataObject
) -> None:
    decision = Split(decide="split", validation=share[0], test=share[1])
    keys = [key_of(b"%d" % group) for group in groups]
    some = data.draw(st.permutations(keys)) if keys else []
    some = some[: len(keys) // 2]
    of_all = dict(zip(keys, split_of(decision, keys), strict=True))
    assert split_of(decision, some, HEX) == [of_all[key] for key in some]


@given(st.floats(0, 0.5), st.floats(0, 0.4), st.floats(0, 0.09))
def test_a_larger_share_only_adds(test: float, validation: float, more: float) -> None:
    """No picture that was in a test set is trained on because the shares changed at the far end."""
    keys = [key_of(b"%d" % n) for n in range(60)]
    one = split_of(Split(decide="split", test=test, validation=validation), keys)
    two = split_of(Split(decide="split", test=test, validation=validation + more), keys)
    for before, after in zip(one, two, strict=True):
        assert before == after or (before, after) == ("train", "validation")


def test_shares_come_out_as_asked() -> None:
    counts = Counter(
        split_of(Split(decide="split", validation=0.1, test=0.2), [key_of(b"%d" % n) for n in range(6000)])
    )
    assert counts["test"] / 6000 == pytest.approx(0.2, abs=0.02)
    assert counts["validation"] / 6000 == pytest.approx(0.1, abs=0.015)


def test_the_salt_deals_anew() -> None:
    keys = [key_of(b"%d" % n) for n in range(400)]
    one, two = (split_of(Split(decide="split", test=0.5, salt=salt), keys) for salt in ("a", "b"))
    assert 120 < sum(a == b for a, b in zip(one, two, strict=True)) < 280


def test_a_split_never_changes_between_versions() -> None:
    values = split_of(Split(decide="split", validation=0.25, test=0.25), [key_of(b"%d" % n) for n in range(24)])
    assert "".join(value[0] for value in values) == "ttttvtvtttvtvvttvtttttvt"


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValidationError, match="must leave something to train on"):
        Split(decide="split", validation=0.5, test=0.5)


# -- hashes -----------------------------------------------------------------------------------------------------------


def test_ranks_are_uniform_and_never_change_between_versions() -> None:
    keys = pl.Series([key_of(b"%d" % n) for n in range(4000)])
    ranks = hash_rank(keys, "salt")
    assert ranks[:3].tolist() == [1444116558230883147, 16433834361992552336, 5325277530558228034]
    assert len(np.unique(ranks)) == 4000
    counts, _ = np.histogram(ranks.astype(np.float64) / 2**64, bins=10, range=(0, 1))
    assert counts.min() > 330
    assert (hash_rank(keys, "other") < ranks).mean() == pytest.approx(0.5, abs=0.05)


# -- quotas -----------------------------------------------------------------------------------------------------------

strata = st.sampled_from(["cat", "dog", "owl", None])


@given(
    st.lists(strata, max_size=40),
    st.dictionaries(st.sampled_from(["cat", "dog", "null", "fox"]), st.integers(0, 9)),
    st.none() | st.integers(0, 6),
    st.text(max_size=2),
)
def test_a_quota_keeps_exactly_the_lowest_hashes_of_each_stratum(
    some: list[str | None], limits: dict[str, int], default: int | None, salt: str
) -> None:
    decision = Quota(decide="quota", by="kind", limits=limits, default=default, salt=salt)
    inputs = population([{"kind": kind} for kind in some], kind=pl.String)
    found = in_order(collect(decide_quota(decision, inputs)), len(some))
    ranks = hash_rank(pl.Series([row["record_key"] for row in found], dtype=pl.String), salt).tolist()
    for name in {kind or "null" for kind in some}:
        mine = sorted(
            (rank, row["state"]) for rank, row in zip(ranks, found, strict=True) if name == (row["kind"] or "null")
        )
        limit = limits.get(name, default)
        kept = len(mine) if limit is None else min(limit, len(mine))
        assert [state for _, state in mine] == ["passed"] * kept + ["dropped"] * (len(mine) - kept)
    for row in found:
        assert row["reason"] == (None if row["state"] == "passed" else f"quota {row['kind'] or 'null'}")


@given(st.lists(strata, max_size=30), st.integers(1, 9))
@settings(max_examples=30)
def test_a_larger_quota_only_adds(some: list[str | None], limit: int) -> None:
    inputs = population([{"kind": kind} for kind in some], kind=pl.String)
    kept = []
    for allowed in (limit, limit + 2):
        found = collect(decide_quota(Quota(decide="quota", by="kind", default=allowed), inputs))
        kept.append({key for key, row in found.items() if row["state"] == "passed"})
    assert kept[0] <= kept[1]


@given(
    st.lists(strata, max_size=60),
    st.dictionaries(st.sampled_from(["cat", "dog", "fox"]), st.sampled_from([0.05, 0.2, 0.3]), min_size=1),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.none() | st.integers(0, 12),
)
def test_boosted_strata_lose_nothing_and_others_go_until_the_share_is_reached(
    some: list[str | None], least: dict[str, float], most_cut: float, default: int | None
) -> None:
    inputs = population([{"kind": kind} for kind in some], kind=pl.String)
    plain = Quota(decide="quota", by="kind", default=default)
    before = collect(decide_quota(plain, inputs))
    after = collect(decide_quota(plain.model_copy(update={"least": least, "most_cut": most_cut}), inputs))
    entered = {key: row["kind"] or "null" for key, row in before.items() if row["state"] == "passed"}
    kept = {key: row["kind"] or "null" for key, row in after.items() if row["state"] == "passed"}
    assert kept.items() <= entered.items()
    assert all(key in kept for key, kind in entered.items() if kind in least)
    others, there = [sum(kind not in least for kind in found.values()) for found in (entered, kept)]
    counts = Counter(kept.values())
    wanted = {kind: share for kind, share in least.items() if counts[kind]}
    assert others - there <= others * most_cut
    if there < others:  # never more than it takes
        assert any(counts[kind] / (len(kept) + 1) < share for kind, share in wanted.items())
    if there > others - int(others * most_cut):  # never less
        assert all(counts[kind] / len(kept) >= share - 1e-9 for kind, share in wanted.items())


def test_a_stratum_without_records_asks_for_nothing() -> None:
    inputs = population([{"kind": "dog"}] * 9, kind=pl.String)
    found = collect(decide_quota(Quota(decide="quota", by="kind", least={"cat": 0.9}, most_cut=1), inputs))
    assert {row["state"] for row in found.values()} == {"passed"}


def test_a_quota_counts_strata_of_numbers_too() -> None:
    inputs = population([{"year": year} for year in (1999, 1999, 1999, 2001)], year=pl.Int64)
    found = in_order(collect(decide_quota(Quota(decide="quota", by="year", limits={"1999": 2}), inputs)), 4)
    assert Counter((row["year"], row["state"]) for row in found) == {
        (1999, "passed"): 2,
        (1999, "dropped"): 1,
        (2001, "passed"): 1,
    }


# -- what a recipe may write ------------------------------------------------------------------------------------------

ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyDecision)


def test_the_short_form_of_a_rule_is_its_condition() -> None:
    short = ADAPTER.validate_python({"decide": "rules", "rules": {"side": "a > 1"}})
    assert isinstance(short, Rules)
    assert short == ADAPTER.validate_python({"decide": "rules", "rules": {"side": {"keep": "a > 1"}}})


@pytest.mark.parametrize("order", ["pixels desc", "pixels", "pixels asc"])
def test_orders_are_columns_with_a_direction(order: str) -> None:
    assert Duplicates(decide="duplicates", order=(order,)).order == (order,)


@pytest.mark.parametrize(
    "bad",
    [
        {"decide": "coin"},
        {"decide": "rules", "rules": {}},
        {"decide": "route", "routes": {}},
        {"decide": "licence", "allow": []},
        {"decide": "split", "validation": 1.0},
        {"decide": "split", "test": -0.1},
        {"decide": "quota", "by": "x", "default": -1},
        {"decide": "quota", "by": "x", "least": {"cat": 0.0}},
        {"decide": "quota", "by": "x", "least": {"cat": 0.6, "dog": 0.4}},
        {"decide": "quota", "by": "x", "least": {"cat": 0.6}, "most_cut": 1.5},
        {"decide": "duplicates", "order": ["pixels downwards"]},
        {"decide": "duplicates", "near": {"distance": 17}},
        {"decide": "duplicates", "placeholder_sources": 1},
        {"decide": "split", "shares": 3},
    ],
)
def test_what_no_decision_means_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(bad)


@pytest.mark.parametrize("buckets", [[""], list(HEX), [a + b for a in HEX for b in HEX]])
def test_how_records_are_cut_into_buckets_decides_nothing(buckets: list[str]) -> None:
    rows = [{"kind": "ab"[n % 2], "a": n, "licence": "MIT", "split_group": key_of(b"%d" % (n // 2))} for n in range(50)]
    kinds = {"kind": pl.String, "a": pl.Int64, "licence": pl.String, "split_group": pl.String}

    def everything(buckets: Any) -> list[dict[str, dict[str, Any]]]:
        inputs = population(rows, buckets, **kinds)
        return [
            collect(decide_quota(Quota(decide="quota", by="kind", default=7), inputs)),
            collect(decide_quota(Quota(decide="quota", by="kind", least={"a": 0.8}), inputs)),
            collect(decide_split(Split(decide="split", test=0.3), inputs)),
            collect(decide_route(Route(decide="route", routes={"low": "a < 9"}), inputs, ["a"])),
            collect(decide_licence(Licence(decide="licence", allow=("M*",)), inputs)),
        ]

    assert everything(buckets) == everything(HEX)
