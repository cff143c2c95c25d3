"""Records beside a manifest: the lines of a second JSONL file, which the manifest names by number."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.sources.base import BadRow, DottedPath
from pipeline.sources.fields import follow, mistyped


class Records(BaseModel):
    """`records:` of a JSONL source. `file` lies in the manifest's folder; `line` names the line's number, from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(min_length=1)]
    line: DottedPath = "line"


class RecordFile:
    """The lines of one file by number; holds where each begins, not what it says."""

    def __init__(self, path: Path, line: str) -> None:
        from pipeline.sources.jsonl import read_lines

        self._path = path
        self._line, self._parts = line, tuple(line.split("."))
        self._starts = array("q", [0])
        for _, text, _ in read_lines(path):
            self._starts.append(self._starts[-1] + len(text) + 1)

    def of(self, row: dict[str, Any]) -> dict[str, Any]:
        """The record that a row of the manifest names; raises BadRow when there is none."""
        from pipeline.sources.jsonl import parse_object

        number = follow(row, self._parts)
        if type(number) is not int:
            raise mistyped(self._line, number, int)
        if not 0 <= number < len(self._starts) - 1:
            last = len(self._starts) - 2
            raise BadRow("no such record", f"{self._line} is {number}, {self._path.name} has lines 0 to {last}")
        with self._path.open("rb") as file:
            file.seek(self._starts[number])
            return parse_object(file.read(self._starts[number + 1] - self._starts[number] - 1), first=number == 0)
