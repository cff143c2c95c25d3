"""Reading a mixture: its samples in a shuffled order that any number of ranks share, each copy once an epoch.

The order is a true shuffle of all copies, not one through a buffer: every copy has a place that follows from seed,
epoch, key and the number of the copy alone. So it is the same whatever the number of ranks, it can be entered at any
position, and a sample that leaves the catalog moves no other. A sample is one read at the offset that the index gives,
from a file kept open, or from an object store a range, several asked for ahead.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from catalog.decisions import hash_rank
from catalog.errors import UserError
from catalog.mixtures import stage_facts
from catalog.shards import IDS_SUFFIX, JSON_SUFFIX, ShardDamage, load_ids, read_index
from catalog.stages import TRAIN
from catalog.storage import Storage
from catalog.view import View

AHEAD = 32
"""Ranges of an object store asked for ahead."""
OPEN_FILES = 256
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class MixtureSample:
    """One copy of a sample. ids: int32 [tokens]; `meta` its JSON member; `extra` further members as bytes.

    `position` is its place in the order of all ranks: an epoch is taken up again at the next one.
    """

    position: int
    key: str
    part: str
    ids: npt.NDArray[np.int32]
    meta: dict[str, Any]
    extra: dict[str, bytes]


def samples(
    view: View, stage: str, seed: int = 0, epoch: int = 0, rank: int = 0, world: int = 1, start: int = 0
) -> Iterator[MixtureSample]:
    """One epoch of a stage's mixture for one of `world` ranks; raises UserError. See `MixtureReader.epoch`."""
    return MixtureReader(view, stage).epoch(seed, epoch, rank, world, start)


class MixtureReader:
    """The mixture of a stage with the place of every sample, to be read for many epochs.

    Holds about 100 bytes a sample. Raises UserError for a mixture that was decided from an older state of its corpora.
    """

    def __init__(self, view: View, stage: str) -> None:
        name = view.stage(stage)
        changed = stage_facts(view)[name].stale(view)
        if changed:
            set_name = name.partition("/")[0]
            raise UserError(
                f"{name}: decided before {', '.join(changed)} changed; run `unifactory curate {set_name}` again, "
                "or open an older snapshot"
            )
        rows = view.mixture(name).collect().sort("sample_key")
        places = [_places(view, corpus, rows) for corpus in rows["corpus"].unique().sort()]
        self._files = pl.concat([place["file"] for place in places]).unique().sort().to_list() if places else []
        found = pl.concat(places) if places else pl.DataFrame(schema=_PLACES)
        self._rows = rows.join(found, on="sample_key", how="inner", maintain_order="left").with_columns(
            file=pl.col("file").replace_strict(self._files, range(len(self._files)), return_dtype=pl.Int32)
        )
        if self._rows.height != rows.height:
            raise UserError(
                f"{name}: {rows.height - self._rows.height} samples are in no shard; `unifactory audit` says which"
            )
        self._storage = view.store.storage

    def __len__(self) -> int:
        """Samples of an epoch, all copies counted, over all ranks."""
        return int(self._rows["copies"].sum())

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """The order of an epoch: int64 [len(self)], numbers of rows of the mixture sorted by key."""
        copies = self._rows["copies"].to_numpy()
        rows, ranks = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for number in range(int(copies.max(initial=0))):
            again = np.flatnonzero(copies > number)
            rows.append(again)
            ranks.append(hash_rank(self._rows["sample_key"][again], f"{seed} {epoch} {number}"))
        order: npt.NDArray[np.int64] = np.concatenate(rows)[np.argsort(np.concatenate(ranks), kind="stable")]
        return order

    def epoch(
        self, seed: int = 0, epoch: int = 0, rank: int = 0, world: int = 1, start: int = 0
    ) -> Iterator[MixtureSample]:
        """One epoch of one rank: the positions from `start` on that leave `rank` when divided by `world`.

        To go on after `n` samples on each of `world` ranks give `start=n * world`; `world` may be another then.
        """
        if not (world >= 1 and 0 <= rank < world and start >= 0):
            raise UserError(f"rank {rank} of {world} from {start}: write 0 <= rank < world and a start of 0 or more")
        return self._read(self.order(seed, epoch), range(start + (rank - start) % world, len(self), world))

    def _read(self, order: npt.NDArray[np.int64], positions: range) -> Iterator[MixtureSample]:
        keys, parts = self._rows["sample_key"], self._rows["part"]
        file, begin, size = (self._rows[name].to_numpy() for name in ("file", "begin", "size"))

        def place(position: int) -> tuple[str, int, int]:
            row = order[position]
            return self._files[file[row]], int(begin[row]), int(size[row])

        for position, data in _fetch(self._storage, place, positions):
            row = int(order[position])
            key = keys[row]
            members = _members(data, key)
            ids, meta = load_ids(members.pop(IDS_SUFFIX)), orjson.loads(members.pop(JSON_SUFFIX))
            yield MixtureSample(position, key, parts[row], ids, meta, members)


_PLACES = {"sample_key": pl.String, "file": pl.String, "begin": pl.Int64, "size": pl.Int64}


def _places(view: View, corpus: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Of every sample of a mixture that lies in a corpus: its tar, the first byte there, and how many."""
    card = view.cards(corpus)[TRAIN]
    mine = rows.filter(pl.col("corpus") == corpus).select("sample_key")
    found = [pl.DataFrame(schema=_PLACES)]
    for generation in card.generations:
        folder = f"shards/{corpus}/{TRAIN}/{generation['folder']}"
        index = pl.DataFrame(pl.from_arrow(read_index(view.store.storage.read(f"{folder}/{generation['index']}"))))
        end = pl.col("offset") + pl.col("length")
        found.append(
            index.join(mine, on="sample_key", how="semi")
            .group_by("sample_key", "shard")
            .agg(begin=pl.col("offset").min() - _BLOCK, size=end.max() - pl.col("offset").min() + _BLOCK)
            .select("sample_key", file=pl.format(f"{folder}/{{}}", "shard"), begin="begin", size="size")
        )
    return pl.concat(found)


def _members(data: bytes, key: str) -> dict[str, bytes]:
    """The members of one sample by suffix; raises ShardDamage where the bytes are another's."""
    members = {}
    at = 0
    while at < len(data):
        name = data[at : at + 100].rstrip(b"\0").decode("ascii", "replace")
        owner, _, suffix = name.partition(".")
        if owner != key:
            raise ShardDamage(f"{name!r} lies where the index has sample {key}; run `unifactory audit`")
        size = int(data[at + 124 : at + 135], 8)
        members[suffix] = data[at + _BLOCK : at + _BLOCK + size]
        at += _BLOCK + size + -size % _BLOCK
    return members


def _fetch(
    storage: Storage, place: Callable[[int], tuple[str, int, int]], positions: range
) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) in order."""
    if storage.local_path("store.json") is not None:
        with _OpenFiles(storage) as files:
            for position in positions:
                yield position, files.read(*place(position))
        return
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        for position in positions:
            waiting.append((position, pool.submit(storage.read_range, *place(position))))
            if len(waiting) >= AHEAD:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()


class _OpenFiles:
    """Reads of local files, the last used of which stay open."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> _OpenFiles:
        return self

    def __exit__(self, *problem: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, name: str, begin: int, size: int) -> bytes:
        """`size` bytes from `begin`."""
        descriptor = self._open.pop(name, None)
        if descriptor is None:
            path = self._storage.local_path(name)
            assert path is not None
            descriptor = os.open(path, os.O_RDONLY)
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open[name] = descriptor
        return os.pread(descriptor, size, begin)
