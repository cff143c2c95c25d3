"""One immutable Parquet file of a table: what workers write, before a transaction makes it visible."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.keys import key_of
from catalog.storage import Storage


@dataclass(frozen=True)
class DataFile:
    """A data file; `path` is relative to the table, keys are the least and the greatest in it."""

    path: str
    bucket: str
    rows: int
    size: int
    first_key: str
    last_key: str


def encode_parquet(rows: pa.Table) -> bytes:
    """The bytes of one data file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def file_digest(data: bytes) -> str:
    """What of a data file's bytes stands in its name."""
    return key_of(data)[:20]


def write_file(storage: Storage, table: str, key: str, bucket: str, rows: pa.Table, tag: str) -> DataFile:
    """Write one data file whose rows are sorted by `key`, under a name made of its bytes and a tag of the run.

    The tag keeps a file written again after `retry` from replacing one that an older version still points to.
    """
    data = encode_parquet(rows)
    path = f"bucket={bucket}/{tag}-{file_digest(data)}.parquet"
    storage.write(f"tables/{table}/{path}", data)
    keys = rows.column(key)
    return DataFile(path, bucket, rows.num_rows, len(data), keys[0].as_py(), keys[-1].as_py())
