"""The duplicates decision over a whole corpus, against a slow oracle that follows the words of the recipe."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.decisions import Duplicates, Near
from catalog.deduplicate import decide_duplicates
from catalog.keys import key_of
from tests.catalog.frames import Population

SCHEMA = {
    "record_key": pl.String,
    "split_group": pl.String,
    "digest": pl.String,
    "phash": pl.Int64,
    "mirrored": pl.Int64,
    "crops": pl.List(pl.Int64),
    "pixels": pl.Int64,
    "url": pl.String,
}
Rows = list[dict[str, Any]]


def keyed(n: int) -> str:
    return key_of(b"row %d" % n)


def frame(rows: Rows) -> pl.DataFrame:
    named = [
        dict.fromkeys(SCHEMA) | {"record_key": keyed(n), "split_group": keyed(n), "crops": [], "phash": n << 40} | row
        for n, row in enumerate(rows)
    ]
    return pl.DataFrame(named, schema=SCHEMA)


def judge(decision: Duplicates, rows: Rows, compare: Any = None, buckets: Any = "0123456789abcdef") -> Rows:
    """Verdicts in the order of `rows`."""
    found: dict[str, dict[str, Any]] = {}
    for bucket, verdicts in decide_duplicates(decision, Population(frame(rows), buckets), "digest", compare):
        for row in verdicts.to_dicts():
            assert row["record_key"].startswith(bucket)
            assert row["record_key"] not in found
            found[row["record_key"]] = row
    assert len(found) == len(rows)
    return [found[keyed(n)] for n in range(len(rows))]


def said(verdict: dict[str, Any]) -> tuple[Any, ...]:
    return verdict["state"], verdict["reason"], verdict["representative"], verdict["distance"]


KEPT = ("passed", None, None, None)


def duplicates(**given: Any) -> Duplicates:
    return Duplicates(decide="duplicates", **given)


def in_key_order(*numbers: int) -> list[int]:
    return sorted(numbers, key=keyed)


# -- the oracle -------------------------------------------------------------------------------------------------------


def order_of(decision: Duplicates, rows: Rows) -> list[int]:
    """Row numbers in the stated order: nulls last, ties by key."""
    numbers = in_key_order(*range(len(rows)))
    for item in reversed(decision.order):
        column, descending = item.split()[0], item.endswith(" desc")
        present = [n for n in numbers if rows[n].get(column) is not None]
        absent = [n for n in numbers if rows[n].get(column) is None]
        present.sort(key=lambda n: rows[n][column], reverse=descending)
        if descending:
            # Equal rows keep their order under a reversed sort too.
            present = sorted(present, key=lambda n: -rows[n][column])
        numbers = present + absent
    return numbers


def oracle(decision: Duplicates, rows: Rows) -> list[tuple[Any, ...]]:
    """Placeholders, then exact, then near duplicates without verification, as the recipe's words say."""
    said: dict[int, tuple[Any, ...]] = {}
    if decision.placeholder_sources is not None:
        sources: dict[str, set[str]] = {}
        for row in rows:
            if row.get("digest") is not None and row.get("url") is not None:
                sources.setdefault(row["digest"], set()).add(row["url"])
        for n, row in enumerate(rows):
            if len(sources.get(row.get("digest") or "", ())) >= decision.placeholder_sources:
                said[n] = ("dropped", "placeholder", None, None)
    first: dict[str, int] = {}
    twins: dict[int, int] = {}
    visited = [n for n in order_of(decision, rows) if n not in said]
    if decision.exact:
        for n in visited:
            digest = rows[n].get("digest")
            if digest is not None and first.setdefault(digest, n) != n:
                twins[n] = first[digest]
    kept: list[int] = []
    leader: dict[int, tuple[int, int]] = {}
    for rank, n in enumerate(visited):
        if n in twins:
            continue
        hash_n = rows[n].get("phash", n << 40)
        near = []
        if decision.near is not None and hash_n is not None:
            for place, m in enumerate(kept):
                hash_m = rows[m].get("phash", m << 40)
                bits = 65 if hash_m is None else bin((hash_n ^ hash_m) & (2**64 - 1)).count("1")
                if bits <= decision.near.distance:
                    near.append((bits, place, m))
        assert rank >= 0
        if near:
            bits, _, m = min(near)
            leader[n] = (m, bits)
            said[n] = ("duplicate", "near", keyed(m), bits)
        else:
            kept.append(n)
            said[n] = KEPT
    for n, head in twins.items():
        m, bits = leader.get(head, (head, 0))
        said[n] = ("duplicate", "exact", keyed(m), bits)
    return [said[n] for n in range(len(rows))]


digests = st.none() | st.sampled_from(["d1", "d2", "d3"])
hashes = st.none() | st.sampled_from([0, 1, 3, 7, 15, 255, -1, -2, 2**62, -(2**63)])
some_rows = st.lists(
    st.fixed_dictionaries(
        {
            "digest": digests,
            "phash": hashes,
            "pixels": st.none() | st.integers(0, 3),
            "url": st.none() | st.sampled_from("uvw"),
        }
    ),
    max_size=14,
)
orders = st.sampled_from([(), ("pixels",), ("pixels desc",), ("url", "pixels desc"), ("phash desc",)])


