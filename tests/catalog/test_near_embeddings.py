"""Embeddings by cosine, against a slow reference in whole numbers that compares every row with every kept one."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import duplicates, near_embeddings
from catalog.decisions import Duplicates
from catalog.deduplicate import decide_duplicates
from catalog.duplicates import KEPT
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.near_embeddings import alike, check_vectors, cluster_count
from tests.catalog.frames import Population
from tests.catalog.test_duplicates import ranks

WIDTH = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def turned(rows: np.ndarray, cosine: float | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vectors at a cosine from given ones, in any direction, before rounding."""
    rows = rows.astype(np.float64)
    aside = rng.normal(size=rows.shape)
    aside -= (aside * rows).sum(axis=1, keepdims=True) * rows / (rows * rows).sum(axis=1, keepdims=True)
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    share = np.reshape(cosine, (-1, 1))
    return unit(share * rows + np.sqrt(1 - share**2) * aside)


def families(seed: int, rows: int, parents: int = 3) -> np.ndarray:
    """Vectors that come in groups, at all distances from a few parents."""
    rng = np.random.default_rng(seed)
    heads = unit(rng.normal(size=(parents, WIDTH)))
    return turned(heads[rng.integers(0, parents, rows)], rng.choice([1, 0.999, 0.98, 0.95, 0.9], rows), rng)


def hashes(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, rows).astype(np.uint64)


def cosine_of(one: np.ndarray, two: np.ndarray) -> float:
    """The quotient of sums that nothing has rounded."""

    def dot(a: np.ndarray, b: np.ndarray) -> float:
        exact = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True))
        assert Fraction(float(exact)) == exact  # what the module promises of double precision
        return float(exact)

    return float(dot(one, two) / np.sqrt(dot(one, one) * dot(two, two)))


def reference(vectors: np.ndarray, order: np.ndarray, cosine: float, lineage: Any) -> tuple[list[int], list[int]]:
    """Every row against every kept row before it, as the words of `alike` say."""
    kept: list[int] = []
    representative, distance = [KEPT] * len(vectors), [-1] * len(vectors)
    for row in np.argsort(order).tolist():
        found = []
        for place, other in enumerate(kept):
            kin = lineage is not None and lineage[row] >= 0 and lineage[row] == lineage[other]
            if not kin and (value := cosine_of(vectors[row], vectors[other])) >= cosine:
                found.append((-value, place, other))
        if found:
            representative[row], distance[row] = min(found)[2], max(0, round((1 + min(found)[0]) * 10_000))
        else:
            kept.append(row)
    return representative, distance


@given(st.data(), st.integers(0, 2**32 - 1), st.integers(0, 14), st.sampled_from([0.9, 0.95, 0.98, 1.0]), st.booleans())
@settings(max_examples=60)
def test_with_one_cluster_alike_is_what_comparing_every_pair_says(
    data: Any, seed: int, rows: int, cosine: float, kin: bool
) -> None:
    vectors, order = families(seed, rows), ranks(data.draw, rows)
    lineage = np.array([data.draw(st.integers(-1, 1)) for _ in vectors], np.int64) if kin else None
    found = alike(vectors, order, cosine, hashes(rows), 1, lineage)
    assert (found.representative.tolist(), found.distance.tolist()) == reference(vectors, order, cosine, lineage)


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(2, 9), st.sampled_from([0.9, 0.98]))
@settings(max_examples=60)
def test_however_many_clusters_a_duplicate_names_a_kept_row_before_it_within_the_distance(
    seed: int, rows: int, clusters: int, cosine: float
) -> None:
    vectors, order = families(seed, rows, 8), np.random.default_rng(seed).permutation(rows)
    found = alike(vectors, order, cosine, hashes(rows), clusters)
    for row in np.flatnonzero(found.duplicate).tolist():
        leader = int(found.representative[row])
        value = cosine_of(vectors[row], vectors[leader])
        assert found.representative[leader] == KEPT
        assert order[leader] < order[row]
        assert value >= cosine
        assert found.distance[row] == max(0, round((1 - value) * 10_000))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2, 6]))
