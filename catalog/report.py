"""The report of one corpus: what came in, what became of it and why, as plain data. Pictures are named, not read.

Everything comes from one snapshot of the store, so the same store gives the same report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from catalog import schemas
from catalog.books import FINAL, Book
from catalog.report_picks import (
    Borderline,
    Caps,
    Group,
    Pair,
    Pictured,
    borderlines,
    bucket_frames,
    duplicate_pairs,
    pictured,
)
from catalog.report_reasons import FunnelRow, Reason, branches, funnel, reasons
from catalog.report_values import PASSED, Bins, ValueChart, histogram, summarise, value_charts
from catalog.shards import Card
from catalog.view import View

FORMAT = 2
"""Raise it when the content of reports changes: older ones are then written anew."""
_MOST_LICENCES = 40


@dataclass(frozen=True)
class Tally:
    """The records of one source or licence by what became of them."""

    name: str | None
    records: int
    kept: int
    dropped: int
    duplicate: int
    quarantined: int
    other: int


@dataclass(frozen=True)
class Timing:
    """What one node cost, over all attempts up to the snapshot. `share` is of all seconds."""

    node: str
    records: int
    calls: int
    seconds: float
    bytes: int
    share: float


@dataclass(frozen=True)
class ShardSet:
    """One split of the corpus' shards; `folder` lies below the store."""

    split: str
    folder: str
    samples: int
    shards: int
    generations: int
    bytes: int
    text_tokens: int
    image_tokens: int


@dataclass(frozen=True)
class Tokens:
    """How long samples are: text, image and all tokens of one."""

    kind: str
    total: int
    shortest: int
    median: float
    longest: int
    bins: Bins


@dataclass(frozen=True)
class Report:
    """Everything a report of one corpus says. Keys in groups and pairs are explained in `pictured`."""

    format: int
    corpus: str
    about: str
    snapshot: int
    inputs: int
    born: int
    final: dict[str, int]
    samples: int
    shards: int
    tokens: dict[str, int]
    embedded: tuple[str, ...]
    written_by: tuple[str, ...]
    """Who wrote the annotations."""
    branches: tuple[str, ...]
    """Sentences about nodes that could not run and the rules' branches taken for it."""
    funnel: tuple[FunnelRow, ...]
    reasons: tuple[Reason, ...]
    charts: tuple[ValueChart, ...]
    kept: tuple[str, ...]
    borderline: tuple[Borderline, ...]
    dropped: tuple[Group, ...]
    duplicates: tuple[Pair, ...]
    quarantined: tuple[Group, ...]
    pictured: dict[str, Pictured]
    sources: tuple[Tally, ...]
    licences: tuple[Tally, ...]
    token_counts: tuple[Tokens, ...]
    timings: tuple[Timing, ...]
    sets: tuple[ShardSet, ...]

    def to_json(self) -> bytes:
        """The report for programs."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def gather(view: View, corpus: str, caps: Caps | None = None) -> Report:
    """The report of a corpus at the view's snapshot; raises UserError for an unknown corpus."""
    caps = caps or Caps()
    books = view.books(corpus)
    facts = view.nodes(corpus)
    recipe = _recipe(view, corpus)
    licence = _licence_field(recipe)
    counted = _count(view, corpus, licence, caps)
    cards = view.cards(corpus)
    samples = view.samples(corpus)
    inputs = books[0].inputs if books else 0
    born = sum(book.born for book in books)
    near = borderlines(view, corpus, caps.per_side, caps.groups)
    pairs = duplicate_pairs(view, corpus, caps.pairs)
    kept = _spread(counted.kept, caps.kept)
    dropped = tuple(group for group in counted.groups if group.state == "dropped")[: caps.groups]
    quarantined = _some_quarantined(counted.groups, caps)
    keys = [
        *kept,
        *(record.key for line in near for record in line.records),
        *(key for group in (*dropped, *quarantined) for key in group.keys),
        *(key for pair in pairs for key in (pair.key, pair.representative)),
    ]
    return Report(
        format=FORMAT,
        corpus=corpus,
        about=recipe["about"],
        snapshot=view.snapshot.number,
        inputs=inputs,
        born=born,
        final={state: counted.final[state] for state in FINAL if counted.final[state]},
        samples=sum(card.samples for card in cards.values()),
        shards=sum(len(generation["shards"]) for card in cards.values() for generation in card.generations),
        tokens={
            "text": sum(card.text_tokens for card in cards.values()),
            "image": sum(card.image_tokens for card in cards.values()),
        },
        embedded=tuple(sorted({name for card in cards.values() for name in card.embedded})),
        written_by=_written_by(view, corpus),
        branches=tuple(branches(facts, recipe)),
        funnel=tuple(funnel(books, facts)),
        reasons=tuple(reasons(books, facts, recipe, max(1, inputs + born))),
        charts=tuple(value_charts(view, corpus, recipe)),
        kept=kept,
        borderline=tuple(near),
        dropped=dropped,
        duplicates=tuple(pairs),
        quarantined=quarantined,
        pictured=pictured(view, corpus, keys, _text_names(recipe), licence, _hash_columns(recipe)),
        sources=_tallies(counted.by_source),
        licences=_tallies(counted.by_licence)[:_MOST_LICENCES],
        token_counts=tuple(_tokens(samples)),
        timings=tuple(_timings(view, corpus, books)),
        sets=tuple(_set(corpus, split, card) for split, card in cards.items()),
    )


