"""Folders of pictures: every file below a folder with one of the named endings, with optional side files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from pipeline.media import MediaRef
from pipeline.sources.base import BadRow, FieldName, Source, SourceRow
from pipeline.sources.fields import FieldMap, show, show_place
from pipeline.sources.jsonl import parse_object
from pipeline.sources.root import MediaRoot

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class Folder(Source):
    """`kind: folder`. Endings only choose files; what a file is, its bytes say later.

    `id` is the path below the folder. With `side_text`, `name.txt` beside `name.jpg` gives the field `text`;
    with `side_json`, `name.json` gives what `select` and `map` read.
    """

    unit = "file"

    kind: Literal["folder"]
    folder: str = "."
    role: FieldName = "image"
    endings: tuple[str, ...] = PICTURES
    side_text: bool = False
    side_json: bool = False

    @field_validator("endings")
    @classmethod
    def _endings_start_with_a_dot(cls, endings: tuple[str, ...]) -> tuple[str, ...]:
        if not endings or any(not ending.startswith(".") for ending in endings):
            raise ValueError("endings must each start with a dot, like .jpg")
        return tuple(ending.lower() for ending in endings)

    @model_validator(mode="after")
    def _columns_have_a_side_file(self) -> Folder:
        if (self.map or self.select) and not self.side_json:
            raise ValueError("map and select read JSON side files; set side_json: true or use const")
        return self

    def own_fields(self) -> frozenset[str]:
        """`id`, and `text` where text files stand beside the pictures."""
        return frozenset({"id", "text"} if self.side_text else {"id"}) - self.map.keys() - self.const.keys()

    def check(self, root: Path) -> None:
        """Raise UserError unless the folder is there and can be listed."""
        MediaRoot(root).own_folder(self.folder, "folder")

    def inputs(self, root: Path) -> list[Path]:
        """The folder and all below it (their times change with their lists of names), and the side files."""
        top = MediaRoot(root).own_folder(self.folder, "folder")
        found = []
        for folder, names in _walk(root / top):
            found.append(folder)
            found.extend(folder / name for name in names if self._is_side_file(name))
        return sorted(found)

    def rows(self, root: Path) -> Iterator[SourceRow]:
        """The selected files, sorted folder by folder, names by code point."""
        media_root = MediaRoot(root)
        top = media_root.own_folder(self.folder, "folder")
        field_map = FieldMap(self)
        for folder, names in _walk(root / top):
            present = set(names)
            for name in names:
                if name.lower().endswith(self.endings):
                    path = (folder / name).relative_to(root).as_posix()
                    row = self._row(path, top, present, media_root, field_map)
                    if row is not None:
                        yield row

    def _row(
        self, path: str, top: str, present: set[str], media_root: MediaRoot, field_map: FieldMap
    ) -> SourceRow | None:
        fields: dict[str, Any] = {}
        place = show_place(path)
        try:
            values = self._side_values(path, present, media_root)
            if not field_map.selects(values):
                return None
            if "id" in self.own_fields():
                fields["id"] = as_text(path if top == "." else path[len(top) + 1 :])
            if "text" in self.own_fields():
                fields["text"] = self._side_text(path, present, media_root)
            fields.update(field_map.apply(values))
            media = (MediaRef(self.role, "file", media_root.file(as_text(path))),)
        except BadRow as bad:
            return self.refuse(place, bad, fields, os.fsencode(path))
        return SourceRow(place, fields, media)

    def _is_side_file(self, name: str) -> bool:
        return (self.side_text and name.endswith(".txt")) or (self.side_json and name.endswith(".json"))

    def _side_text(self, path: str, present: set[str], media_root: MediaRoot) -> str | None:
        data = _beside(path, ".txt", present, media_root)
        return None if data is None else decode_text(data)

    def _side_values(self, path: str, present: set[str], media_root: MediaRoot) -> dict[str, Any]:
        data = _beside(path, ".json", present, media_root) if self.side_json else None
        if data is None:
            return {}
        try:
            return parse_object(data, first=True)
        except BadRow as bad:
            raise BadRow(bad.reason, f"its side file: {bad}") from None


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, sorted file names) of a folder and all below, sorted; linked folders are not entered."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield Path(folder), sorted(names)


def _beside(path: str, ending: str, present: set[str], media_root: MediaRoot) -> bytes | None:
    side = os.path.splitext(path)[0] + ending
    if side.rpartition("/")[2] not in present:
        return None
    try:
        return Path(media_root.root, media_root.file(side)).read_bytes()
    except OSError as error:
        raise BadRow("unreadable file", f"its side file {show(side)}: {error.strerror}") from None


def as_text(path: str) -> str:
    """A path from the disk, which must be UTF-8 to be stored; raises BadRow."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadRow("broken UTF-8", "the file name is not UTF-8; rename the file") from None
    return path


def decode_text(data: bytes) -> str:
    """Text of a side file: UTF-8 without a byte-order mark, outer white space removed; raises BadRow."""
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as broken:
        raise BadRow(
            "broken UTF-8", f"its text: byte 0x{data[broken.start]:02x} at {broken.start} is not UTF-8"
        ) from None
