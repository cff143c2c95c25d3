"""Tables: any sequence of changes equals a dictionary, every version stays readable, only what changed is rewritten."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from catalog.keys import key_of
from catalog.schemas import MEDIA
from catalog.storage import LocalFolder, Storage, open_storage
from catalog.tables import Table

SCHEMA = pa.schema([("record_key", pa.string()), ("caption", pa.string()), ("score", pa.float64()), ("media", MEDIA)])
BUCKETS = "0123456789abcdef"
Row = tuple[str | None, float | None]
Model = dict[str, Row]

# Few keys, so that sequences of steps meet the same ones.
keys = st.integers(0, 11).map(lambda n: key_of(b"%d" % n))
rows_of = st.dictionaries(keys, st.tuples(st.none() | st.text("aé\0", max_size=3), st.none() | st.floats(0, 1)))


def media(key: str) -> list[dict[str, Any]]:
    ref = {"role": "image", "container": "file", "path": key, "member": None, "offset": None, "length": 3}
    return [{**ref, "digest": key * 2}] if key < "8" else []


def arrow(model: Model) -> pa.Table:
    rows = [{"record_key": k, "caption": c, "score": s, "media": media(k)} for k, (c, s) in model.items()]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def frames(model: Model, buckets: str = BUCKETS) -> Iterator[tuple[str, pl.DataFrame]]:
    frame = pl.DataFrame(pl.from_arrow(arrow(model)))
    for bucket in buckets:
        yield bucket, frame.filter(pl.col("record_key").str.starts_with(bucket))


def content(table: Table, version: int | None = None, bucket: str | None = None) -> Model:
    found = table.read(version=version, bucket=bucket)
    assert found.columns == SCHEMA.names
    assert found["record_key"].n_unique() == found.height
    for key, refs in found.select("record_key", "media").iter_rows():
        assert refs == media(key)
    return {row["record_key"]: (row["caption"], row["score"]) for row in found.to_dicts()}


def new_table(storage: Storage) -> Table:
    return Table(storage, "corpus/things", SCHEMA, "record_key", 1)


class Changes(RuleBasedStateMachine):
    """Random changes against a dictionary; every version is remembered."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.storage = LocalFolder(self.folder.name)
        self.table = new_table(self.storage)
        self.model: Model = {}
        self.versions: dict[int, Model] = {}
        self.step = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def tag(self) -> str:
        self.step += 1
        return f"r{self.step // 2:06d}"

    @rule(rows=rows_of)
    def append(self, rows: Model) -> None:
        fresh = {key: row for key, row in rows.items() if key not in self.model}
        self.table.append(arrow(fresh), self.tag())
        self.model |= fresh

    @rule(rows=rows_of)
    def sync_all(self, rows: Model) -> None:
        changed = self.table.sync(frames(rows), self.tag())
        assert changed == (rows != self.model)
        self.model = dict(rows)

    @rule(rows=rows_of, buckets=st.sets(st.sampled_from(BUCKETS)))
    def sync_some(self, rows: Model, buckets: set[str]) -> None:
        some = "".join(sorted(buckets))
        self.table.sync(frames(rows, some), self.tag())
        kept = {key: row for key, row in self.model.items() if key[0] not in buckets}
        self.model = kept | {key: row for key, row in rows.items() if key[0] in buckets}

    @rule()
    def sync_the_same(self) -> None:
        before = self.table.version
        assert not self.table.sync(frames(self.model), self.tag())
        assert self.table.version == before

    @rule(gone=st.sets(keys))
    def remove(self, gone: set[str]) -> None:
        count = self.table.remove_rows(
            pl.DataFrame({"record_key": sorted(gone)}, {"record_key": pl.String}), self.tag()
        )
        assert count == len(gone & self.model.keys())
        self.model = {key: row for key, row in self.model.items() if key not in gone}

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def add_twice(self, data: st.DataObject) -> None:
        """Adding files that are visible already adds nothing."""
        files = self.table.files()
        before = self.table.version
        self.table.add(data.draw(st.lists(st.sampled_from(files), max_size=3)))
        assert self.table.version == before

    @rule()
    def reopen(self) -> None:
        self.table = new_table(self.storage)

    @invariant()
    def equals_the_model(self) -> None:
        if not hasattr(self, "table"):
            return
        assert content(self.table) == self.model
        assert self.table.rows() == len(self.model)
        if self.table.version is not None:
            self.versions.setdefault(self.table.version, dict(self.model))
            assert self.versions[self.table.version] == self.model

    @invariant()
    def files_say_what_they_hold(self) -> None:
        if not hasattr(self, "table"):
            return
        for file in self.table.files():
            found = pl.read_parquet(f"{self.folder.name}/tables/corpus/things/{file.path}")["record_key"].to_list()
            assert (file.rows, file.first_key, file.last_key) == (len(found), found[0], found[-1])
            assert found == sorted(found)
            assert {key[0] for key in found} == {file.bucket}
            assert file.size == self.storage._path(f"tables/corpus/things/{file.path}").stat().st_size

    @rule()
    def every_version_reads_as_it_was(self) -> None:
        for version, model in self.versions.items():
            assert content(self.table, version) == model
            assert content(new_table(self.storage), version) == model


