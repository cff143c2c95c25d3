"""The duplicates decision: placeholders, then exact, then near duplicates, over a whole corpus in compact arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from catalog.candidates import Variants, candidates
from catalog.candidates import decide as decide_verified
from catalog.decisions import Duplicates, Inputs, Near, NearEmbeddings, NearTexts, Verdicts, finish, hash_rank
from catalog.duplicates import KEPT, exact, greedy, placeholders, strangers
from catalog.errors import UserError
from catalog.hamming import Ints
from catalog.near_embeddings import Vectors, check_vectors
from catalog.near_embeddings import alike as alike_embeddings
from catalog.near_texts import alike

Compare = Callable[[pl.Series, pl.Series], NDArray[np.bool_]]
"""Says of pairs of record keys whether they show the same picture."""

_BLOCK = 1 << 16


@dataclass(frozen=True)
class _Judged:
    """Per row of the whole population: state code, representative row, distance."""

    placeholder: NDArray[np.bool_]
    representative: Ints
    distance: Ints
    kind: NDArray[np.int8]
    """0 kept, 1 exact, 2 near."""


def decide_duplicates(decision: Duplicates, inputs: Inputs, digest_column: str, compare: Compare | None) -> Verdicts:
    """Verdicts bucket by bucket: duplicates with their kept representative, placeholders dropped as such.

    `digest_column` gives the digest of the medium that counts, unless the decision names a column of its own; `compare`
    verifies near candidates if the decision says so.
    """
    if isinstance(decision.exact, str):
        digest_column = decision.exact
    keys, judged = _judge(decision, inputs, digest_column, compare)
    start = 0
    for bucket, own in keys.parts():
        rows = slice(start, start + len(own))
        start += len(own)
        representative = judged.representative[rows]
        named = keys.at(representative)
        kind = judged.kind[rows]
        placeholder = judged.placeholder[rows]
        state = np.where(placeholder, "dropped", np.where(representative >= 0, "duplicate", "passed"))
        reason = np.where(placeholder, "placeholder", np.where(kind == 1, "exact", np.where(kind == 2, "near", "")))
        distance = np.where(representative >= 0, judged.distance[rows], -1)
        frame = pl.DataFrame(
            {
                "record_key": own,
                "state": pl.Series(state.tolist(), dtype=pl.String),
                "reason": pl.Series(reason.tolist(), dtype=pl.String).replace("", None),
                "representative": named,
                "distance": pl.Series(distance, dtype=pl.Int32).replace(-1, None),
            }
        )
        yield bucket, finish(frame)


class _Keys:
    """The keys of a population as 16 bytes each; row numbers run through the buckets in key order."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, NDArray[np.void]]] = []

    def add(self, bucket: str, keys: pl.Series) -> None:
        packed = keys.str.decode("hex").to_numpy()
        self._parts.append((bucket, np.frombuffer(b"".join(packed), dtype="V16")))

    def seal(self) -> None:
        """Make rows addressable by number."""
        self._all = np.concatenate([part for _, part in self._parts]) if self._parts else np.empty(0, dtype="V16")
        starts = np.cumsum([0, *(len(part) for _, part in self._parts)])
        self._parts = [
            (bucket, self._all[start:end])
            for (bucket, _), start, end in zip(self._parts, starts[:-1], starts[1:], strict=True)
        ]

    def __len__(self) -> int:
        return len(self._all)

    def parts(self) -> Iterator[tuple[str, pl.Series]]:
        """(bucket, keys) in order."""
        for bucket, part in self._parts:
            yield bucket, _hex(part)

    def at(self, rows: Ints) -> pl.Series:
        """The keys of some rows, null for negative row numbers."""
        found = rows >= 0
        names = np.full(len(rows), None, dtype=object)
        names[found] = _hex(self._all[rows[found]]).to_numpy()
        return pl.Series(names.tolist(), dtype=pl.String)


def _hex(keys: NDArray[np.void]) -> pl.Series:
    text = keys.tobytes().hex()
    return pl.Series([text[i : i + 32] for i in range(0, len(text), 32)], dtype=pl.String)


