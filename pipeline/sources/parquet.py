"""Parquet tables with picture bytes (Hugging Face style) or paths (LAION style)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from catalog.errors import UserError
from pipeline.media import MediaRef
from pipeline.sources.base import BadRow, DottedPath, FieldName, Source, SourceRow
from pipeline.sources.fields import FieldMap, follow, named_files, show_place
from pipeline.sources.ids import with_unique_ids
from pipeline.sources.patterns import expand
from pipeline.sources.root import MediaRoot

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_Cells = dict[str, list[bool] | None]
"""What is notable of a row's columns of bytes: null, or for a list which of its members hold something."""

_BATCH = 1024
_BYTES_BATCH = 64
_ROW_BITS = 40


class Parquet(Source):
    """`kind: parquet`. `media` names, per role, a column of bytes (`image.bytes`) or of paths, or of lists of them.

    Paths are relative to the Parquet file's folder. Of a list of structs the path names the field (`images.bytes`).
    """

    unit = "row"

    kind: Literal["parquet"]
    files: Annotated[str, Field(min_length=1)]
    media: dict[FieldName, DottedPath] = Field(default_factory=dict)

    def check(self, root: Path) -> None:
        """Raise UserError unless the files are there and the first has the columns."""
        names = expand(self.files, MediaRoot(root), "file")
        with _open(root / names[0], names[0]) as table:
            _Columns(self, table.schema_arrow, names[0])

    def inputs(self, root: Path) -> list[Path]:
        """The Parquet files."""
        return sorted(root / name for name in expand(self.files, MediaRoot(root), "file"))

    def rows(self, root: Path) -> Iterator[SourceRow]:
        """The selected rows, file by file; a place is `FILE:ROW`, rows counted from 0."""
        media_root = MediaRoot(root)
        names = expand(self.files, media_root, "file")

        def place_of(position: int) -> str:
            file, row = divmod(position, 1 << _ROW_BITS)
            return f"{show_place(names[file])}:{row}"

        def numbered() -> Iterator[tuple[int, SourceRow]]:
            field_map = FieldMap(self)
            for file, name in enumerate(names):
                for number, row in self._file_rows(root, name, media_root, field_map):
                    yield (file << _ROW_BITS) + number, row

        return with_unique_ids(self, numbered(), place_of)

    def _file_rows(
        self, root: Path, name: str, media_root: MediaRoot, field_map: FieldMap
    ) -> Iterator[tuple[int, SourceRow]]:
        shown = show_place(name)
        with _open(root / name, name) as table:
            columns = _Columns(self, table.schema_arrow, name)
            reader = _RowReader(self, name, columns, media_root)
            for number, values, cells in _stream(table, columns, shown):
                if not field_map.selects(values):
                    continue
                place = f"{shown}:{number}"
                fields: dict[str, Any] = {}
                try:
                    if columns.floats:
                        _refuse_non_finite(values, columns.fields)
                    fields = field_map.apply(values)
                    media = reader.media(number, values, cells)
                except BadRow as bad:
                    yield number, self.refuse(place, bad, fields, place.encode())
                else:
                    yield number, SourceRow(place, fields, media)


