"""What a worker process does with one unit: run an operator over its records and write one outcome file.

Plain functions; the engines differ only in how they get them called. A record that raises is quarantined here and costs
its neighbours nothing. One that hangs makes the worker end itself, and the driver finds it by bisection.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, TypeVar

import orjson
import pyarrow as pa

from catalog import schemas
from catalog.datafile import DataFile, write_file
from catalog.errors import UserError
from catalog.keys import canonical, derived_key
from catalog.storage import Storage, open_storage
from pipeline.clock import clock
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Child, Expander, Measure, Merger, Operator, Quarantine, Record, check_row, load_operator

Result = TypeVar("Result")
GROUP = "merge group"
"""Column of rows that stay together; no field or measure can have a name with a space in it."""
_OWN_COLUMNS = frozenset({"record_key", "fields", "media", GROUP})

CHILDREN = pa.list_(
    pa.struct(
        [
            pa.field("record_key", pa.string()),
            pa.field("role", pa.string()),
            pa.field("fields", pa.binary()),
            pa.field("media", schemas.MEDIA),
        ]
    )
)


@dataclass(frozen=True)
class Task:
    """One node of a run, as workers need it: the operator, where media and tables are, how long a record may take."""

    node: str
    op: str
    params: str
    table: str
    store: str
    options: tuple[tuple[str, str], ...]
    root: str
    tag: str
    time_limit: float
    loads_model: bool = False
    gpus: float = 0.0


@dataclass(frozen=True)
class Unit:
    """Some records of one bucket, as Arrow IPC bytes. It only batches work; it has no lasting identity."""

    bucket: str
    count: int
    rows: bytes
    attempt: int = 1


@dataclass(frozen=True)
class UnitResult:
    """What came of a unit: a finished file, counts, the seconds its records took."""

    file: DataFile
    calls: int
    seconds: float
    quarantined: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    message: str


def pack_rows(rows: pa.Table) -> bytes:
    """Arrow IPC bytes of some rows."""
    # Copied first: Arrow 26 writes a stream that it cannot read when an empty list of structs begins within a buffer
    # of nothing, as polars hands it over for records without media beside records with some.
    rows = rows.take(pa.array(range(rows.num_rows), pa.int64()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack_rows(data: bytes) -> pa.Table:
    """The rows of Arrow IPC bytes."""
    return pa.ipc.open_stream(data).read_all()


@lru_cache(maxsize=8)
def _operator(op: str, params: str) -> Operator:
    operator = load_operator(op).build(orjson.loads(params))
    operator.setup()
    return operator


@lru_cache(maxsize=4)
def _storage(uri: str, options: tuple[tuple[str, str], ...]) -> Storage:
    return open_storage(uri, dict(options))


def run_unit(task: Task, unit: Unit, began: Callable[[], None] = lambda: None) -> UnitResult:
    """Run a node's operator over a unit and write its outcome file; the caller makes the file visible.

    `began` is called once the operator is loaded: what ends the process before that is no record's fault.
    """
    operator = _operator(task.op, task.params)
    rows = unpack_rows(unit.rows)
    records = list(_records(task, rows))
    began()
    started = time.perf_counter()
    try:
        if isinstance(operator, Measure):
            outcome = _measured(task, operator, records)
        elif isinstance(operator, Expander):
            outcome = _expanded(task, operator, records)
        else:
            assert isinstance(operator, Merger)
            outcome = _merged(task, operator, records, rows.column(GROUP).to_pylist())
    finally:
        clock().stop()
    seconds = time.perf_counter() - started
    outcome = outcome.append_column("attempt", pa.array([unit.attempt] * outcome.num_rows, pa.int32()))
    outcome = outcome.select(outcome_schema(operator).names).sort_by("record_key")
    reasons = Counter(reason for reason in outcome.column("reason").to_pylist() if reason is not None)
    file = write_file(_storage(task.store, task.options), task.table, "record_key", unit.bucket, outcome, task.tag)
    return UnitResult(file, outcome.num_rows, seconds, reasons)


def quarantine_unit(task: Task, unit: Unit, schema: pa.Schema, reason: str, message: str) -> UnitResult:
    """Write the outcome of a unit whose worker died of it: every record in it is set aside."""
    rows = unpack_rows(unit.rows)
    names = rows.schema.names
    keys = sorted(set(rows.column(GROUP if GROUP in names else "record_key").to_pylist()))
    given: dict[str, Any] = {
        "record_key": keys,
        "status": ["quarantined"] * len(keys),
        "reason": [reason] * len(keys),
        "message": [message] * len(keys),
        "attempt": [unit.attempt] * len(keys),
    }
    if GROUP in names:
        members = list(zip(rows.column(GROUP).to_pylist(), rows.column("record_key").to_pylist(), strict=True))
        given["parents"] = [[key for group, key in members if group == wanted] for wanted in keys]
    columns = [pa.array(given.get(column.name, [None] * len(keys)), column.type) for column in schema]
    outcome = pa.Table.from_arrays(columns, schema=schema)
    file = write_file(_storage(task.store, task.options), task.table, "record_key", unit.bucket, outcome, task.tag)
    return UnitResult(file, len(keys), 0.0, Counter({reason: len(keys)}))


def outcome_schema(operator: Operator) -> pa.Schema:
    """The columns of an operator's outcome table."""
    if isinstance(operator, Measure):
        return pa.schema([*schemas.OUTCOME, *[pa.field(column.name, column.type) for column in operator.columns]])
    born = [pa.field("children", CHILDREN)]
    if isinstance(operator, Merger):
        born.append(pa.field("parents", pa.list_(pa.string())))
    return pa.schema([*schemas.OUTCOME, *born])