def _judge(decision: Duplicates, inputs: Inputs, digest_column: str, compare: Compare | None) -> tuple[_Keys, _Judged]:
    near = decision.near
    order_columns = [item.split()[0] for item in decision.order]
    wanted = [*order_columns, "split_group"]
    if decision.exact or decision.placeholder_sources is not None:
        wanted.append(digest_column)
    if decision.placeholder_sources is not None:
        wanted.append(decision.placeholder_field)
    if near is not None:
        wanted += near.columns
    wanted = list(dict.fromkeys(wanted))
    keys = _Keys()
    small: list[pl.DataFrame] = []
    hashes: list[NDArray[Any]] = []
    hashed: list[NDArray[np.bool_]] = []
    hashed_keys: list[NDArray[np.uint64]] = []
    variants = _VariantHashes()
    kin: list[pl.DataFrame] = []
    rows = 0
    for bucket in inputs.buckets:
        frame = inputs.frame(bucket, wanted)
        keys.add(bucket, frame["record_key"])
        if near is not None:
            hashed.append(frame[near.column].is_not_null().to_numpy())
            if isinstance(near, NearEmbeddings):
                hashes.append(_vectors(frame[near.column]))
                hashed_keys.append(hash_rank(frame["record_key"], f"near {near.seed}"))
            else:
                hashes.append(
                    _signatures(frame[near.column]) if isinstance(near, NearTexts) else _hashes(frame[near.column])
                )
            for column in near.columns[1:]:
                variants.add(frame[column], rows)
        kin.append(
            frame.select("split_group", row=pl.int_range(rows, rows + frame.height, dtype=pl.Int64)).filter(
                pl.Series(frame["split_group"] != frame["record_key"])
            )
        )
        light = [column for column in wanted if column in (*order_columns, digest_column, decision.placeholder_field)]
        small.append(frame.select(light))
        rows += frame.height
    keys.seal()
    facts = pl.concat(small) if small else pl.DataFrame()
    order = _ranks(facts, decision.order, rows)
    lineage = _lineage(pl.concat(kin), keys, rows) if kin else None
    placeholder = np.zeros(rows, np.bool_)
    if decision.placeholder_sources is not None:
        placeholder = placeholders(
            facts[digest_column], facts[decision.placeholder_field], decision.placeholder_sources
        )
    representative = np.full(rows, KEPT, np.int64)
    distance = np.full(rows, -1, np.int64)
    kind = np.zeros(rows, np.int8)
    alive = np.flatnonzero(~placeholder)
    if decision.exact and len(alive):
        first = exact(facts[digest_column].gather(alive), _dense(order[alive]))
        twins = np.flatnonzero(first != KEPT)
        if lineage is not None:
            twins = twins[strangers(lineage, alive[twins], alive[first[twins]])]
        representative[alive[twins]] = alive[first[twins]]
        distance[alive[twins]] = 0
        kind[alive[twins]] = 1
        alive = np.delete(alive, twins)
    del facts, small
    if near is not None and len(alive):
        # What has no hash is near nothing.
        alive = alive[np.concatenate(hashed)[alive]]
        if isinstance(near, NearTexts):
            lost, leaders, bits = _near_texts(near, hashes, alive, order, lineage)
        elif isinstance(near, NearEmbeddings):
            lost, leaders, bits = _near_embeddings(near, hashes, np.concatenate(hashed_keys), alive, order, lineage)
        else:
            full = np.concatenate(hashes)
            hashes.clear()
            lost, leaders, bits = _near(near, full, alive, order, variants, lineage, keys, compare)
        representative[lost], distance[lost], kind[lost] = leaders, bits, 2
        # A twin follows its head to the picture that the head is a near duplicate of.
        twins = np.flatnonzero(kind == 1)
        heads = representative[twins]
        moved = representative[heads] != KEPT
        distance[twins[moved]] = distance[heads[moved]]
        representative[twins[moved]] = representative[heads[moved]]
        if lineage is not None:
            # Except to one of its own kin: it is no duplicate of that.
            kin_of = twins[~strangers(lineage, twins, representative[twins])]
            representative[kin_of], distance[kin_of], kind[kin_of] = KEPT, -1, 0
    return keys, _Judged(placeholder, representative, distance, kind)


