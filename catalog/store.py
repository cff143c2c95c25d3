"""A store: the folder or bucket that holds one catalog, its tables, shards and reports.

`store.json` carries the format version; a newer one is refused, an older one is brought up by named steps. What readers
see is a snapshot: one row that pins a version of every table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

from catalog import schemas
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.storage import Storage, open_storage
from catalog.tables import Table

FORMAT = 1
MIGRATIONS: dict[int, tuple[str, Callable[[Storage], None]]] = {}
"""From format n: (name, step to format n + 1). A step must be safe to run again after a kill half-way."""

_HEX = "0123456789abcdef"


@dataclass(frozen=True)
class Snapshot:
    """What one finished run made visible: a version of every table, and per corpus what a reader needs to know."""

    number: int
    run: int
    tables: dict[str, int] = field(default_factory=dict)
    corpora: dict[str, dict[str, Any]] = field(default_factory=dict)


class Store:
    """An opened store. `key_chars` leading characters of a key name its bucket, fixed when the store is made."""

    def __init__(self, storage: Storage, key_chars: int) -> None:
        self.storage = storage
        self.key_chars = key_chars
        self._tables: dict[str, Table] = {}

    @property
    def uri(self) -> str:
        """Where the store is."""
        return self.storage.uri

    def is_locked(self) -> bool:
        """Whether somebody writes to the store now."""
        return self.storage.is_locked()

    @property
    def buckets(self) -> list[str]:
        """Every bucket name, in order."""
        names = [""]
        for _ in range(self.key_chars):
            names = [name + char for name in names for char in _HEX]
        return names

    def bucket(self, key: str) -> str:
        """The bucket a key lies in."""
        return key[: self.key_chars]

    def table(
        self,
        name: str,
        schema: pa.Schema,
        key: str = "record_key",
        unique: bool = True,
        sort: tuple[str, ...] = (),
    ) -> Table:
        """The table of that name; it comes into being with its first rows."""
        if name not in self._tables:
            self._tables[name] = Table(self.storage, name, schema, key, self.key_chars, unique, sort)
        return self._tables[name]

    def existing(self, name: str, key: str = "record_key") -> Table:
        """A table that is there, with the schema it was made with."""
        return self._tables.get(name) or Table(self.storage, name, None, key, self.key_chars)

    # -- the tables every store has ------------------------------------------------------------------------------

    def records(self, corpus: str) -> Table:
        """Every record of a corpus, from its sources and born on the way."""
        return self.table(f"{corpus}/records", schemas.RECORDS)

    def lineage(self, corpus: str) -> Table:
        """Edges from born records to their parents."""
        return self.table(f"{corpus}/lineage", schemas.LINEAGE, unique=False, sort=("ordinal", "parent"))

    def states(self, corpus: str) -> Table:
        """The final state of every record of a corpus."""
        return self.table(f"{corpus}/states", schemas.STATES)

    def samples(self, corpus: str) -> Table:
        """What trainers read, and where it lies."""
        return self.table(f"{corpus}/samples", schemas.SAMPLES, key="sample_key")

    def mixture(self, set_name: str, stage: str) -> Table:
        """What a stage of a set reads."""
        return self.table(f"mixtures/{set_name}/{stage}", schemas.MIXTURE, key="sample_key")

    def media_digests(self) -> Table:
        """Digests of media already read."""
        return self.table("media_digests", schemas.MEDIA_DIGESTS, key="media_key")

    # -- small tables with a number instead of a key --------------------------------------------------------------

    def log(self, name: str, schema: pa.Schema) -> Table:
        """A small append-only table; its rows are keyed by a digest of their content."""
        keyed = pa.schema([pa.field("row_key", pa.string()), *schema])
        return self.table(name, keyed, key="row_key", unique=False)

    def append_log(self, name: str, schema: pa.Schema, rows: list[dict[str, Any]], tag: str) -> None:
        """Append rows to a small table in one transaction."""
        if not rows:
            return
        keyed = [{"row_key": key_of(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)), **row} for row in rows]
        table = self.log(name, schema)
        table.append(pa.Table.from_pylist(keyed, schema=table.schema), tag)

    def read_log(self, name: str, schema: pa.Schema) -> pl.DataFrame:
        """All rows of a small table."""
        return self.log(name, schema).read(schema.names)

    # -- runs and snapshots ----------------------------------------------------------------------------------------

    def next_run(self) -> int:
        """A number no run had before."""
        runs = self.read_log("runs", schemas.RUNS)
        newest = runs["run"].max() if runs.height else 0
        return int(newest or 0) + 1  # type: ignore[arg-type]

    def unfinished_tag(self) -> str | None:
        """What the files of the newest run begin with if it never finished."""
        runs = self.read_log("runs", schemas.RUNS)
        if not runs.height:
            return None
        newest = runs.filter(pl.col("run") == pl.col("run").max())
        return None if "finished" in newest["event"].to_list() else f"r{newest['run'][0]:06d}"

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest first."""
        rows = self.read_log("snapshots", schemas.SNAPSHOTS).sort("snapshot").to_dicts()
        return [
            Snapshot(row["snapshot"], row["run"], orjson.loads(row["tables"]), orjson.loads(row["corpora"]))
            for row in rows
        ]

    def snapshot(self) -> Snapshot | None:
        """The newest snapshot, None before the first run finished."""
        found = self.snapshots()
        return found[-1] if found else None

    def publish(self, run: int, tables: dict[str, int], corpora: dict[str, dict[str, Any]]) -> Snapshot:
        """Make a run visible; when nothing changed the newest snapshot stays."""
        newest = self.snapshot()
        if newest and newest.tables == tables and newest.corpora == corpora:
            return newest
        number = newest.number + 1 if newest else 1
        row = {
            "snapshot": number,
            "run": run,
            "tables": orjson.dumps(tables, option=orjson.OPT_SORT_KEYS).decode(),
            # Not sorted: nodes and rules stand in the order of the recipe.
            "corpora": orjson.dumps(corpora).decode(),
        }
        self.append_log("snapshots", schemas.SNAPSHOTS, [row], f"s{number:06d}")
        return Snapshot(number, run, tables, corpora)


