"""The shard format: plain WebDataset tars whose bytes follow from their samples alone.

A shard set is a folder of generations; a generation has a fixed number of buckets (a power of two) and at most one tar
for each. A sample lies in the bucket that the leading bits of its key name, so removing one changes exactly one tar.
Members of a sample stand together (`KEY.ids.npy`, then `KEY.json`), samples in key order. A tar's name carries the
digest of its bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from catalog.schemas import INDEX

_BLOCK = 512
_RECORD = 20 * _BLOCK
IDS_SUFFIX, JSON_SUFFIX = "ids.npy", "json"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one sample of a shard holds. ids: int32 little-endian bytes; meta: canonical JSON."""

    key: str
    ids: bytes
    meta: bytes
    text_tokens: int
    image_tokens: int
    extra: Mapping[str, bytes] = field(default_factory=dict)

    def members(self) -> list[tuple[str, bytes]]:
        """(suffix, bytes), in the order in which they are written."""
        own = {IDS_SUFFIX: npy_bytes(self.ids), JSON_SUFFIX: self.meta, **self.extra}
        return sorted(own.items())


@dataclass(frozen=True)
class WrittenShard:
    """A finished tar: its name within the generation, its size, and what it holds."""

    name: str
    size: int
    digest: str
    index: pa.Table
    digests: dict[str, str]
    """Per sample key the digest over its members."""


_NPY_HEADERS: dict[int, bytes] = {}


def npy_bytes(ids: bytes) -> bytes:
    """A `.npy` file of int32 [n] from little-endian bytes."""
    count = len(ids) // 4
    if count not in _NPY_HEADERS:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<i4", "fortran_order": False, "shape": (count,)})
        if len(_NPY_HEADERS) > 100_000:
            _NPY_HEADERS.clear()
        _NPY_HEADERS[count] = buffer.getvalue()
    return _NPY_HEADERS[count] + ids


def tar_header(name: str, size: int) -> bytes:
    """A ustar header with nothing in it that could differ between two runs."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def bucket_of(key: str, buckets: int) -> int:
    """The bucket a sample key lies in: its leading bits. `buckets` is a power of two of at most 2^32."""
    return int(key[:8], 16) * buckets >> 32


def bucket_count(samples: int, shard_samples: int) -> int:
    """The least power of two that gives shards of at most about `shard_samples` samples."""
    buckets = 1
    while buckets * shard_samples < samples:
        buckets *= 2
    return buckets


def shard_name(bucket: int, buckets: int, digest: str) -> str:
    """`0003-of-0016-<digest>.tar`."""
    return f"{bucket:04d}-of-{buckets:04d}-{digest[:16]}.tar"


def write_shard(samples: Iterable[Sample], bucket: int, buckets: int, file: BinaryIO) -> WrittenShard:
    """Write samples, sorted by key, as one tar to an open file; raises ValueError when they are not sorted."""
    whole = hashlib.sha256()
    offset = 0
    rows: dict[str, list[Any]] = {name: [] for name in INDEX.names}
    digests: dict[str, str] = {}
    previous = ""
    for position, sample in enumerate(samples):
        if sample.key <= previous:
            raise ValueError(f"samples out of order: {sample.key} after {previous}")
        previous = sample.key
        over_members = hashlib.sha256()
        for suffix, data in sample.members():
            name = f"{sample.key}.{suffix}"
            padding = -len(data) % _BLOCK
            chunk = b"".join((tar_header(name, len(data)), data, bytes(padding)))
            file.write(chunk)
            whole.update(chunk)
            digest = hashlib.sha256(data).hexdigest()
            over_members.update(f"{suffix} {digest}\n".encode())
            values = (
                sample.key,
                "",
                position,
                suffix,
                offset + _BLOCK,
                len(data),
                digest,
                sample.text_tokens,
                sample.image_tokens,
            )
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
            offset += len(chunk)
        digests[sample.key] = over_members.hexdigest()
    end = bytes(2 * _BLOCK + -(offset + 2 * _BLOCK) % _RECORD)
    file.write(end)
    whole.update(end)
    name = shard_name(bucket, buckets, whole.hexdigest())
    rows["shard"] = [name] * len(rows["shard"])
    index = pa.table(rows, schema=INDEX)
    return WrittenShard(name, offset + len(end), whole.hexdigest(), index, digests)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar as found on disk."""

    key: str
    suffix: str
    offset: int
    data: bytes


class ShardDamage(Exception):  # noqa: N818 - it is a finding, not a fault of the program
    """A tar that is not a shard: says what is wrong, and where."""


def read_members(file: BinaryIO) -> Iterator[Member]:
    """Every member of a tar in order; raises ShardDamage at the first thing no shard has."""
    offset = 0
    while True:
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise ShardDamage(f"ends at byte {offset + len(block)} without an end mark: truncated")
        if block == bytes(_BLOCK):
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise ShardDamage(f"broken end mark at byte {offset}")
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ShardDamage(f"broken header at byte {offset}: {error}") from None
        key, _, suffix = info.name.partition(".")
        if not info.isreg() or not suffix or "/" in info.name:
            raise ShardDamage(f"member {info.name!r} at byte {offset} is not KEY.suffix")
        padded = info.size + -info.size % _BLOCK
        data = file.read(padded)
        if len(data) < padded:
            raise ShardDamage(f"member {info.name} is cut off at byte {offset + _BLOCK + len(data)}: truncated")
        yield Member(key, suffix, offset + _BLOCK, data[: info.size])
        offset += _BLOCK + padded


def load_ids(data: bytes) -> npt.NDArray[np.int32]:
    """int32 [n] from the bytes of a `.npy`; raises ValueError for anything else."""
    ids = np.load(io.BytesIO(data), allow_pickle=False)
    if ids.dtype != np.dtype("<i4") or ids.ndim != 1:
        raise ValueError(f"holds {ids.dtype} {list(ids.shape)}, not int32 [n]")
    return np.asarray(ids, dtype=np.int32)


def index_bytes(indexes: Sequence[pa.Table]) -> bytes:
    """The index file of a generation."""
    table = pa.concat_tables(indexes) if indexes else INDEX.empty_table()
    table = table.sort_by([("shard", "ascending"), ("offset", "ascending")])
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1)
    return buffer.getvalue()


def read_index(data: bytes) -> pa.Table:
    """The rows of an index file."""
    return pq.read_table(io.BytesIO(data))


@dataclass(frozen=True)
class Card:
    """What a shard set says of itself, and what a trainer compares with its model before it starts.

    `vocabulary`, `tokenizers` and `templates` are plain data with their fingerprints; `generations` lists every tar.
    """

    corpus: str
    split: str
    vocabulary: dict[str, Any]
    tokenizers: dict[str, Any]
    templates: dict[str, str]
    branches: dict[str, str]
    embedded: list[str]
    generations: list[dict[str, Any]]
    samples: int
    text_tokens: int
    image_tokens: int
    format: int = 1

    def to_bytes(self) -> bytes:
        """The card as JSON that people can read."""
        return orjson.dumps(self.__dict__, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)

    @classmethod
    def from_bytes(cls, data: bytes) -> Card:
        """Inverse of `to_bytes`; raises ValueError for what is not a card."""
        try:
            fields = orjson.loads(data)
            return cls(**fields)
        except (orjson.JSONDecodeError, TypeError) as error:
            raise ValueError(f"not a shard set's card: {error}") from None


def read_card(folder: Path) -> Card:
    """The card of a shard set's folder; raises ValueError."""
    try:
        return Card.from_bytes((folder / "card.json").read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{folder}: no card.json; name the folder of a shard set") from None
