"""The recipe of a training stage's mixture: parts of corpora, their weights, quotas and epochs."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from catalog.errors import UserError
from catalog.rules import parse
from catalog.schemas import SAMPLES

TRAIN = "train"
COLUMNS = (*SAMPLES.names, "source")
"""What a part's `where` may read: the columns of the samples table, and the source of the sample's record."""
_EMPTY = pl.DataFrame(pl.from_arrow(SAMPLES.empty_table())).with_columns(source=pl.lit(None, pl.String))
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


class Part(BaseModel):
    """Samples of one corpus and task, and how many of them a stage wants.

    `weight` is the part's share of the stage beside the other weights, in the stage's unit. `quota` limits the distinct
    samples, `epochs` how often one may come: 0.5 is half of them once, 2.5 all of them twice and half of them a third
    time. Without a sample to draw from the stage is refused, unless the part is `optional`: then the others share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str
    task: str
    resolution: int | None = Field(default=None, ge=0, strict=True)
    source: tuple[str, ...] = ()
    variant: str | None = None
    where: str | None = None
    weight: float = Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)
    quota: int | None = Field(default=None, ge=1, strict=True)
    epochs: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False, strict=True)
    optional: bool = Field(default=False, strict=True)

    @field_validator("source", mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("where")
    @classmethod
    def _known_columns(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                columns = parse(value, "where").columns
            except UserError as error:
                raise ValueError(str(error).removeprefix("where: ")) from None
            for column in columns:
                if column not in COLUMNS:
                    raise ValueError(f"there is no column {column!r} of samples; there are: {', '.join(COLUMNS)}")
            try:
                kind = _EMPTY.select(pl.sql_expr(value)).dtypes[0]
            except pl.exceptions.PolarsError as error:
                raise ValueError(f"{value!r} cannot be judged: {str(error).splitlines()[0]}") from None
            if kind != pl.Boolean:
                raise ValueError(f"{value!r} is no condition; write one like `text_tokens <= 2048`")
        return value

    @cached_property
    def reads(self) -> set[str]:
        """Columns that matching reads beside task, resolution, variant and split."""
        named = set(parse(self.where, "where").columns) if self.where else set()
        return named | ({"source"} if self.source else set())

    def matches(self) -> pl.Expr:
        """Whether a train row of the samples table (with `source`) belongs to the part; null counts as no."""
        held = pl.col("task") == self.task
        if self.resolution is not None:
            held &= pl.col("resolution") == self.resolution
        if self.variant is not None:
            held &= pl.col("variant") == self.variant
        if self.source:
            held &= pl.col("source").is_in(list(self.source))
        if self.where is not None:
            held &= pl.sql_expr(self.where)
        return held.fill_null(False)


class Stage(BaseModel):
    """The mixture of one training stage.

    `total` is in the stated unit; without one the stage is as large as its scarcest part allows. `salt` decides the
    order of drawing, the stage's name by default. A sample that two parts match is refused, or the first part's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    unit: Literal["samples", "tokens"] = "samples"
    total: int | None = Field(default=None, ge=1, le=10**15, strict=True)
    salt: str | None = None
    overlap: Literal["refuse", "first"] = "refuse"
    parts: dict[str, Part] = Field(min_length=1)

    @field_validator("parts")
    @classmethod
    def _names(cls, value: dict[str, Part]) -> dict[str, Part]:
        return check_names(value)

    @property
    def corpora(self) -> list[str]:
        """The corpora that parts name, sorted."""
        return sorted({part.corpus for part in self.parts.values()})


def check_names(value: dict[str, Any]) -> dict[str, Any]:
    """The mapping; raises ValueError for a name that could not be one of a table."""
    for name in value:
        if not _NAME.match(name):
            raise ValueError(f"{name!r}: write a lower-case name of letters, digits and _")
    return value
