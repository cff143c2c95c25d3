"""Rules: SQL conditions under which a record stays, three-valued and range-checked.

A condition made of atoms `column op literal` joined by AND, OR and NOT is checked against the declared ranges before
anything runs; other SQL is allowed and said to be unchecked. A null makes a rule undecided unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
import pyarrow as pa
import sqlglot
from polars import selectors
from pydantic import BaseModel, ConfigDict, Field
from sqlglot import exp

from catalog.columns import Column
from catalog.errors import UserError

OnNull = Literal["undecided", "drop", "keep", "quarantine"]
SKIP = "skip"


class Rule(BaseModel):
    """One named condition of a recipe.

    `keep` is the condition under which a record stays. `else` stands in when a column it reads cannot be measured here
    (no checkpoint): another condition, or `skip`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    keep: str
    on_null: OnNull = "undecided"
    otherwise: str | None = Field(default=None, alias="else")


@dataclass(frozen=True)
class Atom:
    """`column op literal`, the literal a number."""

    column: str
    op: str
    literal: float


@dataclass(frozen=True)
class Condition:
    """A parsed condition: the columns it reads, its numeric atoms, and whether all of it could be range-checked."""

    sql: str
    columns: tuple[str, ...]
    atoms: tuple[Atom, ...]
    checked: bool


_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.EQ: "=",
    exp.NEQ: "!=",
}
_MIRROR = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "=", "!=": "!="}


def parse(sql: str, place: str) -> Condition:
    """Parse a condition; raises UserError with the place when it is not one that polars and sqlglot read."""
    try:
        tree = sqlglot.parse_one(sql)
    except sqlglot.errors.ParseError as error:
        reason = error.errors[0]["description"] if error.errors else str(error)
        if reason.startswith("Required keyword"):
            reason = "something is missing beside an operator"
        raise UserError(f"{place}: {sql!r} is not a condition: {reason}") from None
    except sqlglot.errors.TokenError:
        raise UserError(f"{place}: {sql!r} is not a condition: check quotes and brackets") from None
    if not isinstance(tree, exp.Condition) or isinstance(tree, exp.Subquery) or tree.find(exp.Select):
        raise UserError(f"{place}: {sql!r} is not a condition; write one like `short_side >= 512`")
    beyond = next((node for node in tree.walk() if _looks_beyond(node)), None)
    if beyond is not None:
        raise UserError(f"{place}: {sql!r} is not a condition on one record: {beyond.sql()} looks beyond it")
    try:
        pl.sql_expr(sql)
    except Exception as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{place}: {sql!r} is not a condition polars reads: {first}") from None
    atoms: list[Atom] = []
    checked = _collect(tree, atoms)
    columns = tuple(sorted({column.name for column in tree.find_all(exp.Column)}))
    if not columns:
        raise UserError(f"{place}: {sql!r} reads no column")
    return Condition(sql, columns, tuple(atoms), checked)


_CLOCKS = (exp.CurrentDate, exp.CurrentDatetime, exp.CurrentTime, exp.CurrentTimestamp)
_BEYOND_NAMES = frozenset({"now", "today", "quantile_cont", "quantile_disc"})


def _looks_beyond(node: exp.Expr) -> bool:
    """Whether a part of a condition depends on other records, or on when it is asked."""
    if isinstance(node, exp.Anonymous):
        return node.name.lower() in _BEYOND_NAMES
    return isinstance(node, (exp.AggFunc, exp.Window, *_CLOCKS))


def _collect(tree: exp.Expr, atoms: list[Atom]) -> bool:  # noqa: PLR0911 - one per kind of node
    """Gather the numeric atoms below a node; False when something in it is beyond range-checking."""
    if isinstance(tree, (exp.And, exp.Or)):
        both = [_collect(tree.args[side], atoms) for side in ("this", "expression")]
        return all(both)
    if isinstance(tree, (exp.Not, exp.Paren)):
        return _collect(tree.this, atoms)
    if isinstance(tree, exp.Between):
        low, high = _number(tree.args["low"]), _number(tree.args["high"])
        if isinstance(tree.this, exp.Column) and low is not None and high is not None:
            atoms += [Atom(tree.this.name, ">=", low), Atom(tree.this.name, "<=", high)]
            return True
        return False
    op = _COMPARISONS.get(type(tree))
    if op is not None:
        left, right = tree.args["this"], tree.args["expression"]
        if isinstance(right, exp.Column) and not isinstance(left, exp.Column):
            left, right, op = right, left, _MIRROR[op]
        if isinstance(left, exp.Column):
            number = _number(right)
            if number is not None:
                atoms.append(Atom(left.name, op, number))
                return True
            return isinstance(right, (exp.Literal, exp.Boolean))
        return False
    if isinstance(tree, exp.In):
        items = [_number(item) for item in tree.expressions]
        if isinstance(tree.this, exp.Column):
            atoms += [Atom(tree.this.name, "=", item) for item in items if item is not None]
        literals = all(
            n is not None or isinstance(i, exp.Literal) for n, i in zip(items, tree.expressions, strict=True)
        )
        return isinstance(tree.this, exp.Column) and literals
    if isinstance(tree, exp.Is):
        return isinstance(tree.this, exp.Column)
    return isinstance(tree, (exp.Column, exp.Boolean))


