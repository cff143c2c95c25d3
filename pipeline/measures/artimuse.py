"""Measure `artimuse`: how beautiful a picture is, by a local ArtiMuse checkpoint.

ArtiMuse (arXiv 2507.14533) is InternVL-3-8B trained to answer with one of 101 tokens that stand for the scores 0 to
100: `aa` to `az`, `ca` to `cy`, `da` to `dy`, `ea` to `ey`. The score is the mean of the 101 values under the softmax
over the logits of those tokens. Source: thunderbolt215/ArtiMuse `src/artimuse/internvl/model/internvl_chat/`
(`aes_tokens.py`, `modeling_artimuse.py`, method `score`) and `src/eval/eval_image.py`; UniPercept has the same tokens.

The released code shows the whole picture once, squeezed into a square: no tiles, whatever the config says of them.
Scores do not depend on what else is in a batch: pictures go through the network one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from catalog.errors import UserError
from pipeline.operator import Column, Quarantine, Record
from pipeline.pictures import open_picture
from pipeline.scorers.checkpoint import CheckpointMeasure, CheckpointParams
from pipeline.scorers.normalisation import Normalisation, squeezed

if TYPE_CHECKING:
    from pipeline.scorers.internvl import InternVLChatConfig

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCORE_TOKENS = (
    *(f"a{letter}" for letter in _LETTERS),
    *(f"{first}{letter}" for first in "cde" for letter in _LETTERS[:25]),
)
"""The tokens of the scores 0, 1, ... 100."""

QUESTION = "\n".join(
    (
        "",
        "        Rate the aesthetics score of the image in 0-100. ",
        "        In the output format, numbers are replaced by 2 corresponding letters, ",
        "        and the mapping relationship is: ",
        "        score 0 to 25: 0-aa, 1-ab, 2-ac, 3-ad, ... , 25-az,",
        "        score 26 to 50: 26-ca, 27-cb, 28-cc, 29-cd, ..., 50-cy,",
        "        score 51 to 75: 51-da, 52-db, 53-dc, 54-dd, ..., 75-dy,",
        "        score 76 to 100: 76-ea, 77-eb, 78-ec, 79-ed, ..., 100-ey.",
        "",
        "        The answer only outputs 2 corresponding letters.",
        "        ",
    )
)
"""The question of the released code, its indentation and blanks at the ends of lines included."""


class ArtiMuseParams(CheckpointParams):
    """Parameters of `artimuse`.

    `checkpoint`: the folder of a release (`config.json`, weights, tokenizer). `scale`: what the highest score token
    stands for. It is 100 in the released checkpoints; scores of 0-10 are about as well, no file of a checkpoint says
    which it was trained for, and a threshold for one is nonsense on the other. So there is no default.
    `precision`: the type computed in; the release computes in bfloat16, its softmax too, which rounds scores.
    """

    scale: Literal[10, 100]
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Loaded:
    """What `score` needs: the network on its device, the ids of the prompt and of the score tokens."""

    network: Any
    normalisation: Normalisation
    prompt: list[int]
    scores: list[int]


class ArtiMuse(CheckpointMeasure):
    """Aesthetics by an ArtiMuse checkpoint; the column's range is the checkpoint's `scale`."""

    name = "artimuse"
    version = 1
    Params = ArtiMuseParams
    params: ArtiMuseParams
    packages: ClassVar = dict.fromkeys(("torch", "safetensors", "transformers"), "transformers")
    time_limit = 900.0  # a picture takes minutes where there is no GPU

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        about = "ArtiMuse: aesthetics, the mean over its 101 score tokens"
        return (Column("artimuse", pa.float64(), about, 0, self.params.scale, "higher"),)

    def inspect(self, checkpoint: Path) -> None:
        """Check config, headers of the weights, and tokenizer; raises UserError where `load` would."""
        from pipeline.scorers.internvl import check_internvl

        _ids(checkpoint, check_internvl(checkpoint))

    def load(self, checkpoint: Path) -> Loaded:
        """The network and the prompt; raises UserError where the checkpoint does not fit."""
        import torch

        from pipeline.scorers.internvl import DEVIATION, MEAN, load_internvl, read_internvl_config

        # The engine runs one process per core, and sums keep their order.
        torch.set_num_threads(1)
        config = read_internvl_config(checkpoint)
        prompt, scores, picture = _ids(checkpoint, config)
        network = load_internvl(checkpoint, picture, self.params.device, getattr(torch, self.params.precision))
        return Loaded(network, Normalisation(config.vision_config.image_size, MEAN, DEVIATION), prompt, scores)

    def score(self, network: Loaded, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The score of each record."""
        return [self._row(network, record) for record in records]

    def _row(self, loaded: Loaded, record: Record) -> Sequence[Any] | Quarantine:
        import torch

        from pipeline.scorers.released import expectation

        try:
            picture = open_picture(record.read(self.params.role))
        except Quarantine as reason:
            return reason
        device, dtype = self.params.device, getattr(torch, self.params.precision)
        pixels = torch.from_numpy(squeezed(picture, loaded.normalisation)).to(device, dtype)[None]
        ids = torch.tensor([loaded.prompt], device=device)
        with torch.inference_mode():
            logits = loaded.network(input_ids=ids, pixel_values=pixels, logits_to_keep=1).logits[0, -1, loaded.scores]
        values = (number * self.params.scale / 100 for number in range(len(SCORE_TOKENS)))
        return (expectation(logits, values)[0],)


def _ids(folder: Path, config: InternVLChatConfig) -> tuple[list[int], list[int], int]:
    """Ids of the prompt and of the score tokens, and the id that holds a picture's place; raises UserError."""
    from pipeline.scorers.internvl import prompt_ids
    from pipeline.scorers.released import read_tokens, token_ids

    tokens = read_tokens(folder, "transformers")
    prompt = prompt_ids(config, tokens, folder, QUESTION)
    scores = token_ids(tokens, SCORE_TOKENS, folder, "which stands for a score")
    if max(scores) >= config.llm_config["vocab_size"]:
        raise UserError(f"{folder}: a score token has the id {max(scores)}, the model has fewer")
    (picture,) = token_ids(tokens, ("<IMG_CONTEXT>",), folder, "which holds a picture's place")
    return prompt, scores, picture
