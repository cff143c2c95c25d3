"""The store's head, its migrations and its snapshots."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pytest

from catalog import schemas, store
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.storage import LocalFolder, Storage, open_storage
from catalog.store import FORMAT, Store, create_store, exists, open_store


def write_head(folder: Path, text: bytes) -> LocalFolder:
    storage = LocalFolder(str(folder))
    storage.write("store.json", text)
    return storage


def test_a_store_is_made_once_and_opens_again(tmp_path: Path) -> None:
    storage = LocalFolder(str(tmp_path / "store"))
    assert not exists(storage)
    made = create_store(storage, key_chars=2)
    assert exists(storage)
    assert orjson.loads(storage.read("store.json")) == {"format": FORMAT, "key_chars": 2}
    # What a later run asks for does not change the buckets of what is there.
    assert create_store(storage).key_chars == made.key_chars == open_store(storage.uri).key_chars == 2
    assert create_store(storage, key_chars=2).key_chars == 2
    with pytest.raises(UserError) as refused:
        create_store(storage, key_chars=1)
    assert str(refused.value) == (
        f"{storage.uri}: made with --key-chars 2, which cannot become 1; leave the option out or choose another store"
    )


def test_buckets_cover_every_key_once_in_order() -> None:
    opened = Store(LocalFolder("nowhere"), 2)
    assert len(opened.buckets) == len(set(opened.buckets)) == 256
    assert opened.buckets == sorted(opened.buckets)
    assert all(opened.bucket(key_of(b"%d" % n)) in opened.buckets for n in range(100))


BAD_HEADS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"7",
    b'"format"',
    b"{}",
    b'{"format": 1}',
    b'{"format": "1", "key_chars": 1}',
    b'{"format": 1, "key_chars": 0}',
    b'{"format": 1, "key_chars": 4}',
    b'{"format": 1, "key_chars": null}',
    b'{"format": true, "key_chars": 1}',
    b'{"format": 0, "key_chars": 1}',
    b'{"format": -3, "key_chars": 1}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("text", BAD_HEADS)
def test_a_broken_head_is_refused_and_left_as_it_is(tmp_path: Path, text: bytes) -> None:
    storage = write_head(tmp_path, text)
    message = f"{tmp_path}/store.json: not a store's head; restore it or choose another folder"
    for attempt in (lambda: open_store(str(tmp_path)), lambda: create_store(storage)):
        with pytest.raises(UserError) as refused:
            attempt()
        assert str(refused.value) == message
    assert storage.read("store.json") == text


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    text = orjson.dumps({"format": FORMAT + 1, "key_chars": 1})
    storage = write_head(tmp_path, text)
    message = (
        f"{tmp_path}: store format {FORMAT + 1} is newer than {FORMAT}, which this version reads; update unifactory"
    )
    for attempt in (lambda: open_store(str(tmp_path)), lambda: create_store(storage)):
        with pytest.raises(UserError) as refused:
            attempt()
        assert str(refused.value) == message
    assert storage.read("store.json") == text


def test_no_store_and_a_folder_of_something_else_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        open_store(str(tmp_path))
    assert str(refused.value) == (f"{tmp_path}: no store here; `unifactory curate RECIPE --store {tmp_path}` makes one")
    storage = LocalFolder(str(tmp_path))
    storage.write("tables/x/_delta_log/0.json", b"{}")
    with pytest.raises(UserError) as refused:
        create_store(storage)
    assert str(refused.value) == f"{tmp_path}: holds tables but no store.json; choose an empty folder"


# -- migrations -------------------------------------------------------------------------------------------------------


@pytest.fixture
def later_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """This program is two formats further; each step appends to a note and then replaces a file."""

    def step(name: str) -> Any:
        def change(storage: Storage) -> None:
            note = storage.read("note") if storage.exists("note") else b""
            storage.write("note", note + name.encode())
            storage.write(f"done-{name}", b"")

        return change

    monkeypatch.setattr(store, "FORMAT", FORMAT + 2)
    monkeypatch.setitem(store.MIGRATIONS, FORMAT, ("first", step("a")))
    monkeypatch.setitem(store.MIGRATIONS, FORMAT + 1, ("second", step("b")))


@pytest.mark.usefixtures("later_format")
def test_an_older_store_is_not_read_but_brought_up_by_the_next_writer(tmp_path: Path) -> None:
    storage = write_head(tmp_path, orjson.dumps({"format": FORMAT, "key_chars": 3}))
    with pytest.raises(UserError) as refused:
        open_store(str(tmp_path))
    assert str(refused.value) == (
        f"{tmp_path}: store format {FORMAT} is older than {FORMAT + 2}; "
        "the next `unifactory curate` on it brings it up to date"
    )
    assert create_store(storage).key_chars == 3
    assert orjson.loads(storage.read("store.json")) == {"format": FORMAT + 2, "key_chars": 3}
    assert storage.read("note") == b"ab"
    assert open_store(str(tmp_path)).key_chars == 3
    create_store(storage)
    assert storage.read("note") == b"ab"


@pytest.mark.usefixtures("later_format")
def test_a_step_that_fails_half_way_runs_again_and_steps_before_it_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = write_head(tmp_path, orjson.dumps({"format": FORMAT, "key_chars": 1}))
    name, second = store.MIGRATIONS[FORMAT + 1]

    def killed(storage: Storage) -> None:
        storage.write("note", storage.read("note") + b"-half-")
        raise KeyboardInterrupt

    monkeypatch.setitem(store.MIGRATIONS, FORMAT + 1, (name, killed))
    with pytest.raises(KeyboardInterrupt):
        create_store(storage)
    assert orjson.loads(storage.read("store.json"))["format"] == FORMAT + 1
    monkeypatch.setitem(store.MIGRATIONS, FORMAT + 1, (name, second))
    create_store(storage)
    assert storage.read("note") == b"a-half-b"
    assert orjson.loads(storage.read("store.json"))["format"] == FORMAT + 2


MIGRATE = """
import os, sys
from catalog import store
from catalog.storage import LocalFolder
def step(storage):
    storage.write("half", b"")
    if sys.argv[2] == "die":
        os._exit(9)
    storage.write("whole", b"")