def _number(tree: exp.Expr) -> float | None:
    if isinstance(tree, exp.Neg):
        inner = _number(tree.this)
        return None if inner is None else -inner
    if isinstance(tree, exp.Literal) and not tree.is_string:
        return float(tree.this)
    return None


def check_ranges(condition: Condition, columns: Mapping[str, Column], place: str) -> None:
    """Refuse atoms no value of the column's declared range can decide; raises UserError."""
    for atom in condition.atoms:
        column = columns.get(atom.column)
        if column is None:
            continue
        impossible = not column.holds(atom.literal)
        impossible |= atom.op == ">" and atom.literal == column.high
        impossible |= atom.op == "<" and atom.literal == column.low
        if impossible:
            raise UserError(
                f"{place}: {atom.column} {atom.op} {atom.literal:g} decides nothing: "
                f"{atom.column} ranges from {column.range_text}"
            )


def check_types(condition: Condition, columns: Mapping[str, Column], place: str) -> None:
    """Refuse conditions that compare a column with what its type cannot be compared with; raises UserError."""
    schema = pa.schema([(name, columns[name].type) for name in condition.columns if name in columns])
    frame = pl.DataFrame(pl.from_arrow(schema.empty_table()))
    try:
        found = frame.select(pl.sql_expr(condition.sql).alias("found")).to_series().dtype
    except pl.exceptions.PolarsError as error:
        types = ", ".join(f"{name} is {kind}" for name, kind in zip(schema.names, schema.types, strict=True))
        first = str(error).splitlines()[0]
        raise UserError(f"{place}: {condition.sql!r} cannot be evaluated: {first} ({types})") from None
    if found not in (pl.Boolean, pl.Null):
        raise UserError(f"{place}: {condition.sql!r} is a value of type {found}, not a condition; compare it")


def verdicts(frame: pl.DataFrame, rules: Sequence[tuple[str, str, OnNull]]) -> pl.DataFrame:
    """Apply (name, condition, on_null) rules to a frame with `record_key` and every column they read.

    Adds `state` (passed, dropped, quarantined, undecided), `reason` (the first rule that decides the state, in the
    given order) and `failing` (all rules that say drop). False outweighs null, as AND does.
    """
    kinds = {"keep": None, "drop": "drop", "quarantine": "quarantine", "undecided": "undecided"}
    outcome = [
        pl.when(held.is_null())
        .then(pl.lit(kinds[on_null], dtype=pl.String))
        .when(~held)
        .then(pl.lit("drop"))
        .otherwise(pl.lit(None, dtype=pl.String))
        .alias(f"__rule {i}")
        for i, (_, sql, on_null) in enumerate(rules)
        for held in [pl.sql_expr(sql).cast(pl.Boolean)]
    ]
    names = [name for name, _, _ in rules]
    # NaN > 60 is true in polars; what is no number must not decide.
    judged = frame.with_columns(selectors.float().fill_nan(None)).with_columns(outcome)

    def first(kind: str) -> pl.Expr:
        return pl.coalesce(
            [
                pl.lit(None, dtype=pl.String),
                *(pl.when(pl.col(f"__rule {i}") == kind).then(pl.lit(name)) for i, name in enumerate(names)),
            ]
        )

    judged = judged.with_columns(
        first("drop").alias("__rule drop"),
        first("quarantine").alias("__rule quarantine"),
        first("undecided").alias("__rule undecided"),
    )
    failing = pl.concat_list(
        [pl.when(pl.col(f"__rule {i}") == "drop").then(pl.lit(name)) for i, name in enumerate(names)]
        or [pl.lit(None, dtype=pl.String)]
    ).list.drop_nulls()
    state = (
        pl.when(pl.col("__rule drop").is_not_null())
        .then(pl.lit("dropped"))
        .when(pl.col("__rule quarantine").is_not_null())
        .then(pl.lit("quarantined"))
        .when(pl.col("__rule undecided").is_not_null())
        .then(pl.lit("undecided"))
        .otherwise(pl.lit("passed"))
    )
    return judged.with_columns(
        state.alias("state"),
        pl.coalesce("__rule drop", "__rule quarantine", "__rule undecided").alias("reason"),
        failing.alias("failing"),
    ).select(pl.exclude("^__rule .*$"))
