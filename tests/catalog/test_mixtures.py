"""A mixture is decided from samples alone: who matches, how often, and the same whatever the order of anything."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import cache
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import schemas
from catalog.apportion import exact, within
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.mixtures import Mixture, decide
from catalog.stages import Part, Stage
from catalog.store import Snapshot

Row = dict[str, Any]


def row(number: int, corpus: str = "a", **given: Any) -> Row:
    """A sample; `source` is its record's."""
    return {
        "sample_key": key_of(f"sample {corpus} {number}".encode()), "record_key": key_of(f"record {number}".encode()),
        "task": "document", "resolution": 0, "template": "t/v1", "variant": "main", "split": "train",
        "licence": "MIT", "generation": 0, "shard": "s", "position": 0, "text_tokens": 10 + number % 7,
        "image_tokens": 0, "digest": "d", "outcome": "o", "source": "here", "corpus": corpus, **given,
    }  # fmt: skip


class Listed:
    """A table of rows in place of a stored one."""

    def __init__(self, name: str, schema: pa.Schema, rows: list[Row]) -> None:
        self.name, self.schema = name, schema
        plain = [{column: row.get(column) for column in schema.names} for row in rows]
        self._frame = pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(plain, schema)))

    def scan(
        self, columns: list[str] | None = None, bucket: str | None = None, version: int | None = None
    ) -> pl.LazyFrame:
        """Rows of a bucket of sample keys, or all."""
        frame = self._frame if bucket is None else self._frame.filter(pl.col("sample_key").str.starts_with(bucket))
        return frame.lazy().select(columns or self.schema.names)


class Catalog:
    """What deciding asks of a view, over rows in memory."""

    def __init__(self, rows: list[Row], buckets: int = 1) -> None:
        self.buckets = [f"{number:x}" for number in range(buckets)] if buckets > 1 else [""]
        self._tables = {}
        for corpus in {row["corpus"] for row in rows}:
            mine = [row for row in rows if row["corpus"] == corpus]
            records = {row["record_key"]: row for row in mine}
            self._tables[f"{corpus}/samples"] = Listed(f"{corpus}/samples", schemas.SAMPLES, mine)
            sources = schemas.RECORDS.remove(schemas.RECORDS.get_field_index("media"))
            self._tables[f"{corpus}/records"] = Listed(f"{corpus}/records", sources, list(records.values()))

    @property
    def store(self) -> Catalog:
        return self

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(1, 1, dict.fromkeys(self._tables, 1))

    def samples(self, corpus: str) -> Listed:
        return self._tables[f"{corpus}/samples"]

    def records(self, corpus: str) -> Listed:
        return self._tables[f"{corpus}/records"]


def mixed(rows: list[Row], stage: dict[str, Any], name: str = "s", buckets: int = 1) -> tuple[Mixture, dict[str, int]]:
    """The mixture, and per sample key its copies."""
    mixture = decide(Catalog(rows, buckets), name, Stage.model_validate(stage))  # type: ignore[arg-type]
    frame = pl.concat([frame for _, frame in mixture.rows()])
    return mixture, dict(frame.select("sample_key", "copies").rows())


def part(weight: float = 1, **given: Any) -> dict[str, Any]:
    return {"corpus": "a", "task": "document", "weight": weight, **given}


def pool(source: str, count: int, first: int = 0) -> list[Row]:
    return [row(first + number, source=source) for number in range(count)]


STAGES = st.fixed_dictionaries(
    {
        "unit": st.sampled_from(["samples", "tokens"]),
        "parts": st.dictionaries(
            st.sampled_from(["one", "two", "three"]),
            st.fixed_dictionaries(
                {
                    "weight": st.sampled_from([0.1, 0.5, 1, 2, 3.7]),
                    "epochs": st.sampled_from([0.5, 1, 1.5, 2.5, 4]),
                    "quota": st.sampled_from([None, 3, 10]),
                }
            ),
            min_size=1,
        ),
    }
)
ROWS = [*pool("one", 8), *pool("two", 21, 100), *pool("three", 13, 200)]


