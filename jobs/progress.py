"""How far a store is: runs, the newest snapshot, what is unfinished."""

from __future__ import annotations

import polars as pl
from rich.table import Table

from catalog import schemas
from catalog.store import Store, open_store
from catalog.view import View
from jobs.show import console, reasons_line


def show_status(store: str) -> None:
    """Print runs, corpora of the newest snapshot, and per node how many records are done or set aside."""
    opened = open_store(store)
    runs = opened.read_log("runs", schemas.RUNS)
    unfinished = runs.group_by("run", "corpus").agg(pl.col("event")).filter(~pl.col("event").list.contains("finished"))
    calls = opened.read_log("calls", schemas.CALLS)
    newest = opened.snapshot()
    console.print(f"{opened.uri}: {runs['run'].n_unique()} runs, {len(opened.snapshots())} snapshots", soft_wrap=True)
    latest = dict(runs.group_by("corpus").agg(pl.col("run").max()).rows())
    for run, corpus in unfinished.select("run", "corpus").sort("run").rows():
        made = calls.filter(pl.col("run") == run)["calls"].sum()
        console.print(f"run {run} of {corpus}: {_unfinished(opened, run, latest[corpus])} ({made} calls)")
    if newest is None:
        console.print("no snapshot yet: no run has finished")
        return
    view = View(opened, newest)
    for corpus in view.corpora:
        table = Table(title=f"{corpus} (snapshot {newest.number})", title_justify="left")
        for name in ("node", "kind", "in", "passed", "quarantined", "reasons"):
            table.add_column(name, justify="left" if name in ("node", "kind", "reasons") else "right")
        for book in view.books(corpus):
            reasons = {key: count for some in book.reasons.values() for key, count in some.items()}
            table.add_row(
                book.node, book.kind, str(book.inputs), str(book.counts["passed"]),
                str(book.counts["quarantined"] or ""), reasons_line(reasons),
            )  # fmt: skip
        console.print(table)
        for name, node in view.nodes(corpus).items():
            if node["missing"]:
                console.print(f"{name}: not run: {node['missing']}")
            if node.get("stands_in"):
                console.print(f"{name}: {node['stands_in']}")
            for rule, facts in node["rules"].items():
                if facts["branch"] != "keep":
                    console.print(f"{name}.{rule}: branch {facts['branch']}: {facts['keep'] or 'no rule'}")


def _unfinished(store: Store, run: int, latest: int) -> str:
    if run < latest:
        return "killed or failed; a later run went on"
    return "running" if store.is_locked() else "killed or failed; run curate again to go on"
