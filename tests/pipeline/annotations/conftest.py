from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pytest

from catalog import schemas
from catalog.keys import canonical, key_of, media_digest
from catalog.storage import LocalFolder
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Record
from pipeline.worker import Task, Unit, pack_rows, run_unit


class Place:
    """A media root and a store, as a worker sees them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.store = folder / "store"
        self.storage = LocalFolder(str(self.store))
        self.reader = MediaReader(str(self.root), str(self.store))

    def picture(self, name: str, data: bytes) -> MediaRef:
        (self.root / name).write_bytes(data)
        return MediaRef("image", "file", name, digest=media_digest(data))

    def record(self, name: str, media: tuple[MediaRef, ...] = (), **values: Any) -> Record:
        return Record(key_of(name.encode()), media, canonical({}), values, self.reader)

    def run(self, op: str, params: dict[str, Any], records: list[Record]) -> list[dict[str, Any]]:
        """What a worker makes of the records: rows of the outcome file, in the order of the records given."""
        task = Task(
            "node", op, orjson.dumps(params).decode(), "outcomes/t", str(self.store), (), str(self.root), "t", 60
        )
        names = sorted({name for record in records for name in record.values})
        rows = pa.table(
            {
                "record_key": [record.key for record in records],
                "fields": pa.array([record.fields_json for record in records], pa.binary()),
                "media": pa.array([[ref.to_row() for ref in record.media] for record in records], schemas.MEDIA),
                **{name: [record.values.get(name) for record in records] for name in names},
            }
        )
        result = run_unit(task, Unit("", len(records), pack_rows(rows)))
        found = {
            row["record_key"]: row
            for row in pl.read_parquet(self.store / "tables/outcomes/t" / result.file.path).to_dicts()
        }
        return [found[record.key] for record in records]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