def written(stage: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {**stage, "parts": {name: part(source=name, **facts) for name, facts in stage["parts"].items()}, **given}


@settings(max_examples=40)
@given(STAGES)
def test_copies_stay_within_epochs_and_quotas_and_weights_are_reached(stage: dict[str, Any]) -> None:
    mixture, copies = mixed(ROWS, written(stage))
    facts, parts = mixture.facts, Stage.model_validate(written(stage)).parts
    weights = [exact(one.weight) for one in parts.values()]
    for place, (told, asked) in enumerate(zip(facts.parts, parts.values(), strict=True)):
        mine = {r["sample_key"]: copies.get(r["sample_key"], 0) for r in ROWS if r["source"] == told.name}
        held = [count for count in mine.values() if count]
        assert (told.pool, told.chosen, told.copies) == (len(mine), len(held), sum(held))
        assert told.chosen <= told.drawable <= (asked.quota or told.pool)
        assert told.copies <= told.drawable * exact(asked.epochs)
        # Nobody comes a second time before everybody came once.
        drawable = held + [0] * (told.drawable - len(held))
        assert max(drawable) - min(drawable) <= 1
        if facts.unit == "samples":
            assert abs(told.copies - facts.total * weights[place] / sum(weights)) <= within(weights, place)
        else:
            level = min(tokens_of_all(name, one) / exact(one.weight) for name, one in parts.items())
            assert 0 <= level * weights[place] - told.tokens < 17
    assert facts.total == sum(one.copies if facts.unit == "samples" else one.tokens for one in facts.parts)


@cache
def tokens_of_all(name: str, asked: Part) -> Fraction:
    """Tokens of a part drawn to the last of its epochs, from a stage that draws it alone."""
    alone, _ = mixed(ROWS, {"parts": {name: asked.model_dump()}})
    return Fraction(alone.facts.parts[0].tokens)


@settings(max_examples=25)
@given(STAGES, st.data())
def test_a_larger_total_keeps_what_a_smaller_one_drew(stage: dict[str, Any], data: st.DataObject) -> None:
    most = mixed(ROWS, written(stage))[0].facts.total
    small, large = sorted(data.draw(st.tuples(st.integers(1, max(1, most)), st.integers(1, max(1, most)))))
    fewer, more = (mixed(ROWS, written(stage, total=total))[1] for total in (small, large))
    assert all(more.get(key, 0) >= count for key, count in fewer.items())


def test_a_higher_weight_keeps_what_a_lower_one_drew() -> None:
    rows = [*pool("one", 40), *pool("two", 40, 100)]
    drawn = [
        mixed(rows, {"total": 40, "parts": {"one": part(weight, source="one"), "two": part(source="two")}})[1]
        for weight in (0.25, 1, 2)
    ]
    ones = [{key for key in one if key in {r["sample_key"] for r in rows[:40]}} for one in drawn]
    assert ones[0] < ones[1] < ones[2]


def test_the_order_of_rows_and_the_number_of_buckets_decide_nothing() -> None:
    stage = written({"unit": "tokens", "parts": {"one": {"weight": 1, "epochs": 2.5}, "two": {"weight": 2}}})
    first, copies = mixed(ROWS, stage)
    shuffled = random.Random(3).sample(ROWS, len(ROWS))
    again, others = mixed(shuffled, stage, buckets=16)
    assert (first.facts, copies) == (again.facts, others)


def test_a_sample_that_is_gone_changes_nothing_about_the_order_of_the_others() -> None:
    stage = {"total": 30, "parts": {"all": part(epochs=2)}}
    rows = pool("one", 40)
    _, before = mixed(rows, stage)
    gone = min(before)
    _, after = mixed([r for r in rows if r["sample_key"] != gone], stage)
    assert before.keys() - after.keys() == {gone}
    assert len(after.keys() - before.keys()) == 1


def test_the_name_of_a_stage_or_its_salt_decides_who_is_drawn() -> None:
    stage = {"total": 10, "parts": {"all": part()}}
    rows = pool("one", 40)
    draws = [mixed(rows, stage, "s")[1], mixed(rows, stage, "t")[1], mixed(rows, {**stage, "salt": "s"}, "t")[1]]
    assert draws[0] == draws[2] != draws[1]


MATCHES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({}, {"split": "validation"}, False),
    ({}, {"task": "editing"}, False),
    ({"resolution": 512}, {"resolution": 512}, True),
    ({"resolution": 512}, {"resolution": 256}, False),
    ({"variant": "short"}, {"variant": "short"}, True),
    ({"variant": "short"}, {}, False),
    ({"source": "here"}, {}, True),
    ({"source": ["there", "here"]}, {}, True),
    ({"source": "there"}, {}, False),
    ({"where": "text_tokens >= 10"}, {}, True),
    ({"where": "text_tokens < 10"}, {}, False),
    ({"where": "licence = 'MIT' AND source <> 'there'"}, {}, True),
    ({"where": "licence = 'MIT'"}, {"licence": None}, False),
]


