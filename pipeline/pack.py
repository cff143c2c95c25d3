"""Packing: encoded sequences into the shard sets of a corpus, one set a split.

A sample keeps the generation in which it was first packed; samples no generation has make a new one. Only tars whose
samples changed are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from catalog.keys import media_digest
from catalog.schemas import SAMPLES
from catalog.scratch import scratch
from catalog.shards import (
    Card,
    Sample,
    WrittenShard,
    bucket_count,
    bucket_of,
    index_bytes,
    read_index,
    write_shard,
)
from catalog.store import Store
from pipeline.encode import Encode
from pipeline.flow import Flow
from pipeline.recipe import PackNode, dep

_LIGHT = ("sample_keys", "sample_heads", "sample_licences", "text_tokens", "image_tokens")
_HEAVY = ("sample_ids", "sample_metas")
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class Packed:
    """What packing came to: tars written anew, tars left alone, and per split the name of the set's card."""

    written: int
    kept: int
    sets: dict[str, str]


def pack(
    store: Store,
    flow: Flow,
    name: str,
    before: dict[str, str],
    version: int | None,
    tag: str,
    advance: Callable[[int], None],
) -> Packed:
    """Bring the shard sets in line with what enters a packing node.

    `before` names the cards of the last snapshot, `version` its version of the samples table; None before the first.
    What a killed run left in the newest version counts for nothing, as no card names the tars it speaks of.
    """
    node = flow.plan.recipe.nodes[name]
    assert isinstance(node, PackNode)
    wanted = _wanted(flow, name, node)
    table = store.samples(flow.corpus)
    old = table.read().clear() if version is None else table.read(version=version)
    placed, generations = _place(wanted, old, _generations(store, flow.corpus, before), node.shard_samples)
    done = _unchanged(placed, old)
    todo = placed.join(
        done.select("split", "generation", "bucket").unique(), on=["split", "generation", "bucket"], how="anti"
    )
    written = _write(store, flow, todo, generations, advance)
    advance(done.height)
    rows = pl.concat([done.select(SAMPLES.names), written.rows.select(SAMPLES.names)]) if done.height else written.rows
    sets = _publish(store, flow, name, rows, generations, written.shards, before)
    table.sync(((bucket, rows.filter(pl.col("sample_key").str.starts_with(bucket))) for bucket in store.buckets), tag)
    return Packed(len(written.shards), done.select("shard").n_unique() if done.height else 0, sets)


def _wanted(flow: Flow, name: str, node: PackNode) -> pl.DataFrame:
    """Light columns of every sample that enters: keys, what it is, tokens, and the node whose outcome holds it."""
    frames = []
    for need in node.needs:
        encode = dep(need)
        outcome = flow.outcome(encode)
        for bucket in flow.buckets:
            keys = flow.passed(need, bucket).alias("record_key").to_frame()
            if not keys.height:
                continue
            rows = (
                outcome.scan(["record_key", *_LIGHT], bucket).join(keys.lazy(), on="record_key", how="semi").collect()
            )
            rows = rows.explode(_LIGHT).drop_nulls("sample_keys").with_columns(encode=pl.lit(encode))
            frames.append(rows.join(_splits(flow, name, bucket), on="record_key", how="left"))
    if not frames:
        return _empty_wanted()
    frame = pl.concat(frames)
    heads = frame["sample_heads"].str.json_decode(
        pl.Struct({"task": pl.String, "resolution": pl.Int32, "template": pl.String, "variant": pl.String})
    )
    return pl.DataFrame(
        {
            "sample_key": frame["sample_keys"],
            "record_key": frame["record_key"],
            "task": heads.struct.field("task"),
            "resolution": heads.struct.field("resolution"),
            "template": heads.struct.field("template"),
            "variant": heads.struct.field("variant"),
            "split": frame["value"].fill_null(DEFAULT_SPLIT),
            "licence": frame["sample_licences"],
            "text_tokens": frame["text_tokens"],
            "image_tokens": frame["image_tokens"],
            "encode": frame["encode"],
            "outcome": frame["encode"].replace_strict({dep(n): _outcome(flow, dep(n)) for n in node.needs}),
        }
    ).sort("sample_key")


