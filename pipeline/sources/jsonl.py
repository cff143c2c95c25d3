"""JSONL manifests: one JSON object a line, media named by paths relative to the manifest's folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import orjson
from pydantic import Field

from catalog.errors import UserError
from pipeline.media import MediaRef
from pipeline.sources.base import BadRow, DottedPath, FieldName, Source, SourceRow
from pipeline.sources.fields import FieldMap, follow, named_files, show, show_place
from pipeline.sources.ids import with_unique_ids
from pipeline.sources.records import RecordFile, Records
from pipeline.sources.root import MediaRoot

MAX_LINE = 16 * 2**20
"""Bytes a line may have; a longer one is no manifest, and memory stays bounded."""
_BLOCK = 2**20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Jsonl(Source):
    """`kind: jsonl`. `media` names, per role, the dotted path of the line that holds the file's path, or a list.

    With `records`, the path `record` of each line leads to the fields of the record it names in a second file.
    """

    kind: Literal["jsonl"]
    manifest: Annotated[str, Field(min_length=1)]
    media: dict[FieldName, DottedPath] = Field(default_factory=dict)
    records: Records | None = None

    def check(self, root: Path) -> None:
        """Raise UserError unless the manifest, and the file of records, are readable files below the root."""
        self.inputs(root)

    def inputs(self, root: Path) -> list[Path]:
        """The manifest and the file of records."""
        media_root = MediaRoot(root)
        manifest = media_root.own_file(self.manifest, "manifest")
        return sorted({root / manifest, *self._record_files(root, media_root, manifest)})

    def _record_files(self, root: Path, media_root: MediaRoot, manifest: str) -> list[Path]:
        """The file of records, if there is one."""
        if self.records is None:
            return []
        folder = manifest.rpartition("/")[0]
        beside = f"{folder}/{self.records.file}" if folder else self.records.file
        return [root / media_root.own_file(beside, "records")]

    def rows(self, root: Path) -> Iterator[SourceRow]:
        """The selected lines in file order."""
        return with_unique_ids(self, self._numbered_rows(root), lambda number: f"line {number}")

    def _numbered_rows(self, root: Path) -> Iterator[tuple[int, SourceRow]]:
        media_root = MediaRoot(root)
        manifest = media_root.own_file(self.manifest, "manifest")
        beside = None
        for path in self._record_files(root, media_root, manifest):
            assert self.records is not None
            beside = RecordFile(path, self.records.line)
        reader = _LineReader(self, media_root, manifest.rpartition("/")[0], beside)
        shown = show_place(manifest)
        for number, line, ended in read_lines(root / manifest):
            if not line.strip():
                continue
            place = f"{shown}:{number}"
            try:
                row = reader.read(place, number, line)
            except BadRow as bad:
                if not ended and bad.reason == "not JSON":
                    bad = BadRow("truncated line", f"the last line is cut off: {bad}")
                yield number, self.refuse(place, bad, raw=line)
                continue
            if row is not None:
                yield number, row


class _LineReader:
    """Turns the lines of one manifest into rows."""

    def __init__(self, source: Jsonl, media_root: MediaRoot, folder: str, records: RecordFile | None) -> None:
        self._source = source
        self._fields = FieldMap(source)
        self._media_root = media_root
        self._folder = folder
        self._records = records
        self._media = [(role, path, tuple(path.split("."))) for role, path in source.media.items()]

    def read(self, place: str, number: int, line: bytes) -> SourceRow | None:
        """The row of a line, None if not selected; raises BadRow while there are no fields to keep."""
        values = parse_object(line, first=number == 1)
        if not self._fields.selects(values):
            return None
        if self._records is not None:
            values = {**values, "record": self._records.of(values)}
        fields = self._fields.apply(values)
        try:
            media = tuple([ref for entry in self._media for ref in self._refs(values, *entry)])
        except BadRow as bad:
            return self._source.refuse(place, bad, fields, line)
        return SourceRow(place, fields, media)

    def _refs(self, values: dict[str, Any], role: str, path: str, parts: tuple[str, ...]) -> list[MediaRef]:
        found = values.get(path) if len(parts) == 1 else follow(values, parts)
        names = [found] if type(found) is str else named_files(role, path, found)
        return [MediaRef(role, "file", self._media_root.file(name, self._folder)) for name in names]


def read_lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(number from 1, bytes without the line break, whether a line break followed) of every line of a file.

    Raises UserError when the file cannot be read or a line is longer than MAX_LINE.
    """
    try:
        with path.open("rb") as file:
            yield from _lines_of(file, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _lines_of(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes, bool]]:
    number, rest = 0, b""
    while block := file.read(_BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            yield number, line, True
        if len(rest) > MAX_LINE:
            raise UserError(f"{path}:{number + 1}: longer than {MAX_LINE:,} bytes; is this a JSONL file?")
    if rest:
        yield number + 1, rest, False


def parse_object(line: bytes, first: bool = False) -> dict[str, Any]:
    """The JSON object of a line; raises BadRow for anything else.

    `first` says that the line begins its file, where a byte-order mark explains the fault.
    """
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _unparsed(line, error, first) from None
    if type(values) is not dict:
        raise BadRow("not an object", f"holds {show(values)}, must be a JSON object")
    return values


def _unparsed(line: bytes, error: orjson.JSONDecodeError, first: bool) -> BadRow:
    if first and line.startswith(_BOM):
        return BadRow("byte-order mark", "starts with a byte-order mark; save the file as UTF-8 without one")
    if first and line.startswith(_UTF16):
        return BadRow("broken UTF-8", "the file is UTF-16; save it as UTF-8")
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        byte = line[broken.start]
        return BadRow("broken UTF-8", f"column {broken.start + 1}: byte 0x{byte:02x} is not UTF-8")
    detail = re.sub(r": line \d+ column \d+ \(char \d+\)$", "", str(error))
    return BadRow("not JSON", f"column {error.colno}: not JSON: {detail}")
