"""The audit: books balance, and catalog and shards are proved equal in both directions, byte by byte."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from catalog.audit_mixtures import audit_mixtures
from catalog.books import BooksError, check_all
from catalog.datafile import file_digest
from catalog.shards import (
    IDS_SUFFIX,
    JSON_SUFFIX,
    Card,
    Member,
    ShardDamage,
    bucket_of,
    load_ids,
    read_index,
    read_members,
    shard_name,
)
from catalog.view import View

Grammar = Callable[[Mapping[str, Any], npt.NDArray[np.int32], Sequence[Mapping[str, Any]]], None]
"""Raises ValueError for a sequence no template makes: (vocabulary, ids, spans)."""

MOST_FINDINGS = 20
"""Findings of one kind and place that are listed one by one; the rest is counted."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong: what kind, where, and in words."""

    kind: str
    place: str
    message: str


@dataclass
class CorpusAudit:
    """What a corpus comes to; the shape `unifactory audit --json` prints."""

    inputs: int = 0
    born: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    expanded: int = 0
    merged: int = 0
    tombstoned: int = 0
    samples: int = 0
    shards: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: {"text": 0, "image": 0})


@dataclass
class Audit:
    """The whole result."""

    snapshot: int
    corpora: dict[str, CorpusAudit] = field(default_factory=dict)
    operator_calls: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> bytes:
        """The result as others script against it."""
        data = {
            "snapshot": self.snapshot,
            "corpora": {name: vars(corpus) for name, corpus in self.corpora.items()},
            "operator_calls": self.operator_calls,
            "findings": [vars(finding) for finding in self.findings],
        }
        return orjson.dumps(data, option=orjson.OPT_INDENT_2)


def audit(view: View, grammar: Grammar, advance: Callable[[int], None] = lambda count: None) -> Audit:
    """Check everything a snapshot promises. `advance` is told of every sample read."""
    result = Audit(view.snapshot.number, operator_calls=view.operator_calls())
    found = _Findings(result.findings)
    for name in sorted(view.snapshot.tables):
        _check_files(view, name, found)
    if result.findings:
        # Tables that cannot be trusted cannot judge shards.
        result.findings.sort(key=lambda finding: (finding.place, finding.kind, finding.message))
        return result
    for corpus in view.corpora:
        result.corpora[corpus] = _audit_corpus(view, corpus, grammar, found, advance)
    audit_mixtures(view, found.add)
    if view.is_newest and not view.store.is_locked():
        # A run at work writes tars that its snapshot will name.
        _check_strays(view, found)
    found.close()
    return result


class _Findings:
    """Gathers findings; what repeats without end is counted."""

    def __init__(self, findings: list[Finding]) -> None:
        self._findings = findings
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, place: str, message: str) -> None:
        self._counts[kind, place] += 1
        if self._counts[kind, place] <= MOST_FINDINGS:
            self._findings.append(Finding(kind, place, message))

    def close(self) -> None:
        for (kind, place), count in sorted(self._counts.items()):
            if count > MOST_FINDINGS:
                self._findings.append(Finding(kind, place, f"and {count - MOST_FINDINGS} more of this kind"))


def _check_files(view: View, name: str, found: _Findings) -> None:
    """Every data file of a pinned table is there, with the bytes its name promises."""
    storage = view.store.storage
    table = view.store.existing(name)
    try:
        files = table.files(view.snapshot.tables[name])
    except Exception as error:
        found.add("table", f"tables/{name}", f"version {view.snapshot.tables[name]} cannot be read: {_line(error)}")
        return
    for file in files:
        place = f"tables/{name}/{file.path}"
        try:
            data = storage.read(place)
        except (FileNotFoundError, OSError):
            found.add("table", place, "is missing")
            continue
        if file_digest(data) not in file.path:
            found.add("table", place, "its bytes are not those that were written")


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _audit_corpus(
    view: View, corpus: str, grammar: Grammar, found: _Findings, advance: Callable[[int], None]
) -> CorpusAudit:
    result = CorpusAudit()
    records = view.records(corpus).select("record_key", "state", "node", "reason").collect()
    origin = view.store.records(corpus).scan(["record_key", "node"], version=view.snapshot.tables[f"{corpus}/records"])
    origin_nodes = origin.group_by("node").len().collect().rows()
    result.inputs = sum(count for node, count in origin_nodes if node == "ingest")
    result.born = sum(count for node, count in origin_nodes if node != "ingest")
    _check_states(view, corpus, records, found)
    counts = dict(records.group_by("state").len().rows())
    result.kept = counts.get("kept", 0)
    result.duplicates = counts.get("duplicate", 0)
    for state in ("expanded", "merged", "tombstoned"):
        setattr(result, state, counts.get(state, 0))
    result.dropped = _by_reason(records, "dropped")
    result.quarantined = _by_reason(records, "quarantined")
    try:
        final = {state: count for state, count in counts.items() if state is not None}
        check_all(view.books(corpus), final, result.inputs, result.born)
    except BooksError as error:
        found.add("books", corpus, str(error))
    _check_books_against_states(view, corpus, records, result.inputs, found)
    _check_duplicates(view, corpus, found)
    _check_lineage(view, corpus, records, found)
    samples = view.samples(corpus).collect()
    _check_kept(view, corpus, records, samples, found)
    shards = _ShardAudit(view, corpus, samples, grammar, found, advance)
    shards.run()
    result.samples = shards.samples
    result.shards = shards.shards
    result.tokens = dict(shards.tokens)
    return result


