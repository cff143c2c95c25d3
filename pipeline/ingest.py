"""Ingest: source rows become records with keys, media digests and a place in the catalog.

Rows stream through files cut by key prefix, so that memory follows the size of a bucket, not of the corpus. Digests of
media are remembered by (place, size, time of change), so that unchanged files are not read again.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from catalog import schemas
from catalog.errors import UserError
from catalog.keys import canonical, key_of, record_key
from catalog.scratch import scratch
from catalog.store import Store
from pipeline.media import MediaReader, MediaRef
from pipeline.recipe import INGEST, Recipe
from pipeline.sources.base import SourceRow
from pipeline.sources.fetch import fetch
from pipeline.sources.urls import UrlList

CHUNK = 4096
SAVE_EVERY = 50_000
MOST_REMOVED = 0.1
"""Losing a larger share of a corpus between two runs is more likely a mistake than a wish."""
FEWEST_REMOVED = 10

_SPILL = pa.schema([*schemas.RECORDS, pa.field("base", pa.string()), pa.field("sequence", pa.int64())])


@dataclass(frozen=True)
class Ingested:
    """What ingest saw: rows in the sources, rows set aside at the door, media whose bytes were read."""

    rows: int
    quarantined: int
    media_read: int


def ingest(
    store: Store,
    recipe: Recipe,
    root: Path,
    tag: str,
    advance: Callable[[int], None],
    accept_removals: bool = False,
    sample: int | None = None,
) -> Ingested:
    """Bring the records of a corpus in line with its sources; raises UserError for a source that cannot be used.

    With `sample` only so many rows of each source count, those of lowest hash, which makes it a fair one.
    """
    digests = _Digests(store, root, tag)
    table = store.records(recipe.corpus)
    rows = quarantined = 0
    with scratch() as folder, _few_collections():
        spill = _Spill(folder, store)
        for name, source in recipe.sources.items():
            stream = source.rows(root)
            if sample is not None:
                stream = iter(nsmallest(sample, stream, key=_row_hash))
            if isinstance(source, UrlList):
                stream = fetch(stream, store.storage, source)
            for found in _chunks(stream):
                chunk = digests.fill(found)
                spill.add([_record(name, row) for row in chunk], rows)
                rows += len(chunk)
                quarantined += sum(row.problem is not None for row in chunk)
                advance(len(chunk))
        spill.close()
        digests.save()
        _check_removals(store, recipe, rows, accept_removals)
        table.sync(_with_derived(table, spill.buckets()), tag)
    return Ingested(rows, quarantined, digests.read)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Rows hold no cycles, and looking for some after every few hundred of them is a third of the work."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _chunks(rows: Iterator[SourceRow]) -> Iterator[list[SourceRow]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _row_hash(row: SourceRow) -> str:
    return key_of(b"sample", canonical(row.fields), row.raw, *(ref.path.encode() for ref in row.media))


def _record(source: str, row: SourceRow) -> dict[str, Any]:
    fields = canonical(row.fields)
    if row.problem is None:
        base = record_key(source, fields, (ref.digest or "" for ref in row.media), 0)
    else:
        base = key_of(b"bad row", source.encode(), fields, row.raw)
    reason, message = row.problem or (None, None)
    return {
        "node": INGEST,
        "source": source,
        "place": row.place,
        "fields": fields,
        "media": [ref.to_row() for ref in row.media],
        "reason": reason,
        "message": message,
        "base": base,
    }


class _Spill:
    """Rows on their way, in one local Parquet file per bucket of their base key (the key of ordinal 0)."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._moved: dict[str, list[dict[str, Any]]] = {}

    def add(self, rows: list[dict[str, Any]], first: int) -> None:
        """Append rows; `first` is the number of rows before them, by which identical ones are ordered."""
        by_bucket: dict[str, list[dict[str, Any]]] = {}
        for i, row in enumerate(rows):
            by_bucket.setdefault(self._store.bucket(row["base"]), []).append({**row, "sequence": first + i})
        for bucket, some in by_bucket.items():
            if bucket not in self._writers:
                self._writers[bucket] = pq.ParquetWriter(self._folder / f"{bucket}.parquet", _SPILL, compression="lz4")
            self._writers[bucket].write_table(pa.Table.from_pylist(some, schema=_SPILL))

    def close(self) -> None:
        """Finish the files."""
        for writer in self._writers.values():
            writer.close()

    def buckets(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Records of every bucket. Identical rows get ordinals in source order; only the first keeps its base key."""
        moved = pl.concat([self._later_twins(bucket) for bucket in self._store.buckets])
        for bucket in self._store.buckets:
            frame = self._read(bucket)
            if frame.height:
                frame = frame.filter(pl.col("base").is_first_distinct()).with_columns(record_key=pl.col("base"))
            here = moved.filter(pl.col("record_key").str.starts_with(bucket))
            frame = pl.concat([frame.select(moved.columns), here]) if frame.height else here
            yield bucket, frame.with_columns(split_group=pl.col("record_key")).select(schemas.RECORDS.names)

    def _read(self, bucket: str) -> pl.DataFrame:
        path = self._folder / f"{bucket}.parquet"
        if not path.exists():
            return pl.DataFrame(pl.from_arrow(_SPILL.empty_table()))
        return pl.read_parquet(path).sort("base", "sequence")

    def _later_twins(self, bucket: str) -> pl.DataFrame:
        frame = self._read(bucket)
        twins = frame.filter(~pl.col("base").is_first_distinct())
        ordinals = twins.with_columns(ordinal=pl.int_range(1, pl.len() + 1).over("base"))
        keys = [
            key_of(b"twin", base.encode(), b"#%d" % ordinal)
            for base, ordinal in ordinals.select("base", "ordinal").iter_rows()
        ]
        return twins.with_columns(record_key=pl.Series(keys, dtype=pl.String))


def _with_derived(table: Any, buckets: Iterator[tuple[str, pl.DataFrame]]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Records born on the way stay as they are; their nodes bring them in line later."""
    for bucket, frame in buckets:
        derived = table.scan(bucket=bucket).filter(pl.col("node") != INGEST).collect()
        yield bucket, pl.concat([frame, derived]) if derived.height else frame


def _check_removals(store: Store, recipe: Recipe, rows: int, accept: bool) -> None:
    before = (
        store.records(recipe.corpus).scan(["node"]).filter(pl.col("node") == INGEST).select(pl.len()).collect().item()
    )
    lost = before - rows
    if not accept and lost >= FEWEST_REMOVED and lost > MOST_REMOVED * before:
        raise UserError(
            f"corpus {recipe.corpus}: the sources hold {rows} rows, {lost} fewer than at the last run; "
            "if that is meant, run again with --accept-removals"
        )


class _Digests:
    """sha256 digests of media, remembered by place, size and time of change in compact arrays."""

    def __init__(self, store: Store, root: Path, tag: str) -> None:
        self._table = store.media_digests()
        self._tag = tag
        self._root = str(root)
        self._reader = MediaReader(str(root), store.uri, tuple(sorted(store.storage.options.items())))
        known = self._table.read().sort("media_key")
        self._heads = known["media_key"].str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
        self._stamps = known["stamp"].to_numpy()
        self._lengths = known["length"].to_numpy()
        self._digests = b"".join(bytes.fromhex(digest) for digest in known["digest"])
        self._fresh: list[dict[str, Any]] = []
        self.read = 0

    def fill(self, rows: list[SourceRow]) -> list[SourceRow]:
        """Rows with the digests of their media; a medium that cannot be read makes its row a bad one."""
        wanted = [(i, ref) for i, row in enumerate(rows) if row.problem is None for ref in row.media]
        wanted = [(i, ref) for i, ref in wanted if ref.digest is None]
        if not wanted:
            return rows
        stats = [self._stat(ref) for _, ref in wanted]
        keys = [_media_key(ref) for _, ref in wanted]
        found: list[str | None] = self._known(keys, stats)
        todo = [n for n, digest in enumerate(found) if digest is None]
        if todo:
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                for n, hashed in zip(todo, pool.map(lambda n: self._hash(wanted[n][1]), todo), strict=True):
                    found[n] = hashed
                    length, stamp = stats[n]
                    if len(hashed) == 64:
                        self._fresh.append({"media_key": keys[n], "length": length, "stamp": stamp, "digest": hashed})
            self.read += len(todo)
            if len(self._fresh) >= SAVE_EVERY:
                # A kill costs no more reading than this.
                self.save()
        filled = list(rows)
        media: dict[int, list[MediaRef]] = {}
        for i, row in enumerate(rows):
            if any(ref.digest is not None for ref in row.media):
                media[i] = [ref for ref in row.media if ref.digest is not None]
        for (i, ref), digest, (length, _) in zip(wanted, found, stats, strict=True):
            assert digest is not None
            if len(digest) == 64:
                media.setdefault(i, []).append(ref.read_as(digest, length))
            else:
                filled[i] = replace(filled[i], problem=("unreadable file", f"{ref.path}: {digest}"))
        for i, refs in media.items():
            row = filled[i]
            if row.problem is None:
                filled[i] = SourceRow(row.place, row.fields, tuple(refs), raw=row.raw)
        return filled

    def save(self) -> None:
        """Store the digests that were new."""
        if not self._fresh:
            return
        rows = pa.Table.from_pylist(self._fresh, schema=schemas.MEDIA_DIGESTS)
        stale = self._table.read(["media_key"]).join(
            pl.DataFrame(pl.from_arrow(rows.select(["media_key"]))), on="media_key", how="semi"
        )
        if stale.height:
            self._table.remove_rows(stale, self._tag)
        fresh = pl.DataFrame(pl.from_arrow(rows)).unique("media_key", keep="last", maintain_order=True)
        self._table.append(fresh.to_arrow(compat_level=pl.CompatLevel.oldest()), self._tag)
        self._fresh = []

    def _stat(self, ref: MediaRef) -> tuple[int, int]:
        if ref.container == "store":
            return ref.length or -1, 0
        try:
            status = os.stat(f"{self._root}/{ref.path}")
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def _known(self, keys: list[str], stats: list[tuple[int, int]]) -> list[str | None]:
        if not len(self._heads):
            return [None] * len(keys)
        heads = np.array([int(key[:16], 16) for key in keys], dtype=np.uint64)
        at = np.minimum(np.searchsorted(self._heads, heads), len(self._heads) - 1)
        length, stamp = np.array(stats, dtype=np.int64).T
        same = (self._heads[at] == heads) & (self._lengths[at] == length) & (self._stamps[at] == stamp) & (length >= 0)
        return [
            self._digests[32 * i : 32 * i + 32].hex() if hit else None
            for i, hit in zip(at.tolist(), same.tolist(), strict=True)
        ]

    def _hash(self, ref: MediaRef) -> str:
        """The digest, or what kept it from being computed."""
        try:
            if ref.container == "file":
                with open(f"{self._root}/{ref.path}", "rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            return hashlib.sha256(self._reader.read(ref)).hexdigest()
        except OSError as error:
            return (error.strerror or str(error))[:60]


def _media_key(ref: MediaRef) -> str:
    return key_of(ref.container.encode(), ref.path.encode(), (ref.member or "").encode(), b"%d" % (ref.offset or 0))
