"""Which records reach a node: populations, worked out bucket by bucket from the tables of the nodes above."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from catalog.decisions import Decision
from catalog.schemas import VERDICT
from catalog.store import Store
from catalog.tables import Table
from pipeline.plan import Plan, PlannedOperator
from pipeline.recipe import INGEST, ExpandNode, MergeNode, PackNode
from pipeline.worker import outcome_schema

_CACHED_KEYS = 1_000_000


class Flow:
    """Populations and upstream columns of one corpus. Nodes must have run before what they passed is asked for."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store = store
        self.plan = plan
        self.corpus = plan.recipe.corpus
        self.records = store.records(self.corpus)
        self._verdicts: dict[str, Table] = {}
        self._entering: dict[tuple[str, str], pl.Series] = {}
        self._held = 0

    @property
    def buckets(self) -> list[str]:
        """Every bucket of the store."""
        return self.store.buckets

    def outcome_table(self, runs: PlannedOperator) -> Table:
        """Outcomes of an operator, shared by every corpus that uses it with the same fingerprint."""
        return self.store.table(runs.table, outcome_schema(runs.operator))

    def outcome(self, name: str) -> Table:
        """The outcome table of a node that runs an operator."""
        runs = self.plan.nodes[name].runs
        assert runs is not None
        return self.outcome_table(runs)

    def verdicts(self, name: str) -> Table:
        """The verdict table of a decision: the verdict, then every value it read, but for embeddings.

        Those say nothing to a reader, are large, and stand in the outcome table.
        """
        if name not in self._verdicts:
            node = self.plan.nodes[name]
            visible = self.plan.columns(name)
            schema = VERDICT
            for column in sorted(node.reads):
                kind = visible[column][1].type
                if column not in schema.names and not pa.types.is_binary(kind):
                    schema = schema.append(pa.field(column, kind))
            self._verdicts[name] = self.store.table(f"{self.corpus}/verdicts/{name}-{node.fingerprint[:12]}", schema)
        return self._verdicts[name]

    # -- who enters, who passes ------------------------------------------------------------------------------------

    def entering(self, name: str, bucket: str) -> pl.Series:
        """Sorted keys of the records that enter a node: those that passed every need, or any need of a packing node."""
        key = (name, bucket)
        if key not in self._entering:
            node = self.plan.recipe.nodes[name]
            needs = node.needs or (INGEST,)
            keys = self.passed(needs[0], bucket)
            for need in needs[1:]:
                other = self.passed(need, bucket)
                if isinstance(node, PackNode):
                    keys = pl.concat([keys, other]).unique()
                else:
                    keys = _both(keys, other)
            self._held += len(keys)
            if self._held > _CACHED_KEYS:
                self.forget()
            self._entering[key] = keys.sort()
        return self._entering[key]

    def passed(self, need: str, bucket: str) -> pl.Series:
        """Keys of the records that passed a node, or took one of its routes (`node.route`)."""
        name, _, route = need.partition(".")
        if name == INGEST:
            return self._records_of(INGEST, bucket)
        node = self.plan.recipe.nodes[name]
        if isinstance(node, (ExpandNode, MergeNode)):
            return self._records_of(name, bucket)
        if isinstance(node, Decision):
            verdicts = self.verdicts(name).scan(["record_key", "state", "value"], bucket)
            wanted = pl.col("state") == "passed"
            if route:
                wanted &= pl.col("value") == route
            return verdicts.filter(wanted).select("record_key").collect().to_series()
        entering = self.entering(name, bucket)
        if isinstance(node, PackNode) or self.plan.nodes[name].missing is not None:
            return entering
        bad = self.outcome(name).scan(["record_key", "status"], bucket).filter(pl.col("status") != "ok")
        return _without(entering, bad.select("record_key").collect().to_series())

    def _records_of(self, node: str, bucket: str) -> pl.Series:
        found = self.records.scan(["record_key", "node", "reason"], bucket)
        return (
            found.filter((pl.col("node") == node) & pl.col("reason").is_null())
            .select("record_key")
            .collect()
            .to_series()
        )

    def forget(self) -> None:
        """Drop what is remembered; call it after a node has run."""
        self._entering.clear()
        self._held = 0

    # -- what a node reads ------------------------------------------------------------------------------------------

    def missing(self, name: str, bucket: str) -> pl.Series:
        """Keys that enter a node and have no outcome yet."""
        done = self.outcome(name).read(["record_key"], bucket).to_series()
        return _without(self.entering(name, bucket), done)

    def frame(self, name: str, bucket: str, columns: Sequence[str], keys: pl.Series | None = None) -> pl.DataFrame:
        """`record_key` and the named upstream columns of the records that enter a node, sorted by key."""
        keys = self.entering(name, bucket) if keys is None else keys
        frame = keys.alias("record_key").to_frame()
        reads = self.plan.columns(name)
        owners: dict[str, list[str]] = {}
        for column in columns:
            owner = INGEST if column in ("media", "fields") else reads[column][0]
            owners.setdefault(owner, []).append(column)
        for owner, wanted in sorted(owners.items()):
            part = (
                self._record_columns(name, bucket, wanted)
                if owner == INGEST
                else self.outcome(owner).read(["record_key", *wanted], bucket)
            )
            frame = frame.join(part, on="record_key", how="left", maintain_order="left")
        return frame.select("record_key", *columns)

    def _record_columns(self, name: str, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        own = [column for column in columns if column in self.records.schema.names]
        mapped = [column for column in columns if column not in own]
        names = ["record_key", *own] + (["fields"] if mapped and "fields" not in own else [])
        part = self.records.scan(names, bucket)
        visible = self.plan.columns(name)
        text = pl.col("fields").cast(pl.String)
        for column in mapped:
            value = text.str.json_path_match(f"$.{column}")
            if visible[column][1].type == pa.float64():
                value = value.cast(pl.Float64)
            part = part.with_columns(value.alias(column))
        return part.select("record_key", *columns).collect()


def _both(keys: pl.Series, other: pl.Series) -> pl.Series:
    frame = keys.alias("key").to_frame()
    return frame.join(other.alias("key").to_frame(), on="key", how="semi", maintain_order="left").to_series()


def _without(keys: pl.Series, gone: pl.Series) -> pl.Series:
    if not len(gone) or not len(keys):
        return keys
    frame = keys.alias("key").to_frame()
    return frame.join(gone.alias("key").to_frame(), on="key", how="anti", maintain_order="left").to_series()