def _empty_wanted() -> pl.DataFrame:
    strings = ("sample_key", "record_key", "task", "template", "variant", "split", "licence", "encode", "outcome")
    numbers = {"resolution": pl.Int32, "text_tokens": pl.Int64, "image_tokens": pl.Int64}
    return pl.DataFrame(schema={**dict.fromkeys(strings, pl.String), **numbers})


def _outcome(flow: Flow, encode: str) -> str:
    return flow.plan.nodes[encode].fingerprint[:12]


def _splits(flow: Flow, name: str, bucket: str) -> pl.DataFrame:
    """(record_key, value) of the split decisions above a packing node; the lowest a record came through counts."""
    above = flow.plan.recipe.ancestors(name)
    deciders = [
        n for n in flow.plan.recipe.order if n in above and getattr(flow.plan.recipe.nodes[n], "decide", "") == "split"
    ]
    if not deciders:
        return pl.DataFrame(schema={"record_key": pl.String, "value": pl.String})
    verdicts = [flow.verdicts(decider).read(["record_key", "value"], bucket) for decider in deciders]
    return pl.concat(verdicts).unique("record_key", keep="last", maintain_order=True)


def _generations(store: Store, corpus: str, before: dict[str, str]) -> dict[tuple[str, int], dict[str, Any]]:
    """Per (split, generation number) its entry in the last snapshot's card."""
    found = {}
    for split, card_name in before.items():
        card = Card.from_bytes(store.storage.read(f"shards/{corpus}/{split}/{card_name}"))
        for generation in card.generations:
            found[split, int(generation["number"])] = generation
    return found


def _place(
    wanted: pl.DataFrame, old: pl.DataFrame, known: dict[tuple[str, int], dict[str, Any]], shard_samples: int
) -> tuple[pl.DataFrame, dict[tuple[str, int], int]]:
    """Every wanted sample with its generation and bucket; and the bucket count of each generation."""
    buckets = {key: int(generation["buckets"]) for key, generation in known.items()}
    placed = wanted.join(old.select("sample_key", "split", "generation"), on=["sample_key", "split"], how="left")
    for split in placed["split"].unique().sort():
        fresh = placed.filter((pl.col("split") == split) & pl.col("generation").is_null()).height
        if not fresh:
            continue
        number = max((n for s, n in buckets if s == split), default=-1) + 1
        buckets[split, number] = bucket_count(fresh, shard_samples)
        placed = placed.with_columns(
            generation=pl.when((pl.col("split") == split) & pl.col("generation").is_null())
            .then(pl.lit(number, pl.Int32))
            .otherwise("generation")
        )
    where = [
        bucket_of(key, buckets[split, generation])
        for key, split, generation in placed.select("sample_key", "split", "generation").iter_rows()
    ]
    return placed.with_columns(bucket=pl.Series(where, dtype=pl.Int64)), buckets


def _unchanged(placed: pl.DataFrame, old: pl.DataFrame) -> pl.DataFrame:
    """Rows of the samples table whose whole tar stays as it is."""
    tar = ["split", "generation", "bucket"]
    if not old.height or not placed.height:
        return old.clear().with_columns(bucket=pl.lit(0, pl.Int64))
    before = old.join(
        placed.select("sample_key", "split", "generation", "bucket", now="outcome"),
        on=["sample_key", "split", "generation"],
        how="left",
    )
    # A tar stays if every sample it held is still wanted with the same content, and none has joined it.
    same = pl.col("now").is_not_null() & (pl.col("now") == pl.col("outcome"))
    whole = before.group_by("shard", "split", "generation").agg(
        same=same.all(), held=pl.len(), bucket=pl.col("bucket").first()
    )
    counts = placed.group_by(tar).agg(wanted=pl.len())
    stay = whole.filter("same").join(counts, on=tar, how="inner").filter(pl.col("held") == pl.col("wanted"))
    return before.join(stay.select("shard", "split", "generation"), on=["shard", "split", "generation"], how="semi")


