"""Delta tables of a store, bucketed by key prefix: immutable Parquet files made visible by small transactions.

Readers name a version. Writers add finished files (`add`) or bring a table to a wanted content (`sync`), which touches
only the buckets that differ. Statistics are kept for the key alone, so that deleted texts do not live on in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from catalog.datafile import DataFile, write_file
from catalog.storage import Storage

ROWS_A_FILE = 250_000
FILES_A_BUCKET = 8
"""More small files than that in a bucket are joined at the end of a run."""
JOINED_BYTES = 128 << 20
"""Files of at least half of that are left as they are."""


def _groups(files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """Several files at a time, of at most JOINED_BYTES together: Arrow holds no column of more than 2 GiB."""
    group: list[DataFile] = []
    size = 0
    for file in files:
        if group and size + file.size > JOINED_BYTES:
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if len(group) > 1:
        yield group


class Table:
    """One table of a store. Rows are unique by `key` unless `unique` is False; `sort` orders rows of equal key.

    Without a declared schema the table must exist, and has the schema it was made with.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        schema: pa.Schema | None,
        key: str,
        key_chars: int,
        unique: bool = True,
        sort: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.key = key
        self._schema = schema
        self._storage = storage
        self._key_chars = key_chars
        self._unique = unique
        self._sort = [key, *sort]
        self.uri = storage.table_uri(f"tables/{name}")
        self._delta: DeltaTable | None = None
        self._files: dict[int, list[DataFile]] = {}
        self._opened = False

    # -- reading -------------------------------------------------------------------------------------------------

    def _open(self) -> DeltaTable | None:
        if not self._opened:
            try:
                self._delta = DeltaTable(self.uri, storage_options=self._storage.options or None)
            except TableNotFoundError:
                self._delta = None
            self._opened = True
        return self._delta

    @property
    def schema(self) -> pa.Schema:
        """The columns inside the data files."""
        if self._schema is None:
            delta = self._open()
            assert delta is not None, f"table {self.name} does not exist"
            stored = pa.schema(delta.schema().to_arrow())
            self._schema = pa.schema([column for column in stored if column.name != "bucket"])
        return self._schema

    @property
    def version(self) -> int | None:
        """The newest version, None while the table does not exist."""
        delta = self._open()
        return None if delta is None else int(delta.version())

    def files(self, version: int | None = None, bucket: str | None = None) -> list[DataFile]:
        """The data files of a version (the newest unless named), of one bucket unless all are wanted."""
        newest = self.version
        if newest is None:
            return []
        version = newest if version is None else version
        if version not in self._files:
            delta = self._delta if version == newest else None
            if delta is None:
                delta = DeltaTable(self.uri, version=version, storage_options=self._storage.options or None)
            self._files[version] = self._listed(delta)
        found = self._files[version]
        return found if bucket is None else [file for file in found if file.bucket == bucket]

    def _listed(self, delta: DeltaTable) -> list[DataFile]:
        actions = pa.table(delta.get_add_actions(flatten=True))
        if actions.num_rows == 0:
            return []
        # The key is the only column with statistics.
        least, greatest = (next(n for n in actions.schema.names if n.startswith(side)) for side in ("min.", "max."))
        names = ("path", "partition.bucket", "num_records", "size_bytes", least, greatest)
        columns = [actions.column(name).to_pylist() for name in names]
        return sorted((DataFile(*row) for row in zip(*columns, strict=True)), key=lambda file: file.path)

    def rows(self, version: int | None = None) -> int:
        """How many rows a version has, from the log alone."""
        return sum(file.rows for file in self.files(version))

    def scan(
        self, columns: Sequence[str] | None = None, bucket: str | None = None, version: int | None = None
    ) -> pl.LazyFrame:
        """A lazy frame over a version; an empty one with the declared columns while there are no rows."""
        names = list(columns) if columns is not None else self.schema.names
        paths = [f"{self.uri}/{file.path}" for file in self.files(version, bucket)]
        if not paths:
            return pl.DataFrame(pl.from_arrow(self.schema.empty_table())).lazy().select(names)
        return pl.scan_parquet(
            paths, hive_partitioning=False, storage_options=self._storage.options or None, cache=False
        ).select(names)

    def read(
        self, columns: Sequence[str] | None = None, bucket: str | None = None, version: int | None = None
    ) -> pl.DataFrame:
        """The rows of a version, in no particular order across files."""
        return self.scan(columns, bucket, version).collect()

    # -- writing -------------------------------------------------------------------------------------------------

    def add(self, files: Sequence[DataFile]) -> None:
        """Make finished files visible in one transaction; files that are visible already are left alone."""
        self._commit(files, [])

    def append(self, rows: pa.Table, tag: str) -> None:
        """Add rows, cut by bucket, in one transaction."""
        self.add(self.write(rows, tag))

    def write(self, rows: pa.Table, tag: str) -> list[DataFile]:
        """Write rows as files cut by bucket, without making them visible."""
        if rows.num_rows == 0:
            return []
        rows = rows.select(self.schema.names).cast(self.schema).sort_by([(name, "ascending") for name in self._sort])
        prefixes = pc.utf8_slice_codeunits(rows.column(self.key), 0, self._key_chars).combine_chunks()
        runs = pc.run_end_encode(prefixes)
        files = []
        start = 0
        for end, bucket in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
            for first in range(start, end, ROWS_A_FILE):
                part = rows.slice(first, min(ROWS_A_FILE, end - first))
                files.append(write_file(self._storage, self.name, self.key, bucket, part, tag))
            start = end
        return files

    def sync(self, buckets: Iterable[tuple[str, pl.DataFrame]], tag: str) -> bool:
        """Bring the named buckets to the given rows in one transaction; says whether anything changed.

        A bucket that only gains rows gains a file; one that loses or changes rows is written anew.
        """
        add: list[DataFile] = []
        remove: list[DataFile] = []
        for bucket, frame in buckets:
            wanted = frame.select(self.schema.names).sort(self._sort, maintain_order=True)
            current_files = self.files(bucket=bucket)
            current = self.read(bucket=bucket).sort(self._sort, maintain_order=True)
            wanted = wanted.cast(dict(current.schema))  # type: ignore[arg-type]
            if current.equals(wanted):
                continue
            new = wanted
            if self._unique and current.height and wanted.height > current.height:
                new = wanted.join(current.select(self.key), on=self.key, how="anti", maintain_order="left")
                kept = wanted.join(new.select(self.key), on=self.key, how="anti", maintain_order="left")
                if not kept.equals(current):
                    new = wanted
                    remove.extend(current_files)
            else:
                remove.extend(current_files)
            add.extend(self.write(new.to_arrow(compat_level=pl.CompatLevel.oldest()), tag))
        if not add and not remove:
            return False
        self._commit(add, remove)
        return True

    def compact(self, tag: str, most: int = FILES_A_BUCKET) -> None:
        """Join the small files of buckets with more than `most` of them, in one transaction."""
        by_bucket: dict[str, list[DataFile]] = {}
        for file in self.files():
            by_bucket.setdefault(file.bucket, []).append(file)
        add: list[DataFile] = []
        remove: list[DataFile] = []
        for _, files in sorted(by_bucket.items()):
            small = [file for file in files if file.size < JOINED_BYTES // 2]
            if len(small) <= most:
                continue
            for group in _groups(small):
                rows = self._rows_of(group).select(self.schema.names)
                add.extend(self.write(rows.to_arrow(compat_level=pl.CompatLevel.oldest()), tag))
                remove.extend(group)
        if remove:
            self._commit(add, remove)

    def _rows_of(self, files: Sequence[DataFile]) -> pl.DataFrame:
        paths = [f"{self.uri}/{file.path}" for file in files]
        return pl.read_parquet(paths, hive_partitioning=False, storage_options=self._storage.options or None)

    def remove_rows(self, gone: pl.DataFrame, tag: str) -> int:
        """Remove the rows whose keys stand in `gone`, rewriting the files that hold them; returns how many went."""
        add: list[DataFile] = []
        remove: list[DataFile] = []
        count = 0
        wanted = gone.select(self.key)
        for file in self.files():
            frame = self._rows_of([file])
            kept = frame.join(wanted, on=self.key, how="anti", maintain_order="left")
            if kept.height == frame.height:
                continue
            count += frame.height - kept.height
            remove.append(file)
            add.extend(self.write(kept.to_arrow(compat_level=pl.CompatLevel.oldest()), tag))
        if remove:
            self._commit(add, remove)
        return count

    def orphans(self, tag: str = "") -> list[str]:
        """Data files below the table that no transaction of the newest version names, relative to the table.

        With a tag only those written under it.
        """
        known = {file.path for file in self.files()}
        top = f"tables/{self.name}/"
        names = (name.removeprefix(top) for name, _ in self._storage.list(top))
        begin = f"{tag}-" if tag else ""
        return [
            name
            for name in names
            if name.startswith("bucket=") and name not in known and name.rpartition("/")[2].startswith(begin)
        ]

    def create(self) -> None:
        """Make the table exist, empty."""
        if self._open() is None:
            self._delta = DeltaTable.create(
                self.uri,
                schema=self.schema.append(pa.field("bucket", pa.string())),
                partition_by=["bucket"],
                mode="ignore",
                configuration={
                    "delta.dataSkippingStatsColumns": self.key,
                    # Snapshots pin old versions; the log is cut by `gc` alone.
                    "delta.enableExpiredLogCleanup": "false",
                },
                storage_options=self._storage.options or None,
            )

    def _commit(self, add: Sequence[DataFile], remove: Sequence[DataFile]) -> None:
        self.create()
        delta = self._delta
        assert delta is not None
        gone = {file.path for file in remove}
        current = self.files()
        # A file rewritten with equal bytes keeps its name: it neither comes nor goes.
        stay = gone & {file.path for file in add}
        known = {file.path for file in current}
        add = [file for file in add if file.path not in known]
        remove = [file for file in remove if file.path not in stay]
        if not add and not remove:
            return
        actions: list[AddAction | RemoveAction] = [self._add_action(file) for file in add]
        actions += [RemoveAction(file.path, True, 0, file.size, {"bucket": file.bucket}) for file in remove]
        delta.create_write_transaction(actions, mode="append", schema=delta.schema(), partition_by=["bucket"])
        delta.update_incremental()
        left = {file.path for file in remove}
        files = [file for file in current if file.path not in left] + list(add)
        self._files = {int(delta.version()): sorted(files, key=lambda file: file.path)}

    def _add_action(self, file: DataFile) -> AddAction:
        stats = {
            "numRecords": file.rows,
            "minValues": {self.key: file.first_key},
            "maxValues": {self.key: file.last_key},
            "nullCount": {self.key: 0},
        }
        # Times are zero, so that equal runs write equal entries.
        return AddAction(file.path, file.size, {"bucket": file.bucket}, 0, True, orjson.dumps(stats).decode())
