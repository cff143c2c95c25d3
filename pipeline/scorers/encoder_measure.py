"""What measures share that ask an encoder: which checkpoint, of which family, and the packages that takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pipeline.scorers.checkpoint import CheckpointMeasure, CheckpointParams
from pipeline.scorers.encoder import Encoder, Family, load_encoder


class EncoderParams(CheckpointParams):
    """Parameters of every measure that asks an encoder.

    `checkpoint`: its folder. `family`: `openclip` for a release of open_clip, `siglip` (1 and 2) or `clip` for one of
    transformers.
    """

    family: Family = "openclip"


class EncoderMeasure(CheckpointMeasure):
    """A measure of an encoder's vectors."""

    Params = EncoderParams
    params: EncoderParams
    batch = 16
    with_texts: ClassVar[bool] = False
    """Whether it encodes texts too."""

    @property
    def packages(self) -> Mapping[str, str]:  # type: ignore[override]
        """Those of the family."""
        if self.params.family == "openclip":
            return {"torch": "openclip", "open_clip": "openclip"}
        return {"torch": "transformers", "transformers": "transformers"}

    def load(self, checkpoint: Path) -> Encoder:
        """The encoder; raises UserError."""
        return load_encoder(checkpoint, self.params.family, self.params.device, texts=self.with_texts)

    def inspect(self, checkpoint: Path) -> None:
        """Load it: what the libraries make of a folder shows in no header."""
        self.load(checkpoint)
