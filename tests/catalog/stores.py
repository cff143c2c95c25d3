"""A finished store made by hand from the catalog's own parts, for tests of what reads stores. No pipeline."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from catalog import schemas
from catalog.books import Book
from catalog.decisions import Duplicates, Near, decide_rules
from catalog.deduplicate import decide_duplicates
from catalog.keys import canonical, key_of, media_digest, sample_key
from catalog.shards import Card, Sample, index_bytes, write_shard
from catalog.storage import Storage
from catalog.store import Store, create_store
from catalog.view import View
from tests.catalog.frames import Population

RULES = {"side": "short_side >= 256", "sharp": "sharpness > 10 OR text IS NULL", "never": "sharpness >= 0"}


@dataclass(frozen=True)
class Row:
    """One record: what its source says, and what was measured of it. `bad` sets it aside as a broken picture."""

    name: str
    source: str = "photos"
    text: str | None = "a caption"
    licence: str | None = "CC0-1.0"
    short_side: int = 512
    sharpness: float = 100.0
    phash: int | None = None
    """By default one that is near no other."""
    bad: str | None = None
    media: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        return key_of(self.name.encode())

    @property
    def hash(self) -> int:
        return int(self.key[:15], 16) if self.phash is None else self.phash


@dataclass(frozen=True)
class Facts:
    """What is the recipe's, not the records'."""

    corpus: str = "toy"
    about: str = "A toy corpus."
    rules: Mapping[str, str] = field(default_factory=lambda: RULES)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Rules whose `keep` could not be judged."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Rules that were judged by `rules` in place of this."""
    missing: str | None = None
    """Why the node `beauty` did not run."""


def write_store(storage: Storage, rows: Sequence[Row], facts: Facts | None = None) -> View:
    """Ingest, header, beauty, rules, duplicates, encode and pack of the rows, as a run would leave them."""
    facts = facts or Facts()
    store = create_store(storage)
    corpus, tag = facts.corpus, f"r{store.next_run():06d}"
    writer = _Writer(store, tag)
    writer.table(store.records(corpus), [_record(row) for row in rows])
    good = [row for row in rows if row.bad is None]
    header = [
        {"record_key": row.key, "status": "quarantined" if row.bad else "ok", "reason": row.bad and "broken image",
         "message": row.bad, "attempt": 1, "short_side": row.short_side, "sharpness": row.sharpness, "phash": row.hash}
        for row in rows
    ]  # fmt: skip
    measured = [("short_side", pa.int64()), ("sharpness", pa.float64()), ("phash", pa.int64())]
    writer.table(store.table("outcomes/header", pa.schema([*schemas.OUTCOME, *measured])), header)
    values = pl.DataFrame(
        [
            {"record_key": row.key, "split_group": row.key, "short_side": row.short_side, "sharpness": row.sharpness,
             "text": row.text, "phash": row.hash, "digest": row.name}
            for row in good
        ],
        schema={"record_key": pl.String, "split_group": pl.String, "short_side": pl.Int64, "sharpness": pl.Float64,
                "text": pl.String, "phash": pl.Int64, "digest": pl.String},
    )  # fmt: skip
    judged = [(name, sql, "keep") for name, sql in facts.rules.items()]
    columns = ["short_side", "sharpness", "text"]
    quality = pl.concat(frame for _, frame in decide_rules(judged, Population(values), columns))
    read = [("short_side", pa.int64()), ("sharpness", pa.float64()), ("text", pa.string())]
    writer.frame(store.table(f"{corpus}/verdicts/quality", pa.schema([*schemas.VERDICT, *read])), quality)
    entering = values.join(quality.filter(pl.col("state") == "passed"), on="record_key", how="semi")
    near = Duplicates(decide="duplicates", exact=False, near=Near(distance=4))
    twins = pl.concat(f for _, f in decide_duplicates(near, Population(entering), "digest", None))
    twins = twins.join(values.select("record_key", "phash"), on="record_key", how="left")
    verdict = pa.schema([*schemas.VERDICT, ("phash", pa.int64())])
    writer.frame(store.table(f"{corpus}/verdicts/twins", verdict), twins)
    kept = set(twins.filter(pl.col("state") == "passed")["record_key"])
    states = _states(rows, quality, twins)
    writer.frame(store.states(corpus), states)
    samples, sets = _pack(store, corpus, [row for row in good if row.key in kept])
    writer.table(store.samples(corpus), samples)
    writer.table(store.log(f"{corpus}/books", schemas.BOOKS), _books(rows, quality, twins))
    return writer.publish(facts, sets, len(rows))


