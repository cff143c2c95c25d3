from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest

from catalog import schemas
from catalog.keys import canonical, key_of, media_digest
from catalog.storage import LocalFolder
from pipeline import worker
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Record
from pipeline.worker import Task, Unit, pack_rows, run_unit

from .stub import Server, serve


class Place:
    """A media root and a store, as a worker sees them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir(exist_ok=True)
        self.store = folder / "store"
        self.storage = LocalFolder(str(self.store))
        self.reader = MediaReader(str(self.root), str(self.store))

    def picture(self, name: str, data: bytes, role: str = "image") -> MediaRef:
        (self.root / name).write_bytes(data)
        return MediaRef(role, "file", name, digest=media_digest(data))

    def pictures(self, count: int, **values: Any) -> list[Record]:
        """Records of so many different pictures."""
        refs = [self.picture(f"{i}.jpg", jpeg(i)) for i in range(count)]
        return [self.record(f"r{i}", (ref,), **values) for i, ref in enumerate(refs)]

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


def jpeg(number: int, width: int = 48, height: int = 32) -> bytes:
    """A small picture unlike that of any other number."""
    import simplejpeg

    pixels = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.repeat(8, 0).repeat(8, 1)), colorspace="RGB")
    return data


@pytest.fixture
def server() -> Iterator[Server]:
    """The OpenAI API on loopback."""
    with serve() as server:
        yield server
    for name in ("_operator", "_storage"):
        getattr(worker, name).cache_clear()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
