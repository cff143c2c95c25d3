"""The plan as people see it: what would run, what is done, and from a probe the time, bytes and bottleneck."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from catalog.decisions import Decision
from catalog.scratch import scratch
from catalog.storage import open_storage
from catalog.store import Store, create_store, exists, open_store
from jobs.show import Bars, console
from pipeline.curate import Finished, Run
from pipeline.engine import Engine
from pipeline.local import LocalEngine
from pipeline.plan import Plan, check_operators, check_sources
from pipeline.worker import outcome_schema

RARE, COMMON = 0.01, 0.99


def show_plan(plan: Plan, root: Path | None, store: str | None, probe: int) -> None:
    """Print nodes, fingerprints, notes; with a root also sizes, and with a probe times. Raises UserError."""
    check_operators(plan)
    opened = _opened(store)
    rows = _count(plan, root) if root is not None else None
    network = _uses_network(plan) if probe else None
    probed = _probe(plan, root, probe) if root is not None and probe and rows and network is None else None
    table = Table(title=f"{plan.recipe.corpus}: {plan.recipe.about}", title_justify="left")
    columns = ["node", "does", "needs", "fingerprint", "done"]
    if probed is not None:
        columns += ["records", "ms/record", "minutes", "MB"]
    for name in columns:
        table.add_column(name, justify="right" if name in ("done", "records", "ms/record", "minutes", "MB") else "left")
    costs: dict[str, float] = {}
    for name in plan.recipe.order:
        node = plan.nodes[name]
        does = f"{node.kind} {getattr(node.node, node.kind, '')}".strip()
        done = ""
        if opened is not None and node.runs is not None and node.missing is None:
            done = str(opened.table(node.runs.table, outcome_schema(node.runs.operator)).rows())
        row = [name, does, ", ".join(node.node.needs) or "ingest", node.fingerprint[:12], done]
        if probed is not None:
            cost = _cost(probed, name, rows or 0)
            costs[name] = cost.seconds
            row += [
                f"{cost.records:,.0f}",
                f"{cost.pace:.1f}" if cost.pace else "",
                f"{cost.seconds / 60:.1f}",
                f"{cost.megabytes:.1f}",
            ]
        table.add_row(*row)
    console.print(table)
    for node in plan.nodes.values():
        if node.missing:
            console.print(f"{node.name}: will not run: {node.missing}")
        for note in node.notes:
            console.print(note, markup=False)
    if rows is not None:
        console.print(f"{rows:,} rows in the sources")
    if root is not None and network is not None:
        console.print(f"no probe: {network} uses the network; times come from a first run on a small source")
    if probed is not None:
        _conclude(plan, probed, costs)


def _uses_network(plan: Plan) -> str | None:
    """The source or node for which a probe would ask other machines; a plan touches nothing."""
    for name, source in plan.recipe.sources.items():
        if source.needs_network:
            return f"source {name}"
    for name, node in plan.nodes.items():
        if node.missing is None and node.runs is not None and node.runs.operator.needs_network:
            return f"node {name}"
    return None


def _opened(store: str | None) -> Store | None:
    if store is None or not exists(open_storage(store)):
        return None
    return open_store(store)


def _count(plan: Plan, root: Path) -> int:
    check_sources(plan.recipe, root)
    return sum(1 for source in plan.recipe.sources.values() for _ in source.rows(root))


def _probe(plan: Plan, root: Path, count: int) -> Finished:
    """Run the recipe over a few rows of each source into a store that is thrown away."""

    def engine() -> Engine:
        return LocalEngine(min(2, os.cpu_count() or 1))

    with scratch() as folder, Bars() as bars:
        store = create_store(open_storage(str(folder)))
        return Run(store, plan, root.absolute(), engine, bars, sample=count)()


@dataclass(frozen=True)
class _Cost:
    records: float
    pace: float
    seconds: float
    megabytes: float


def _cost(probed: Finished, name: str, rows: int) -> _Cost:
    books = {book.node: book for book in probed.books}
    scale = rows / max(1, books["ingest"].inputs)
    timing = probed.timings.get(name)
    records = books[name].inputs * scale
    if timing is None or not timing.calls:
        return _Cost(records, 0.0, 0.0, 0.0)
    pace = timing.seconds / timing.calls
    workers = os.cpu_count() or 1
    return _Cost(records, 1000 * pace, pace * records / workers, timing.bytes / timing.calls * records / 1e6)


def _conclude(plan: Plan, probed: Finished, costs: dict[str, float]) -> None:
    total = sum(costs.values())
    workers = os.cpu_count() or 1
    if total:
        slowest = max(costs, key=lambda name: costs[name])
        share = costs[slowest] / total
        sampled = probed.books[0].inputs
        console.print(
            f"about {total / 60:.1f} minutes with {workers} workers, {share:.0%} of it {slowest}; "
            f"from a probe of {sampled} records, so within a factor of two or so"
        )
    for book in probed.books:
        if book.inputs >= 20 and isinstance(plan.recipe.nodes.get(book.node), Decision):
            share = book.counts["passed"] / book.inputs
            if share < RARE or share > COMMON:
                console.print(f"{book.node}: keeps {share:.0%} of the probe; is the threshold on the right scale?")
