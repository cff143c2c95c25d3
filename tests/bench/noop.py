"""An operator that does nothing: what is left is the engine."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.operator import Column, Measure, Record


class NoOp(Measure):
    """One constant column."""

    name = "noop"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column("nothing", pa.int64(), "always 0"),)

    def process(self, record: Record) -> Sequence[Any]:
        return (0,)


class AlsoNoOp(NoOp):
    """The same under another name, for a second node."""

    name = "also_noop"

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column("also_nothing", pa.int64(), "always 0"),)
