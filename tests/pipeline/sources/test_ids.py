from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline.sources.ids as ids_module
from catalog.errors import UserError
from pipeline.sources.base import SourceRow
from pipeline.sources.ids import SeenIds, with_unique_ids
from tests.pipeline.sources.conftest import make

SMALL_IDS = st.lists(st.none() | st.sampled_from(["", "a", "b", "c", "d", "é"]) | st.text(max_size=2))


@given(values=SMALL_IDS, chunk=st.integers(1, 7), largest=st.integers(1, 8))
def test_every_repeat_names_the_first_and_only_repeats_are_refused(
    values: list[str | None], chunk: int, largest: int
) -> None:
    source = make("jsonl", manifest="m", map={"id": "id"}, on_bad_row="quarantine")
    rows = ((n, SourceRow(f"m:{n}", {"id": value})) for n, value in enumerate(values, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "_CHUNK", chunk)
        patch.setattr(ids_module, "_LARGEST_RUN", largest)
        found = list(with_unique_ids(source, rows, lambda n: f"line {n}"))
    assert [row.place for row in found] == [f"m:{n}" for n in range(1, len(values) + 1)]
    first: dict[str, int] = {}
    for number, (value, row) in enumerate(zip(values, found, strict=True), 1):
        if value is None or first.setdefault(value, number) == number:
            assert row.problem is None
        else:
            assert row.problem is not None
            assert row.problem[0] == "duplicate id"
            assert row.problem[1].endswith(f" stands in line {first[value]} already")


def test_an_earlier_repeat_is_reported_before_a_later_broken_line() -> None:
    def rows() -> Iterator[tuple[int, SourceRow]]:
        yield 1, SourceRow("m:1", {"id": "a"})
        yield 2, SourceRow("m:2", {"id": "a"})
        raise UserError("m:3: broken")

    found = with_unique_ids(make("jsonl", manifest="m", map={"id": "id"}), rows(), lambda n: f"line {n}")
    assert next(found).place == "m:1"
    with pytest.raises(UserError, match=r'^m:2: id "a" stands in line 1 already; fix the line'):
        next(found)


def test_rows_before_a_broken_line_still_come() -> None:
    def rows() -> Iterator[tuple[int, SourceRow]]:
        yield 1, SourceRow("m:1", {"id": "a"})
        raise UserError("m:2: broken")

    found = with_unique_ids(make("jsonl", manifest="m", map={"id": "id"}), rows(), str)
    assert next(found).place == "m:1"
    with pytest.raises(UserError, match=r"^m:2: broken$"):
        next(found)


def test_a_million_ids_take_little_memory() -> None:
    seen = SeenIds()
    for start in range(0, 100_000, 1000):
        assert seen.add([(f"id-{n}", n) for n in range(start, start + 1000)]) == [None] * 1000
    assert seen.add([("id-77777", 100_000)]) == [77777]
    assert sum(run.high.nbytes + run.low.nbytes + run.position.nbytes for run in seen._runs) == 2_400_000
