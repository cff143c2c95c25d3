"""Where a record's bytes are, and reading them: files, tar members, Parquet cells, objects of the store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from catalog.keys import media_digest
from catalog.storage import Storage, open_storage

Container = Literal["file", "tar", "parquet", "store"]


@dataclass(frozen=True, slots=True)
class MediaRef:
    """One medium of a record.

    `path` is relative to the media root (`container` file, tar, parquet) or to the store (`store`). For a tar, `offset`
    and `length` are the member's bytes in the file; for Parquet `member` is the column (with the place in
    it, where it holds lists: `images.0.bytes`) and `offset` the row.
    `digest` is the sha256 of the bytes, 64 hex characters; None when they could not be read at ingest.
    """

    role: str
    container: Container
    path: str
    member: str | None = None
    offset: int | None = None
    length: int | None = None
    digest: str | None = None

    def read_as(self, digest: str, length: int) -> MediaRef:
        """The same with what reading it has shown; `length` counts where the source did not say."""
        known = length if self.length is None else self.length
        return MediaRef(self.role, self.container, self.path, self.member, self.offset, known, digest)

    def to_row(self) -> dict[str, Any]:
        """The Arrow struct of catalog.schemas.MEDIA."""
        return {name: getattr(self, name) for name in self.__slots__}


def media_name(digest: str) -> str:
    """Where bytes lie in a store."""
    return f"media/{digest[:2]}/{digest}"


def kept_ref(role: str, digest: str, length: int) -> MediaRef:
    """The medium of so many bytes that a store keeps under their digest."""
    return MediaRef(role, "store", media_name(digest), length=length, digest=digest)


def keep_media(storage: Storage, data: bytes, digest: str | None = None) -> str:
    """Put bytes into a store under the digest they have, unless they are there; returns the digest.

    Writing them twice is writing them once, whoever does it.
    """
    known = digest or media_digest(data)
    if not storage.exists(media_name(known)):
        storage.create(media_name(known), data)
    return known


@dataclass(frozen=True)
class MediaReader:
    """Reads media below one root folder, and objects of one store."""

    root: str
    store: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def read(self, ref: MediaRef, limit: int | None = None) -> bytes:
        """The bytes of a medium, or its first `limit` bytes; raises OSError when they are gone."""
        if ref.container == "file":
            return _read_range(os.path.join(self.root, ref.path), 0, limit)
        if ref.container == "tar":
            length = ref.length or 0
            wanted = length if limit is None else min(limit, length)
            return _read_range(os.path.join(self.root, ref.path), ref.offset or 0, wanted)
        if ref.container == "parquet":
            cell = _parquet_cell(os.path.join(self.root, ref.path), ref.member or "", ref.offset or 0)
            return cell if limit is None else cell[:limit]
        data = self.storage().read(ref.path)
        return data if limit is None else data[:limit]

    def storage(self) -> Storage:
        """The store's objects; raises OSError where records are read without a store."""
        if self.store is None:
            raise OSError("no store to read from")
        return _storage(self.store, self.options)


def _read_range(path: str, offset: int, length: int | None) -> bytes:
    with open(path, "rb", buffering=0) as file:
        if offset:
            file.seek(offset)
        if length is None:
            return file.readall()
        data = file.read(length)
        # Raw reads may come back short on network folders; the loop ends at the end of the file.
        while len(data) < length and (more := file.read(length - len(data))):
            data += more
        return data


@lru_cache(maxsize=4)
def _storage(uri: str, options: tuple[tuple[str, str], ...]) -> Storage:
    return open_storage(uri, dict(options))


@lru_cache(maxsize=2)
def _row_group(path: str, column: str, group: int) -> pa.ChunkedArray:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0)


def _parquet_cell(path: str, column: str, row: int) -> bytes:
    import pyarrow.parquet as pq

    top = column.split(".", maxsplit=1)[0]
    metadata = pq.ParquetFile(Path(path)).metadata
    start = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < start + rows:
            value = _row_group(path, top, group)[row - start].as_py()
            for part in column.split(".")[1:]:
                if isinstance(value, list):
                    value = value[int(part)] if int(part) < len(value) else None
                else:
                    value = None if value is None else value.get(part)
            if not isinstance(value, bytes):
                raise OSError(f"{path}: row {row}: column {column!r} holds no bytes")
            return value
        start += rows
    raise OSError(f"{path}: has no row {row}")
