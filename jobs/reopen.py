"""Opening quarantined records again: their outcomes are removed, so that the next run makes them anew."""

from __future__ import annotations

import orjson
import polars as pl

from catalog import schemas
from catalog.errors import UserError
from catalog.rules import parse
from catalog.storage import open_storage
from catalog.store import Store, open_store
from catalog.tables import Table
from catalog.view import View, open_view
from pipeline.recipe import INGEST, Recipe
from pipeline.sources.fetch import forget_failure
from pipeline.sources.urls import UrlList

COLUMNS = ("reason", "message", "node", "corpus", "attempt", "record_key")


def reopen(store: str, where: str) -> dict[tuple[str, str], int]:
    """Per corpus and node how many records of the newest snapshot were opened again; raises UserError."""
    condition = parse(where, "--where")
    for column in condition.columns:
        if column not in COLUMNS:
            raise UserError(f"--where: there is no column {column!r}; there are: {', '.join(COLUMNS)}")
    counts: dict[tuple[str, str], int] = {}
    opened = open_store(store)
    with open_storage(store).lock():
        view = open_view(store)
        tag = f"retry{opened.next_run():06d}"
        for corpus in view.corpora:
            if count := _forget_failures(view, corpus, where):
                counts[corpus, INGEST] = count
            for name, node in view.nodes(corpus).items():
                for table_name in (node["table"], node["verify"]):
                    if table_name is None or not table_name.startswith("outcomes/"):
                        continue
                    rows = view.scan_named(table_name).filter(pl.col("status") == "quarantined")
                    rows = rows.with_columns(node=pl.lit(name), corpus=pl.lit(corpus))
                    fit = rows.filter(pl.sql_expr(where)).select("record_key").collect()
                    if fit.height:
                        table = opened.existing(table_name)
                        counts[corpus, name] = counts.get((corpus, name), 0) + table.remove_rows(fit, tag)
                        _forget_leftovers(opened, table)
    return {place: count for place, count in counts.items() if count}


def _forget_failures(view: View, corpus: str, where: str) -> int:
    """Let the next run ask again for URLs that could not be had; other rows at the door are looked at anew anyway."""
    runs = view.store.read_log("runs", schemas.RUNS).filter(pl.col("corpus") == corpus).sort("run")
    sources = Recipe.model_validate_json(runs["recipe"][-1]).sources
    lists = {name: source for name, source in sources.items() if isinstance(source, UrlList)}
    if not lists:
        return 0
    rows = view.records(corpus).filter((pl.col("state") == "quarantined") & (pl.col("node") == INGEST))
    fit = rows.with_columns(attempt=pl.lit(1)).filter(pl.sql_expr(where) & pl.col("source").is_in(list(lists)))
    found = fit.select("source", "fields").collect()
    for source, fields in found.iter_rows():
        forget_failure(orjson.loads(fields)["url"], view.store.storage, lists[source])
    return found.height


def _forget_leftovers(store: Store, table: Table) -> None:
    """Delete what an unfinished run left of a table: the next run would adopt it, what was opened again with it."""
    unfinished = store.unfinished_tag()
    for path in table.orphans(unfinished) if unfinished is not None else []:
        store.storage.delete(f"tables/{table.name}/{path}")
