"""The sources of a recipe: `kind` chooses which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from pipeline.sources.base import BadRow, Source, SourceRow
from pipeline.sources.folder import Folder
from pipeline.sources.jsonl import Jsonl
from pipeline.sources.parquet import Parquet
from pipeline.sources.urls import UrlList
from pipeline.sources.webdataset import WebDataset

__all__ = ["BadRow", "Source", "SourceConfig", "SourceRow", "load_sources"]

SourceConfig = Annotated[Jsonl | Folder | WebDataset | Parquet | UrlList, Field(discriminator="kind")]
"""One source as a recipe writes it; the recipe's key for it is its name."""


def load_sources(config: Mapping[str, Any]) -> dict[str, Source]:
    """The sources of a recipe by name; raises pydantic.ValidationError."""
    return dict(TypeAdapter(dict[str, SourceConfig]).validate_python(config))