def _near(
    near: Near,
    full: Ints,
    alive: Ints,
    order: Ints,
    variants: _VariantHashes,
    lineage: Ints | None,
    keys: _Keys,
    compare: Compare | None,
) -> tuple[Ints, Ints, Ints]:
    """Rows that are near duplicates, their representatives, and the distances."""
    ranks = _dense(order[alive])
    lines = None if lineage is None else lineage[alive]
    if near.verify is None:
        found = greedy(full[alive], ranks, near.distance, lines)
        lost = np.flatnonzero(found.duplicate)
        return alive[lost], alive[found.representative[lost]], found.distance[lost]
    assert compare is not None
    place = np.full(len(full), -1, np.int64)
    place[alive] = np.arange(len(alive))
    across = [(variants.of(one, place), variants.of(two, place)) for one, two in combinations(near.variants, 2)]
    aligned = [(some, None) for position in near.aligned for some in variants.at(position, place)]
    proposed = candidates(
        full[alive],
        ranks,
        distance=near.distance,
        most=near.per_record,
        variants=variants.of(None, place),
        further=[*across, *aligned],
        lineage=lines,
    )

    def same(row: Ints, other: Ints) -> NDArray[np.bool_]:
        return compare(keys.at(alive[row]), keys.at(alive[other]))

    representative = decide_verified(proposed, ranks, same, lines)
    lost = np.flatnonzero(representative != KEPT)
    leaders = representative[lost]
    bits = np.bitwise_count((full[alive[lost]] ^ full[alive[leaders]]).view(np.uint64)).astype(np.int64)
    return alive[lost], alive[leaders], bits


def _width(parts: list[NDArray[Any]], held: str) -> int:
    """How many numbers a row of the parts has that have rows at all; raises UserError where that differs."""
    widths: list[int] = sorted({part.shape[1] for part in parts} - {0})
    if len(widths) != 1:
        raise UserError(f"{held} of {widths} numbers; measure all records the same way")
    return widths[0]


def _near_texts(
    near: NearTexts, parts: list[NDArray[Any]], alive: Ints, order: Ints, lineage: Ints | None
) -> tuple[Ints, Ints, Ints]:
    """As above, by signatures; a part is [records with a signature or not, permutations], [n, 0] where none has one."""
    if len(alive) == 0:
        none = np.zeros(0, np.int64)
        return none, none, none
    width = _width(parts, f"{near.column} holds signatures")
    wide = [part if part.shape[1] else np.zeros((len(part), width), np.uint32) for part in parts]
    signatures = np.concatenate(wide)[alive]
    found = alike(signatures, _dense(order[alive]), near.jaccard, None if lineage is None else lineage[alive])
    lost = np.flatnonzero(found.duplicate)
    return alive[lost], alive[found.representative[lost]], found.distance[lost]


def _near_embeddings(
    near: NearEmbeddings,
    parts: list[NDArray[Any]],
    hashed: NDArray[np.uint64],
    alive: Ints,
    order: Ints,
    lineage: Ints | None,
) -> tuple[Ints, Ints, Ints]:
    """As above, by embeddings; a part is [records with one or not, numbers], [n, 0] where none has one; emptied."""
    if len(alive) == 0:
        none = np.zeros(0, np.int64)
        return none, none, none
    width = _width(parts, f"{near.column} holds vectors")
    vectors: Vectors = np.empty((len(alive), width), np.float16)
    start = filled = 0
    while parts:
        part = parts.pop(0)
        own = alive[filled : np.searchsorted(alive, start + len(part))] - start
        if len(own):
            vectors[filled : filled + len(own)] = part[own]
        start, filled = start + len(part), filled + len(own)
    check_vectors(vectors, near.column)
    ranks, lines = _dense(order[alive]), None if lineage is None else lineage[alive]
    found = alike_embeddings(vectors, ranks, near.cosine, hashed[alive], near.clusters, lines)
    lost = np.flatnonzero(found.duplicate)
    return alive[lost], alive[found.representative[lost]], found.distance[lost]