@settings(max_examples=60)
def test_how_the_rows_are_numbered_decides_nothing(seed: int, rows: int, clusters: int) -> None:
    vectors, hashed = families(seed, rows, 8), hashes(rows)
    moved = np.random.default_rng(seed + 1).permutation(rows)
    order = np.arange(rows)
    plain = alike(vectors, order, 0.95, hashed, clusters)
    other = alike(vectors[moved], order[moved], 0.95, hashed[moved], clusters)
    back = np.where(other.representative >= 0, moved[other.representative], KEPT)
    assert plain.representative[moved].tolist() == back.tolist()
    assert plain.distance[moved].tolist() == other.distance.tolist()
    homes = near_embeddings._homes(vectors, hashed, clusters)
    assert near_embeddings._homes(vectors[moved], hashed[moved], clusters).tolist() == homes[moved].tolist()


def test_neither_blocks_nor_halves_decide_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, order, hashed = families(1, 400, 12), np.random.default_rng(1).permutation(400), hashes(400)
    for clusters in (1, 5):
        plain = alike(vectors, order, 0.95, hashed, clusters)
        with monkeypatch.context() as changed:
            changed.setattr(near_embeddings, "_LEFT", 7)
            changed.setattr(near_embeddings, "_RIGHT", 11)
            changed.setattr(near_embeddings, "_AT_ONCE", 3)
            changed.setattr(duplicates, "_MOST_PAIRS", 50)
            other = alike(vectors, order, 0.95, hashed, clusters)
        assert 0 < plain.duplicate.sum() < 400
        assert plain.representative.tolist() == other.representative.tolist()
        assert plain.distance.tolist() == other.distance.tolist()


THREADS = """
import hashlib, numpy as np
from tests.catalog.test_near_embeddings import turned, unit, hashes
from catalog.near_embeddings import alike
rng = np.random.default_rng(3)
heads = unit(rng.normal(size=(1500, 256)) + 2 * rng.normal(size=(1, 256)))
vectors = np.concatenate([heads, turned(heads, 0.98, rng)])
found = alike(vectors, np.arange(3000), 0.98, hashes(3000), 12)
print(hashlib.sha256(found.representative.tobytes() + found.distance.tobytes()).hexdigest(), found.duplicate.sum())
"""


def test_threads_decide_nothing() -> None:
    said = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", THREADS], cwd=Path(__file__).parents[2], env=environment, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        said.add(done.stdout)
    assert len(said) == 1
    # Half of the copies, which stand at the threshold itself, round to its right side.
    assert 500 < int(said.pop().split()[1]) < 1000


def test_many_clusters_find_nearly_every_planted_pair() -> None:
    rng = np.random.default_rng(5)
    topics = unit(rng.normal(size=(60, 64)))
    heads = turned(topics[rng.integers(0, 60, 2000)], rng.uniform(0.1, 0.4, 2000), rng)
    vectors = np.concatenate([heads, turned(heads, 0.985, rng)])
    order = np.arange(4000)
    every = alike(vectors, order, 0.98, hashes(4000), 1)
    some = alike(vectors, order, 0.98, hashes(4000), 40)
    assert every.duplicate[2000:].all()
    # In its nearest cluster alone one of fifty pairs were parted.
    assert some.duplicate.sum() >= 0.995 * every.duplicate.sum()


def test_a_seed_says_which_clusters_there_are() -> None:
    vectors = families(2, 300, 30)
    homes = [near_embeddings._homes(vectors, hashes(300, seed), 8).tolist() for seed in (0, 0, 1)]
    assert homes[0] == homes[1] != homes[2]


def test_small_sets_are_compared_whole() -> None:
    assert [cluster_count(rows, None) for rows in (1, 20_000, 20_001, 100_000)] == [1, 1, 9, 40]
    assert [cluster_count(rows, 7) for rows in (3, 100_000)] == [3, 7]


@pytest.mark.parametrize(
    ("number", "first"), [(0.0, "0"), (np.nan, "no finite length"), (np.inf, "no finite length"), (1.0, "4")]
)
def test_what_is_no_vector_of_length_one_is_refused(number: float, first: str) -> None:
    vectors = np.concatenate([families(1, 3), np.full((2, WIDTH), number, np.float16)])
    with pytest.raises(UserError) as caught:
        check_vectors(vectors, "embedding")
    assert str(caught.value) == (
        f"embedding: 2 of 5 vectors are not of length 1, the first of {first}; "
        "`measure: embedding` writes unit vectors, or null where there is none"
    )


# -- the decision -----------------------------------------------------------------------------------------------------