@dataclass(frozen=True)
class _Written:
    rows: pl.DataFrame
    shards: dict[tuple[str, int, int], WrittenShard]


def _write(
    store: Store,
    flow: Flow,
    todo: pl.DataFrame,
    generations: dict[tuple[str, int], int],
    advance: Callable[[int], None],
) -> _Written:
    """Write the tars of `todo`. Heavy columns go through local files, so that memory holds one tar at a time."""
    shards: dict[tuple[str, int, int], WrittenShard] = {}
    rows = [
        todo.clear()
        .with_columns(shard=pl.lit(""), position=pl.lit(0, pl.Int32), digest=pl.lit(""))
        .select(SAMPLES.names)
    ]
    with scratch() as folder:
        spilled = _spill(flow, todo, folder)
        for (split, generation, bucket), files in sorted(spilled.items()):
            frame = pl.concat([pl.read_ipc(file) for file in files]).sort("sample_key")
            path = folder / "shard.tar"
            with path.open("wb") as file:
                shard = write_shard(_samples(frame), bucket, generations[split, generation], file)
            store.storage.adopt(f"{_folder(flow.corpus, split, generation)}/{shard.name}", path)
            shards[split, generation, bucket] = shard
            digests = pl.Series([shard.digests[key] for key in frame["sample_key"]], dtype=pl.String)
            rows.append(
                frame.with_columns(
                    shard=pl.lit(shard.name), position=pl.int_range(pl.len(), dtype=pl.Int32), digest=digests
                ).select(SAMPLES.names)
            )
            for spilled_file in files:
                spilled_file.unlink()
            advance(frame.height)
    return _Written(pl.concat(rows), shards)


def _spill(flow: Flow, todo: pl.DataFrame, folder: Path) -> dict[tuple[str, int, int], list[Path]]:
    files: dict[tuple[str, int, int], list[Path]] = {}
    for (encode,), part in todo.group_by("encode", maintain_order=True):
        outcome = flow.outcome(str(encode))
        for bucket in flow.buckets:
            mine = part.filter(pl.col("record_key").str.starts_with(bucket))
            if not mine.height:
                continue
            heavy = outcome.scan(["record_key", "sample_keys", *_HEAVY], bucket)
            heavy = heavy.join(mine.select("record_key").unique().lazy(), on="record_key", how="semi")
            content = heavy.collect().drop("record_key").explode("sample_keys", *_HEAVY)
            full = mine.join(content, left_on="sample_key", right_on="sample_keys", how="inner")
            for key, some in full.group_by("split", "generation", "bucket"):
                tar = (str(key[0]), int(key[1]), int(key[2]))
                path = folder / f"{len(files)}-{encode}-{bucket}-{tar[0]}-{tar[1]}-{tar[2]}.arrow"
                some.write_ipc(path)
                files.setdefault(tar, []).append(path)
    return files


def _samples(frame: pl.DataFrame) -> Iterator[Sample]:
    for key, ids, meta, text, image in frame.select("sample_key", *_HEAVY, "text_tokens", "image_tokens").iter_rows():
        yield Sample(key, ids, meta, text, image)


def _folder(corpus: str, split: str, generation: int) -> str:
    return f"shards/{corpus}/{split}/g{generation:04d}"


