"""Every lie that a catalog, a card, an index or a tar can tell is a finding that names the place."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest

from catalog import schemas
from catalog.audit import Audit, audit
from catalog.shards import (
    IDS_SUFFIX,
    JSON_SUFFIX,
    Member,
    Sample,
    index_bytes,
    load_ids,
    read_index,
    read_members,
    tar_header,
    write_shard,
)
from catalog.store import open_store
from catalog.view import View, open_view
from model.grammar import check
from tests.pipeline.runs import NODES, curate, plan_of, write_corpus

SPLIT = "train"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    write_corpus(folder / "root", 24)
    curate(plan_of(NODES), folder / "root", folder / "store")
    return folder / "store"


@dataclass
class Forged:
    """A copy of a sound store whose card, index and tars can be forged so that their names and digests still agree."""

    store: Path

    def __post_init__(self) -> None:
        self.view: View = open_view(str(self.store))
        self.folder = self.store / "shards/tiny" / SPLIT
        self.card: dict[str, Any] = orjson.loads((self.folder / "card.json").read_bytes())

    @property
    def generation(self) -> dict[str, Any]:
        first: dict[str, Any] = self.card["generations"][0]
        return first

    @property
    def shard(self) -> dict[str, Any]:
        """The card's entry of the tar that is forged, the fullest one."""
        fullest: dict[str, Any] = max(self.generation["shards"], key=lambda shard: shard["samples"])
        return fullest

    def samples(self) -> list[Sample]:
        """What that tar holds."""
        found: dict[str, dict[str, Member]] = {}
        data = (self.folder / self.generation["folder"] / self.shard["file"]).read_bytes()
        for member in read_members(io.BytesIO(data)):
            found.setdefault(member.key, {})[member.suffix] = member
        samples = []
        for key, members in found.items():
            meta = members[JSON_SUFFIX].data
            tokens = orjson.loads(meta)["tokens"]
            ids = load_ids(members[IDS_SUFFIX].data).tobytes()
            samples.append(Sample(key, ids, meta, tokens["text"], tokens["image"]))
        return samples

    def index(self) -> pa.Table:
        return read_index((self.folder / self.generation["folder"] / self.generation["index"]).read_bytes())

    def write_index(self, index: pa.Table) -> None:
        """Put an index under the name that its bytes give."""
        data = index_bytes([index.cast(schemas.INDEX)])
        self.generation["index"] = f"index-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
        (self.folder / self.generation["folder"] / self.generation["index"]).write_bytes(data)

    def write_samples(self, samples: list[Sample]) -> None:
        """Pack the tar anew, with index and card to match; its old file goes."""
        entry = self.shard
        old = self.folder / self.generation["folder"] / entry["file"]
        buffer = io.BytesIO()
        bucket = int(entry["file"].partition("-of-")[0])
        shard = write_shard(samples, bucket, self.generation["buckets"], buffer)
        rest = self.index().filter(pa.compute.not_equal(self.index().column("shard"), entry["file"]))
        old.unlink()
        old.with_name(shard.name).write_bytes(buffer.getvalue())
        entry |= {"file": shard.name, "samples": len(samples), "bytes": shard.size, "sha256": shard.digest}
        self.write_index(pa.concat_tables([rest, shard.index]))

    def write_bytes(self, data: bytes) -> None:
        """Replace the bytes of the tar, with card to match, under the name they give."""
        entry = self.shard
        old = self.folder / self.generation["folder"] / entry["file"]
        old.unlink()
        digest = hashlib.sha256(data).hexdigest()
        name = f"{entry['file'].rpartition('-')[0]}-{digest[:16]}.tar"
        old.with_name(name).write_bytes(data)
        index = self.index().to_pylist()
        for row in index:
            row["shard"] = name if row["shard"] == entry["file"] else row["shard"]
        entry |= {"file": name, "bytes": len(data), "sha256": digest}
        self.write_index(pa.Table.from_pylist(index, schema=schemas.INDEX))

    def write_table(self, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replace the rows of a table, and pin the new version."""
        table = self.view.store.existing(name)
        rows = change(table.read())
        buckets = [(b, rows.filter(pl.col("record_key").str.starts_with(b))) for b in self.view.store.buckets]
        assert table.sync(buckets, "r000009")
        assert table.version is not None
        tables = {**self.view.snapshot.tables, name: table.version}
        self.view = replace(self.view, snapshot=replace(self.view.snapshot, tables=tables))

    def audit(self) -> Audit:
        """The audit of what was made of it, with the card put under the name that its bytes give."""
        data = orjson.dumps(self.card, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
        name = f"card-{hashlib.sha256(data).hexdigest()[:16]}.json"
        (self.folder / name).write_bytes(data)
        (self.folder / "card.json").write_bytes(data)
        facts = self.view.snapshot.corpora["tiny"]
        corpora = {"tiny": {**facts, "sets": {**facts["sets"], SPLIT: name}}}
        # Strays are another matter: the forged tar is named by no snapshot of the store.
        return audit(View(self.view.store, replace(self.view.snapshot, corpora=corpora), is_newest=False), check)

    def said(self) -> str:
        return "\n".join(f"{one.kind}: {one.place}: {one.message}" for one in self.audit().findings)


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Forged:
    shutil.copytree(finished, tmp_path / "store")
    return Forged(tmp_path / "store")


def test_a_sound_store_has_no_findings_however_it_is_packed_anew(forged: Forged) -> None:
    assert forged.said() == ""
    forged.write_samples(forged.samples())
    forged.write_index(forged.index())
    assert forged.said() == ""


# -- tars -------------------------------------------------------------------------------------------------------------


def _meta(sample: Sample, **given: Any) -> Sample:
    return replace(sample, meta=orjson.dumps({**orjson.loads(sample.meta), **given}, option=orjson.OPT_SORT_KEYS))


def _first(samples: list[Sample], change: Callable[[Sample], Sample]) -> list[Sample]:
    return [change(samples[0]), *samples[1:]]


def _ids(sample: Sample, position: int, value: int) -> Sample:
    ids = np.frombuffer(sample.ids, dtype="<i4").copy()
    ids[position] = value
    return replace(sample, ids=ids.tobytes())


def _stranger(samples: list[Sample]) -> list[Sample]:
    key = samples[0].key[:16] + "f" * 16
    return sorted([*samples, replace(samples[0], key=key)], key=lambda sample: sample.key)


TARS: dict[str, tuple[Callable[[list[Sample]], list[Sample]], str]] = {
    "a sample is left out": (lambda some: some[1:], "of the catalog is in no shard"),
    "a sample nobody knows": (_stranger, "is not in the catalog"),
    "a sample of another bucket": (
        lambda some: sorted([*some[1:], replace(some[0], key=f"{15 - int(some[0].key[0], 16):x}" + some[0].key[1:])],
                            key=lambda sample: sample.key),
        "belongs into another shard",
    ),
    "another licence": (lambda some: _first(some, lambda one: _meta(one, licence="proprietary")), "its licence is"),
    "another task": (lambda some: _first(some, lambda one: _meta(one, task="editing")), "its task is 'editing'"),
    "another variant": (lambda some: _first(some, lambda one: _meta(one, variant="x")), "its variant is 'x'"),
    "another resolution": (lambda some: _first(some, lambda one: _meta(one, resolution=7)), "its resolution is 7"),
    "another template": (lambda some: _first(some, lambda one: _meta(one, template="t")), "its template is 't'"),
    "other token counts": (
        lambda some: _first(some, lambda one: _meta(one, tokens={"text": 1, "image": 1})), "not as booked",
    ),
    "another record": (
        lambda some: _first(some, lambda one: _meta(one, provenance={"record_key": "0" * 32})), "is of record 000",
    ),
    "no metadata": (lambda some: _first(some, lambda one: replace(one, meta=b"{}")), "sample "),
    "an id beyond the vocabulary": (
        lambda some: _first(some, lambda one: _ids(one, -2, 2**30)), ": its digest is not the catalog's",
    ),
    "text where the picture was": (
        lambda some: _first(some, lambda one: _ids(one, -2, 65)), "image tokens, not as booked",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", TARS)
def test_a_tar_that_lies_is_found_though_card_and_index_agree_with_it(forged: Forged, lie: str) -> None:
    change, message = TARS[lie]
    forged.write_samples(change(forged.samples()))
    assert message in forged.said()


def _members(samples: list[Sample]) -> list[bytes]:
    """One chunk of tar a sample."""
    chunks = []
    for sample in samples:
        parts = [
            tar_header(f"{sample.key}.{suffix}", len(data)) + data + bytes(-len(data) % 512)
            for suffix, data in sample.members()
        ]
        chunks.append(b"".join(parts))
    return chunks


END = bytes(1024)
RAW: dict[str, tuple[Callable[[list[Sample]], bytes], str]] = {
    "out of order": (lambda some: b"".join(_members(some)[::-1]) + END, "out of order or twice"),
    "one twice": (lambda some: b"".join([*_members(some), _members(some)[-1]]) + END, "where the index lists nothing"),
    "cut off": (lambda some: b"".join(_members(some))[:-700], "truncated"),
    "no end mark": (lambda some: b"".join(_members(some)), "without an end mark: truncated"),
    "half an end mark": (lambda some: b"".join(_members(some)) + bytes(512) + b"x" * 512, "broken end mark"),
    "a broken header": (lambda some: b"x" * 512 + b"".join(_members(some)) + END, "broken header at byte 0"),
    "a folder in it": (lambda some: tar_header("a/b.txt", 0) + END, "is not KEY.suffix"),
    "an array of floats": (
        lambda some: b"".join(_members([replace(some[0], extra={IDS_SUFFIX: _floats()}), *some[1:]])) + END,
        "not int32 [n]",
    ),
    "nothing": (lambda some: b"", "ends at byte 0 without an end mark"),
}  # fmt: skip


def _floats() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("lie", RAW)
def test_what_is_no_shard_is_found_though_card_and_index_agree_with_it(forged: Forged, lie: str) -> None:
    change, message = RAW[lie]
    forged.write_bytes(change(forged.samples()))
    assert message in forged.said()


def test_a_flipped_bit_anywhere_in_a_tar_is_found(forged: Forged) -> None:
    path = forged.folder / forged.generation["folder"] / forged.shard["file"]
    data = path.read_bytes()
    for at in (0, 520, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert f"{path.name}: its sha256 is not the one in the card" in forged.said()


# -- cards and indexes ------------------------------------------------------------------------------------------------


def _row(**given: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [{**rows[0], **given}, *rows[1:]]


INDEXES: dict[str, tuple[Callable[[list[dict[str, Any]]], list[dict[str, Any]]], str]] = {
    "another offset": (_row(offset=1), "lies at 512, the index says 1"),
    "another length": (_row(length=1), "lies at 512, the index says 512"),
    "another digest": (_row(digest="0" * 64), "its bytes are not those that were packed"),
    "other token counts": (_row(text_tokens=999_999), "its token counts are not the catalog's"),
    "another member": (_row(member="txt"), "where the index lists"),
    "a row too few": (lambda rows: rows[1:], "where the index lists"),
    "a row too many": (lambda rows: [*rows, {**rows[-1], "offset": 10**9}], "the index lists"),
    "a shard nobody names": (lambda rows: [*rows, {**rows[-1], "shard": "x.tar"}], "members of x.tar, which the card"),
}


@pytest.mark.parametrize("lie", INDEXES)
def test_an_index_that_lies_is_found(forged: Forged, lie: str) -> None:
    change, message = INDEXES[lie]
    forged.write_index(pa.Table.from_pylist(change(forged.index().to_pylist()), schema=schemas.INDEX))
    assert message in forged.said()


CARDS: dict[str, tuple[Callable[[Forged], object], str]] = {
    "samples of the set": (lambda it: it.card.update(samples=1), "counts 1 samples, the catalog"),
    "text tokens of the set": (lambda it: it.card.update(text_tokens=1), "or other tokens"),
    "image tokens of the set": (lambda it: it.card.update(image_tokens=1), "or other tokens"),
    "samples of a tar": (lambda it: it.shard.update(samples=99), "samples, the card says 99"),
    "bytes of a tar": (lambda it: it.shard.update(bytes=1), "bytes, the card says 1"),
    "digest of a tar": (lambda it: it.shard.update(sha256="0" * 64), "its sha256 is not the one in the card"),
    "buckets": (lambda it: it.generation.update(buckets=64), "its name is not the one its content gives"),
    "a tar is not named": (lambda it: it.generation["shards"].remove(it.shard), "which the card does not name"),
    "an index that is not there": (lambda it: it.generation.update(index="index-0.parquet"), "cannot be read"),
}


@pytest.mark.parametrize("lie", CARDS)
def test_a_card_that_lies_is_found(forged: Forged, lie: str) -> None:
    change, message = CARDS[lie]
    change(forged)
    assert message in forged.said()


@pytest.mark.parametrize("name", ["index-*.parquet", "card-*.json"])
def test_changed_bytes_of_index_and_card_are_found_by_their_names(finished: Path, tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    path = next((store / "shards/tiny" / SPLIT).rglob(name))
    path.write_bytes(path.read_bytes() + b"\n")
    found = audit(open_view(str(store)), check).findings
    assert any(path.name in one.place for one in found)


def test_a_card_json_of_another_snapshot_is_found(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    (store / "shards/tiny" / SPLIT / "card.json").write_text("{}")
    said = [one.message for one in audit(open_view(str(store)), check).findings]
    assert said == ["is not the card of this snapshot; run curate again"]


# -- tables -----------------------------------------------------------------------------------------------------------


def _doubled(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows.head(1)])


TABLES: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "no final state": ("tiny/states", lambda rows: rows[1:], "has no final state"),
    "two final states": ("tiny/states", _doubled, "has several final states"),
    "a state of nobody": (
        "tiny/states",
        lambda rows: pl.concat([rows, rows.head(1).with_columns(record_key=pl.lit("0" * 32))]),
        "a final state names 00000000000000000000000000000000, which is no record",
    ),
    "dropped records called kept": (
        "tiny/states",
        lambda rows: rows.with_columns(state=pl.lit("kept"), reason=pl.lit(None, pl.String), node=pl.lit("shards")),
        "is kept but has no sample",
    ),
    "kept records called dropped": (
        "tiny/states",
        lambda rows: rows.with_columns(
            state=pl.when(pl.col("state") == "kept").then(pl.lit("dropped")).otherwise(pl.col("state")),
            node=pl.lit("side"),
        ),
        "which is not kept",
    ),
    "a record has gone": ("tiny/records", lambda rows: rows[1:], "the book says otherwise"),
    "an edge to nobody": (
        "tiny/lineage",
        lambda rows: pl.DataFrame(
            {"record_key": ["0" * 32], "parent": ["1" * 32], "node": ["x"], "role": ["x"], "ordinal": [0]},
            schema_overrides={"ordinal": pl.Int32},
        ),
        "as parent, which is no record",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", TABLES)
def test_a_table_that_lies_is_found(forged: Forged, lie: str) -> None:
    name, change, message = TABLES[lie]
    forged.view.store.lineage("tiny")
    forged.write_table(name, change)
    assert message in forged.said()


def test_a_duplicate_of_what_was_not_kept_is_found(forged: Forged) -> None:
    name = forged.view.nodes("tiny")["unique"]["table"]
    assert name is not None
    forged.write_table(
        name,
        lambda rows: rows.with_columns(
            state=pl.when(pl.col("state") == "passed").then(pl.lit("dropped")).otherwise(pl.col("state"))
        ),
    )
    assert "which was not kept" in forged.said()


def test_books_that_do_not_balance_are_found(forged: Forged) -> None:
    books = forged.view.store.log("tiny/books", schemas.BOOKS)
    rows = books.read().with_columns(
        inputs=pl.when(pl.col("node") == "side").then(pl.col("inputs") + 1).otherwise(pl.col("inputs"))
    )
    books.sync([(b, rows.filter(pl.col("row_key").str.starts_with(b))) for b in forged.view.store.buckets], "r000009")
    assert books.version is not None
    tables = {**forged.view.snapshot.tables, "tiny/books": books.version}
    forged.view = replace(forged.view, snapshot=replace(forged.view.snapshot, tables=tables))
    assert "books: tiny: node side: in 24 + born 0 is not dropped 2" in forged.said()


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_data_files_of_tables_are_checked_before_anything_is_judged_by_them(
    finished: Path, tmp_path: Path, damage: str
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    file = next(path for path in sorted((store / "tables/tiny/records").rglob("*.parquet")))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b" ")
    result = audit(open_view(str(store)), check)
    place = str(file.relative_to(store))
    message = "is missing" if damage == "gone" else "its bytes are not those that were written"
    assert [(one.kind, one.place, one.message) for one in result.findings] == [("table", place, message)]
    assert result.corpora == {}


# -- which snapshot, and when -----------------------------------------------------------------------------------------


def test_an_older_snapshot_is_not_measured_by_what_came_later(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    tight = NODES.replace("brightness >= 60", "brightness >= 90")
    curate(plan_of(tight), finished.parent / "root", store)
    for number in (1, 2):
        assert audit(open_view(str(store), number), check).findings == []


def test_tars_of_a_run_at_work_are_no_strays(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    stray = next((store / "shards/tiny" / SPLIT).rglob("*.tar")).with_name("0000-of-0004-0123456789abcdef.tar")
    stray.write_bytes(bytes(1024))
    assert [one.kind for one in audit(open_view(str(store)), check).findings] == ["stray"]
    with open_store(str(store)).storage.lock():
        assert audit(open_view(str(store)), check).findings == []


def test_what_repeats_without_end_is_counted(forged: Forged) -> None:
    index = [{**row, "digest": "0" * 64} for row in forged.index().to_pylist()]
    forged.write_index(pa.Table.from_pylist(index, schema=schemas.INDEX))
    counts: dict[tuple[str, str], int] = {}
    for one in forged.audit().findings:
        counts[one.kind, one.place] = counts.get((one.kind, one.place), 0) + 1
    assert max(counts.values()) <= 21