Changes.TestCase.settings = settings(max_examples=20, stateful_step_count=10, deadline=None, derandomize=True)
TestChanges = Changes.TestCase


@given(rows_of, rows_of)
@settings(max_examples=25)
def test_a_sync_touches_only_the_buckets_that_differ(tmp_path_factory: Any, one: Model, two: Model) -> None:
    table = new_table(LocalFolder(str(tmp_path_factory.mktemp("store"))))
    table.sync(frames(one), "r1")
    before = {bucket: table.files(bucket=bucket) for bucket in BUCKETS}
    version = table.version
    table.sync(frames(two), "r2")
    for bucket in BUCKETS:
        first = {key: row for key, row in one.items() if key[0] == bucket}
        second = {key: row for key, row in two.items() if key[0] == bucket}
        after = table.files(bucket=bucket)
        assert (after == before[bucket]) == (first == second)
        if first and first.items() < second.items():
            # A bucket that only gains rows keeps its files and gains one.
            assert set(before[bucket]) < set(after)
            assert len(after) == len(before[bucket]) + 1
    assert (table.version == version) == (one == two)


def test_a_sync_is_one_transaction(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    table.sync(frames({key_of(b"%d" % n): ("x", 1.0) for n in range(40)}), "r1")
    assert table.version == 1  # version 0 made the table
    table.sync(frames({key_of(b"%d" % n): ("y", 1.0) for n in range(20, 60)}), "r2")
    assert table.version == 2


def test_a_kill_before_the_commit_leaves_orphans_and_the_old_rows(tmp_path: Path) -> None:
    storage = LocalFolder(str(tmp_path))
    table = new_table(storage)
    row = {key_of(b"1"): ("kept", 1.0)}
    table.append(arrow(row), "r1")
    lost = table.write(arrow({key_of(b"2"): ("lost", 1.0), key_of(b"3"): ("lost", 1.0)}), "r2")
    again = new_table(storage)
    assert content(again) == row
    assert sorted(again.orphans()) == sorted(file.path for file in lost)
    again.add(lost)
    assert again.orphans() == []
    assert len(content(again)) == 3


def test_files_that_left_a_table_are_orphans_that_old_versions_still_read(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    key = key_of(b"1")
    table.sync(frames({key: ("old", 1.0)}), "r1")
    old = table.files()
    table.sync(frames({key: ("new", 1.0)}), "r2")
    assert table.orphans() == [old[0].path]
    assert content(table, 1) == {key: ("old", 1.0)}


def test_a_table_without_rows_reads_as_empty_with_its_columns(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    assert table.version is None
    assert (table.rows(), table.files(), table.orphans()) == (0, [], [])
    assert table.read().columns == SCHEMA.names
    assert not table.sync(frames({}), "r1")
    assert table.version is None
    table.create()
    assert table.version == 0
    assert table.read(["score"]).schema == {"score": pl.Float64}


def test_one_bucket_reads_alone(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    model: Model = {key_of(b"%d" % n): (str(n), None) for n in range(50)}
    table.append(arrow(model), "r1")
    for bucket in BUCKETS:
        assert content(table, bucket=bucket) == {key: row for key, row in model.items() if key[0] == bucket}


def test_equal_work_writes_equal_files_and_log_entries(tmp_path: Path) -> None:
    logs = []
    for name in ("one", "two"):
        table = new_table(LocalFolder(str(tmp_path / name)))
        rows = [(key_of(b"%d" % n), ("x", 1.0)) for n in range(20)]
        table.append(arrow(dict(rows if name == "one" else reversed(rows))), "r1")
        table.remove_rows(pl.DataFrame({"record_key": [rows[3][0]]}), "r2")
        logs.append([(file.path, file.size) for file in table.files()])
    assert logs[0] == logs[1]


def test_rows_of_one_key_keep_their_order(tmp_path: Path) -> None:
    schema = pa.schema([("record_key", pa.string()), ("ordinal", pa.int32()), ("parent", pa.string())])
    table = Table(LocalFolder(str(tmp_path)), "edges", schema, "record_key", 1, unique=False, sort=("ordinal",))
    key = key_of(b"child")
    rows = [{"record_key": key, "ordinal": n, "parent": str(n)} for n in (2, 0, 1)]
    wanted = pl.DataFrame(rows, schema={"record_key": pl.String, "ordinal": pl.Int32, "parent": pl.String})
    assert table.sync([(key[0], wanted)], "r1")
    assert not table.sync([(key[0], wanted.reverse())], "r2")
    assert table.read()["ordinal"].to_list() == [0, 1, 2]
    assert table.sync([(key[0], wanted.head(2))], "r3")
    assert table.read()["ordinal"].to_list() == [0, 2]


# -- what the log says ------------------------------------------------------------------------------------------------

SECRET = "a caption that somebody asked us to delete"


def test_no_text_of_a_row_stands_in_the_log(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    model: Model = {key_of(b"%d" % n): (SECRET, 0.123456789) for n in range(5)}
    table.sync(frames(model), "r1")
    table.sync(frames({key: (SECRET + "!", score) for key, (_, score) in model.items()}), "r2")
    table.remove_rows(pl.DataFrame({"record_key": sorted(model)[:2]}), "r3")
    logs = sorted((tmp_path / "tables/corpus/things/_delta_log").rglob("*"))
    assert len(logs) >= 4
    text = b"".join(path.read_bytes() for path in logs if path.is_file())
    assert SECRET[:10].encode() not in text
    assert b"0.1234" not in text
    assert sorted(model)[0].encode() in text  # keys may stand there: takedowns are found by them


def test_a_compaction_by_stock_tools_adds_no_statistics_of_texts(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    for n in range(4):
        table.append(arrow({"0" + key_of(b"%d" % n)[1:]: (SECRET, 0.5)}), f"r{n}")
    done = DeltaTable(str(tmp_path / "tables/corpus/things")).optimize.compact()
    assert done["numFilesRemoved"] == 4
    text = b"".join(path.read_bytes() for path in (tmp_path / "tables/corpus/things/_delta_log").iterdir())
    assert SECRET[:10].encode() not in text


def test_no_statistics_of_texts_stand_in_the_files(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = new_table(LocalFolder(str(tmp_path)))
    table.append(arrow({key_of(b"1"): (SECRET, 0.5)}), "r1")
    path = next((tmp_path / "tables").rglob("*.parquet"))
    group = pq.ParquetFile(path).metadata.row_group(0)
    assert [group.column(i).is_stats_set for i in range(group.num_columns)] == [False] * group.num_columns


def test_a_stock_reader_sees_the_same_rows(tmp_path: Path) -> None:
    table = new_table(LocalFolder(str(tmp_path)))
    model: Model = {key_of(b"%d" % n): (str(n), n / 7) for n in range(30)}
    table.sync(frames(model), "r1")
    stock = pl.read_delta(str(tmp_path / "tables/corpus/things"))
    assert {row["record_key"]: (row["caption"], row["score"]) for row in stock.to_dicts()} == model
    assert (stock["bucket"] == stock["record_key"].str.slice(0, 1)).all()


def test_tables_work_the_same_in_a_bucket(s3: tuple[str, dict[str, str]]) -> None:
    storage = open_storage(*s3)
    table = new_table(storage)
    one: Model = {key_of(b"%d" % n): (str(n), n / 7) for n in range(8)}
    two = {**dict(list(one.items())[:5]), key_of(b"new"): ("new", None)}
    table.sync(frames(one), "r1")
    table.sync(frames(two), "r2")
    again = new_table(open_storage(*s3))
    assert content(again) == two
    assert content(again, 1) == one
    assert len(again.orphans()) == len(set(table.files(1)) - set(table.files()))
    assert again.remove_rows(pl.DataFrame({"record_key": list(one)}), "r3") == 5
    assert content(new_table(open_storage(*s3))) == {key_of(b"new"): ("new", None)}


def test_a_kill_in_the_middle_of_a_commit_shows_all_or_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
import pyarrow as pa
from catalog.keys import key_of
from catalog.storage import LocalFolder
from tests.catalog.test_tables import arrow, frames, new_table
table = new_table(LocalFolder(sys.argv[1]))
for n in range(10_000):
    table.sync(frames({key_of(b"%d %d" % (n, m)): (str(n), None) for m in range(8)}), "r%d" % n)
    print(n, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if int(line) == 4:
                process.kill()
                break
        said = [line for line in process.stdout.read().splitlines() if line]
    process.wait()
    last = int(said[-1]) if said else 4
    found = content(new_table(LocalFolder(str(tmp_path))))
    assert len(found) == 8
    assert {caption for caption, _ in found.values()} <= {str(last), str(last + 1)}


@pytest.mark.parametrize("rows", [1, 7, 8])
def test_a_large_bucket_is_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("catalog.tables.ROWS_A_FILE", 4)
    table = new_table(LocalFolder(str(tmp_path)))
    model: Model = {"0" + key_of(b"%d" % n)[1:]: (str(n), None) for n in range(rows)}
    table.append(arrow(model), "r1")
    assert [file.rows for file in sorted(table.files(), key=lambda f: f.first_key)] == [4] * (rows // 4) + (
        [rows % 4] if rows % 4 else []
    )
    assert content(table) == model


def test_compacting_joins_files_and_changes_no_rows(tmp_path: Path) -> None:
    from catalog.storage import open_storage
    from catalog.tables import Table

    schema = pa.schema([("record_key", pa.string()), ("n", pa.int64())])
    table = Table(open_storage(str(tmp_path)), "many", schema, "record_key", 1)
    for number in range(12):
        keys = [f"{bucket}{number:031x}" for bucket in "0a"]
        table.append(pa.table({"record_key": keys, "n": [number, number]}, schema=schema), f"r{number}")
    before = table.read().sort("record_key")
    version = table.version
    table.compact("joined", most=8)
    assert len(table.files()) == 2
    assert table.read().sort("record_key").equals(before)
    assert table.read(version=version).sort("record_key").equals(before)
    table.compact("again", most=8)
    assert table.version == version + 1


def test_compacting_leaves_large_files_alone_and_makes_none_beyond_its_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow holds no column of more than 2 GiB, and a bucket's sequences may be more."""
    table = new_table(LocalFolder(str(tmp_path)))
    text = "".join(chr(33 + n % 90) for n in range(400))
    model: Model = {}
    for number in range(24):
        some: Model = {f"0{number:02x}{m:029x}": (f"{text}{number}{m}", None) for m in range(5)}
        model |= some
        table.append(arrow(some), f"r{number}")
    small = max(file.size for file in table.files())
    monkeypatch.setattr("catalog.tables.JOINED_BYTES", 4 * small)
    table.compact("joined")
    joined = table.files()
    assert content(table) == model
    assert 24 / 4 <= len(joined) < 12
    table.compact("again", most=0)
    assert {file.path for file in joined if file.size >= 2 * small} <= {file.path for file in table.files()}
