"""Measure `alignment`: how well a text fits a picture, in the eyes of an encoder.

The cosine of two unit vectors means something only together with its checkpoint: a CLIP gives a good caption 0.25 to
0.35, a SigLIP 0.05 to 0.2. Source of the CLIP rules: LAION-2B, DataComp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.annotations.columns import as_text
from pipeline.operator import Column, Quarantine, Record
from pipeline.scorers.encoder import finite, see_records
from pipeline.scorers.encoder_measure import EncoderMeasure, EncoderParams


class AlignmentParams(EncoderParams):
    """Parameters of `alignment`: `text` names a column or a mapped field, `name` the column that is written."""

    text: str = "text"


class Alignment(EncoderMeasure):
    """Cosine of a picture and a text by a CLIP or SigLIP; null without a text, needs `checkpoint`."""

    name = "alignment"
    version = 1
    Params = AlignmentParams
    params: AlignmentParams
    with_texts = True

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        about = f"cosine of the picture and {self.params.text!r}, cut to the encoder's length; null without a text"
        return (Column("alignment", pa.float64(), about, -1, 1, "higher"),)

    @property
    def reads(self) -> tuple[str, ...]:
        """The text."""
        return (self.params.text,)

    def score(self, network: Any, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The cosines; a picture without a text is not looked at."""
        texts = [as_text(record.values.get(self.params.text)).strip() for record in records]
        told = [(record, text) for record, text in zip(records, texts, strict=True) if text]
        seen = iter(see_records(network, [record for record, _ in told], self.params.role))
        read = iter(network.texts([text for _, text in told]))
        return [_row(next(seen), finite(next(read))) if text else (None,) for text in texts]


def _row(picture: Any, text: Any) -> Sequence[Any] | Quarantine:
    for vector in (picture, text):
        if isinstance(vector, Quarantine):
            return vector
    # Rounding may carry the product of two unit vectors a little beyond 1.
    return (float(np.clip(picture.astype(np.float64) @ text.astype(np.float64), -1, 1)),)