@given(some_rows, orders, st.booleans(), st.none() | st.integers(2, 3), st.none() | st.integers(0, 4))
@settings(max_examples=150)
def test_verdicts_follow_the_words_of_the_recipe(
    rows: Rows, order: tuple[str, ...], exact: bool, placeholder: int | None, distance: int | None
) -> None:
    decision = duplicates(
        order=() if order[:1] == ("url",) else order,
        exact=exact,
        placeholder_sources=placeholder,
        near=None if distance is None else Near(distance=distance),
    )
    assert [said(verdict) for verdict in judge(decision, rows, buckets=("",))] == oracle(decision, rows)


@given(some_rows, st.integers(0, 4))
@settings(max_examples=60)
def test_a_duplicate_names_a_kept_record_within_the_distance(rows: Rows, distance: int) -> None:
    verdicts = judge(duplicates(order=("pixels desc",), near=Near(distance=distance)), rows, buckets=("",))
    by_key = {keyed(n): (row, verdict) for n, (row, verdict) in enumerate(zip(rows, verdicts, strict=True))}
    for row, verdict in by_key.values():
        if verdict["state"] == "duplicate":
            leader, its = by_key[verdict["representative"]]
            assert its["state"] == "passed"
            if verdict["reason"] == "near":
                assert bin((row["phash"] ^ leader["phash"]) & (2**64 - 1)).count("1") == verdict["distance"] <= distance


@given(some_rows)
@settings(max_examples=30)
def test_how_records_are_cut_into_buckets_decides_nothing(rows: Rows) -> None:
    decision = duplicates(order=("pixels desc",), placeholder_sources=2, near=Near(distance=2))
    assert judge(decision, rows, buckets=("",)) == judge(decision, rows)


# -- one by one -------------------------------------------------------------------------------------------------------


def test_nobody_there_is_fine() -> None:
    assert judge(duplicates(near=Near()), []) == []


def test_the_first_in_the_order_is_kept_and_ties_go_by_key() -> None:
    rows = [{"digest": "d", "pixels": pixels} for pixels in (1, 9, 9, None)]
    verdicts = judge(duplicates(order=("pixels desc",)), rows)
    winner, loser = in_key_order(1, 2)
    assert said(verdicts[winner]) == KEPT
    for n in (0, loser, 3):
        assert said(verdicts[n]) == ("duplicate", "exact", keyed(winner), 0)


def test_one_picture_under_many_sources_is_a_placeholder_and_nobody_is_kept() -> None:
    rows = [{"digest": "d", "url": url} for url in ("u", "v", "w")] + [{"digest": "e", "url": "u"}] * 3
    verdicts = judge(duplicates(placeholder_sources=3), rows)
    assert [said(verdict) for verdict in verdicts[:3]] == [("dropped", "placeholder", None, None)] * 3
    assert sorted(verdict["state"] for verdict in verdicts[3:]) == ["duplicate", "duplicate", "passed"]


def test_the_field_that_tells_sources_apart_may_be_an_order_too() -> None:
    rows = [{"digest": "d", "url": "v"}, {"digest": "d", "url": "u"}]
    verdicts = judge(duplicates(order=("url",), placeholder_sources=3), rows)
    assert [verdict["state"] for verdict in verdicts] == ["duplicate", "passed"]


def test_pictures_without_a_hash_are_near_nothing() -> None:
    rows = [{"phash": None, "digest": None}, {"phash": None, "digest": None}, {"phash": 0}, {"phash": 1}]
    verdicts = judge(duplicates(near=Near(distance=4)), rows)
    assert said(verdicts[0]) == said(verdicts[1]) == KEPT
    assert sorted(verdict["state"] for verdict in verdicts[2:]) == ["duplicate", "passed"]


def test_a_record_without_the_picture_equals_no_other() -> None:
    verdicts = judge(duplicates(placeholder_sources=2), [{"digest": None, "url": url} for url in "uvw"])
    assert [said(verdict) for verdict in verdicts] == [KEPT] * 3


def test_a_twin_follows_its_head_to_the_picture_the_head_is_near_to() -> None:
    rows = [
        {"phash": 0, "pixels": 9},
        {"phash": 1, "pixels": 8, "digest": "d"},
        {"phash": 1, "pixels": 7, "digest": "d"},
    ]
    verdicts = judge(duplicates(order=("pixels desc",), near=Near(distance=1)), rows)
    assert [said(verdict) for verdict in verdicts] == [
        KEPT,
        ("duplicate", "near", keyed(0), 1),
        ("duplicate", "exact", keyed(0), 1),
    ]


@pytest.mark.parametrize("near", [None, Near(distance=4)])
def test_pictures_of_one_root_are_never_duplicates_of_one_another(near: Near | None) -> None:
    root = keyed(0)
    rows = [{"digest": "d", "phash": 0, "split_group": root} for _ in range(4)]  # a root and three born of it
    rows.append({"digest": "d", "phash": 0, "pixels": 99})  # a stranger that comes last
    verdicts = judge(duplicates(order=("pixels",), near=near), [{"pixels": n} | row for n, row in enumerate(rows)])
    assert [said(verdict) for verdict in verdicts[:4]] == [KEPT] * 4
    assert said(verdicts[4]) == ("duplicate", "exact", keyed(0), 0)