def _recipe(view: View, corpus: str) -> dict[str, Any]:
    """The recipe whose plan the snapshot holds, as it was run."""
    plan = view.snapshot.corpora[corpus]["plan"]
    runs = view.store.read_log("runs", schemas.RUNS)
    mine = runs.filter((pl.col("corpus") == corpus) & (pl.col("run") <= view.snapshot.run)).sort("run")
    for row in reversed(mine.to_dicts()):
        if orjson.loads(row["plan"])["fingerprint"] == plan:
            found: dict[str, Any] = orjson.loads(row["recipe"])
            return found
    return {"about": "", "nodes": {}}


def _licence_field(recipe: Mapping[str, Any]) -> str:
    fields = [node["field"] for node in recipe["nodes"].values() if node.get("decide") == "licence"]
    return fields[0] if fields else "licence"


def _text_names(recipe: Mapping[str, Any]) -> list[str]:
    """Columns or fields that hold what is written about a picture: what is encoded, else what sources call a text.

    A chain of thought says little without its question; what a user asks for says nothing beside texts of frames.
    """
    mapped = [name for source in recipe.get("sources", {}).values() for name in source.get("map", {})]
    names = []
    asked = []
    for node in recipe["nodes"].values():
        if "encode" in node:
            params = node["params"]
            if params.get("frame_texts"):
                names.append(params["frame_texts"])
                asked.append(params.get("prompt"))
            elif params.get("thinking"):
                question = ["question"] if "question" in mapped else []
                names += [params.get("prompt"), *question, params["thinking"], params.get("answer")]
            else:
                names += [params.get("answer") or params.get("prompt")]
        if "annotate" in node:
            names.append(node["params"].get("into", "caption"))
    names += [name for name in ("text", "caption") if name in mapped]
    names += asked
    return list(dict.fromkeys(name for name in names if name))


def _hash_columns(recipe: Mapping[str, Any]) -> list[str]:
    """Columns whose numbers mean nothing to a person."""
    near = [node["near"] for node in recipe["nodes"].values() if node.get("decide") == "duplicates" and node["near"]]
    return [column for some in near for column in (some["column"], *some.get("variants", ()))]


# -- counting ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counted:
    final: Counter[str]
    by_source: dict[str | None, Counter[str]]
    by_licence: dict[str | None, Counter[str]]
    kept: dict[str, list[str]]
    groups: tuple[Group, ...]


def _count(view: View, corpus: str, licence: str, caps: Caps) -> _Counted:
    """One pass over the records, bucket by bucket; the first keys of each group are remembered."""
    final: Counter[str] = Counter()
    by_source: dict[str | None, Counter[str]] = {}
    by_licence: dict[str | None, Counter[str]] = {}
    kept: dict[str, list[str]] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    keys: dict[tuple[str, str, str], list[str]] = {}
    there = view.store.records(corpus).name in view.snapshot.tables
    for bucket in view.store.buckets if there else []:
        licensed = pl.col("fields").cast(pl.String).str.json_path_match(f"$.{licence}")
        frame = bucket_frames(view, corpus, bucket, ["source", "fields"]).with_columns(licence=licensed)
        frame = frame.with_columns(pl.col("state").fill_null("undecided"))
        rows = frame.select("record_key", "source", "licence", "state", "node", "reason").collect()
        for source, licence_name, state, count in rows.group_by("source", "licence", "state").len().iter_rows():
            final[state] += count
            by_source.setdefault(source, Counter())[state] += count
            by_licence.setdefault(licence_name, Counter())[state] += count
        lowest = pl.col("record_key").bottom_k(caps.kept).sort()
        for source, some in rows.filter(pl.col("state") == "kept").group_by("source").agg(lowest).sort("source").rows():
            kept.setdefault(source, []).extend(some)
        lost = rows.filter(pl.col("state").is_in(["dropped", "quarantined", "undecided"]))
        lowest = pl.col("record_key").bottom_k(caps.per_reason).sort()
        by_reason = lost.group_by("node", "state", pl.col("reason").fill_null("")).agg(pl.len(), lowest)
        for node, state, reason, count, some in by_reason.sort("node", "state", "reason").rows():
            counts[node, state, reason] += count
            keys.setdefault((node, state, reason), []).extend(some)
    order = {name: place for place, name in enumerate(["ingest", *view.nodes(corpus)])}
    ranked = sorted(counts, key=lambda group: (order.get(group[0], len(order)), group[1], -counts[group], group[2]))
    groups = tuple(Group(*group, counts[group], tuple(keys[group][: caps.per_reason])) for group in ranked)
    return _Counted(final, by_source, by_licence, kept, groups)


