"""What a store holds that no live snapshot needs: leftovers of killed runs, and what newer snapshots replaced."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from catalog import schemas
from catalog.shards import Card
from catalog.store import Snapshot, Store


def garbage(store: Store, live: list[Snapshot]) -> list[tuple[str, int]]:
    """(name, bytes) of every object that neither the newest tables nor a live snapshot needs, sorted."""
    needed = set(_needed_shards(store, live))
    tables: dict[str, set[int]] = {}
    for snapshot in live:
        for name, version in snapshot.tables.items():
            tables.setdefault(name, set()).add(version)
    found = []
    known: dict[str, set[str]] = {}
    for name, size in store.storage.list("tables/"):
        table_name, marker, rest = name.removeprefix("tables/").partition("/bucket=")
        if not marker:
            continue
        if table_name not in known:
            known[table_name] = _needed_files(store, table_name, tables.get(table_name, set()))
        if f"bucket={rest}" not in known[table_name]:
            found.append((name, size))
    for name, size in store.storage.list("shards/"):
        if name not in needed and not name.endswith("/card.json"):
            found.append((name, size))
    return sorted(found)


def _needed_files(store: Store, name: str, versions: set[int]) -> set[str]:
    table = store.existing(name)
    newest = table.version
    wanted = versions | ({newest} if newest is not None else set())
    return {file.path for version in wanted for file in table.files(version)}


def _needed_shards(store: Store, live: list[Snapshot]) -> Iterator[str]:
    for snapshot in live:
        for corpus, facts in snapshot.corpora.items():
            for split, card_name in facts["sets"].items():
                folder = f"shards/{corpus}/{split}"
                yield f"{folder}/{card_name}"
                card = Card.from_bytes(store.storage.read(f"{folder}/{card_name}"))
                for generation in card.generations:
                    yield f"{folder}/{generation['folder']}/{generation['index']}"
                    for shard in generation["shards"]:
                        yield f"{folder}/{generation['folder']}/{shard['file']}"


def collect(store: Store, keep: int | None, tag: str, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove garbage; returns it. With `keep`, snapshots older than the newest `keep` are given up first.

    The caller holds the store's lock.
    """
    snapshots = store.snapshots()
    live = snapshots if keep is None else snapshots[-keep:]
    if len(live) < len(snapshots) and not dry_run:
        # Given up before their files go: a reader never finds a snapshot with holes.
        table = store.log("snapshots", schemas.SNAPSHOTS)
        gone = pl.Series([snapshot.number for snapshot in snapshots[: -len(live)]], dtype=pl.Int64)
        rows = table.read(["row_key", "snapshot"]).filter(pl.col("snapshot").is_in(gone.implode()))
        table.remove_rows(rows.select("row_key"), tag)
    found = garbage(store, live)
    if not dry_run:
        for name, _ in found:
            store.storage.delete(name)
    return found