@dataclass
class _Writer:
    store: Store
    tag: str
    tables: dict[str, int] = field(default_factory=dict)

    def table(self, table: Any, rows: list[dict[str, Any]]) -> None:
        table.create()
        table.append(pa.Table.from_pylist(rows, schema=table.schema), self.tag)
        self.tables[table.name] = table.version

    def frame(self, table: Any, frame: pl.DataFrame) -> None:
        self.table(table, frame.select(table.schema.names).to_dicts())

    def publish(self, facts: Facts, sets: dict[str, str], calls: int) -> View:
        corpus = facts.corpus
        judged = {name: {"branch": "keep", "keep": sql, "on_null": "keep"} for name, sql in facts.rules.items()}
        judged |= {name: {**judged[name], "branch": "else"} for name in facts.replaced}
        judged |= {name: {"branch": "skip", "keep": None, "on_null": "keep"} for name in facts.skipped}
        asked = {name: {"keep": sql} for name, sql in {**facts.rules, **facts.replaced, **facts.skipped}.items()}
        plain = {"fingerprint": "0" * 32, "verify": None, "missing": None, "rules": {}}
        table = f"{corpus}/verdicts"
        nodes = {
            "header": {**plain, "kind": "measure", "needs": [], "table": "outcomes/header"},
            "beauty": {**plain, "kind": "measure", "needs": ["header"], "table": None, "missing": facts.missing},
            "quality": {**plain, "kind": "decide", "needs": ["header"], "table": f"{table}/quality", "rules": judged},
            "twins": {**plain, "kind": "decide", "needs": ["quality"], "table": f"{table}/twins"},
            "shards": {**plain, "kind": "pack", "needs": ["twins"], "table": None},
        }  # fmt: skip
        near = {"column": "phash", "distance": 4, "variants": [], "verify": None}
        recipe = {
            "about": facts.about,
            "sources": {"photos": {"map": {"text": "caption", "licence": "licence"}}},
            "nodes": {
                "quality": {"decide": "rules", "rules": asked},
                "twins": {"decide": "duplicates", "near": near,
                          "placeholder_sources": None, "placeholder_field": "url"},
                "encode": {"encode": "text_to_image", "params": {"prompt": "text"}},
            },
        }  # fmt: skip
        number = self.store.next_run()
        run = {"run": number, "corpus": corpus, "event": "finished", "recipe": canonical(recipe).decode(),
               "plan": canonical({"fingerprint": "plan", "nodes": {}}).decode()}  # fmt: skip
        self.store.append_log("runs", schemas.RUNS, [run], self.tag)
        spent = {"run": number, "corpus": corpus, "node": "header", "calls": calls, "seconds": 0.25, "bytes": 1000}
        self.store.append_log("calls", schemas.CALLS, [spent], self.tag)
        said = {"plan": "plan", "nodes": nodes, "order": list(nodes), "sinks": ["shards"], "sets": sets}
        newest = self.store.snapshot()
        corpora = {**(newest.corpora if newest else {}), corpus: said}
        tables = {**(newest.tables if newest else {}), **self.tables}
        self.store.publish(number, tables, corpora)
        return View(self.store, self.store.snapshots()[-1])


def _record(row: Row) -> dict[str, Any]:
    fields = {"text": row.text, "licence": row.licence}
    return {
        "record_key": row.key,
        "node": "ingest",
        "source": row.source,
        "place": f"{row.source}/manifest.jsonl:{row.name}",
        "split_group": row.key,
        "fields": canonical({name: value for name, value in fields.items() if value is not None}),
        "media": [] if row.media is None else [dict(row.media)],
        "reason": None,
        "message": None,
    }


