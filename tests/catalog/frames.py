"""Inputs of decisions for tests: a population held in memory, cut by key prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Population:
    """catalog.decisions.Inputs over one frame with `record_key`."""

    rows: pl.DataFrame
    buckets: Sequence[str] = "0123456789abcdef"

    def frame(self, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        """`record_key` and the named columns of one bucket, sorted by key."""
        here = self.rows.filter(pl.col("record_key").str.starts_with(bucket)).sort("record_key")
        return here.select("record_key", *columns)