def _by_reason(records: pl.DataFrame, state: str) -> dict[str, int]:
    rows = records.filter(pl.col("state") == state).group_by("reason").len().sort("reason").rows()
    return {str(reason): count for reason, count in rows}


def _check_states(view: View, corpus: str, records: pl.DataFrame, found: _Findings) -> None:
    """Every record has exactly one final state, and no state is without a record."""
    for key in records.filter(pl.col("state").is_null())["record_key"]:
        found.add("state", corpus, f"record {key} has no final state")
    states = view.store.states(corpus).read(["record_key"], version=view.snapshot.tables[f"{corpus}/states"])
    for key in states.filter(pl.col("record_key").is_duplicated())["record_key"].unique().sort():
        found.add("state", corpus, f"record {key} has several final states")
    strangers = states.join(records.select("record_key"), on="record_key", how="anti")["record_key"]
    for key in strangers.sort():
        found.add("state", corpus, f"a final state names {key}, which is no record")


def _check_books_against_states(view: View, corpus: str, records: pl.DataFrame, inputs: int, found: _Findings) -> None:
    """What left at a node by the records' states cannot exceed what its book says."""
    books = {book.node: book for book in view.books(corpus)}
    left = records.filter(pl.col("state").is_not_null() & (pl.col("state") != "kept"))
    if books and next(iter(books.values())).inputs != inputs:
        found.add("books", corpus, f"the sources gave {inputs} records, the book says otherwise")
    for node, state, count in left.group_by("node", "state").len().sort("node", "state").rows():
        booked = books[node].counts[state] if node in books else 0
        if count > booked:
            found.add("books", corpus, f"{count} records are {state} at {node}, the book says {booked}")


def _check_duplicates(view: View, corpus: str, found: _Findings) -> None:
    """A duplicate names a record that passed the same decision."""
    for name, node in view.nodes(corpus).items():
        if node["kind"] != "decide" or node["table"] is None:
            continue
        verdicts = view.scan_named(node["table"]).collect()
        if "representative" not in verdicts.columns:
            continue
        passed = verdicts.filter(pl.col("state") == "passed").select(representative="record_key")
        lost = verdicts.filter(pl.col("state") == "duplicate").join(passed, on="representative", how="anti")
        for key, representative in lost.select("record_key", "representative").sort("record_key").rows():
            found.add("duplicate", f"{corpus}/{name}", f"{key} is a duplicate of {representative}, which was not kept")


def _check_lineage(view: View, corpus: str, records: pl.DataFrame, found: _Findings) -> None:
    edges = view.lineage(corpus).collect()
    for column in ("record_key", "parent"):
        strangers = edges.join(records.select("record_key"), left_on=column, right_on="record_key", how="anti")
        for key in strangers[column].unique().sort():
            found.add("lineage", corpus, f"an edge names {key} as {column}, which is no record")


def _check_kept(view: View, corpus: str, records: pl.DataFrame, samples: pl.DataFrame, found: _Findings) -> None:
    kept = records.filter(pl.col("state") == "kept")
    strangers = samples.join(kept, on="record_key", how="anti")
    for key, record in strangers.select("sample_key", "record_key").sort("sample_key").rows():
        found.add("sample", corpus, f"sample {key} is of record {record}, which is not kept")
    packing = [name for name, node in view.nodes(corpus).items() if node["kind"] == "pack"]
    without = kept.filter(pl.col("node").is_in(packing)).join(samples, on="record_key", how="anti")
    for key in without["record_key"].sort():
        found.add("sample", corpus, f"record {key} is kept but has no sample")