def _spread(by_source: Mapping[str, Sequence[str]], most: int) -> tuple[str, ...]:
    """Keys taken from each source in turn, then in the order of sources."""
    turns = sorted((turn, source, key) for source, keys in by_source.items() for turn, key in enumerate(keys))
    return tuple(key for _, source, key in sorted(turns[:most], key=lambda item: (item[1], item[0])))


def _some_quarantined(groups: Sequence[Group], caps: Caps) -> tuple[Group, ...]:
    """Every reason once before any reason twice, as far as the cap goes."""
    mine = [group for group in groups if group.state in ("quarantined", "undecided")]
    turns = sorted((turn, place) for place, group in enumerate(mine) for turn in range(len(group.keys)))
    shown = Counter(place for _, place in turns[: caps.quarantined])
    return tuple(
        Group(group.node, group.state, group.reason, group.count, group.keys[: shown[place]])
        for place, group in enumerate(mine)
        if shown[place]
    )


def _tallies(counts: Mapping[str | None, Counter[str]]) -> tuple[Tally, ...]:
    rows = []
    for name, by_state in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0] is None, item[0] or "")):
        named = {state: by_state[state] for state in ("kept", "dropped", "duplicate", "quarantined")}
        rows.append(Tally(name, by_state.total(), **named, other=by_state.total() - sum(named.values())))
    return tuple(rows)


def _written_by(view: View, corpus: str) -> tuple[str, ...]:
    """Providers of all annotations, as their columns `*_by` name them."""
    found: set[str] = set()
    for name, facts in view.nodes(corpus).items():
        table = view.node_table(corpus, name) if facts["kind"] == "annotate" else None
        if table is not None:
            for column in [name for name in table.collect_schema().names() if name.endswith("_by")]:
                found |= set(table.select(pl.col(column).drop_nulls().unique()).collect().to_series())
    return tuple(sorted(found))


# -- what came out -------------------------------------------------------------------------------------------------


def _set(corpus: str, split: str, card: Card) -> ShardSet:
    shards = [shard for generation in card.generations for shard in generation["shards"]]
    return ShardSet(
        split=split,
        folder=f"shards/{corpus}/{split}",
        samples=card.samples,
        shards=len(shards),
        generations=len(card.generations),
        bytes=sum(shard["bytes"] for shard in shards),
        text_tokens=card.text_tokens,
        image_tokens=card.image_tokens,
    )


def _tokens(samples: pl.LazyFrame) -> Iterator[Tokens]:
    kinds = {
        "text": pl.col("text_tokens"),
        "image": pl.col("image_tokens"),
        "all": pl.col("text_tokens") + pl.col("image_tokens"),
    }
    for kind, count in kinds.items():
        values = samples.select(value=count, fate=pl.lit(PASSED))
        summary = summarise(values)
        bins = histogram(values, summary, (), integers=True)
        if bins is None or summary.low is None or summary.high is None or summary.median is None:
            continue
        total = int(samples.select(count.sum()).collect().item())
        yield Tokens(kind, total, int(summary.low), summary.median, int(summary.high), bins)


def _timings(view: View, corpus: str, books: Sequence[Book]) -> Iterator[Timing]:
    calls = view.store.read_log("calls", schemas.CALLS)
    mine = calls.filter((pl.col("corpus") == corpus) & (pl.col("run") <= view.snapshot.run))
    sums = mine.group_by("node").agg(pl.col("calls", "seconds", "bytes").sort_by("run", "seconds", "bytes").sum())
    spent = {row["node"]: row for row in sums.to_dicts()}
    whole = sum(row["seconds"] for row in mine.sort("run", "node", "seconds").to_dicts()) or 1.0
    for book in books:
        row = spent.get(book.node)
        if row is not None:
            share = row["seconds"] / whole
            yield Timing(book.node, book.inputs, row["calls"], row["seconds"], row["bytes"], share)