SCHEMA = {
    "record_key": pl.String, "split_group": pl.String, "media_digest": pl.String, "embedding": pl.Binary,
    "pixels": pl.Int64,
}  # fmt: skip
PICTURES = Duplicates.model_validate({"decide": "duplicates", "order": ("pixels desc",), "near": {"cosine": 0.98}})


def towards(cosine: float, width: int = 8) -> bytes:
    """A vector at a cosine from the first axis."""
    return np.array([cosine, np.sqrt(1 - cosine**2)] + [0.0] * (width - 2), "<f2").tobytes()


def judge(rows: list[dict[str, Any]], buckets: Any = "0123456789abcdef", **near: Any) -> list[tuple[Any, ...]]:
    keys = [key_of(b"row %d" % n) for n in range(len(rows))]
    named = []
    for key, row in zip(keys, rows, strict=True):
        kin = {"split_group": keys[row["of"]]} if "of" in row else {}
        named.append(
            dict.fromkeys(SCHEMA) | {"record_key": key, "split_group": key} | kin
            | {name: value for name, value in row.items() if name != "of"}
        )  # fmt: skip
    decision = PICTURES.model_copy(update={"near": PICTURES.near.model_copy(update=near)})  # type: ignore[union-attr]
    found = {
        row["record_key"]: row
        for _, frame in decide_duplicates(
            decision, Population(pl.DataFrame(named, schema=SCHEMA), buckets), "media_digest", None
        )
        for row in frame.to_dicts()
    }
    place = {key: n for n, key in enumerate(keys)}
    return [
        (found[k]["state"], found[k]["reason"], place.get(found[k]["representative"]), found[k]["distance"])
        for k in keys
    ]


STAYS = ("passed", None, None, None)


def test_near_pictures_yield_to_the_first_in_the_order_and_say_how_far_they_are() -> None:
    rows = [
        {"pixels": 9, "embedding": towards(1.0)},
        {"pixels": 10, "embedding": towards(0.985)},
        {"pixels": 8, "embedding": towards(0.2)},
    ]
    assert judge(rows) == [("duplicate", "near", 1, 150), STAYS, STAYS]
    assert judge(rows, ("",)) == judge(rows)
    assert judge(rows, clusters=2, seed=4)[2] == STAYS


def test_a_picture_just_beyond_the_threshold_stays() -> None:
    assert judge([{"embedding": towards(1.0)}, {"embedding": towards(0.979)}]) == [STAYS, STAYS]


def test_a_record_is_no_duplicate_of_its_own_kin() -> None:
    rows = [{"pixels": 9, "embedding": towards(1.0)}, {"pixels": 8, "embedding": towards(1.0), "of": 0}]
    assert judge(rows) == [STAYS, STAYS]
    assert judge([*rows, {"pixels": 1, "embedding": towards(1.0)}])[2] == ("duplicate", "near", 0, 0)


def test_records_without_an_embedding_are_near_nothing() -> None:
    assert judge([{"embedding": None}, {"embedding": None}, {"embedding": towards(1.0)}]) == [STAYS] * 3
    assert judge([{"embedding": None}, {"embedding": None}]) == [STAYS] * 2
    assert judge([]) == []


def test_equal_pictures_leave_as_exact_and_follow_their_head() -> None:
    rows = [
        {"pixels": 9, "embedding": towards(1.0)},
        {"pixels": 8, "embedding": towards(0.99), "media_digest": "a"},
        {"pixels": 7, "embedding": towards(0.99), "media_digest": "a"},
    ]
    assert judge(rows) == [STAYS, ("duplicate", "near", 0, 100), ("duplicate", "exact", 0, 100)]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (towards(1.0, 16), r"embedding holds vectors of \[8, 16\] numbers; measure all records the same way"),
        (b"abc", r"embedding holds vectors of \[3, 16\] bytes; measure all records the same way"),
        (b"", r"embedding holds vectors of \[0, 16\] bytes; measure all records the same way"),
        (bytes(16), "embedding: 1 of 2 vectors are not of length 1, the first of 0; "),
    ],
)
def test_what_cannot_be_compared_is_refused(second: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        judge([{"embedding": towards(1.0)}, {"embedding": second}], ("",))


def test_vectors_of_two_lengths_in_two_buckets_are_refused() -> None:
    with pytest.raises(UserError, match=r"embedding holds vectors of \[8, 16\] numbers"):
        judge([{"embedding": towards(1.0)}] * 4 + [{"embedding": towards(1.0, 16)}] * 4)
