"""How the values lie that rules read: histograms with the threshold on an edge, counts of words and flags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import sqlglot
from sqlglot import exp

from catalog.rules import Atom, Condition, parse
from catalog.view import View

BINS = 32
MOST_WHOLE = 40
"""Whole numbers that span at most this are drawn one bar each."""
MOST_WORDS = 8
MOST_NAMES = 100
"""A column with more different values than this holds texts, not names; then only whether there is one is shown."""
LOG_FROM = 50.0
"""Values that span at least this factor are drawn on a logarithmic axis."""

NULL = "null"
PASSED, FAILED, OTHER = 0, 1, 2
"""Of a record at a decision: it passed, it fails this rule, it left for another reason."""


@dataclass(frozen=True)
class Bins:
    """A histogram. `counts` [3][bins]: passed, failed, other; `edges` [bins + 1].

    `beyond` says whether values below the first and above the last edge were counted into the outer bins; `whole` that
    a bin is one whole number, `log` that bins are equally wide in the logarithm.
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    log: bool = False
    whole: bool = False
    beyond: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Word:
    """One value of a column that is not a number, and how many records have it, by what became of them."""

    value: str
    passed: int
    failed: int
    other: int


@dataclass(frozen=True)
class ValueChart:
    """One column that a rule reads, over the records that came to the rule."""

    node: str
    rule: str
    condition: str
    column: str
    atoms: tuple[Atom, ...]
    every_atom: bool
    """Whether failing any one atom fails the rule, so that a threshold has a wrong side."""
    records: int
    nulls: int
    low: float | None
    median: float | None
    high: float | None
    bins: Bins | None
    words: tuple[Word, ...] = ()


def value_charts(view: View, corpus: str, recipe: Mapping[str, Any]) -> list[ValueChart]:
    """A chart for every column of every rule and route of a corpus, in order."""
    charts = []
    for name, facts in view.nodes(corpus).items():
        table = view.node_table(corpus, name)
        if facts["kind"] != "decide" or table is None:
            continue
        columns = table.collect_schema()
        passed = pl.col("state") == "passed"
        for rule, sql in rule_conditions(facts):
            condition = parse(sql, f"{name}.{rule}")
            failed = pl.col("failing").list.contains(rule)
            charts += [
                _chart(table, columns[column], name, rule, condition, column, _fate(passed, failed))
                for column in condition.columns
                if column in columns
            ]
        routes: Mapping[str, str] = recipe["nodes"].get(name, {}).get("routes") or {}
        read: dict[str, list[Condition]] = {}
        for sql in routes.values():
            condition = parse(sql, name)
            for column in condition.columns:
                read.setdefault(column, []).append(condition)
        for column, conditions in read.items():
            atoms = tuple(atom for condition in conditions for atom in condition.atoms)
            whole = Condition("; ".join(condition.sql for condition in conditions), (column,), atoms, checked=True)
            if column in columns:
                failed = pl.col("state") == "dropped"
                charts.append(_chart(table, columns[column], name, "", whole, column, _fate(passed, failed)))
    return charts