store.MIGRATIONS[store.FORMAT] = ("a step", step)
store.FORMAT += 1
storage = LocalFolder(sys.argv[1])
with storage.lock():
    store.create_store(storage)
"""


def test_a_killed_migration_runs_again(tmp_path: Path) -> None:
    create_store(LocalFolder(str(tmp_path)))

    def migrate(how: str) -> int:
        return subprocess.run([sys.executable, "-c", MIGRATE, str(tmp_path), how], check=False).returncode

    assert migrate("die") == 9
    assert (tmp_path / "half").exists()
    assert orjson.loads((tmp_path / "store.json").read_bytes())["format"] == FORMAT
    assert migrate("live") == 0
    assert (tmp_path / "whole").exists()
    assert orjson.loads((tmp_path / "store.json").read_bytes())["format"] == FORMAT + 1


def test_every_older_format_has_its_step() -> None:
    assert sorted(store.MIGRATIONS) == list(range(1, FORMAT))


# -- snapshots --------------------------------------------------------------------------------------------------------


def record(n: int) -> dict[str, Any]:
    return dict.fromkeys(schemas.RECORDS.names) | {"record_key": key_of(b"%d" % n), "node": "ingest", "media": []}


def add_records(opened: Store, *numbers: int) -> int:
    table = opened.records("corpus")
    table.append(pa.Table.from_pylist([record(n) for n in numbers], schema=schemas.RECORDS), f"r{numbers[0]}")
    assert table.version is not None
    return table.version


@pytest.fixture(params=["folder", "bucket"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return create_store(open_storage(str(tmp_path)))
    return create_store(open_storage(*request.getfixturevalue("s3")))


def again(opened: Store) -> Store:
    return open_store(opened.uri, opened.storage.options)


def test_a_snapshot_pins_the_rows_its_reader_sees(opened: Store) -> None:
    assert opened.snapshot() is None
    first = opened.publish(1, {"corpus/records": add_records(opened, 1, 2)}, {"corpus": {"order": ["a"]}})
    second = opened.publish(2, {"corpus/records": add_records(opened, 3)}, {"corpus": {"order": ["a"]}})
    add_records(opened, 4)  # a run that is not visible yet
    reader = again(opened)
    assert reader.snapshots() == [first, second]
    assert reader.snapshot() == second
    table = reader.records("corpus")
    assert table.rows(first.tables["corpus/records"]) == 2
    assert table.rows(second.tables["corpus/records"]) == 3
    assert table.rows() == 4


def test_publishing_the_same_makes_no_new_snapshot(opened: Store) -> None:
    tables = {"corpus/records": add_records(opened, 1)}
    corpora = {"corpus": {"sets": {"train": "card-1.json"}, "nodes": {"a": {"needs": ["b"], "missing": None}}}}
    first = opened.publish(1, tables, corpora)
    version = opened.log("snapshots", schemas.SNAPSHOTS).version
    assert opened.publish(2, dict(reversed(tables.items())), corpora) == first
    assert again(opened).publish(3, tables, corpora) == first
    assert again(opened).log("snapshots", schemas.SNAPSHOTS).version == version
    assert opened.publish(4, tables, {"corpus": {**corpora["corpus"], "sets": {}}}).number == 2


def test_run_numbers_are_never_used_twice(opened: Store) -> None:
    def log(number: int, event: str) -> None:
        row = {"run": number, "corpus": "c", "event": event, "recipe": "{}", "plan": "{}"}
        opened.append_log("runs", schemas.RUNS, [row], f"r{number:06d}")

    assert opened.next_run() == 1
    log(1, "started")
    assert again(opened).next_run() == 2
    log(1, "finished")
    log(2, "started")
    assert again(opened).next_run() == 3


def test_a_log_keeps_every_row_that_is_appended(opened: Store) -> None:
    rows = [{"run": 1, "corpus": "c", "node": "n", "calls": n, "seconds": 0.5, "bytes": 0} for n in (3, 1, 2)]
    opened.append_log("calls", schemas.CALLS, rows, "r1")
    opened.append_log("calls", schemas.CALLS, [], "r1")
    opened.append_log("calls", schemas.CALLS, rows[:1], "r2")
    assert sorted(again(opened).read_log("calls", schemas.CALLS)["calls"].to_list()) == [1, 2, 3, 3]


def test_table_names_and_keys_of_a_store_are_what_the_catalog_page_says(tmp_path: Path) -> None:
    opened = create_store(LocalFolder(str(tmp_path)))
    tables = [opened.records("c"), opened.lineage("c"), opened.states("c"), opened.samples("c"), opened.media_digests()]
    assert [(table.name, table.key) for table in tables] == [
        ("c/records", "record_key"),
        ("c/lineage", "record_key"),
        ("c/states", "record_key"),
        ("c/samples", "sample_key"),
        ("media_digests", "media_key"),
    ]
    assert all(re.fullmatch(r"[a-z_/]+", table.name) for table in tables)


@pytest.mark.parametrize("schema", [value for value in vars(schemas).values() if isinstance(value, pa.Schema)])
def test_no_schema_uses_a_type_that_delta_changes_in_silence(schema: pa.Schema, tmp_path: Path) -> None:
    from catalog.tables import Table

    key = schema.names[0] if pa.types.is_string(schema.types[0]) else "row_key"
    full = schema if key in schema.names else pa.schema([pa.field("row_key", pa.string()), *schema])
    row = dict.fromkeys(full.names) | {key: key_of(b"1")}
    rows = pa.Table.from_pylist([row], schema=full)
    table = Table(LocalFolder(str(tmp_path)), "any", full, key, 1)
    table.append(rows, "r1")
    wanted = pl.DataFrame(pl.from_arrow(rows))
    assert table.read().equals(wanted)
    assert table.read().schema == wanted.schema == pl.read_delta(f"{tmp_path}/tables/any").drop("bucket").schema