@pytest.mark.parametrize(("asked", "there", "held"), MATCHES, ids=[f"{a} {b}" for a, b, _ in MATCHES])
def test_a_part_matches(asked: dict[str, Any], there: dict[str, Any], held: bool) -> None:
    # One sample beside it always matches, so that the part is never empty.
    other = row(9999, corpus="b")
    parts = {"it": part(**asked, optional=True), "other": {**part(), "corpus": "b"}}
    mixture, _ = mixed([row(1, **there), other], {"parts": parts})
    assert mixture.facts.parts[0].pool == int(held)


def test_an_optional_part_without_samples_leaves_its_share_to_the_others() -> None:
    parts = {"one": part(1, source="one"), "two": part(3, source="two"), "none": part(4, source="none", optional=True)}
    facts = mixed(ROWS, {"total": 20, "parts": parts})[0].facts
    assert [told.copies for told in facts.parts] == [5, 15, 0]
    assert [told.asked for told in facts.parts] == [0.25, 0.75, 0]


def test_of_two_parts_that_match_the_first_draws_where_the_stage_says_so() -> None:
    parts = {"long": part(where="text_tokens >= 15"), "rest": part()}
    facts = mixed(ROWS, {"overlap": "first", "parts": parts})[0].facts
    long = sum(r["text_tokens"] >= 15 for r in ROWS)
    assert [told.pool for told in facts.parts] == [long, len(ROWS) - long]


def test_a_quota_leaves_the_samples_that_a_smaller_one_left_and_others() -> None:
    rows = pool("one", 30)
    small, large = (mixed(rows, {"parts": {"all": part(quota=quota)}})[1] for quota in (5, 12))
    assert (len(small), len(large)) == (5, 12)
    assert small.keys() < large.keys()
    _, first = mixed(rows, {"total": 5, "parts": {"all": part()}})
    assert first == small


def test_half_an_epoch_is_half_of_the_pool_and_two_and_a_half_are_five_halves() -> None:
    for epochs, wanted in ((0.5, {0: 10, 1: 10}), (2.5, {2: 10, 3: 10})):
        rows = pool("one", 20)
        _, copies = mixed(rows, {"parts": {"all": part(epochs=epochs)}})
        counts = [copies.get(r["sample_key"], 0) for r in rows]
        assert {count: counts.count(count) for count in set(counts)} == wanted


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"total": 100, "parts": {"one": part(source="one"), "two": part(3, source="two", epochs=4)}},
        "stages.s.parts.one: total 100 asks it for 25 samples, and 8 samples in 1 epochs give 8; say epochs: 3.13, "
        "less weight, or a total of at most 33",
    ),
    (
        {"unit": "tokens", "total": 1000, "parts": {"one": part(source="one")}},
        "stages.s.parts.one: total 1000 asks it for 1000 tokens, and 8 samples in 1 epochs give 101; say epochs: 9.91, "
        "less weight, or a total of at most 101",
    ),
    (
        {"parts": {"one": part(source="nowhere")}},
        "stages.s.parts.one: needs train samples of a that match it, and there are none; "
        "leave it out or say optional: true",
    ),
    (
        {"parts": {"one": part(source="one", epochs=0.1)}},
        "stages.s.parts.one: needs train samples of a that match it, and 8 x 0.1 epochs are less than one; "
        "leave it out or say optional: true",
    ),
    ({"parts": {"one": part(source="nowhere", optional=True)}}, "stages.s: no part has a sample to draw from"),
    (
        {"parts": {"long": part(where="text_tokens >= 12"), "short": part(where="text_tokens <= 13")}},
        "stages.s: parts long and short both match 11 samples; tell them apart, or say overlap: first",
    ),
]


@pytest.mark.parametrize(("stage", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_a_mixture_that_cannot_be_is_refused(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        mixed(ROWS, stage)
    assert str(refused.value) == message


def test_what_a_refusal_advises_works() -> None:
    stage = {"parts": {"one": part(source="one"), "two": part(3, source="two", epochs=4)}}
    assert mixed(ROWS, {**stage, "total": 33})[0].facts.total == 33
    with pytest.raises(UserError):
        mixed(ROWS, {**stage, "total": 34})
    stage["parts"]["one"]["epochs"] = 3.13
    assert mixed(ROWS, {**stage, "total": 100})[0].facts.total == 100


def test_one_sample_in_two_corpora_is_drawn_from_one() -> None:
    rows = [row(1), {**row(1), "corpus": "b"}]
    parts = {"here": part(), "there": {**part(), "corpus": "b"}}
    with pytest.raises(UserError, match="parts here and there both match 1 samples"):
        mixed(rows, {"parts": parts})
    parts["there"]["optional"] = True
    assert mixed(rows, {"overlap": "first", "parts": parts})[0].facts.total == 1