def rule_conditions(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(rule, condition that was judged) of a node's facts; skipped rules judge nothing."""
    return [(rule, said["keep"]) for rule, said in facts["rules"].items() if said["keep"] is not None]


def _fate(passed: pl.Expr, failed: pl.Expr) -> pl.Expr:
    return pl.when(passed).then(PASSED).when(failed.fill_null(value=False)).then(FAILED).otherwise(OTHER)


def _chart(
    table: pl.LazyFrame, kind: pl.DataType, node: str, rule: str, condition: Condition, column: str, fate: pl.Expr
) -> ValueChart:
    atoms = tuple(atom for atom in condition.atoms if atom.column == column)
    every = bool(rule) and sqlglot.parse_one(condition.sql).find(exp.Or, exp.Not, exp.In) is None
    values = table.select(value=column, fate=fate)
    if not kind.is_numeric():
        counted = _named(values).group_by("value", "fate").len().collect(engine="streaming")
        words = _words(counted)
        nulls = int(counted.filter(pl.col("value") == NULL)["len"].sum())
        return ValueChart(
            node, rule, condition.sql, column, atoms, every, int(counted["len"].sum()), nulls,
            None, None, None, None, words,
        )  # fmt: skip
    summary = summarise(values)
    bins = histogram(values, summary, atoms, kind.is_integer())
    return ValueChart(
        node, rule, condition.sql, column, atoms, every, summary.records, summary.nulls,
        summary.low, summary.median, summary.high, bins,
    )  # fmt: skip


def _named(values: pl.LazyFrame) -> pl.LazyFrame:
    """The column `value` as a few names."""
    names = values.select(pl.col("value").approx_n_unique()).collect(engine="streaming").item()
    value = (
        pl.col("value").cast(pl.String)
        if names <= MOST_NAMES
        else pl.when(pl.col("value").is_not_null()).then(pl.lit("some text"))
    )
    return values.with_columns(value=value.fill_null(NULL))


def _words(counted: pl.DataFrame) -> tuple[Word, ...]:
    """The most frequent values, then all others as one."""
    totals = counted.group_by("value").agg(pl.col("len").sum()).sort("len", "value", descending=[True, False])
    counts = {(value, fate): count for value, fate, count in counted.iter_rows()}
    names = totals["value"].to_list()
    words = [Word(name, *(counts.get((name, fate), 0) for fate in (PASSED, FAILED, OTHER))) for name in names]
    rest = words[MOST_WORDS:]
    if rest:
        sums = [sum(getattr(word, fate) for word in rest) for fate in ("passed", "failed", "other")]
        words = [*words[:MOST_WORDS], Word(f"{len(rest)} other values", *sums)]
    return tuple(words)


@dataclass(frozen=True)
class Summary:
    """Where the values of a column lie; all but the counts are None when there is no value."""

    records: int
    nulls: int
    low: float | None = None
    near_low: float | None = None
    median: float | None = None
    near_high: float | None = None
    high: float | None = None


def summarise(values: pl.LazyFrame) -> Summary:
    """The summary of the column `value`; the near ones are the hundredths at both ends."""
    value = pl.col("value").cast(pl.Float64)
    row = values.select(
        records=pl.len(),
        nulls=value.null_count(),
        low=value.min(),
        near_low=value.quantile(0.01, "lower"),
        median=value.median(),
        near_high=value.quantile(0.99, "higher"),
        high=value.max(),
    ).collect(engine="streaming")
    return Summary(**row.row(0, named=True))


def histogram(values: pl.LazyFrame, summary: Summary, atoms: Sequence[Atom], integers: bool) -> Bins | None:
    """Counts of the column `value` by the column `fate`; the first threshold lies on an edge. None without values."""
    if summary.low is None or summary.near_low is None or summary.near_high is None or summary.high is None:
        return None
    thresholds = [atom.literal for atom in atoms]
    low, high = min([summary.near_low, *thresholds]), max([summary.near_high, *thresholds])
    # The outermost hundredth is cut off only where it would squeeze all others.
    reach = max(0.25 * (high - low), MOST_WHOLE / 4 if integers else 0.0)
    low = min(low, summary.low) if summary.low >= low - reach else low
    high = max(high, summary.high) if summary.high <= high + reach else high
    log = low > 0 and high / low >= LOG_FROM
    whole = integers and not log and high - low <= MOST_WHOLE
    if whole:
        # Room beside the outermost thresholds, so that their wrong side is seen.
        low, high = min([low, *(bound - 1 for bound in thresholds)]), max([high, *(bound + 1 for bound in thresholds)])
        edges = [low + step - 0.5 for step in range(int(high - low) + 2)]
        index = (pl.col("value").cast(pl.Float64) - low).floor()
    else:
        edges, index = _even(low, high, atoms, log)
    index = index.clip(0, len(edges) - 2).cast(pl.Int32)
    counted = (
        values.filter(pl.col("value").is_not_null())
        .select(index.alias("bin"), "fate")
        .group_by("bin", "fate")
        .len()
        .collect(engine="streaming")
    )
    counts = [[0] * (len(edges) - 1) for _ in range(3)]
    for where, fate, count in counted.iter_rows():
        counts[fate][where] = count
    return Bins(
        tuple(edges),
        (tuple(counts[PASSED]), tuple(counts[FAILED]), tuple(counts[OTHER])),
        log,
        whole,
        (summary.low < edges[0], summary.high > edges[-1]),
    )


def _even(low: float, high: float, atoms: Sequence[Atom], log: bool) -> tuple[list[float], pl.Expr]:
    """Edges of equal width, one of them the first threshold, and which bin a value lies in (before clipping)."""
    if high <= low:
        pad = max(0.1 * abs(low), 0.5)
        low, high = low - pad, high + pad
    scale = math.log10 if log else float
    start, stop = scale(low), scale(high)
    width = (stop - start) / BINS
    thresholds = [scale(atom.literal) for atom in atoms]
    atom = atoms[0] if atoms else None
    anchor = thresholds[0] if thresholds else start
    # Room beside the outermost thresholds, so that their wrong side is seen.
    start = min([start, *(bound - 3 * width for bound in thresholds)])
    stop = max([stop, *(bound + 3 * width for bound in thresholds)])
    below = math.ceil((anchor - start) / width - 1e-9)
    above = math.ceil((stop - anchor) / width - 1e-9)
    steps = [anchor + step * width for step in range(-below, above + 1)]
    edges = [10.0**step for step in steps] if log else steps
    value = pl.col("value").cast(pl.Float64)
    if log:
        # What lies below the axis is counted into the first bin.
        value = pl.when(value > 0).then(value).otherwise(edges[0])
    index = ((value.log(10) if log else value) - anchor) / width
    if atom is None:
        return edges, index.floor() + below
    edges[below] = atom.literal
    # A value at the threshold lies on the side on which it is judged, whatever rounding says.
    on_upper = value >= atom.literal if atom.op in (">=", "<", "=", "!=") else value > atom.literal
    side = pl.when(on_upper).then(index.floor().clip(0, None)).otherwise(index.floor().clip(None, -1))
    return edges, side + below
