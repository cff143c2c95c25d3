"""One record's whole life, from the tables of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from catalog.errors import UserError
from catalog.view import View

FEWEST_CHARS = 6


@dataclass(frozen=True)
class Step:
    """What one node had to say of a record."""

    node: str
    kind: str
    said: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Life:
    """A record, what became of it, and everything on the way."""

    corpus: str
    record: dict[str, Any]
    state: dict[str, Any]
    parents: list[dict[str, Any]]
    children: list[dict[str, Any]]
    steps: list[Step]
    samples: list[dict[str, Any]]
    draws: list[dict[str, Any]]
    """Which stages read them: sample_key, stage (SET/STAGE), part, copies."""


def lives(view: View, key: str) -> list[Life]:
    """The lives of a record: one in each corpus that has it. `key` is a record key, a sample key, or the start of one.

    Raises UserError when nothing or more than one record fits.
    """
    wanted = key.lower()
    if len(wanted) < FEWEST_CHARS or set(wanted) - set("0123456789abcdef"):
        raise UserError(f"{key}: write at least {FEWEST_CHARS} characters of a record's or a sample's key (0-9, a-f)")
    found: dict[str, list[str]] = {}
    for corpus in view.corpora:
        records = view.records(corpus).filter(pl.col("record_key").str.starts_with(wanted)).select("record_key")
        samples = view.samples(corpus).filter(pl.col("sample_key").str.starts_with(wanted)).select("record_key")
        for record in pl.concat([records, samples]).unique().sort("record_key").collect().to_series():
            found.setdefault(str(record), []).append(corpus)
    if not found:
        raise UserError(f"{key}: no record or sample of this snapshot has such a key")
    if len(found) > 1:
        raise UserError(
            f"{key}: fits {len(found)} records; write more of the key, such as {min(found)[: len(key) + 4]}"
        )
    record_key, corpora = next(iter(found.items()))
    return [_life(view, corpus, record_key) for corpus in corpora]


def _life(view: View, corpus: str, key: str) -> Life:
    row = view.records(corpus).filter(pl.col("record_key") == key).collect().to_dicts()[0]
    state = {name: row.pop(name) for name in ("state", "node", "reason", "message")}
    row["fields"] = orjson.loads(row["fields"] or b"{}")
    edges = view.lineage(corpus)
    samples = view.samples(corpus).filter(pl.col("record_key") == key).sort("sample_key").collect().to_dicts()
    steps = []
    for name, node in view.nodes(corpus).items():
        table = view.node_table(corpus, name)
        if table is None:
            if node["missing"]:
                steps.append(Step(name, node["kind"], f"not run: {node['missing']}", {}))
            continue
        rows = table.filter(pl.col("record_key") == key).collect().to_dicts()
        if rows:
            steps.append(_step(name, node, rows[0]))
    drawn = [
        {"stage": stage, **row}
        for stage in view.stages
        for row in view.mixture(stage)
        .filter((pl.col("corpus") == corpus) & pl.col("sample_key").is_in([sample["sample_key"] for sample in samples]))
        .sort("sample_key")
        .collect()
        .to_dicts()
    ]
    return Life(
        corpus,
        row,
        state,
        edges.filter(pl.col("record_key") == key).collect().to_dicts(),
        edges.filter(pl.col("parent") == key).collect().to_dicts(),
        steps,
        samples,
        drawn,
    )


_BOOKKEEPING = frozenset(
    {"record_key", "status", "state", "reason", "message", "attempt", "failing", "representative", "distance", "value"}
)


def _step(name: str, node: dict[str, Any], row: dict[str, Any]) -> Step:
    said = row.get("state") or row.get("status") or ""
    for part in ("reason", "message"):
        if row.get(part):
            said += f": {row[part]}"
    if row.get("failing"):
        said += f" (fails {', '.join(row['failing'])})"
    if row.get("representative"):
        said += f" of {row['representative']}, {row['distance']} apart"
    if row.get("value"):
        said += f" -> {row['value']}"
    values = {column: _short(value) for column, value in row.items() if column not in _BOOKKEEPING}
    return Step(name, node["kind"], said, values)


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return f"[{len(value)}]" if len(value) > 4 or any(isinstance(item, (bytes, list)) for item in value) else value
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
