"""A catalog at one snapshot, for people and programs that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from catalog import schemas
from catalog.books import Book
from catalog.errors import UserError
from catalog.shards import Card
from catalog.store import Snapshot, Store, open_store
from catalog.tables import Table


@dataclass(frozen=True)
class View:
    """All tables of a store as one snapshot pins them. Lazy frames are polars; nothing here writes."""

    store: Store
    snapshot: Snapshot

    is_newest: bool = True
    """Whether the snapshot is the newest one."""

    @property
    def corpora(self) -> list[str]:
        """The corpora of the snapshot, sorted."""
        return sorted(self.snapshot.corpora)

    def nodes(self, corpus: str) -> dict[str, dict[str, Any]]:
        """Per node of a corpus, in order: kind, needs, fingerprint, table, branches of its rules."""
        facts = self.snapshot.corpora[self._corpus(corpus)]
        return {name: facts["nodes"][name] for name in facts["order"]}

    def records(self, corpus: str | None = None) -> pl.LazyFrame:
        """Every record with its final state: schemas.RECORDS (its door reason as `reason`) and schemas.STATES."""
        frames = []
        for name in self._named(corpus):
            records = self._scan(self.store.records(name)).drop("node", "reason", "message")
            states = self._scan(self.store.states(name))
            frames.append(records.join(states, on="record_key", how="left").with_columns(corpus=pl.lit(name)))
        return pl.concat(frames)

    def samples(self, corpus: str | None = None) -> pl.LazyFrame:
        """What trainers read and where it lies: schemas.SAMPLES."""
        return pl.concat(
            [self._scan(self.store.samples(name)).with_columns(corpus=pl.lit(name)) for name in self._named(corpus)]
        )

    @property
    def stages(self) -> list[str]:
        """The stages that have a mixture in the snapshot, as SET/STAGE, sorted."""
        prefix = "mixtures/"
        return sorted(name.removeprefix(prefix) for name in self.snapshot.tables if name.startswith(prefix))

    def stage(self, name: str) -> str:
        """The one stage of that name, given as STAGE or SET/STAGE; raises UserError."""
        found = [stage for stage in self.stages if name in (stage, stage.partition("/")[2])]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{name}: several sets have such a stage; write one of: {', '.join(found)}")
        there = ", ".join(self.stages) or "none; `unifactory curate all` makes some"
        raise UserError(f"no stage {name!r} in the store; it has: {there}")

    def mixture(self, stage: str) -> pl.LazyFrame:
        """What a stage reads, and how often: schemas.MIXTURE. `stage` as in `View.stage`."""
        set_name, _, name = self.stage(stage).partition("/")
        return self._scan(self.store.mixture(set_name, name))

    def lineage(self, corpus: str | None = None) -> pl.LazyFrame:
        """Edges from born records to their parents: schemas.LINEAGE."""
        return pl.concat([self._scan(self.store.lineage(name)) for name in self._named(corpus)])

    def books(self, corpus: str) -> list[Book]:
        """The account of every node, in order."""
        rows = self._scan(self.store.log(f"{self._corpus(corpus)}/books", schemas.BOOKS)).sort("position").collect()
        return [Book.from_row(row) for row in rows.to_dicts()]

    def node_table(self, corpus: str, node: str) -> pl.LazyFrame | None:
        """What a node wrote: outcomes of an operator, verdicts of a decision; None for nodes without a table."""
        name = self.nodes(corpus)[node]["table"]
        return None if name is None else self.scan_named(name)

    def scan_named(self, name: str) -> pl.LazyFrame:
        """Any table of the snapshot by its name, with whatever columns it has.

        A node that no record came to has no table; its leading columns stand empty then.
        """
        if name not in self.snapshot.tables:
            leading = schemas.VERDICT if "/verdicts/" in name else schemas.OUTCOME
            return pl.DataFrame(pl.from_arrow(leading.empty_table())).lazy()
        return self.store.existing(name).scan(version=self.snapshot.tables[name])

    def cards(self, corpus: str) -> dict[str, Card]:
        """Per split the card of the corpus' shard set."""
        sets = self.snapshot.corpora[self._corpus(corpus)]["sets"]
        return {
            split: Card.from_bytes(self.store.storage.read(f"shards/{corpus}/{split}/{name}"))
            for split, name in sorted(sets.items())
        }

    def operator_calls(self) -> dict[str, int]:
        """Calls per node, summed over all attempts of the store's life."""
        calls = self.store.read_log("calls", schemas.CALLS)
        return {
            str(node): int(count)
            for node, count in calls.group_by("node").agg(pl.col("calls").sum()).sort("node").rows()
        }

    def _scan(self, table: Table) -> pl.LazyFrame:
        if table.name not in self.snapshot.tables:
            return pl.DataFrame(pl.from_arrow(table.schema.empty_table())).lazy()
        return table.scan(version=self.snapshot.tables[table.name])

    def _corpus(self, corpus: str) -> str:
        if corpus not in self.snapshot.corpora:
            raise UserError(f"no corpus {corpus!r} in the store; it has: {', '.join(self.corpora)}")
        return corpus

    def _named(self, corpus: str | None) -> list[str]:
        return self.corpora if corpus is None else [self._corpus(corpus)]


def open_view(store: str, snapshot: int | None = None) -> View:
    """A store at its newest snapshot or at a named one; raises UserError."""
    opened = open_store(store)
    found = opened.snapshots()
    if not found:
        raise UserError(f"{store}: no finished run yet; `unifactory status {store}` tells how far it is")
    if snapshot is None:
        return View(opened, found[-1])
    for one in found:
        if one.number == snapshot:
            return View(opened, one, one.number == found[-1].number)
    raise UserError(f"{store}: no snapshot {snapshot}; there are {found[0].number} to {found[-1].number}")