def _records(task: Task, rows: pa.Table) -> Iterator[Record]:
    names = rows.schema.names
    count = rows.num_rows
    keys = rows.column("record_key").to_pylist()
    fields = rows.column("fields").to_pylist() if "fields" in names else [b"{}"] * count
    media = _media(rows.column("media").combine_chunks()) if "media" in names else [()] * count
    values = {name: rows.column(name).to_pylist() for name in names if name not in _OWN_COLUMNS}
    reader = MediaReader(task.root, task.store, task.options)
    for i in range(count):
        yield Record(keys[i], media[i], fields[i], {name: column[i] for name, column in values.items()}, reader)


def _media(column: pa.Array) -> list[tuple[MediaRef, ...]]:
    """The media of each row; child by child, since row by row costs more than a small operator."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found: list[tuple[MediaRef, ...]] = []
    for chunk in chunks:
        flat = chunk.flatten()
        parts = [flat.field(child.name).to_pylist() for child in schemas.MEDIA.value_type]
        refs = [MediaRef(*row) for row in zip(*parts, strict=True)]
        start = 0
        for length in chunk.value_lengths().to_pylist():
            end = start + (length or 0)
            found.append(tuple(refs[start:end]))
            start = end
    return found


def _guarded(task: Task, call: Callable[[], Result], records: int = 1) -> Result | _Failure:
    clock().start(task.time_limit * records)
    try:
        return call()
    except Quarantine as verdict:
        return _Failure(_text(verdict.reason), _message(task, verdict))
    except UserError:
        # Not this record's fault: a wrong key, a used-up budget. It stops the run.
        raise
    except MemoryError:
        return _Failure("out of memory", "the record needs more memory than there is")
    except (Exception, SystemExit) as error:  # a library that exits over one record must not cost the others
        return _Failure(type(error).__name__, _message(task, error))


def _message(task: Task, error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return _text((lines[0] if lines else type(error).__name__).replace(f"{task.root}/", "")[:500])


def _text(words: str) -> str:
    """Words that can be stored: names of files may hold what UTF-8 cannot."""
    return words.encode("utf-8", "backslashreplace").decode()


def _measured(task: Task, operator: Measure, records: list[Record]) -> pa.Table:
    columns = operator.columns

    def alone(record: Record) -> Sequence[Any]:
        values = operator.process(record)
        check_row(columns, values)
        return values

    def together(some: list[Record]) -> list[Sequence[Any] | _Failure]:
        rows: list[Sequence[Any] | _Failure] = []
        for values in operator.process_batch(some):
            if isinstance(values, Quarantine):
                rows.append(_Failure(_text(values.reason), _message(task, values)))
            else:
                check_row(columns, values)
                rows.append(values)
        if len(rows) != len(some):
            raise ValueError(f"process_batch answers for {len(rows)} of {len(some)} records")
        return rows

    results: list[Sequence[Any] | _Failure] = []
    for start in range(0, len(records), operator.batch):
        some = records[start : start + operator.batch]
        if len(some) > 1:
            rows = _guarded(task, partial(together, some), len(some))
            if not isinstance(rows, _Failure):
                results += rows
                continue
        # Alone, or somebody in the batch fails: only the guilty is set aside.
        results += [_guarded(task, partial(alone, record)) for record in some]
    data = _status_columns([record.key for record in records], results)
    empty: tuple[None, ...] = (None,) * len(columns)
    values = list(zip(*(empty if isinstance(row, _Failure) else row for row in results), strict=True))
    for i, column in enumerate(columns):
        data[column.name] = _column(values[i], column.name, column.type, data)
    return pa.table(data)


def _status_columns(keys: list[str], results: Sequence[object]) -> dict[str, Any]:
    failures = [result if isinstance(result, _Failure) else None for result in results]
    return {
        "record_key": keys,
        "status": ["ok" if failure is None else "quarantined" for failure in failures],
        "reason": pa.array([None if failure is None else failure.reason for failure in failures], pa.string()),
        "message": pa.array([None if failure is None else failure.message for failure in failures], pa.string()),
    }


def _column(values: Sequence[Any], name: str, kind: pa.DataType, data: dict[str, Any]) -> pa.Array:
    """Values as Arrow; a value of another type sets its record aside instead of failing the unit."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    good: list[Any] = []
    for i, value in enumerate(values):
        try:
            pa.array([value], kind)
            good.append(value)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            good.append(None)
            data["status"][i] = "quarantined"
            for column, text in (
                ("reason", "wrong type"),
                ("message", f"{name} is a {type(value).__name__}, not {kind}"),
            ):
                texts = data[column].to_pylist()
                texts[i] = text
                data[column] = pa.array(texts, pa.string())
    return pa.array(good, kind)