def test_a_stranger_that_comes_first_takes_the_whole_family() -> None:
    root = keyed(1)
    rows: Rows = [{"digest": "d", "pixels": 0}]
    rows += [{"digest": "d", "pixels": 1, "split_group": root}, {"digest": "d", "pixels": 2, "split_group": root}]
    verdicts = judge(duplicates(order=("pixels",)), rows)
    assert [said(verdict) for verdict in verdicts] == [KEPT] + [("duplicate", "exact", keyed(0), 0)] * 2


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["d1", "d2", None]), st.sampled_from([0, 1, 2**62])), max_size=12
    ),
    st.booleans(),
)
@settings(max_examples=80)
def test_no_duplicate_is_kin_of_its_representative(some: list[tuple[int, str | None, int]], near: bool) -> None:
    roots = ["", "a" * 32, "b" * 32]
    rows = [
        {"digest": digest, "phash": phash, "pixels": n} | ({"split_group": roots[family]} if family else {})
        for n, (family, digest, phash) in enumerate(some)
    ]
    verdicts = judge(duplicates(order=("pixels",), near=Near(distance=2) if near else None), rows, buckets=("",))
    family_of = {keyed(n): family for n, (family, _, _) in enumerate(some)}
    state_of = {verdict["record_key"]: verdict["state"] for verdict in verdicts}
    for verdict in verdicts:
        if verdict["state"] == "duplicate":
            assert state_of[verdict["representative"]] == "passed"
            mine = family_of[verdict["record_key"]]
            assert mine == 0 or mine != family_of[verdict["representative"]]


# -- verified by comparing pictures -----------------------------------------------------------------------------------


class Eyes:
    """Compares pictures by a table of which look the same; remembers every pair it was asked."""

    def __init__(self, *same: set[int]) -> None:
        self.same = [{keyed(n) for n in some} for some in same]
        self.asked: list[frozenset[str]] = []

    def __call__(self, one: pl.Series, two: pl.Series) -> Any:
        assert len(one) == len(two) > 0
        pairs = [frozenset(pair) for pair in zip(one, two, strict=True)]
        self.asked += pairs
        return np.array([any(pair <= some for some in self.same) for pair in pairs])


VERIFIED = Near(distance=4, verify="same_picture", variants=("mirrored", "crops"))


def test_candidates_are_duplicates_only_if_they_show_the_same() -> None:
    rows = [{"phash": 0, "pixels": 0}, {"phash": 1, "pixels": 1}, {"phash": 3, "pixels": 2}]
    eyes = Eyes({0, 2})
    verdicts = judge(duplicates(order=("pixels",), near=VERIFIED), rows, eyes)
    assert [said(verdict) for verdict in verdicts] == [KEPT, KEPT, ("duplicate", "near", keyed(0), 2)]
    assert len(eyes.asked) == len(set(eyes.asked))


def test_mirrored_and_cropped_pictures_are_candidates_too() -> None:
    far, farther = 0x0F0F_0F0F_0F0F_0F0F, 0x00FF_00FF_00FF_00FF
    rows = [
        {"phash": 0, "pixels": 0, "mirrored": far, "crops": [farther, 5]},
        {"phash": far, "pixels": 1},
        {"phash": farther, "pixels": 2},
    ]
    verdicts = judge(duplicates(order=("pixels",), near=VERIFIED), rows, Eyes({0, 1}, {0, 2}))
    assert [(verdict["state"], verdict["representative"]) for verdict in verdicts] == [
        ("passed", None),
        ("duplicate", keyed(0)),
        ("duplicate", keyed(0)),
    ]


def test_pictures_without_a_hash_are_never_compared() -> None:
    eyes = Eyes({0, 1, 2})
    rows = [{"phash": None, "mirrored": 3}, {"phash": None, "mirrored": 3}, {"phash": 3}]
    verdicts = judge(duplicates(near=VERIFIED), rows, eyes)
    assert [said(verdict) for verdict in verdicts] == [KEPT] * 3
    assert eyes.asked == []


def test_exact_twins_are_never_compared() -> None:
    eyes = Eyes()
    verdicts = judge(duplicates(near=VERIFIED), [{"digest": "d", "phash": 5}] * 4, eyes)
    assert sorted(verdict["state"] for verdict in verdicts) == ["duplicate"] * 3 + ["passed"]
    assert eyes.asked == []


@pytest.mark.parametrize("near", [Near(), VERIFIED])
def test_a_corpus_without_any_hash_has_no_near_duplicates(near: Near) -> None:
    rows: Rows = [{"phash": None, "digest": digest} for digest in ("d", "d", "e")]
    verdicts = judge(duplicates(near=near), rows, Eyes({0, 1, 2}))
    assert sorted(verdict["state"] for verdict in verdicts) == ["duplicate", "passed", "passed"]
