"""Deciding the mixtures of a set, and making them visible together in one snapshot."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pyarrow as pa

from catalog import schemas
from catalog.errors import UserError
from catalog.keys import canonical, key_of
from catalog.mixtures import Mixture, StageFacts, decide
from catalog.store import Snapshot, Store
from catalog.view import View
from pipeline.sets import PlannedSet


def decide_set(view: View, planned: PlannedSet) -> list[Mixture]:
    """The mixture of every stage, from what a snapshot holds; raises UserError."""
    for corpus in planned.plans:
        if corpus not in view.snapshot.corpora:
            raise UserError(f"{view.store.uri}: {corpus} has not been curated yet")
    stages = planned.recipe.stages.items()
    try:
        return [decide(view, name, stage, position) for position, (name, stage) in enumerate(stages)]
    except UserError as error:
        raise UserError(f"{planned.place}: {error}") from None


def mix(store: Store, planned: PlannedSet, advance: Callable[[int], None]) -> tuple[Snapshot, list[StageFacts]]:
    """Decide all stages of a set and publish them together; equal ones change nothing, and a refused stage stops all.

    The caller holds the store's lock.
    """
    newest = store.snapshot()
    assert newest is not None
    mixtures = decide_set(View(store, newest), planned)
    name, number = planned.recipe.set, store.next_run()
    tag = f"r{number:06d}"
    own = (f"mixtures/{name}/", f"mixture_stages/{name}")
    tables = {
        table: version for table, version in newest.tables.items() if not table.startswith(own[0]) and table != own[1]
    }
    for mixture in mixtures:
        table = store.mixture(name, mixture.facts.name)
        table.create()
        table.sync(mixture.rows(), tag)
        assert table.version is not None
        tables[table.name] = table.version
        advance(1)
    facts = [mixture.facts for mixture in mixtures]
    told = store.log(own[1], schemas.MIXTURE_STAGES)
    rows = [{"row_key": key_of(f"stage {one.name}".encode()), **one.row()} for one in facts]
    frame = pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(rows, schema=told.schema)))
    told.sync(((b, frame.filter(pl.col("row_key").str.starts_with(b))) for b in store.buckets), tag)
    assert told.version is not None
    tables[told.name] = told.version
    if tables == newest.tables:
        return newest, facts
    _log(store, planned, number, tag)
    return store.publish(number, tables, newest.corpora), facts


def _log(store: Store, planned: PlannedSet, number: int, tag: str) -> None:
    """Tell of the run at its end: a killed one leaves nothing to adopt, as the next decides anew."""
    plan = {"fingerprint": planned.fingerprint, "nodes": {}}
    head = {
        "run": number,
        "corpus": planned.recipe.set,
        "recipe": canonical(planned.recipe.model_dump(mode="json", by_alias=True)).decode(),
        "plan": canonical(plan).decode(),
    }
    store.append_log("runs", schemas.RUNS, [{**head, "event": event} for event in ("started", "finished")], tag)