def _expanded(task: Task, operator: Expander, records: list[Record]) -> pa.Table:
    def expand(record: Record) -> list[dict[str, Any]]:
        return _born(task, [record.key], list(operator.expand(record)))

    results = [_guarded(task, partial(expand, record)) for record in records]
    data = _status_columns([record.key for record in records], results)
    data["children"] = pa.array([None if isinstance(row, _Failure) else row for row in results], CHILDREN)
    return pa.table(data)


def _merged(task: Task, operator: Merger, records: list[Record], groups: list[str]) -> pa.Table:
    def merge(some: list[Record]) -> list[dict[str, Any]]:
        return _born(task, [record.key for record in some], [operator.merge(some)])

    members = [
        (group, [record for _, record in some])
        for group, some in groupby(zip(groups, records, strict=True), key=lambda pair: pair[0])
    ]
    results = [_guarded(task, partial(merge, some)) for _, some in members]
    data = _status_columns([group for group, _ in members], results)
    data["children"] = pa.array([None if isinstance(row, _Failure) else row for row in results], CHILDREN)
    data["parents"] = pa.array([[record.key for record in some] for _, some in members], pa.list_(pa.string()))
    return pa.table(data)


def _born(task: Task, parents: list[str], children: list[Child]) -> list[dict[str, Any]]:
    """Rows of CHILDREN. A child's key holds its step, its parents, its place among its siblings and its content."""
    rows = []
    for ordinal, child in enumerate(children):
        fields = canonical(child.fields)
        digests = [ref.digest or "" for ref in child.media]
        key = derived_key(f"{task.op} {task.params}", parents, child.role, ordinal, fields, digests)
        media = [ref.to_row() for ref in child.media]
        rows.append({"record_key": key, "role": child.role, "fields": fields, "media": media})
    return rows