class _Columns:
    """Which columns of one file are needed; raises UserError for those that are absent or no JSON."""

    def __init__(self, source: Parquet, schema: pa.Schema, name: str) -> None:
        import pyarrow as pa

        self._schema = schema
        self._name = show_place(name)
        self.bytes: dict[str, str] = {}
        self.paths: dict[str, str] = {}
        self.lists: set[str] = set()
        self.fields = sorted({*source.map.values(), *source.select})
        found = {path: self._type(path) for path in self.fields}
        for path, (_, kind) in found.items():
            if not _is_json(kind):
                raise UserError(f"{self._name}: column {path!r} is {kind}, which no field can hold; map another")
        for role, path in source.media.items():
            column, kind = self._type(path, inside=True)
            if _is_list(kind):
                self.lists.add(path)
                kind = kind.value_type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                self.bytes[role] = path
            elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
                self.paths[role] = path
                found[path] = (column, kind)
            else:
                inside = ", ".join(f"{path}.{kind.field(i).name}" for i in range(kind.num_fields))
                hint = f"; name one of {inside}" if pa.types.is_struct(kind) else ""
                raise UserError(f"{self._name}: column {path!r} is {kind}, must be bytes or text{hint}")
        self.read = sorted({column for column, _ in found.values()})
        self.floats = any(_has_floats(kind) for _, kind in found.values())

    def _type(self, path: str, inside: bool = False) -> tuple[str, pa.DataType]:
        """The Parquet column to read for a dotted path, and the type at its end.

        With `inside` the last part may name a field of all members of a list, whose type is then a list.
        """
        import pyarrow as pa

        parts = path.split(".")
        if parts[0] not in self._schema.names:
            raise self._absent(path, self._schema.names)
        kind = self._schema.field(parts[0]).type
        column = parts[0]
        for depth, part in enumerate(parts[1:], 1):
            if pa.types.is_struct(kind):
                if kind.get_field_index(part) < 0:
                    above = ".".join(parts[:depth])
                    raise self._absent(path, [f"{above}.{kind.field(i).name}" for i in range(kind.num_fields)])
                kind = kind.field(part).type
                column = f"{column}.{part}" if column == ".".join(parts[:depth]) else column
            elif _is_list(kind) and part.isdecimal():
                kind = kind.value_type
            elif inside and depth == len(parts) - 1 and _is_list(kind) and _has_field(kind.value_type, part):
                kind = pa.list_(kind.value_type.field(part).type)
            else:
                raise UserError(f"{self._name}: column {path!r}: {'.'.join(parts[:depth])!r} is {kind}")
        return column, kind

    def inner(self, path: str) -> bool:
        """Whether the last part of a path names a field of a list's members."""
        above = path.rpartition(".")[0]
        return path in self.lists and bool(above) and _is_list(self._type(above)[1])

    def _absent(self, path: str, names: list[str]) -> UserError:
        return UserError(f"{self._name}: has no column {path!r}; its columns are {', '.join(names)}")


class _RowReader:
    """Finds the media of rows."""

    def __init__(self, source: Parquet, name: str, columns: _Columns, media_root: MediaRoot) -> None:
        self._roles = list(source.media)
        self._name = name
        self._folder = name.rpartition("/")[0]
        self._columns = columns
        self._media_root = media_root

    def media(self, number: int, values: dict[str, Any], cells: _Cells) -> tuple[MediaRef, ...]:
        """The references of every role; `cells` tells which columns of bytes hold something in this row."""
        return tuple([ref for role in self._roles for ref in self._refs(role, number, values, cells)])

    def _refs(self, role: str, number: int, values: dict[str, Any], cells: _Cells) -> list[MediaRef]:
        path = self._columns.bytes.get(role)
        if path is None:
            return self._files(role, values)
        if path not in self._columns.lists:
            if path in cells:
                raise BadRow(f"no {role}", f"{path} is null")
            return [MediaRef(role, "parquet", self._name, member=path, offset=number)]
        valid = cells[path]
        if not valid:
            raise BadRow(f"no {role}", f"{path} is {'null' if valid is None else 'an empty list'}")
        top, _, inner = path.rpartition(".") if self._columns.inner(path) else (path, "", "")
        refs = []
        for place, there in enumerate(valid):
            member = f"{top}.{place}.{inner}" if inner else f"{top}.{place}"
            if not there:
                raise BadRow(f"no {role}", f"{member} is null")
            refs.append(MediaRef(role, "parquet", self._name, member=member, offset=number))
        return refs

    def _files(self, role: str, values: dict[str, Any]) -> list[MediaRef]:
        path = self._columns.paths[role]
        top, _, inner = path.rpartition(".") if self._columns.inner(path) else (path, "", "")
        named = follow(values, tuple(top.split(".")))
        if inner and isinstance(named, list):
            named = [None if one is None else one[inner] for one in named]
        return [
            MediaRef(role, "file", self._media_root.file(name, self._folder)) for name in named_files(role, path, named)
        ]


