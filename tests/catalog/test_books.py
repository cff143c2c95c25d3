"""The books: they balance exactly when every record that came in went out once, under a known state."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import schemas
from catalog.books import FINAL, STATES, Book, BooksError, check_all

states = st.sampled_from(STATES)
reasons = st.none() | st.sampled_from(["size", "sharp", "exact"])
leavings = st.lists(st.tuples(states, reasons), max_size=30)


def frame(rows: list[tuple[str, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"state": pl.String, "reason": pl.String}, orient="row")


def book(rows: list[tuple[str, str | None]], inputs: int, born: int) -> Book:
    account = Book("node", "decide", inputs, born)
    account.add(frame(rows))
    return account


@given(leavings, st.integers(0, 40), st.integers(0, 40))
def test_a_node_balances_exactly_when_in_and_born_equal_what_left(
    rows: list[tuple[str, str | None]], inputs: int, born: int
) -> None:
    account = book(rows, inputs, born)
    if inputs + born == len(rows):
        account.check()
    else:
        with pytest.raises(BooksError, match=rf"^node node: in {inputs} \+ born {born} is not "):
            account.check()


@given(leavings, st.data())
def test_losing_or_inventing_one_record_is_noticed(rows: list[tuple[str, str | None]], data: st.DataObject) -> None:
    book(rows, len(rows), 0).check()
    with pytest.raises(BooksError):
        book([*rows, data.draw(st.sampled_from(rows or [("passed", None)]))], len(rows), 0).check()
    if rows:
        gone = data.draw(st.integers(0, len(rows) - 1))
        with pytest.raises(BooksError):
            book(rows[:gone] + rows[gone + 1 :], len(rows), 0).check()


@given(st.lists(leavings, max_size=5))
def test_adding_bucket_by_bucket_equals_adding_all(parts: list[list[tuple[str, str | None]]]) -> None:
    whole = [row for part in parts for row in part]
    pieces = Book("node", "decide", len(whole), 0)
    for part in parts:
        pieces.add(frame(part))
    assert pieces == book(whole, len(whole), 0)
    assert pieces.counts == Counter(state for state, _ in whole)
    for state in STATES:
        counted = Counter(reason for other, reason in whole if other == state and reason is not None)
        assert pieces.reasons.get(state, Counter()) == counted


@given(leavings, st.integers(0, 9))
def test_a_row_of_the_table_reads_back(rows: list[tuple[str, str | None]], position: int) -> None:
    account = book(rows, 3, 4)
    row = account.row(position)
    assert list(row) == schemas.BOOKS.names
    stored = pa.Table.from_pylist([row], schema=schemas.BOOKS).to_pylist()[0]
    assert Book.from_row(stored) == account
    assert stored["position"] == position


def test_equal_books_are_written_alike_whatever_came_first() -> None:
    rows = [("dropped", "size"), ("passed", None), ("dropped", "sharp"), ("duplicate", "exact")]
    assert book(rows, 4, 0).row(0) == book(rows[::-1], 4, 0).row(0)


def test_an_unknown_state_does_not_balance() -> None:
    account = book([("passed", None)], 2, 0)
    account.counts["vanished"] += 1
    with pytest.raises(BooksError) as unbalanced:
        account.check()
    assert str(unbalanced.value) == "node node: in 2 + born 0 is not passed 1, vanished 1"


def test_a_node_that_lost_everything_says_nothing() -> None:
    with pytest.raises(BooksError, match=r"^node node: in 2 \+ born 1 is not nothing$"):
        Book("node", "decide", 2, 1).check()


finals = st.dictionaries(st.sampled_from(FINAL), st.integers(0, 20))


@given(finals, st.integers(0, 60), st.integers(0, 60))
def test_every_record_has_exactly_one_final_state(final: dict[str, int], inputs: int, born: int) -> None:
    if sum(final.values()) == inputs + born:
        check_all([], final, inputs, born)
    else:
        with pytest.raises(BooksError, match=rf"^{inputs} inputs and {born} born records have "):
            check_all([], final, inputs, born)


def test_one_unbalanced_node_fails_the_corpus() -> None:
    good, bad = book([("passed", None)], 1, 0), book([("passed", None)], 2, 0)
    check_all([good, good], {"kept": 1}, 1, 0)
    with pytest.raises(BooksError, match=r"^node node"):
        check_all([good, bad], {"kept": 1}, 1, 0)


def test_passed_is_no_final_state() -> None:
    with pytest.raises(BooksError, match="final states"):
        check_all([], {"passed": 1}, 1, 0)