def _states(rows: Sequence[Row], quality: pl.DataFrame, twins: pl.DataFrame) -> pl.DataFrame:
    empty = pl.lit(None, pl.String)
    lost = [
        frame.filter(pl.col("state") != "passed").select(
            "record_key", "state", "reason", node=pl.lit(node), message=empty
        )
        for node, frame in (("quality", quality), ("twins", twins))
    ]
    kept = twins.filter(pl.col("state") == "passed").select(
        "record_key", state=pl.lit("kept"), reason=empty, node=pl.lit("shards"), message=empty
    )
    bad = [(row.key, "quarantined", "broken image", "header", row.bad) for row in rows if row.bad is not None]
    schema = dict.fromkeys(("record_key", "state", "reason", "node", "message"), pl.String)
    return pl.concat([*lost, kept, pl.DataFrame(bad, schema=schema, orient="row")])


def _books(rows: Sequence[Row], quality: pl.DataFrame, twins: pl.DataFrame) -> list[dict[str, Any]]:
    bad = sum(row.bad is not None for row in rows)
    books = [Book("ingest", "source", len(rows)), Book("header", "measure", len(rows))]
    books += [Book("beauty", "measure", len(rows) - bad), Book("quality", "decide", len(rows) - bad)]
    books += [Book("twins", "decide", twins.height), Book("shards", "pack")]
    for book in books[:3]:
        book.counts["passed"] = book.inputs
    if bad:
        books[1].counts.update({"passed": -bad, "quarantined": bad})
        books[1].reasons["quarantined"] = type(books[1].counts)({"broken image": bad})
    books[3].add(quality)
    books[4].add(twins)
    books[5] = replace(books[5], inputs=books[4].counts["passed"])
    books[5].counts["passed"] = books[5].inputs
    for book in books:
        book.check()
    return [{"row_key": key_of(f"{place}".encode()), **book.row(place)} for place, book in enumerate(books)]


def _pack(store: Store, corpus: str, rows: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    keyed = sorted((sample_key(row.key, "text_to_image", 256, "t/v1", "main"), row) for row in rows)
    counts = {key: (5 + len(row.text or ""), 16) for key, row in keyed}
    samples = [
        Sample(
            key, np.arange(sum(counts[key]), dtype="<i4").tobytes(), canonical({"licence": row.licence}), *counts[key]
        )
        for key, row in keyed
    ]
    buffer = io.BytesIO()
    shard = write_shard(samples, 0, 1, buffer)
    folder = f"shards/{corpus}/train"
    store.storage.write(f"{folder}/g0000/{shard.name}", buffer.getvalue())
    index = index_bytes([shard.index])
    index_name = f"index-{media_digest(index)[:16]}.parquet"
    store.storage.write(f"{folder}/g0000/{index_name}", index)
    listed = {"file": shard.name, "samples": len(samples), "bytes": shard.size, "sha256": shard.digest}
    generation = {"number": 0, "folder": "g0000", "buckets": 1, "index": index_name, "shards": [listed]}
    text, image = (sum(count[place] for count in counts.values()) for place in (0, 1))
    card = Card(corpus, "train", {}, {}, {}, {}, ["patch-vq"], [generation], len(samples), text, image).to_bytes()
    name = f"card-{media_digest(card)[:16]}.json"
    store.storage.write(f"{folder}/{name}", card)
    store.storage.write(f"{folder}/card.json", card)
    table = [
        {"sample_key": key, "record_key": row.key, "task": "text_to_image", "resolution": 256, "template": "t/v1",
         "variant": "main", "split": "train", "licence": row.licence, "generation": 0, "shard": shard.name,
         "position": at, "text_tokens": counts[key][0], "image_tokens": counts[key][1],
         "digest": shard.digests[key], "outcome": "0"}
        for at, (key, row) in enumerate(keyed)
    ]  # fmt: skip
    return table, {"train": name}