def _open(path: Path, name: str) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{show_place(name)}: not a readable Parquet file: {_first_line(error)}") from None


def _stream(table: pq.ParquetFile, columns: _Columns, shown: str) -> Iterator[tuple[int, dict[str, Any], _Cells]]:
    """(row number in the file, values, what is notable of its bytes) of every row, one batch in memory."""
    import pyarrow as pa

    start = 0
    for group in range(table.num_row_groups):
        try:
            empty = {path: _nulls(table, group, path) for path in columns.bytes.values() if path not in columns.lists}
            lists = {path: _members(table, group, path) for path in columns.bytes.values() if path in columns.lists}
            count = table.metadata.row_group(group).num_rows
            for values in _values(table, group, columns.read, count):
                at = values[0]
                cells: _Cells = {path: None for path, rows in empty.items() if at in rows}
                yield start + at, values[1], cells | {path: rows[at] for path, rows in lists.items()}
            start += count
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{shown}: row group {group} cannot be read: {_first_line(error)}") from None


def _values(table: pq.ParquetFile, group: int, columns: list[str], count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if not columns:
        yield from ((at, {}) for at in range(count))
        return
    at = 0
    for batch in table.iter_batches(batch_size=_BATCH, row_groups=[group], columns=columns):
        for values in batch.to_pylist():
            yield at, values
            at += 1


def _nulls(table: pq.ParquetFile, group: int, path: str) -> frozenset[int]:
    """The rows of a row group with null in a column of bytes; reads it only if statistics leave it open."""
    metadata = table.metadata.row_group(group)
    for index in range(metadata.num_columns):
        column = metadata.column(index)
        if column.path_in_schema == path:
            statistics = column.statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
                return frozenset()
    import pyarrow.compute as pc

    found: list[int] = []
    start = 0
    for batch in table.iter_batches(batch_size=_BYTES_BATCH, row_groups=[group], columns=[path]):
        cells = batch.column(0)
        for part in path.split(".")[1:]:
            cells = pc.struct_field(cells, part)
        found.extend(start + at for at, valid in enumerate(cells.is_valid().to_pylist()) if not valid)
        start += len(batch)
    return frozenset(found)


def _members(table: pq.ParquetFile, group: int, path: str) -> list[list[bool] | None]:
    """Per row of a row group which members of a list of bytes hold something; None where the list is null."""
    import pyarrow as pa

    found: list[list[bool] | None] = []
    names = path.split(".")
    for batch in table.iter_batches(batch_size=_BYTES_BATCH, row_groups=[group], columns=[names[0]]):
        for cell in batch.column(0):
            value: pa.Scalar | None = cell
            for part in names[1:]:
                if value is None or not value.is_valid or not isinstance(value, pa.StructScalar):
                    break
                value = value[part]
            if value is None or not value.is_valid:
                found.append(None)
                continue
            inner = names[-1] if isinstance(value.values.type, pa.StructType) else None
            found.append([one.is_valid and (inner is None or one[inner].is_valid) for one in value.values])
    return found


def _has_field(kind: pa.DataType, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and kind.get_field_index(name) >= 0


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_json(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if _is_list(kind):
        return _is_json(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_json(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _is_json(kind.value_type)
    tests = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    texts = (pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests + texts)


def _has_floats(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if _is_list(kind) or pa.types.is_dictionary(kind):
        return _has_floats(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_has_floats(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_floating(kind))


def _refuse_non_finite(values: dict[str, Any], paths: list[str]) -> None:
    for path in paths:
        if (number := _non_finite(follow(values, tuple(path.split("."))))) is not None:
            raise BadRow("non-finite number", f"{path} is {number}, must be a finite number or null")


def _non_finite(value: Any) -> float | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((number for item in inside if (number := _non_finite(item)) is not None), None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
