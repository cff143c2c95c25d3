"""Measure `scores`: a score somebody else computed, read from a Parquet file.

This is how scores of models that cannot run here enter a recipe: an aesthetic score of 0-100, a quality score
of 1-5. A record that the table does not hold gets null, never a made-up value.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from catalog.errors import UserError
from pipeline.operator import Column, Measure, Params, Record
from pipeline.scorers.checkpoint import file_digest


class ScoresParams(Params):
    """Parameters of `scores`.

    `table`: path of the Parquet file, None when there is none. `key`: what names a record in the table, the
    sha256 of its medium (`digest`), its `record_key`, or its source field `id`; `key_column` is the table's
    column with it, by default of the same name. `column`: the table's column with the score. `name`, `low`,
    `high`, `better`: the score contract.
    """

    table: str | None = None
    key: Literal["digest", "record_key", "id"] = "digest"
    key_column: str | None = None
    column: str
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    low: float
    high: float
    better: Literal["higher", "lower"] | None = "higher"
    about: str = ""
    role: str = "image"

    @model_validator(mode="after")
    def _range_is_one(self) -> ScoresParams:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        return self


class Scores(Measure):
    """One column of scores from a table, by digest, record key or source id."""

    name = "scores"
    version = 1
    Params = ScoresParams
    params: ScoresParams

    def __init__(self, params: ScoresParams) -> None:
        super().__init__(params)
        self._keys: _Keys | None = None
        self._values: pa.Array | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The one column that the parameters declare."""
        given = self.params
        about = given.about or f"column {given.column!r} of a table of scores; null for records it does not hold"
        return (Column(given.name, pa.float64(), about, given.low, given.high, given.better),)

    @property
    def missing(self) -> str | None:
        """A reason when no table is named."""
        return None if self.params.table else f"no table of scores is given for {self.params.name!r}"

    def fingerprint_parts(self) -> dict[str, Any]:
        """The digest of the table; raises UserError when it cannot be read."""
        if self.params.table is None:
            return {}
        try:
            return {"table_sha256": file_digest(Path(self.params.table))}
        except OSError as error:
            raise UserError(f"{self.params.table}: the table of scores cannot be read: {error.strerror}") from error

    def setup(self) -> None:
        """Read the table; raises UserError when it does not hold what the parameters say."""
        if self.params.table is None:
            return
        keys, self._values = _read_table(self.params)
        self._keys = _Keys(keys)

    def process(self, record: Record) -> Sequence[Any]:
        """The record's score, or null."""
        if self._keys is None and self.params.table is not None:
            self.setup()
        key = self._key_of(record)
        if key is None or self._keys is None or self._values is None:
            return (None,)
        place = bisect_left(self._keys, key)
        if place == len(self._keys) or self._keys[place] != key:
            return (None,)
        return (self._values[place].as_py(),)

    def _key_of(self, record: Record) -> str | None:
        if self.params.key == "record_key":
            return record.key
        if self.params.key == "digest":
            return record.ref(self.params.role).digest
        found = record.fields.get("id")
        return None if found is None else str(found)


class _Keys(Sequence[str]):
    """Sorted keys, kept as Arrow bytes: a tenth of what a dictionary of ten million would take."""

    def __init__(self, keys: pa.Array) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: Any) -> Any:
        return self._keys[place].as_py()


def _read_table(params: ScoresParams) -> tuple[pa.Array, pa.Array]:
    """Keys sorted, and their scores as float64; rows without a score are left out."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path, key_column = str(params.table), params.key_column or params.key
    try:
        held = pq.read_schema(path).names
        for wanted in (key_column, params.column):
            if wanted not in held:
                raise UserError(f"{path}: has no column {wanted!r}; it has {', '.join(held)}")
        table = pq.read_table(path, columns=[key_column, params.column])
        keys = table.column(key_column).cast(pa.string())
        scores = table.column(params.column).cast(pa.float64())
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as a table of scores: {error}") from error
    rows = pa.table({"key": keys, "score": scores}).filter(pc.and_(pc.is_valid(keys), pc.is_valid(scores)))
    rows = rows.sort_by([("key", "ascending"), ("score", "ascending")])
    inside = pc.and_(
        pc.greater_equal(rows["score"], params.low), pc.less_equal(rows["score"], params.high)
    )  # false for NaN
    _refuse(rows.filter(pc.invert(inside)), path, f"not within {params.low:g} to {params.high:g}")
    rows = rows.group_by(["key", "score"], use_threads=False).aggregate([]).sort_by("key").combine_chunks()
    again = pc.equal(rows["key"][1:], rows["key"][:-1])
    _refuse(rows[1:].filter(again), path, "a second score for the same key")
    return rows["key"].combine_chunks(), rows["score"].combine_chunks()


def _refuse(rows: pa.Table, path: str, complaint: str) -> None:
    if rows.num_rows:
        key, score = rows["key"][0].as_py(), rows["score"][0].as_py()
        raise UserError(f"{path}: {rows.num_rows} scores, the first {score:g} of key {key!r}: {complaint}")
