"""Rules: three-valued logic against an oracle in plain Python, declared ranges, and every refusal word for word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.columns import Column
from catalog.errors import UserError
from catalog.rules import Atom, Rule, check_ranges, check_types, parse, verdicts

SCHEMA = {"record_key": pl.String, "a": pl.Float64, "n": pl.Int64, "s": pl.String, "flag": pl.Boolean}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    named = [dict.fromkeys(SCHEMA) | {"record_key": f"{i:032x}"} | row for i, row in enumerate(rows)]
    return pl.DataFrame(named, schema=SCHEMA)


def held(sql: str, row: dict[str, Any]) -> bool | None:
    """What the product says of one record under one rule."""
    state = verdicts(frame([row]), [("rule", sql, "undecided")])["state"].item()
    return {"passed": True, "dropped": False, "undecided": None}[state]


# -- the oracle -------------------------------------------------------------------------------------------------------

Truth = bool | None


@dataclass(frozen=True)
class Expression:
    """SQL, and what it means in three values, for a row of plain Python values."""

    sql: str
    meaning: Any


def compare(column: str, op: str, literal: Any, sql: str) -> Expression:
    operations = {
        ">": lambda x, y: x > y,
        ">=": lambda x, y: x >= y,
        "<": lambda x, y: x < y,
        "<=": lambda x, y: x <= y,
        "=": lambda x, y: x == y,
        "!=": lambda x, y: x != y,
        "<>": lambda x, y: x != y,
    }

    def meaning(row: dict[str, Any]) -> Truth:
        value = row[column]
        return None if value is None else operations[op](value, literal)

    return Expression(sql, meaning)


def kleene_and(one: Truth, two: Truth) -> Truth:
    if one is False or two is False:
        return False
    return None if one is None or two is None else True


def kleene_not(one: Truth) -> Truth:
    return None if one is None else not one


ops = st.sampled_from([">", ">=", "<", "<=", "=", "!=", "<>"])
numbers = st.sampled_from([-2, 0, 1, 2.5, 7])
mirror = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "=", "!=": "!=", "<>": "<>"}


@st.composite
def atoms(draw: st.DrawFn) -> Expression:
    kind = draw(st.sampled_from(["number", "mirrored", "string", "flag", "between", "in", "null", "not null"]))
    column, op, number = draw(st.sampled_from("an")), draw(ops), draw(numbers)
    if kind == "number":
        return compare(column, op, number, f"{column} {op} {number}")
    if kind == "mirrored":
        return compare(column, mirror[op], number, f"{number} {op} {column}")
    if kind == "string":
        text = draw(st.sampled_from(["", "x", "it''s"]))
        return compare("s", op, text.replace("''", "'"), f"s {op} '{text}'")
    if kind == "flag":
        return Expression("flag", lambda row: row["flag"])
    if kind == "between":
        low, high = draw(numbers), draw(numbers)
        return Expression(
            f"{column} BETWEEN {low} AND {high}",
            lambda row: None if row[column] is None else low <= row[column] <= high,
        )
    if kind == "in":
        some = draw(st.lists(st.integers(-2, 7), min_size=1, max_size=3))
        texts = ", ".join(map(str, some))
        return Expression(f"n IN ({texts})", lambda row: None if row["n"] is None else row["n"] in some)
    if kind == "null":
        return Expression(f"{column} IS NULL", lambda row: row[column] is None)
    return Expression(f"{column} IS NOT NULL", lambda row: row[column] is not None)


def joined(one: Expression, two: Expression, word: str) -> Expression:
    if word == "AND":
        return Expression(f"({one.sql}) AND ({two.sql})", lambda row: kleene_and(one.meaning(row), two.meaning(row)))
    return Expression(
        f"({one.sql}) OR ({two.sql})",
        lambda row: kleene_not(kleene_and(kleene_not(one.meaning(row)), kleene_not(two.meaning(row)))),
    )


conditions = st.recursive(
    atoms(),
    lambda inner: (
        st.builds(joined, inner, inner, st.sampled_from(["AND", "OR"]))
        | inner.map(lambda e: Expression(f"NOT ({e.sql})", lambda row: kleene_not(e.meaning(row))))
    ),
    max_leaves=6,
)
rows = st.fixed_dictionaries(
    {
        "a": st.none() | st.sampled_from([-2.0, 0.0, 1.0, 2.5, 7.0, -0.0]),
        "n": st.none() | st.sampled_from([-2, 0, 1, 2, 7]),
        "s": st.none() | st.sampled_from(["", "x", "it's", "y"]),
        "flag": st.none() | st.booleans(),
    }
)
on_nulls = st.sampled_from(["undecided", "drop", "keep", "quarantine"])
# Names that could meet the words of the implementation.
names = st.sampled_from(["side", "drop", "quarantine", "undecided", "rule 0", "__drop", "a", "state", "^x$", "reason"])


@given(conditions, st.lists(rows, min_size=1, max_size=8))
def test_conditions_mean_what_they_mean_in_three_values(condition: Expression, some: list[dict[str, Any]]) -> None:
    found = verdicts(frame(some), [("rule", condition.sql, "undecided")])["state"].to_list()
    wanted = [{True: "passed", False: "dropped", None: "undecided"}[condition.meaning(row)] for row in some]
    assert found == wanted


@given(
    st.lists(st.tuples(names, conditions, on_nulls), max_size=5, unique_by=lambda rule: rule[0]),
    st.lists(rows, min_size=1, max_size=8),
)
def test_verdicts_name_every_failing_rule_in_order_and_charge_the_first(
    rules: list[tuple[str, Expression, Any]], some: list[dict[str, Any]]
) -> None:
    found = verdicts(frame(some), [(name, condition.sql, on_null) for name, condition, on_null in rules])
    for row, verdict in zip(some, found.to_dicts(), strict=True):
        says: dict[str, list[str]] = {"drop": [], "quarantine": [], "undecided": [], "keep": []}
        for name, condition, on_null in rules:
            truth = condition.meaning(row)
            says["keep" if truth else on_null if truth is None else "drop"].append(name)
        first = (says["drop"] + says["quarantine"] + says["undecided"] + [None])[0]
        state = (
            "dropped" if says["drop"] else "quarantined" if says["quarantine"] else
            "undecided" if says["undecided"] else "passed"
        )  # fmt: skip
        assert (verdict["state"], verdict["reason"], verdict["failing"]) == (state, first, says["drop"])
        assert {name: verdict[name] for name in row} == row


@pytest.mark.parametrize("one", [True, False, None])
@pytest.mark.parametrize("two", [True, False, None])
def test_the_truth_tables(one: Truth, two: Truth) -> None:
    row = {"flag": one, "n": {True: 1, False: 0, None: None}[two]}
    assert held("flag AND n = 1", row) == kleene_and(one, two)
    assert held("flag OR n = 1", row) == kleene_not(kleene_and(kleene_not(one), kleene_not(two)))
    assert held("NOT flag", row) == kleene_not(one)


@pytest.mark.parametrize("sql", ["a > 60", "a >= 60", "a < 60", "a != 60", "NOT a <= 60", "a BETWEEN 0 AND 100"])
def test_nothing_passes_because_it_is_no_number(sql: str) -> None:
    assert held(sql, {"a": math.nan}) is None


@given(st.lists(rows, max_size=20), conditions)
def test_a_verdict_depends_on_its_own_record_alone(some: list[dict[str, Any]], condition: Expression) -> None:
    rule = [("rule", condition.sql, "undecided")]
    alone = [verdicts(frame([row]), rule)["state"].item() for row in some]
    assert verdicts(frame(some), rule)["state"].to_list() == alone


# -- parsing ----------------------------------------------------------------------------------------------------------


@given(conditions)
def test_conditions_of_atoms_are_range_checked(condition: Expression) -> None:
    parsed = parse(condition.sql, "here")
    assert parsed.checked
    assert set(parsed.columns) <= set(SCHEMA)


@pytest.mark.parametrize(
    ("sql", "atoms"),
    [
        ("a > 1", [Atom("a", ">", 1)]),
        ("1 > a", [Atom("a", "<", 1)]),
        ("-1.5e2 <= a", [Atom("a", ">=", -150)]),
        ("NOT (a > 1 AND b != 2)", [Atom("a", ">", 1), Atom("b", "!=", 2)]),
        ("a BETWEEN 1 AND 2", [Atom("a", ">=", 1), Atom("a", "<=", 2)]),
        ("s = 'x' AND flag", []),
        ("a IS NULL OR s IN ('x', 'y')", []),
        ("a IN (1, -2)", [Atom("a", "=", 1), Atom("a", "=", -2)]),
    ],
)
def test_atoms_are_found_wherever_they_stand(sql: str, atoms: list[Atom]) -> None:
    parsed = parse(sql, "here")
    assert (list(parsed.atoms), parsed.checked) == (atoms, True)


@pytest.mark.parametrize("sql", ["a / b > 2", "a > b", "-a > 5", "upper(s) = 'X'", "s LIKE 'x%'", "a + 1 > 2"])
def test_other_sql_is_allowed_and_said_to_be_unchecked(sql: str) -> None:
    assert not parse(sql, "here").checked


BAD = [
    ("", "'' is not a condition: No expression was parsed from ''"),
    ("a >", "'a >' is not a condition: something is missing beside an operator"),
    ("a > 5 AND", "'a > 5 AND' is not a condition: something is missing beside an operator"),
    ("a > 1 )", "'a > 1 )' is not a condition: Invalid expression / Unexpected token"),
    ("a > 'x", '"a > \'x" is not a condition: check quotes and brackets'),
    ("a > 5; b < 2", "'a > 5; b < 2' is not a condition; write one like `short_side >= 512`"),
    ("a > 5 b", "'a > 5 b' is not a condition; write one like `short_side >= 512`"),
    ("SELECT 1", "'SELECT 1' is not a condition; write one like `short_side >= 512`"),
    ("a > (SELECT 1)", "'a > (SELECT 1)' is not a condition; write one like `short_side >= 512`"),
    ("drop table x", "'drop table x' is not a condition; write one like `short_side >= 512`"),
    ("*", "'*' is not a condition; write one like `short_side >= 512`"),
    ("true", "'true' reads no column"),
    ("5 > 3", "'5 > 3' reads no column"),
    ("nofunc(a) > 1", "'nofunc(a) > 1' is not a condition polars reads: unsupported function 'nofunc'"),
    ("a > ?", "'a > ?' is not a condition polars reads: value Placeholder(\"?\") is not a supported literal type"),
    ("a > avg(a)", "'a > avg(a)' is not a condition on one record: AVG(a) looks beyond it"),
    ("count(a) > 5", "'count(a) > 5' is not a condition on one record: COUNT(a) looks beyond it"),
    ("a > now()", "'a > now()' is not a condition on one record: NOW() looks beyond it"),
    ("a > current_date", "'a > current_date' is not a condition on one record: CURRENT_DATE looks beyond it"),
    (
        "quantile_cont(a, 0.5) > 1",
        "'quantile_cont(a, 0.5) > 1' is not a condition on one record: QUANTILE_CONT(a, 0.5) looks beyond it",
    ),
    (
        "rank() OVER (ORDER BY a) > 1",
        "'rank() OVER (ORDER BY a) > 1' is not a condition on one record: RANK() OVER (ORDER BY a) looks beyond it",
    ),
]


@pytest.mark.parametrize(("sql", "message"), BAD)
def test_what_is_no_condition_is_refused_in_one_line(sql: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(sql, "nodes.shape.rules.side")
    assert str(refused.value) == f"nodes.shape.rules.side: {message}"


# -- types and ranges -------------------------------------------------------------------------------------------------

COLUMNS = {
    column.name: column
    for column in (
        Column("artimuse", pa.float64(), "a score", 0, 10, "higher"),
        Column("side", pa.int64(), "pixels", 1, None),
        Column("free", pa.float64(), "anything"),
        Column("text", pa.string(), "a caption"),
        Column("flag", pa.bool_(), "yes or no"),
    )
}

RANGES = [
    ("artimuse > 60", "artimuse > 60 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse < 60", "artimuse < 60 decides nothing: artimuse ranges from 0 to 10"),
    ("60 < artimuse", "artimuse > 60 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse > -0.5", "artimuse > -0.5 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse > 10", "artimuse > 10 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse < 0", "artimuse < 0 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse = 11", "artimuse = 11 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse BETWEEN 5 AND 50", "artimuse <= 50 decides nothing: artimuse ranges from 0 to 10"),
    ("NOT (free > 3 OR artimuse > 60)", "artimuse > 60 decides nothing: artimuse ranges from 0 to 10"),
    ("artimuse IN (5, 50)", "artimuse = 50 decides nothing: artimuse ranges from 0 to 10"),
    ("side < 0", "side < 0 decides nothing: side ranges from 1 to inf"),
]


@pytest.mark.parametrize(("sql", "message"), RANGES)
def test_thresholds_outside_the_declared_range_are_refused(sql: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_ranges(parse(sql, "here"), COLUMNS, "here")
    assert str(refused.value) == f"here: {message}"


@pytest.mark.parametrize("sql", ["artimuse > 0", "artimuse >= 10", "artimuse <= 0", "side > 999999", "free > -1e30"])
def test_thresholds_at_the_ends_of_the_range_are_allowed(sql: str) -> None:
    check_ranges(parse(sql, "here"), COLUMNS, "here")


@given(st.sampled_from([">", ">=", "<", "<=", "="]), st.sampled_from([-1, 0, 0.5, 10, 11]))
def test_an_atom_is_refused_exactly_when_no_value_or_every_one_fits(op: str, literal: float) -> None:
    sql = f"artimuse {op} {literal}"
    values = [0, 0.25, 0.5, 0.75, 5, 9.5, 10]
    fits = {held(sql, {"a": float(value)}) for value in values for sql in [f"a {op} {literal}"]}
    always_true_at_the_end = (op, literal) in ((">=", 0), ("<=", 10))
    try:
        check_ranges(parse(sql, "here"), COLUMNS, "here")
        refused = False
    except UserError:
        refused = True
    assert refused == (len(fits) == 1 and not always_true_at_the_end)


TYPES = [
    (
        "text > 5",
        "'text > 5' cannot be evaluated: cannot compare string with numeric type (i32) (text is string)",
    ),
    (
        "side > '5'",
        "'side > '5'' cannot be evaluated: cannot compare string with numeric type (i64) (side is int64)",
    ),
    ("side", "'side' is a value of type Int64, not a condition; compare it"),
    ("text", "'text' is a value of type String, not a condition; compare it"),
    ("side + 1", "'side + 1' is a value of type Int64, not a condition; compare it"),
]


@pytest.mark.parametrize(("sql", "message"), TYPES)
def test_comparisons_across_types_are_refused_before_anything_runs(sql: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_types(parse(sql, "here"), COLUMNS, "here")
    assert str(refused.value).replace('"', "'") == f"here: {message}"


@pytest.mark.parametrize("sql", ["flag", "NOT flag", "flag = true", "text = 'x'", "side > 1.5", "artimuse = 3"])
def test_sound_comparisons_are_allowed(sql: str) -> None:
    check_types(parse(sql, "here"), COLUMNS, "here")


def test_the_rules_of_a_recipe_are_strict() -> None:
    assert Rule.model_validate({"keep": "a > 1", "else": "skip"}).otherwise == "skip"
    assert Rule.model_validate({"keep": "a > 1"}).on_null == "undecided"
    for bad in ({}, {"keep": "a > 1", "on_null": "pass"}, {"keep": "a > 1", "when": "x"}, {"keep": 5}):
        with pytest.raises(ValidationError):
            Rule.model_validate(bad)
