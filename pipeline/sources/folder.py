"""Folders of pictures: every file below a folder with one of the named endings, with optional side files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from pipeline.media import MediaRef
from pipeline.sources.base import BadRow, FieldName, Source, SourceRow
from pipeline.sources.fields import FieldMap, show, show_place
from pipeline.sources.jsonl import parse_object
from pipeline.sources.root import MediaRoot

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class Folder(Source):
    """`kind: folder`. Endings only choose files; what a file is, its bytes say later.

    `map` and `select` see, for `name.jpg`: `path` (below the folder), `txt` (the text of `name.txt` beside
    it) and `json` (the object in `name.json`); side files are read only if they are named there, and may be
    absent.
    """

    unit = "file"

    kind: Literal["folder"]
    folder: str = "."
    role: FieldName = "image"
    endings: tuple[str, ...] = PICTURES

    @field_validator("endings")
    @classmethod
    def _endings_start_with_a_dot(cls, endings: tuple[str, ...]) -> tuple[str, ...]:
        if not endings or any(not ending.startswith(".") for ending in endings):
            raise ValueError("endings must each start with a dot, like .jpg")
        return tuple(ending.lower() for ending in endings)

    def check(self, root: Path) -> None:
        """Raise UserError unless the folder is there and can be listed."""
        MediaRoot(root).own_folder(self.folder, "folder")

    def inputs(self, root: Path) -> list[Path]:
        """The folder and all below it (their times change with their lists of names), and the side files."""
        top = MediaRoot(root).own_folder(self.folder, "folder")
        endings = tuple(f".{name}" for name in self._side_files())
        found = []
        for folder, names in _walk(root / top):
            found.append(folder)
            found.extend(folder / name for name in names if name.endswith(endings))
        return sorted(found)

    def rows(self, root: Path) -> Iterator[SourceRow]:
        """The selected files, folder by folder, folders and names sorted by code point."""
        reader = _FileReader(self, MediaRoot(root), self._side_files())
        for folder, names in _walk(root / reader.top):
            present = set(names)
            for name in names:
                if name.lower().endswith(self.endings):
                    row = reader.read((folder / name).relative_to(root).as_posix(), present)
                    if row is not None:
                        yield row

    def _side_files(self) -> frozenset[str]:
        named = {path.split(".")[0] for path in (*self.map.values(), *self.select)}
        return frozenset(named & {"txt", "json"})


class _FileReader:
    """Turns files into rows."""

    def __init__(self, source: Folder, media_root: MediaRoot, side_files: frozenset[str]) -> None:
        self.top = media_root.own_folder(source.folder, "folder")
        self._source = source
        self._media_root = media_root
        self._side_files = side_files
        self._fields = FieldMap(source)

    def read(self, path: str, present: set[str]) -> SourceRow | None:
        """The row of a file whose folder holds the names `present`; None when it is not selected."""
        place = show_place(path)
        fields: dict[str, Any] = {}
        try:
            values = self._values(as_text(path), present)
            if not self._fields.selects(values):
                return None
            fields = self._fields.apply(values)
            media = (MediaRef(self._source.role, "file", self._media_root.file(path)),)
        except BadRow as bad:
            return self._source.refuse(place, bad, fields, os.fsencode(path))
        return SourceRow(place, fields, media)

    def _values(self, path: str, present: set[str]) -> dict[str, Any]:
        values: dict[str, Any] = {"path": path if self.top == "." else path[len(self.top) + 1 :]}
        for kind in sorted(self._side_files):
            side = f"{os.path.splitext(path)[0]}.{kind}"
            if side.rpartition("/")[2] in present:
                values[kind] = parse_side(kind, self._bytes(side), side.rpartition("/")[2])
        return values

    def _bytes(self, side: str) -> bytes:
        try:
            return Path(self._media_root.root, self._media_root.file(side)).read_bytes()
        except OSError as error:
            raise BadRow("unreadable file", f"the file {show(side)}: {error.strerror}") from None


def parse_side(kind: str, data: bytes, name: str) -> Any:
    """What a side file says: the object of `json`, the stripped text of others; raises BadRow."""
    try:
        if kind == "json":
            return parse_object(data, first=True)
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as broken:
        byte = data[broken.start]
        raise BadRow("broken UTF-8", f"{show(name)}: byte 0x{byte:02x} at {broken.start} is not UTF-8") from None
    except BadRow as bad:
        raise BadRow(bad.reason, f"{show(name)}: {bad}") from None


def as_text(path: str) -> str:
    """A name from the disk or an archive, which must be UTF-8 to be stored; raises BadRow."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadRow("broken UTF-8", "the name is not UTF-8; rename it") from None
    return path


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, sorted file names) of a folder and all below, sorted; linked folders are not entered."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield Path(folder), sorted(names)
