"""Lists of URLs. Reading one asks no server: `pipeline.sources.fetch` does that, if the recipe allows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, IPvAnyNetwork, model_validator

from catalog.errors import UserError
from pipeline.sources.base import BadRow, DottedPath, FieldName, Source, SourceRow
from pipeline.sources.fields import FieldMap, show, show_place
from pipeline.sources.jsonl import Jsonl, read_lines
from pipeline.sources.limits import Limits
from pipeline.sources.parquet import Parquet
from pipeline.sources.root import MediaRoot


class UrlList(Source):
    """`kind: urls`. `file` is a .jsonl or .parquet file, where `url` names the column, or text, a URL a line.

    The URL becomes the field `url`. Nothing is fetched unless `network` is true. `allow_private` opens
    addresses that are not public: all of them (true), or networks such as `10.1.0.0/16`.
    """

    needs_network: ClassVar[bool] = True

    kind: Literal["urls"]
    file: Annotated[str, Field(min_length=1)]
    url: DottedPath = "url"
    role: FieldName = "image"
    network: bool = False
    allow_private: bool | tuple[IPvAnyNetwork, ...] = False
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _the_list_can_give_what_is_mapped(self) -> UrlList:
        if "url" in self.map or "url" in self.const:
            raise ValueError("the field url is the URL itself; name its column with url:")
        if not self._is_table() and (self.map or self.select or self.url != "url"):
            raise ValueError(f"{self.file} is plain text and has no columns; use .jsonl, .parquet or const")
        return self

    def _is_table(self) -> bool:
        return self.file.endswith((".jsonl", ".parquet"))

    def require_network(self) -> None:
        """Raise UserError unless the recipe allows the network."""
        if not self.network:
            raise UserError(f"urls {show(self.file)}: set network: true to let this source fetch from the network")

    def check(self, root: Path) -> None:
        """Raise UserError unless the network is allowed and the list is there."""
        self.require_network()
        table = self._table()
        if table is None:
            MediaRoot(root).own_file(self.file, "list")
        else:
            table.check(root)

    def inputs(self, root: Path) -> list[Path]:
        """The list."""
        return [root / MediaRoot(root).own_file(self.file, "list")]

    def rows(self, root: Path) -> Iterator[SourceRow]:
        """The selected entries in the order of the list, without media: `fetch` adds them."""
        table = self._table()
        if table is None:
            yield from self._lines(root)
            return
        for row in table.rows(root):
            if row.problem is None and row.fields["url"] is None:
                yield self.refuse(row.place, BadRow("wrong type", f"{self.url} is null, must be text"), row.fields)
            else:
                yield row

    def _table(self) -> Source | None:
        if not self._is_table():
            return None
        common: dict[str, Any] = {
            "on_bad_row": self.on_bad_row,
            "select": self.select,
            "map": {**self.map, "url": self.url},
            "const": self.const,
            "types": {**self.types, "url": "str"},
        }
        if self.file.endswith(".parquet"):
            return Parquet(kind="parquet", files=self.file, **common)
        return Jsonl(kind="jsonl", manifest=self.file, **common)

    def _lines(self, root: Path) -> Iterator[SourceRow]:
        name = MediaRoot(root).own_file(self.file, "list")
        const = FieldMap(self).apply({})
        for number, line, _ in read_lines(root / name):
            if line.isspace() or not line:
                continue
            place = f"{show_place(name)}:{number}"
            try:
                yield SourceRow(place, {"url": line.decode().strip(), **const})
            except UnicodeDecodeError as broken:
                message = f"column {broken.start + 1}: byte 0x{line[broken.start]:02x} is not UTF-8"
                yield self.refuse(place, BadRow("broken UTF-8", message), raw=line)