def _vectors(column: pl.Series) -> Vectors:
    """Embeddings [rows, numbers] of little-endian half precision, zeros for null; [rows, 0] if all are."""
    present = column.is_not_null().to_numpy()
    known = column.drop_nulls()
    if not len(known):
        return np.zeros((len(column), 0), np.float16)
    sizes = sorted(known.bin.size().unique().to_list())
    if len(sizes) != 1 or sizes[0] % 2 or not sizes[0]:
        held = f"vectors of {sizes} bytes" if any(size % 2 or not size for size in sizes) else None
        held = held or f"vectors of {[size // 2 for size in sizes]} numbers"
        raise UserError(f"{column.name} holds {held}; measure all records the same way")
    vectors = np.zeros((len(column), sizes[0] // 2), np.float16)
    vectors[present] = np.frombuffer(b"".join(known), "<f2").reshape(len(known), -1)
    return vectors


def _hashes(column: pl.Series) -> Ints:
    """64-bit hashes, 0 for null."""
    return column.fill_null(0).to_numpy().astype(np.int64)


def _signatures(column: pl.Series) -> NDArray[np.uint32]:
    """Signatures [rows, permutations], zeros for null; [rows, 0] if all are."""
    present = column.is_not_null().to_numpy()
    known = column.drop_nulls()
    if not len(known):
        return np.zeros((len(column), 0), np.uint32)
    sizes = known.list.len().unique().to_list()
    if len(sizes) != 1:
        raise UserError(f"{column.name} holds signatures of {sorted(sizes)} numbers; measure all records the same way")
    signatures = np.zeros((len(column), sizes[0]), np.uint32)
    signatures[present] = known.explode().to_numpy().astype(np.uint32).reshape(-1, sizes[0])
    return signatures


class _VariantHashes:
    """Hashes of variant columns with the rows they belong to, by column and by position within a list column."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], list[tuple[Ints, Ints]]] = {}

    def add(self, column: pl.Series, first: int) -> None:
        """The hashes of some rows, the first of which has the number `first`."""
        if not column.count():
            return
        row = pl.int_range(first, first + len(column), dtype=pl.Int64, eager=True)
        frame = pl.DataFrame({"hash": column, "row": row, "position": 0})
        if isinstance(column.dtype, pl.List):
            frame = frame.with_columns(position=pl.int_ranges(pl.col("hash").list.len())).explode("hash", "position")
        for (position,), some in frame.drop_nulls("hash").group_by("position", maintain_order=True):
            hashes = some["hash"].to_numpy().astype(np.int64)
            self._parts.setdefault((column.name, int(str(position))), []).append((hashes, some["row"].to_numpy()))

    def of(self, column: str | None, place: Ints) -> Variants:
        """All hashes of a column, or of every column, of rows that have a place."""
        return _placed(
            [part for (name, _), parts in self._parts.items() if column in (None, name) for part in parts], place
        )

    def at(self, position: int, place: Ints) -> list[Variants]:
        """The hashes at one position of each list column."""
        return [_placed(parts, place) for (_, number), parts in self._parts.items() if number == position]


def _placed(parts: list[tuple[Ints, Ints]], place: Ints) -> Variants:
    none = np.zeros(0, np.int64)
    hashes = np.concatenate([none, *(hashes for hashes, _ in parts)])
    owner = place[np.concatenate([none, *(rows for _, rows in parts)])]
    return Variants(hashes[owner >= 0], owner[owner >= 0])


def _ranks(facts: pl.DataFrame, order: tuple[str, ...], rows: int) -> Ints:
    """Rank of each row by the stated order, nulls last; ties by key, in which the rows come already."""
    if not order or not rows:
        return np.arange(rows)
    names = [item.split()[0] for item in order]
    descending = [item.endswith(" desc") for item in order]
    sorted_rows = facts.select(
        pl.arg_sort_by([pl.col(name) for name in names], descending=descending, nulls_last=True, maintain_order=True)
    )
    ranks = np.empty(rows, np.int64)
    ranks[sorted_rows.to_series().to_numpy()] = np.arange(rows)
    return ranks


def _dense(ranks: Ints) -> Ints:
    """The same order as ranks 0 to n - 1."""
    dense = np.empty(len(ranks), np.int64)
    dense[np.argsort(ranks, kind="stable")] = np.arange(len(ranks))
    return dense


def _lineage(kin: pl.DataFrame, keys: _Keys, rows: int) -> Ints | None:
    """A number for every root that has born records here, -1 for rows without such kin; None if there are none."""
    if not kin.height:
        return None
    groups = kin.select("split_group").unique(maintain_order=True).with_row_index("line")
    line = np.full(rows, -1, np.int64)
    named = kin.join(groups, on="split_group")
    line[named["row"].to_numpy()] = named["line"].to_numpy()
    start = 0
    for _, own in keys.parts():
        roots = pl.DataFrame({"split_group": own, "row": pl.int_range(start, start + len(own), eager=True)})
        found = roots.join(groups, on="split_group")
        line[found["row"].to_numpy()] = found["line"].to_numpy()
        start += len(own)
    return line
