"""What every source has: the row it yields, the common configuration, and what happens to a bad row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from catalog.errors import UserError
from pipeline.media import MediaRef

FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
DottedPath = Annotated[str, StringConstraints(min_length=1)]
TypeName = Literal["str", "int", "float", "bool", "list", "dict"]
Scalar = str | int | float | bool | None

DEFAULT_TYPES: dict[str, TypeName] = {"id": "str", "text": "str", "licence": "str"}


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One input of the factory, before it has a key.

    `place` names it in messages and in the catalog ("images/manifest.jsonl:12"); paths in `place` and `media`
    are relative to the media root. `fields` holds JSON values only. A row with a `problem`, (short grouping
    reason, message), goes to quarantine; where it has no fields, `raw` holds the bytes that identify it.
    """

    place: str
    fields: dict[str, Any]
    media: tuple[MediaRef, ...] = ()
    problem: tuple[str, str] | None = None
    raw: bytes = field(default=b"", repr=False)


class BadRow(Exception):  # noqa: N818 - it is a verdict on the row, not a fault of the program
    """One row cannot be used; `reason` is a short phrase that groups, the message gives the particulars."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Source(BaseModel, ABC):
    """The configuration common to all sources, as a recipe writes it; unknown names are refused.

    `select` says which rows are inputs at all (a value or a list of values per dotted path), `map` names our
    fields and the dotted path each comes from, `const` gives fields a fixed value, `types` what a field
    must be (null is always allowed; id, text and licence are text unless said otherwise).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: ClassVar[str] = "line"
    """What one row is called in messages."""
    needs_network: ClassVar[bool] = False
    """Whether reading it asks other machines."""

    on_bad_row: Literal["stop", "quarantine"] = "stop"
    select: dict[DottedPath, Scalar | list[Scalar]] = Field(default_factory=dict)
    map: dict[FieldName, DottedPath] = Field(default_factory=dict)
    const: dict[FieldName, JsonValue] = Field(default_factory=dict)
    types: dict[FieldName, TypeName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_are_named_once(self) -> Source:
        if both := sorted(self.map.keys() & self.const.keys()):
            raise ValueError(f"{both[0]} stands in both map and const; keep one")
        if unknown := sorted(self.types.keys() - self.map.keys() - self.const.keys()):
            raise ValueError(f"types names {unknown[0]}, which neither map nor const gives")
        return self

    @abstractmethod
    def rows(self, root: Path) -> Iterator[SourceRow]:
        """Every selected row below the media root, in an order fixed by the input alone.

        Raises UserError when the source cannot be read and, with `on_bad_row: stop`, at the first bad row.
        """

    @abstractmethod
    def inputs(self, root: Path) -> list[Path]:
        """The files and folders whose change (size, time) means reading this source again, sorted."""

    @abstractmethod
    def check(self, root: Path) -> None:
        """Raise UserError if the source is plainly unusable; for `plan`, so it reads next to nothing."""

    def refuse(self, place: str, bad: BadRow, fields: dict[str, Any] | None = None, raw: bytes = b"") -> SourceRow:
        """What becomes of a bad row: UserError stops the run, or the row is set aside with its problem."""
        if self.on_bad_row == "stop":
            raise UserError(f"{place}: {bad}; fix the {self.unit} or set on_bad_row: quarantine")
        if fields:
            return SourceRow(place, fields, (), (bad.reason, str(bad)))
        return SourceRow(place, {}, (), (bad.reason, str(bad)), raw)