def _publish(
    store: Store,
    flow: Flow,
    name: str,
    rows: pl.DataFrame,
    generations: dict[tuple[str, int], int],
    shards: dict[tuple[str, int, int], WrittenShard],
    before: dict[str, str],
) -> dict[str, str]:
    """Write indexes and cards; returns per split the name of the card. Equal content gives equal names."""
    known = _generations(store, flow.corpus, before)
    sets = {}
    parts = _card_parts(flow, name)
    for split in sorted({split for split, _ in generations}):
        mine = rows.filter(pl.col("split") == split)
        entries = []
        for number in sorted(n for s, n in generations if s == split):
            used = mine.filter(pl.col("generation") == number)
            previous = known.get((split, number))
            new = {b: shard for (s, n, b), shard in shards.items() if (s, n) == (split, number)}
            entry = _generation(store, flow.corpus, split, number, generations[split, number], used, previous, new)
            entries.append(entry)
        card = Card(
            corpus=flow.corpus,
            split=split,
            generations=entries,
            samples=mine.height,
            text_tokens=int(mine["text_tokens"].sum()),
            image_tokens=int(mine["image_tokens"].sum()),
            **parts,
        )
        data = card.to_bytes()
        sets[split] = f"card-{media_digest(data)[:16]}.json"
        store.storage.write(f"shards/{flow.corpus}/{split}/{sets[split]}", data)
    return sets


def _generation(
    store: Store,
    corpus: str,
    split: str,
    number: int,
    buckets: int,
    used: pl.DataFrame,
    previous: dict[str, Any] | None,
    new: dict[int, WrittenShard],
) -> dict[str, Any]:
    """A generation's entry in the card, its index written beside its tars."""
    folder = _folder(corpus, split, number)
    live = set(used["shard"].unique())
    entries = {shard["file"]: shard for shard in (previous or {}).get("shards", []) if shard["file"] in live}
    indexes = [shard.index for shard in new.values()]
    if previous and entries:
        index = read_index(store.storage.read(f"{folder}/{previous['index']}"))
        kept = pl.DataFrame(pl.from_arrow(index)).filter(pl.col("shard").is_in(list(entries)))
        indexes.append(kept.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(index.schema))
    for shard in new.values():
        count = used.filter(pl.col("shard") == shard.name).height
        entries[shard.name] = {"file": shard.name, "samples": count, "bytes": shard.size, "sha256": shard.digest}
    data = index_bytes(indexes)
    index_name = f"index-{media_digest(data)[:16]}.parquet"
    store.storage.write(f"{folder}/{index_name}", data)
    return {
        "number": number,
        "folder": f"g{number:04d}",
        "buckets": buckets,
        "index": index_name,
        "shards": [entries[file] for file in sorted(entries)],
    }


def _card_parts(flow: Flow, name: str) -> dict[str, Any]:
    """Vocabulary, tokenizers, templates and branches of the nodes above; encode nodes of one set must agree."""
    vocabulary: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    templates: dict[str, str] = {}
    for need in flow.plan.recipe.nodes[name].needs:
        runs = flow.plan.nodes[dep(need)].runs
        assert runs is not None
        assert isinstance(runs.operator, Encode)
        parts = runs.operator.card_parts()
        vocabulary, tokenizers = parts["vocabulary"], parts["tokenizers"]
        templates |= parts["templates"]
    above = [flow.plan.nodes[node] for node in flow.plan.recipe.ancestors(name)]
    ran = [node.runs.operator for node in above if node.runs is not None and node.missing is None]
    embedded = sorted({part for operator in ran for part in operator.embedded})
    branches = {
        f"{node.name}.{rule.name}": rule.branch
        for node in flow.plan.nodes.values()
        for rule in node.rules
        if rule.branch != "keep"
    }
    return {
        "vocabulary": vocabulary,
        "tokenizers": tokenizers,
        "templates": templates,
        "branches": branches,
        "embedded": embedded,
    }


def current_card(store: Store, corpus: str, split: str, card: str) -> None:
    """Let `card.json` of a shard set be the card of the newest snapshot, for readers that have only the folder."""
    name = f"shards/{corpus}/{split}/card.json"
    data = store.storage.read(f"shards/{corpus}/{split}/{card}")
    if not (store.storage.exists(name) and store.storage.read(name) == data):
        store.storage.write(name, data)


def card_names(corpora: dict[str, dict[str, Any]], corpus: str) -> dict[str, str]:
    """Per split the card a snapshot names for a corpus."""
    return dict(corpora.get(corpus, {}).get("sets", {}))
