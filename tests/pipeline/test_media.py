"""Reading media wherever they lie: files, tar members, Parquet cells, objects of the store."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog import schemas
from catalog.storage import LocalFolder
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record

DATA = bytes(range(256)) * 40


@pytest.fixture
def reader(tmp_path: Path) -> MediaReader:
    """A root with the same bytes as a file, in a tar and in a Parquet file, and a store that has them too."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.bin").write_bytes(DATA)
    with tarfile.open(root / "a.tar", "w") as tar:
        for name, data in (("first", b"x" * 700), ("second", DATA), ("third", b"y")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    cells = [b"one", None, DATA, b"four", b"five"]
    images = pa.array(
        [{"bytes": cell, "path": "p"} for cell in cells], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"image": images, "plain": cells}), root / "a.parquet", row_group_size=2)
    LocalFolder(str(tmp_path / "store")).write("media/a", DATA)
    return MediaReader(str(root), str(tmp_path / "store"))


def offset_of(path: Path, member: str) -> int:
    with tarfile.open(path) as tar:
        return tar.getmember(member).offset_data


def refs(reader: MediaReader) -> list[MediaRef]:
    offset = offset_of(Path(reader.root) / "a.tar", "second")
    return [
        MediaRef("image", "file", "a.bin", length=len(DATA)),
        MediaRef("image", "tar", "a.tar", "second", offset, len(DATA)),
        MediaRef("image", "parquet", "a.parquet", "plain", 2),
        MediaRef("image", "parquet", "a.parquet", "image.bytes", 2),
        MediaRef("image", "store", "media/a"),
    ]


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("limit", [None, 0, 1, 300, len(DATA), len(DATA) + 5000])
def test_every_container_gives_the_same_bytes(reader: MediaReader, which: int, limit: int | None) -> None:
    assert reader.read(refs(reader)[which], limit) == DATA[:limit]


@pytest.mark.parametrize(
    "ref",
    [
        MediaRef("image", "file", "nothing"),
        MediaRef("image", "tar", "nothing.tar", "a", 0, 5),
        MediaRef("image", "parquet", "a.parquet", "plain", 1),
        MediaRef("image", "parquet", "a.parquet", "image.path", 0),
        MediaRef("image", "parquet", "a.parquet", "plain", 99),
        MediaRef("image", "store", "nothing"),
    ],
)
def test_media_that_are_gone_or_no_bytes_raise_an_error_of_the_system(reader: MediaReader, ref: MediaRef) -> None:
    with pytest.raises(OSError, match=r"."):
        reader.read(ref)


def test_without_a_store_nothing_is_read_from_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no store to read from"):
        MediaReader(str(tmp_path)).read(MediaRef("image", "store", "media/a"))


def test_a_reference_is_a_row_of_the_catalog() -> None:
    ref = MediaRef("image", "tar", "a.tar", "second", 512, 7, "d" * 64)
    assert pa.array([[ref.to_row()]], schemas.MEDIA).to_pylist() == [[ref.to_row()]]
    assert MediaRef(**ref.to_row()) == ref


def test_a_record_reads_its_media_by_role(reader: MediaReader) -> None:
    media = (MediaRef("source", "store", "media/a"), MediaRef("image", "file", "a.bin"), MediaRef("image", "file", "b"))
    record = Record("k", media, b'{"text": "a"}', {}, reader)
    assert record.ref() is media[1]
    assert record.read() == DATA
    assert record.head(10, "source") == DATA[:10]
    fields: dict[str, Any] = record.fields
    assert fields == {"text": "a"}
    with pytest.raises(Quarantine) as refused:
        record.read("target")
    assert (refused.value.reason, str(refused.value)) == (
        "no target",
        "the record has no medium with the role 'target'",
    )
