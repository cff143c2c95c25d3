"""Texts by signature, against a slow reference that compares every row with every kept one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.decisions import Duplicates
from catalog.deduplicate import decide_duplicates
from catalog.duplicates import KEPT
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.near_texts import Cut, alike, cut_for
from tests.catalog.frames import Population
from tests.catalog.test_duplicates import ranks

WIDTH = 32


def reference(signatures: Any, order: Any, cut: Cut, lineage: Any) -> tuple[list[int], list[int]]:
    """Every row against every kept row before it, as the words of `alike` say."""
    kept: list[int] = []
    representative, distance = [KEPT] * len(signatures), [-1] * len(signatures)
    for row in np.argsort(order).tolist():
        found = []
        for place, other in enumerate(kept):
            same = [a == b for a, b in zip(signatures[row], signatures[other], strict=True)]
            bands = [all(same[b * cut.rows : (b + 1) * cut.rows]) for b in range(cut.bands)]
            kin = lineage is not None and lineage[row] >= 0 and lineage[row] == lineage[other]
            if any(bands) and not kin:
                found.append((-sum(same), place, other))
        if found and -min(found)[0] >= cut.least:
            representative[row], distance[row] = min(found)[2], WIDTH + min(found)[0]
        else:
            kept.append(row)
    return representative, distance


@st.composite
def families(draw: Any) -> Any:
    """Signatures that come in groups: some numbers of a few parents changed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parents = rng.integers(0, 2**32, (3, WIDTH), dtype=np.uint32)
    rows = draw(st.integers(0, 18))
    signatures = parents[rng.integers(0, 3, rows)]
    for row in signatures:
        row[rng.random(WIDTH) < rng.choice([0, 0.05, 0.2, 0.35])] = 7
    return signatures


@given(st.data(), families(), st.sampled_from([0.6, 0.7, 0.8, 1.0]), st.booleans())
@settings(max_examples=200)
def test_alike_is_what_comparing_every_pair_says(data: Any, signatures: Any, jaccard: float, kin: bool) -> None:
    order = ranks(data.draw, len(signatures))
    lineage = np.array([data.draw(st.integers(-1, 1)) for _ in signatures], np.int64) if kin else None
    found = alike(signatures, order, jaccard, lineage)
    expected = reference(signatures, order, cut_for(jaccard, WIDTH), lineage)
    assert (found.representative.tolist(), found.distance.tolist()) == expected


@given(st.data(), families())
@settings(max_examples=60)
def test_how_the_rows_are_numbered_decides_nothing(data: Any, signatures: Any) -> None:
    rows = len(signatures)
    order = np.arange(rows)
    moved = np.array(data.draw(st.permutations(range(rows))), np.int64)
    plain, other = alike(signatures, order, 0.8), alike(signatures[moved], order[moved], 0.8)
    back = np.where(other.representative >= 0, moved[other.representative], KEPT) if rows else other.representative
    assert plain.representative[moved].tolist() == back.tolist()
    assert plain.distance[moved].tolist() == other.distance.tolist()


def test_the_cut_at_a_known_similarity() -> None:
    # 1 - (1 - 0.8^6)^21 = 0.998, with bands of 7 it were 0.986; 128 * 0.8 - 2.5 * sqrt(128 * 0.8 * 0.2) = 91.1
    assert cut_for(0.8, 128) == Cut(bands=21, rows=6, least=92)
    assert cut_for(1.0, 128) == Cut(bands=2, rows=64, least=128)


def test_too_short_a_signature_is_refused() -> None:
    with pytest.raises(UserError, match="16 permutations cannot tell"):
        cut_for(0.2, 16)


# -- the decision -----------------------------------------------------------------------------------------------------

SCHEMA = {
    "record_key": pl.String, "split_group": pl.String, "text_digest": pl.String, "minhash": pl.List(pl.Int64),
    "words": pl.Int64,
}  # fmt: skip
TEXTS = Duplicates.model_validate(
    {"decide": "duplicates", "exact": "text_digest", "order": ("words desc",), "near": {"jaccard": 0.8}}
)


def signed(changed: int = 0, parent: int = 1, width: int = 128) -> list[int]:
    """A signature of which so many numbers differ from its parent's, all in the last bands."""
    return [parent] * (width - changed) + [parent + 1000 + changed] * changed


def judge(rows: list[dict[str, Any]], buckets: Any = "0123456789abcdef") -> list[tuple[Any, ...]]:
    keys = [key_of(b"row %d" % n) for n in range(len(rows))]
    named = [dict.fromkeys(SCHEMA) | {"record_key": k, "split_group": k} | r for k, r in zip(keys, rows, strict=True)]
    population = Population(pl.DataFrame(named, schema=SCHEMA), buckets)
    found = {
        row["record_key"]: row
        for _, frame in decide_duplicates(TEXTS, population, "media_digest", None)
        for row in frame.to_dicts()
    }
    place = {key: n for n, key in enumerate(keys)}
    leaders = [place.get(found[key]["representative"]) for key in keys]
    return [
        (found[key]["state"], found[key]["reason"], leader, found[key]["distance"])
        for key, leader in zip(keys, leaders, strict=True)
    ]


STAYS = ("passed", None, None, None)


def test_near_texts_yield_to_the_first_in_the_order_and_say_how_far_they_are() -> None:
    rows = [
        {"words": 9, "minhash": signed()},
        {"words": 10, "minhash": signed(36)},
        {"words": 8, "minhash": signed(parent=2)},
    ]
    assert judge(rows) == [("duplicate", "near", 1, 36), STAYS, STAYS]
    assert judge(rows, ("",)) == judge(rows)


def test_a_text_just_beyond_the_cut_stays() -> None:
    assert judge([{"words": 9, "minhash": signed()}, {"words": 8, "minhash": signed(37)}]) == [STAYS, STAYS]


def test_equal_texts_are_exact_duplicates_by_the_named_column() -> None:
    rows = [{"words": 3, "text_digest": digest, "minhash": signed(parent=n)} for n, digest in enumerate("aab")]
    said = judge(rows)
    assert sorted(said[:2], key=str) == [("duplicate", "exact", said.index(STAYS), 0), STAYS]
    assert said[2] == STAYS


def test_texts_without_a_signature_are_near_nothing() -> None:
    assert judge([{"minhash": None}, {"minhash": None}, {"minhash": signed()}]) == [STAYS] * 3
    assert judge([{"minhash": None}, {"minhash": None}]) == [STAYS] * 2


def test_signatures_of_different_lengths_are_refused() -> None:
    with pytest.raises(UserError, match=r"minhash holds signatures of \[64, 128\] numbers"):
        judge([{"minhash": signed()}, {"minhash": signed(width=64)}])
