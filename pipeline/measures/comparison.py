"""The measure on a pair of pictures that verifies near-duplicates: do they show the same photograph?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.measures.same_picture import Descriptors, describe, match
from pipeline.operator import Column, Measure, Record
from pipeline.pictures import decode_scaled

_REMEMBERED = 512
_SIDE = 512


class SamePicture(Measure):
    """Compares the media `a` and `b` of a record that stands for a pair."""

    name = "same_picture"
    version = 1

    def setup(self) -> None:
        """Room for the descriptors of pictures that stand in several pairs."""
        self._described: OrderedDict[str, Descriptors] = OrderedDict()

    @property
    def columns(self) -> tuple[Column, ...]:
        """Whether they show the same, and how sure that is."""
        return (
            Column("same", pa.bool_(), "the two pictures show the same photograph"),
            Column("match_score", pa.float64(), "share of textured cells that agree", 0, 1, "higher"),
            Column("match_inliers", pa.int64(), "key points that agree with the way one lies over the other", 0),
            Column("match_mirrored", pa.bool_(), "one is a mirror image of the other"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """Decode both, each once for all its pairs in a row, and compare."""
        found = match(self._describe(record, "a"), self._describe(record, "b"))
        return found.same, found.score, found.inliers, found.mirrored

    def _describe(self, record: Record, role: str) -> Descriptors:
        digest = record.ref(role).digest or ""
        if digest not in self._described:
            self._described[digest] = describe(decode_scaled(record.read(role), _SIDE))
            if len(self._described) > _REMEMBERED:
                self._described.popitem(last=False)
        return self._described[digest]