class _ShardAudit:
    """Reads every tar of a corpus once and compares it with index, card and samples table."""

    def __init__(
        self,
        view: View,
        corpus: str,
        samples: pl.DataFrame,
        grammar: Grammar,
        found: _Findings,
        advance: Callable[[int], None],
    ) -> None:
        self._view = view
        self._storage = view.store.storage
        self._corpus = corpus
        self._grammar = grammar
        self._found = found
        self._advance = advance
        self._expected = {
            row["sample_key"]: row
            for row in samples.select(
                "sample_key", "record_key", "split", "licence", "generation", "shard", "position", "digest",
                "text_tokens", "image_tokens", "task", "resolution", "template", "variant",
            ).iter_rows(named=True)
        }  # fmt: skip
        self._seen: set[str] = set()
        self.samples = 0
        self.shards = 0
        self.tokens: Counter[str] = Counter(text=0, image=0)

    def run(self) -> None:
        """Audit every split."""
        for split, name in sorted(self._view.snapshot.corpora[self._corpus]["sets"].items()):
            place = f"shards/{self._corpus}/{split}/{name}"
            try:
                data = self._storage.read(place)
                card = Card.from_bytes(data)
            except (OSError, ValueError) as error:
                self._found.add("card", place, f"cannot be read: {_line(error)}")
                continue
            if hashlib.sha256(data).hexdigest()[:16] not in name:
                self._found.add("card", place, "its bytes are not those that were written")
                continue
            for generation in card.generations:
                self._generation(split, card, generation)
            if self._view.is_newest:
                self._current(split, data)
            self._totals(place, split, card)
        for key in sorted(self._expected.keys() - self._seen):
            self._found.add("sample", self._corpus, f"sample {key} of the catalog is in no shard")

    def _current(self, split: str, data: bytes) -> None:
        place = f"shards/{self._corpus}/{split}/card.json"
        if not self._storage.exists(place) or self._storage.read(place) != data:
            self._found.add("card", place, "is not the card of this snapshot; run curate again")

    def _totals(self, place: str, split: str, card: Card) -> None:
        mine = [row for row in self._expected.values() if row["split"] == split]
        counted = (len(mine), sum(row["text_tokens"] for row in mine), sum(row["image_tokens"] for row in mine))
        if counted != (card.samples, card.text_tokens, card.image_tokens):
            self._found.add("card", place, f"counts {card.samples} samples, the catalog {counted[0]}, or other tokens")

    def _generation(self, split: str, card: Card, generation: dict[str, Any]) -> None:
        folder = f"shards/{self._corpus}/{split}/{generation['folder']}"
        place = f"{folder}/{generation['index']}"
        try:
            data = self._storage.read(place)
            index = read_index(data)
        except Exception as error:
            self._found.add("index", place, f"cannot be read: {_line(error)}")
            return
        if hashlib.sha256(data).hexdigest()[:16] not in generation["index"]:
            self._found.add("index", place, "its bytes are not those that were written")
            return
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in index.to_pylist():
            rows.setdefault(row["shard"], []).append(row)
        for shard in generation["shards"]:
            self._shard(f"{folder}/{shard['file']}", split, card, generation, shard, rows.pop(shard["file"], []))
        for name in sorted(rows):
            self._found.add("index", place, f"lists members of {name}, which the card does not name")

    def _shard(
        self,
        place: str,
        split: str,
        card: Card,
        generation: dict[str, Any],
        shard: dict[str, Any],
        index: list[dict[str, Any]],
    ) -> None:
        self.shards += 1
        try:
            data = self._storage.read(place)
        except OSError:
            self._found.add("shard", place, "is missing")
            return
        digest = hashlib.sha256(data).hexdigest()
        if len(data) != shard["bytes"]:
            self._found.add("shard", place, f"has {len(data)} bytes, the card says {shard['bytes']}")
        elif digest != shard["sha256"]:
            self._found.add("shard", place, "its sha256 is not the one in the card")
        bucket = int(shard["file"].partition("-of-")[0])
        if shard["file"] != shard_name(bucket, generation["buckets"], shard["sha256"]):
            self._found.add("shard", place, "its name is not the one its content gives")
        at = 0
        previous = ""
        position = -1
        for position, sample in enumerate(self._samples(place, io.BytesIO(data))):
            key = sample[0].key
            if key <= previous:
                self._found.add("shard", place, f"sample {key} stands after {previous}: out of order or twice")
            previous = max(previous, key)
            if bucket_of(key, generation["buckets"]) != bucket:
                self._found.add("shard", place, f"sample {key} belongs into another shard")
            digests = [hashlib.sha256(member.data).hexdigest() for member in sample]
            for member, digest in zip(sample, digests, strict=True):
                expected = index[at] if at < len(index) else None
                self._member(place, member, digest, expected)
                at += 1
            self._sample(place, split, card, position, sample, digests)
            self._advance(1)
        if position + 1 != shard["samples"]:
            self._found.add("card", place, f"has {position + 1} samples, the card says {shard['samples']}")
        if at != len(index):
            self._found.add("index", place, f"has {at} members, the index lists {len(index)}")

    def _samples(self, place: str, file: BinaryIO) -> Iterator[list[Member]]:
        current: list[Member] = []
        try:
            for member in read_members(file):
                if current and member.key != current[0].key:
                    yield current
                    current = []
                current.append(member)
        except ShardDamage as damage:
            self._found.add("shard", place, str(damage))
        if current:
            yield current

    def _member(self, place: str, member: Member, digest: str, expected: dict[str, Any] | None) -> None:
        name = f"{member.key}.{member.suffix}"
        if expected is None or (expected["sample_key"], expected["member"]) != (member.key, member.suffix):
            wanted = "nothing" if expected is None else f"{expected['sample_key']}.{expected['member']}"
            self._found.add("index", place, f"holds {name} where the index lists {wanted}")
        elif (expected["offset"], expected["length"]) != (member.offset, len(member.data)):
            self._found.add("index", place, f"{name} lies at {member.offset}, the index says {expected['offset']}")
        elif (expected["text_tokens"], expected["image_tokens"]) != self._tokens_of(member.key):
            self._found.add("index", place, f"{name}: its token counts are not the catalog's")
        elif digest != expected["digest"]:
            self._found.add("shard", place, f"{name}: its bytes are not those that were packed")

    def _tokens_of(self, key: str) -> tuple[int, int] | None:
        row = self._expected.get(key)
        return None if row is None else (row["text_tokens"], row["image_tokens"])

    def _sample(
        self, place: str, split: str, card: Card, position: int, members: list[Member], digests: list[str]
    ) -> None:
        key = members[0].key
        self.samples += key not in self._seen
        if key in self._seen:
            self._found.add("sample", place, f"sample {key} lies in several shards")
        self._seen.add(key)
        expected = self._expected.get(key)
        if expected is None:
            self._found.add("sample", place, f"sample {key} is not in the catalog")
            return
        folder = f"g{expected['generation']:04d}"
        if (expected["split"], folder, expected["shard"]) != (split, *place.split("/")[-2:]):
            self._found.add("sample", place, f"sample {key} lies in {folder}/{expected['shard']} by the catalog")
        if expected["position"] != position:
            self._found.add(
                "sample", place, f"sample {key} is number {position}, by the catalog {expected['position']}"
            )
        over = hashlib.sha256()
        for member, digest in zip(members, digests, strict=True):
            over.update(f"{member.suffix} {digest}\n".encode())
        if over.hexdigest() != expected["digest"]:
            self._found.add("sample", place, f"sample {key}: its digest is not the catalog's")
        by_suffix = {member.suffix: member.data for member in members}
        try:
            self._content(card, expected, by_suffix)
        except (ValueError, KeyError) as error:
            self._found.add("sample", place, f"sample {key}: {_line(error)}")

    def _content(self, card: Card, expected: dict[str, Any], members: dict[str, bytes]) -> None:
        """Raise ValueError for ids no vocabulary or template makes, or facts that differ from the catalog's."""
        ids = load_ids(members[IDS_SUFFIX])
        meta = orjson.loads(members[JSON_SUFFIX])
        offset = card.vocabulary["image_offset"]
        image = int((ids >= offset).sum())
        counted = {"text": len(ids) - image, "image": image}
        self.tokens.update(counted)
        booked = {"text": expected["text_tokens"], "image": expected["image_tokens"]}
        if counted != booked or counted != meta["tokens"]:
            raise ValueError(f"holds {counted['text']} text and {counted['image']} image tokens, not as booked")
        for name in ("task", "resolution", "template", "variant"):
            if meta[name] != expected[name]:
                raise ValueError(f"its {name} is {meta[name]!r}, in the catalog {expected[name]!r}")
        if meta["licence"] != expected["licence"]:
            raise ValueError(f"its licence is {meta['licence']!r}, in the catalog {expected['licence']!r}")
        if meta["provenance"]["record_key"] != expected["record_key"]:
            raise ValueError(
                f"is of record {meta['provenance']['record_key']}, in the catalog {expected['record_key']}"
            )
        self._grammar(card.vocabulary, ids, meta["spans"])


def _check_strays(view: View, found: _Findings) -> None:
    """Tars that no snapshot names: whoever reads the folder with a wildcard would train on them."""
    named = set()
    for snapshot in view.store.snapshots():
        for corpus, facts in snapshot.corpora.items():
            for split, card_name in facts["sets"].items():
                try:
                    card = Card.from_bytes(view.store.storage.read(f"shards/{corpus}/{split}/{card_name}"))
                except (OSError, ValueError):
                    continue
                for generation in card.generations:
                    folder = f"shards/{corpus}/{split}/{generation['folder']}"
                    named |= {f"{folder}/{shard['file']}" for shard in generation["shards"]}
    for name, _ in view.store.storage.list("shards/"):
        if name.endswith(".tar") and name not in named:
            found.add("stray", name, "no snapshot names this shard; `unifactory gc` removes it")
