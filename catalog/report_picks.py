"""Which pictures a report shows: a few that stand for many, the same ones every time. No pixels here.

Keys are hashes, so the lowest keys of a group are a fair sample of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl
import sqlglot
from sqlglot import exp

from catalog import schemas
from catalog.report_values import rule_conditions
from catalog.rules import Atom, parse
from catalog.view import View

MOST_BESIDE = 2
"""Media of a record that are shown beside its first."""


@dataclass(frozen=True)
class Caps:
    """How many pictures are shown at most."""

    kept: int = 24
    per_side: int = 3
    """Of a threshold: on each side of it."""
    per_reason: int = 6
    pairs: int = 6
    """Duplicates of one kind."""
    quarantined: int = 24
    groups: int = 24
    """Rules and reasons that are shown with pictures."""


@dataclass(frozen=True)
class Group:
    """Records that left for one reason, and some of them."""

    node: str
    state: str
    reason: str
    count: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Near:
    """A record close to a threshold; `holds` says whether it passes the rule."""

    key: str
    value: float
    holds: bool


@dataclass(frozen=True)
class Borderline:
    """Records nearest to one threshold, sorted by value."""

    node: str
    rule: str
    condition: str
    atom: Atom
    records: tuple[Near, ...]


@dataclass(frozen=True)
class Pair:
    """A duplicate and the kept record it is a duplicate of; `distance` in bits, None when it has none."""

    node: str
    kind: str
    key: str
    representative: str
    distance: int | None


@dataclass(frozen=True)
class Pictured:
    """What is told beside a picture. `values` is every value a decision read, `failing` every rule that says drop."""

    key: str
    source: str
    place: str | None
    licence: str | None
    state: str | None
    node: str | None
    reason: str | None
    message: str | None
    media: dict[str, Any] | None
    texts: dict[str, str]
    beside: tuple[dict[str, Any], ...] = ()
    """Further media that are shown beside it: the target of an edit, more frames."""
    values: dict[str, Any] = field(default_factory=dict)
    failing: tuple[str, ...] = ()


def borderlines(view: View, corpus: str, per_side: int, most: int) -> list[Borderline]:
    """For each threshold of each rule the records nearest to it, on both sides; ties by key.

    Where a rule makes several comparisons, only records for which this one decides are taken.
    """
    found: list[Borderline] = []
    for name, facts in view.nodes(corpus).items():
        table = view.node_table(corpus, name)
        if facts["kind"] != "decide" or table is None:
            continue
        columns = table.collect_schema()
        for rule, sql in rule_conditions(facts):
            atoms = parse(sql, f"{name}.{rule}").atoms
            for atom in atoms:
                kind = columns.get(atom.column)
                if kind is None or not kind.is_numeric() or len(found) == most:
                    continue
                if atom.op == "=" and sum(other.column == atom.column for other in atoms) > 1:
                    # One value of several that are allowed has no failing side.
                    continue
                near = _nearest(table, sql, atom, per_side)
                if near:
                    found.append(Borderline(name, rule, sql, atom, near))
    return found


def _nearest(table: pl.LazyFrame, sql: str, atom: Atom, per_side: int) -> tuple[Near, ...]:
    value = pl.col(atom.column).cast(pl.Float64)
    meets = {
        ">": value > atom.literal,
        ">=": value >= atom.literal,
        "<": value < atom.literal,
        "<=": value <= atom.literal,
        "=": value == atom.literal,
        "!=": value != atom.literal,
    }[atom.op]
    # On the equal side of `=` and `!=` all records are equally near.
    sides = {"=": (False,), "!=": (True,)}.get(atom.op, (True, False))
    frame = table.filter(_hinges(sql, atom)).select(
        "record_key", value=value, holds=pl.sql_expr(sql), meets=meets, off=(value - atom.literal).abs()
    )
    parts = [
        frame.filter(pl.col("meets") if side else ~pl.col("meets")).sort("off", "record_key").head(per_side)
        for side in sides
    ]
    nearest = pl.concat([part.collect(engine="streaming") for part in parts])
    rows = nearest.select("record_key", "value", "holds").sort("value", "record_key").rows()
    return tuple(Near(key, value, bool(holds)) for key, value, holds in rows)


def _hinges(sql: str, atom: Atom) -> pl.Expr:
    """Whether this one comparison decides the condition for a record: true and false would not come to the same."""
    tree = sqlglot.parse_one(sql)
    own = [node for node in tree.find_all(exp.Predicate) if parse(node.sql(), sql).atoms == (atom,)]
    if not own:
        return pl.lit(value=True)

    def given(value: bool) -> pl.Expr:
        forced = tree.transform(lambda node: exp.Boolean(this=value) if node == own[0] else node)
        return pl.sql_expr(forced.sql()).fill_null(value=False)

    return given(True) != given(False)


def duplicate_pairs(view: View, corpus: str, per_kind: int) -> list[Pair]:
    """For each decision and kind of duplicate some pairs: the farthest apart, and of each kept record only one."""
    pairs = []
    for name, facts in view.nodes(corpus).items():
        table = view.node_table(corpus, name)
        if facts["kind"] != "decide" or table is None:
            continue
        duplicates = table.filter((pl.col("state") == "duplicate") & pl.col("representative").is_not_null())
        kinds = (
            duplicates.select(pl.col("reason").unique())
            .collect(engine="streaming")
            .to_series()
            .drop_nulls()
            .sort()
            .to_list()
        )
        for kind in kinds:
            some = (
                duplicates.filter(pl.col("reason") == kind)
                .group_by("representative")
                .agg(
                    pl.col("record_key", "distance")
                    .sort_by(pl.col("distance"), "record_key", descending=[True, False])
                    .first()
                )
                .sort("distance", "record_key", descending=[True, False], nulls_last=True)
                .head(per_kind)
            )
            rows = some.select("record_key", "representative", "distance").collect(engine="streaming").rows()
            pairs += [Pair(name, kind, *row) for row in rows]
    return pairs


def pictured(
    view: View, corpus: str, keys: Sequence[str], texts: Sequence[str], licence: str, hidden: Sequence[str]
) -> dict[str, Pictured]:
    """What is told beside each picture. `texts` are columns or fields to quote, `hidden` columns are left out."""
    wanted = sorted(set(keys))
    rows = {row["record_key"]: row for row in _records(view, corpus, wanted)}
    values: dict[str, dict[str, Any]] = {key: {} for key in rows}
    failing: dict[str, list[str]] = {key: [] for key in rows}
    written: dict[str, dict[str, str]] = {key: {} for key in rows}
    for name, facts in view.nodes(corpus).items():
        table = view.node_table(corpus, name)
        if table is None:
            continue
        columns = table.collect_schema()
        if facts["kind"] == "annotate":
            said = [column for column in texts if column in columns]
            for row in _rows(table, wanted, said):
                written[row.pop("record_key")] |= row
        if facts["kind"] == "decide":
            read = [column for column in columns if column not in schemas.VERDICT.names and column not in hidden]
            for row in _rows(table, wanted, ["failing", *read]):
                key = row.pop("record_key")
                failing[key] += row.pop("failing") or []
                values[key] |= row
    return {key: _pictured(row, texts, licence, values[key], failing[key], written[key]) for key, row in rows.items()}


def _pictured(
    row: Mapping[str, Any],
    texts: Sequence[str],
    licence: str,
    values: dict[str, Any],
    failing: Sequence[str],
    written: Mapping[str, str],
) -> Pictured:
    fields = orjson.loads(row["fields"] or b"{}")
    media = row["media"] or []
    quoted = {name: written.get(name) or fields.get(name) for name in texts}
    # The picture, where a record has several media; else whatever comes first.
    first = next((ref for ref in media if ref["role"] == "image"), media[0] if media else None)
    return Pictured(
        key=row["record_key"],
        source=row["source"],
        place=row["place"],
        licence=fields.get(licence),
        state=row["state"],
        node=row["node"],
        reason=row["reason"],
        message=row["message"],
        media=first,
        texts={name: _quote(text) for name, text in quoted.items() if text},
        beside=tuple(ref for ref in media if ref is not first)[:MOST_BESIDE],
        values=values,
        failing=tuple(failing),
    )


def _quote(text: Any) -> str:
    """A text as it stands, several on lines of their own."""
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def _records(view: View, corpus: str, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Records with their final states, read only from the buckets that hold them."""
    for bucket in sorted({view.store.bucket(key) for key in keys}):
        here = [key for key in keys if view.store.bucket(key) == bucket]
        parts = bucket_frames(view, corpus, bucket, ["source", "place", "fields", "media"])
        yield from parts.filter(pl.col("record_key").is_in(here)).sort("record_key").collect().to_dicts()


def bucket_frames(view: View, corpus: str, bucket: str, columns: Sequence[str]) -> pl.LazyFrame:
    """Named columns of the records of one bucket, with their final states."""
    records, states = view.store.records(corpus), view.store.states(corpus)
    versions = view.snapshot.tables
    left = records.scan(["record_key", *columns], bucket, versions.get(records.name))
    right = states.scan(None, bucket, versions.get(states.name))
    return left.join(right, on="record_key", how="left")


def _rows(table: pl.LazyFrame, keys: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    found = table.filter(pl.col("record_key").is_in(keys)).select("record_key", *columns)
    return found.sort("record_key").collect().to_dicts()
