"""Encoders: a picture tower and a text tower that meet in one space of unit vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from catalog.errors import UserError
from pipeline.operator import Quarantine, Record
from pipeline.pictures import open_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Inputs = Mapping[str, Tensor]
    Network = Callable[[Inputs], Tensor]

Family = Literal["openclip", "siglip", "clip"]
Vectors = NDArray[np.float32]

Result = TypeVar("Result")

GPU_BATCH = 16
"""Inputs that a network on a GPU sees together; a shorter batch is filled up."""


class Encoder(ABC):
    """A picture tower and, where it was asked for, a text tower. `width` is the length of their vectors."""

    width: int
    device: str

    @abstractmethod
    def prepare(self, picture: Image) -> Inputs:
        """One picture (RGB) as the checkpoint's own preprocessing makes it, each tensor [1, ...]."""

    @abstractmethod
    def see(self, inputs: Inputs) -> Tensor:
        """Prepared pictures -> vectors [N, width], of any length."""

    @abstractmethod
    def tokens(self, text: str) -> Inputs:
        """One text as the checkpoint's own tokenizer makes it, padded or cut to the tower's length, [1, ...]."""

    @abstractmethod
    def read(self, inputs: Inputs) -> Tensor:
        """Tokens -> vectors [N, width], of any length."""

    def pictures(self, pictures: Sequence[Image]) -> Vectors:
        """Unit vectors of pictures (RGB) [N, width]; NaN where the network fails."""
        return unit(in_fixed_batches(self.see, [self.prepare(picture) for picture in pictures], self.device))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts [N, width]; NaN where the network fails."""
        return unit(in_fixed_batches(self.read, [self.tokens(text) for text in texts], self.device))


def load_encoder(folder: Path, family: Family, device: str, *, texts: bool = False) -> Encoder:
    """The encoder of a checkpoint folder, in fp32; with `texts` also its tokenizer.

    `openclip`: `open_clip_config.json` with `open_clip_model.safetensors` or `open_clip_pytorch_model.bin`. `siglip`
    (SigLIP and SigLIP 2) and `clip`: `config.json` with safetensors, as transformers saves them. Raises UserError.
    """
    if family == "openclip":
        from pipeline.scorers.open_clip_encoder import load_open_clip

        encoder: Encoder = load_open_clip(folder, device, texts)
    else:
        from pipeline.scorers.transformers_encoder import load_transformers_encoder

        encoder = load_transformers_encoder(folder, family, device, texts)
    widths = try_out(folder, lambda: [encoder.pictures([grey()]).shape[1], *_text_width(encoder, texts)])
    if set(widths) != {encoder.width}:
        raise UserError(
            f"{folder}: its towers give vectors of {widths} numbers, its configuration says {encoder.width}"
        )
    return encoder


def _text_width(encoder: Encoder, texts: bool) -> list[int]:
    return [encoder.texts(["a picture"]).shape[1]] if texts else []


def grey() -> Image:
    """A plain picture to try a network with."""
    import PIL.Image

    return PIL.Image.new("RGB", (64, 48), (128, 128, 128))


def try_out(folder: Path, call: Callable[[], Result]) -> Result:
    """What `call` gives; raises UserError where a network cannot be run at all, which records are not to blame for."""
    try:
        return call()
    except Exception as error:  # a network may raise anything over inputs of another shape
        raise UserError(
            f"{folder}: the network does not take what its preprocessing makes: {one_line(error)}"
        ) from error


def see_records(encoder: Encoder, records: Sequence[Record], role: str) -> list[Vectors | Quarantine]:
    """The unit vector [width] of each record's picture, or why it has none; the same in any batch."""
    opened = open_records(records, role)
    vectors = iter(encoder.pictures([picture for picture in opened if not isinstance(picture, Quarantine)]))
    return [found if isinstance(found, Quarantine) else finite(next(vectors)) for found in opened]


def open_records(records: Sequence[Record], role: str) -> list[Image | Quarantine]:
    """The picture of each record, upright and in RGB, or why it has none."""
    return [_opened(record, role) for record in records]


def _opened(record: Record, role: str) -> Image | Quarantine:
    try:
        return open_picture(record.read(role))
    except Quarantine as verdict:
        return verdict


def finite(vector: Vectors) -> Vectors | Quarantine:
    """The vector itself, or the verdict on one with NaN or infinity in it."""
    if np.isfinite(vector).all():
        return vector
    return Quarantine("non-finite value", "the network's output is not finite")


def unit(rows: NDArray[Any]) -> Vectors:
    """Rows [N, width] brought to length 1; NaN where that is impossible."""
    wide = rows.astype(np.float64)
    with np.errstate(all="ignore"):
        scaled: Vectors = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def in_fixed_batches(network: Network, inputs: Sequence[Inputs], device: str) -> NDArray[np.float32]:
    """What a network says of each input [N, ...], always in batches of one size.

    Sums run in another order for batches of another size. On a CPU a picture gives work enough by itself, so it goes
    alone; on a GPU a short batch is filled up with its last input.
    """
    import torch

    if not inputs:
        return np.zeros((0, 1), np.float32)
    size = 1 if device == "cpu" else GPU_BATCH
    rows = []
    with torch.inference_mode():
        for start in range(0, len(inputs), size):
            some = list(inputs[start : start + size])
            filled = some + some[-1:] * (size - len(some))
            batch = {name: torch.cat([one[name] for one in filled]).to(device) for name in some[0]}
            rows.append(network(batch)[: len(some)].float().cpu())
    found: NDArray[np.float32] = torch.cat(rows).numpy()
    return found


def check_device(device: str) -> None:
    """Raise UserError where torch has no such device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but torch finds no GPU here; write `device: cpu`")


def one_line(error: Exception, most: int = 300) -> str:
    """A library's message on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= most else f"{words[:most]}..."