def exists(storage: Storage) -> bool:
    """Whether a store was made there."""
    return storage.exists("store.json")


def open_store(uri: str, options: dict[str, str] | None = None) -> Store:
    """Open an existing store for reading; raises UserError when there is none, or it is of another format."""
    storage = open_storage(uri, options)
    head = _head(storage)
    if head is None:
        raise UserError(f"{uri}: no store here; `unifactory curate RECIPE --store {uri}` makes one")
    if head["format"] < FORMAT:
        raise UserError(
            f"{uri}: store format {head['format']} is older than {FORMAT}; "
            "the next `unifactory curate` on it brings it up to date"
        )
    return Store(storage, head["key_chars"])


def create_store(storage: Storage, key_chars: int | None = None) -> Store:
    """Open a store for writing, making it or bringing it to this format. The caller holds its lock.

    Raises UserError where `key_chars` (1 unless given) is not what an existing store was made with.
    """
    head = _head(storage)
    if head is None:
        if any(name for name, _ in storage.list("tables/")):
            raise UserError(f"{storage.uri}: holds tables but no store.json; choose an empty folder")
        head = {"format": FORMAT, "key_chars": key_chars or 1}
        storage.write("store.json", orjson.dumps(head, option=orjson.OPT_SORT_KEYS))
    elif key_chars not in (None, head["key_chars"]):
        raise UserError(
            f"{storage.uri}: made with --key-chars {head['key_chars']}, which cannot become {key_chars}; "
            "leave the option out or choose another store"
        )
    while head["format"] < FORMAT:
        _, step = MIGRATIONS[head["format"]]
        step(storage)
        # The format is raised last: a kill during the step leaves the old number, and the step runs again.
        head = {**head, "format": head["format"] + 1}
        storage.write("store.json", orjson.dumps(head, option=orjson.OPT_SORT_KEYS))
    return Store(storage, head["key_chars"])


def _head(storage: Storage) -> dict[str, int] | None:
    try:
        data = storage.read("store.json")
    except FileNotFoundError:
        return None
    try:
        head = orjson.loads(data)
        version, key_chars = head["format"], head["key_chars"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{storage.uri}/store.json: not a store's head; restore it or choose another folder") from None
    if not (type(version) is int and type(key_chars) is int and version >= 1 and 1 <= key_chars <= 3):
        raise UserError(f"{storage.uri}/store.json: not a store's head; restore it or choose another folder")
    if version > FORMAT:
        raise UserError(
            f"{storage.uri}: store format {version} is newer than {FORMAT}, which this version reads; update unifactory"
        )
    return {"format": version, "key_chars": key_chars}
