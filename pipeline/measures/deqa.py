"""Measure `deqa`: the technical quality of a picture, 1 to 5, by a local DeQA-Score checkpoint.

The model is asked how it would rate the picture and begins its answer with `The quality of the image is`. Of the token
that follows only five words count: the score is the mean of 5, 4, 3, 2, 1 under the softmax over the logits of
excellent, good, fair, poor, bad. Source: zhiyuanyou/DeQA-Score `src/evaluate/scorer.py` (arXiv 2501.11561).

Scores do not depend on what else is in a batch: pictures go through the network one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.errors import UserError
from pipeline.operator import Column, Quarantine, Record
from pipeline.pictures import open_picture
from pipeline.scorers.checkpoint import CheckpointMeasure, CheckpointParams
from pipeline.scorers.normalisation import Normalisation, read_normalisation, squeezed

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.scorers.mplug_owl2 import OwlConfig

LEVELS = {"excellent": 5.0, "good": 4.0, "fair": 3.0, "poor": 2.0, "bad": 1.0}
"""The words and what they are worth."""

BEFORE = "USER: How would you rate the quality of this image?\n"
AFTER = "\nASSISTANT: The quality of the image is"
"""The prompt around the picture, as `scorer.py` has it; `iqa_eval.py` of the same release has a space for the second
line break."""


class DeQAParams(CheckpointParams):
    """Parameters of `deqa`.

    `checkpoint`: the folder of a full release (`config.json`, weights, tokenizer, `preprocessor_config.json`).
    `precision`: the type computed in; the release computes in float16.
    """

    precision: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True)
class Loaded:
    """What `score` needs: the network on its device and the ids of the prompt's halves and of the level words."""

    network: Any
    normalisation: Normalisation
    before: list[int]
    after: list[int]
    levels: list[int]


class DeQA(CheckpointMeasure):
    """Technical quality by a DeQA-Score checkpoint, 1 to 5, and the shares of its five levels."""

    name = "deqa"
    version = 1
    Params = DeQAParams
    params: DeQAParams
    packages: ClassVar = dict.fromkeys(("torch", "safetensors"), "transformers")
    time_limit = 900.0  # a picture takes minutes where there is no GPU

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        words = ", ".join(LEVELS)
        return (
            Column("deqa", pa.float64(), "DeQA-Score: mean of the levels 5 excellent to 1 bad", 1, 5, "higher"),
            Column("deqa_levels", pa.list_(pa.float64()), f"share of each level: {words}", 0, 1),
        )

    def inspect(self, checkpoint: Path) -> None:
        """Check config, headers of the weights, tokenizer and preprocessing; raises UserError where `load` would."""
        from pipeline.scorers.mplug_owl2 import check_owl

        config = check_owl(checkpoint)
        read_normalisation(checkpoint, config.visual_config.visual_model.image_size)
        _ids(checkpoint, config)

    def load(self, checkpoint: Path) -> Loaded:
        """The network and the prompt; raises UserError where the checkpoint does not fit."""
        import torch

        from pipeline.scorers.mplug_owl2 import load_owl, read_owl_config

        # The engine runs one process per core, and sums keep their order.
        torch.set_num_threads(1)
        config = read_owl_config(checkpoint)
        normalisation = read_normalisation(checkpoint, config.visual_config.visual_model.image_size)
        before, after, levels = _ids(checkpoint, config)
        network = load_owl(checkpoint, self.params.device, getattr(torch, self.params.precision))
        return Loaded(network, normalisation, before, after, levels)

    def score(self, network: Loaded, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """Score and shares of each record."""
        return [self._row(network, record) for record in records]

    def _row(self, loaded: Loaded, record: Record) -> Sequence[Any] | Quarantine:
        import torch

        from pipeline.scorers.released import expectation

        try:
            picture = open_picture(record.read(self.params.role))
        except Quarantine as reason:
            return reason
        device, dtype = self.params.device, getattr(torch, self.params.precision)
        pixels = torch.from_numpy(pixels_of(picture, loaded.normalisation)).to(device, dtype)[None]
        ids = [torch.tensor(half, device=device) for half in (loaded.before, loaded.after)]
        with torch.inference_mode():
            logits = loaded.network(pixels, *ids)[0, loaded.levels]
        return expectation(logits, LEVELS.values())


def pixels_of(picture: Image, how: Normalisation) -> NDArray[np.float32]:
    """A picture as the network takes it, [3, side, side]: padded to a square with the mean colour, scaled, normalised.

    `picture` is RGB. The same as the release's `expand2square` and CLIPImageProcessor up to rounding.
    """
    from PIL.Image import new

    width, height = picture.size
    square = new("RGB", (max(width, height),) * 2, tuple(int(share * 255) for share in how.mean))
    square.paste(picture, ((square.width - width) // 2, (square.height - height) // 2))
    return squeezed(square, how)


def _ids(folder: Path, config: OwlConfig) -> tuple[list[int], list[int], list[int]]:
    """Ids of the prompt before and after the picture, and of the level words; raises UserError."""
    from pipeline.scorers.released import read_tokens, word_ids

    tokens = read_tokens(folder, "transformers")
    levels = word_ids(tokens, LEVELS, folder, "a level of the score")
    before = [config.bos_token_id, *tokens.ids(BEFORE)]
    after = tokens.ids(AFTER)
    if max(*before, *after, *levels) >= config.vocab_size:
        largest = max(*before, *after, *levels)
        raise UserError(f"{folder}: the tokenizer gives the id {largest}, the model has {config.vocab_size}")
    return before, after, levels
