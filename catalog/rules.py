"""Rules: SQL conditions under which a record stays, three-valued and range-checked.

A condition made of atoms `column op literal` joined by AND, OR and NOT is checked against the declared ranges before
anything runs; other SQL is allowed and said to be unchecked. A null makes a rule undecided unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
import sqlglot
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
        raise UserError(f"{place}: {sql!r} is not a condition: {reason}") from None
    except sqlglot.errors.TokenError:
        raise UserError(f"{place}: {sql!r} is not a condition: check quotes and brackets") from None
    if not isinstance(tree, exp.Condition) or isinstance(tree, exp.Subquery) or tree.find(exp.Select):
        raise UserError(f"{place}: {sql!r} is not a condition; write one like `short_side >= 512`")
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
        return isinstance(tree.this, exp.Column) and all(isinstance(item, exp.Literal) for item in tree.expressions)
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
        .alias(f"__{name}")
        for name, sql, on_null in rules
        for held in [pl.sql_expr(sql).cast(pl.Boolean)]
    ]
    names = [name for name, _, _ in rules]
    judged = frame.with_columns(outcome)

    def first(kind: str) -> pl.Expr:
        return pl.coalesce(
            [
                pl.lit(None, dtype=pl.String),
                *(pl.when(pl.col(f"__{name}") == kind).then(pl.lit(name)) for name in names),
            ]
        )

    judged = judged.with_columns(
        first("drop").alias("__drop"),
        first("quarantine").alias("__quarantine"),
        first("undecided").alias("__undecided"),
    )
    failing = pl.concat_list(
        [pl.when(pl.col(f"__{name}") == "drop").then(pl.lit(name)) for name in names] or [pl.lit(None, dtype=pl.String)]
    ).list.drop_nulls()
    state = (
        pl.when(pl.col("__drop").is_not_null())
        .then(pl.lit("dropped"))
        .when(pl.col("__quarantine").is_not_null())
        .then(pl.lit("quarantined"))
        .when(pl.col("__undecided").is_not_null())
        .then(pl.lit("undecided"))
        .otherwise(pl.lit("passed"))
    )
    return judged.with_columns(
        state.alias("state"),
        pl.coalesce("__drop", "__quarantine", "__undecided").alias("reason"),
        failing.alias("failing"),
    ).select(pl.exclude("^__.*$"))
