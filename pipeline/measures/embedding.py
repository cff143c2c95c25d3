"""Measure `embedding`: where a picture lies in an encoder's space, for semantic duplicates.

embedding: {measure: embedding, needs: [...], requires: checkpoint, params: {checkpoint: FOLDER, family: siglip}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.operator import Column, Quarantine, Record
from pipeline.scorers.encoder import see_records
from pipeline.scorers.encoder_measure import EncoderMeasure


class Embedding(EncoderMeasure):
    """The unit vector that a CLIP or SigLIP gives a picture; needs `checkpoint`."""

    name = "embedding"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (Column("embedding", pa.binary(), "unit vector of the picture, little-endian float16"),)

    def score(self, network: Any, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The vectors as bytes."""
        vectors = see_records(network, records, self.params.role)
        return [seen if isinstance(seen, Quarantine) else (seen.astype("<f2").tobytes(),) for seen in vectors]
