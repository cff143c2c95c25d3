"""Measure `aesthetics`: the LAION predictors, a head upon the picture vector of OpenAI's CLIP ViT-L/14.

Heads: `sac+logos+ava1-l14-linearMSE.pth` (improved-aesthetic-predictor: five linear layers, nothing between them) and
`sa_0_4_vit_l_14_linear.pth` (one linear layer). Both were trained on ratings from 1 to 10, on vectors of length 1.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalog.errors import UserError
from pipeline.operator import Column, Quarantine, Record
from pipeline.scorers.checkpoint import file_digest
from pipeline.scorers.encoder import Encoder, one_line, see_records
from pipeline.scorers.encoder_measure import EncoderMeasure, EncoderParams

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers in the improved predictor; dropout stands at the others."""
WIDTHS = (1024, 128, 64, 16, 1)
"""Outputs of those layers."""

Layer = tuple[NDArray[np.float64], NDArray[np.float64]]


class AestheticsParams(EncoderParams):
    """Parameters of `aesthetics`: `head` is the file with the predictor, .pth or .safetensors."""

    head: str | None = None


@dataclass(frozen=True)
class Predictor:
    """An encoder and the layers upon it: weights [out, in] and biases [out]."""

    encoder: Encoder
    layers: tuple[Layer, ...]


class Aesthetics(EncoderMeasure):
    """A LAION aesthetic predictor upon the picture vector of CLIP ViT-L/14; needs `checkpoint` and `head`."""

    name = "aesthetics"
    version = 1
    Params = AestheticsParams
    params: AestheticsParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (Column("aesthetic", pa.float64(), "rating on the scale of LAION's predictors", 1, 10, "higher"),)

    @property
    def missing(self) -> str | None:
        """A reason when the checkpoint or the head is not named."""
        if self.params.checkpoint and not self.params.head:
            return f"no head is given for {self.name!r}"
        return super().missing

    def fingerprint_parts(self) -> dict[str, Any]:
        """The digests of the checkpoint and of the head; raises UserError."""
        if not self.params.head:
            return super().fingerprint_parts()
        try:
            return {**super().fingerprint_parts(), "head": file_digest(Path(self.params.head))}
        except OSError as error:
            raise UserError(f"{self.params.head}: the head cannot be read: {error.strerror}") from error

    def load(self, checkpoint: Path) -> Predictor:  # type: ignore[override]
        """The encoder and the head; raises UserError where one does not fit the other."""
        assert self.params.head is not None
        layers = read_head(Path(self.params.head))
        encoder = super().load(checkpoint)
        wanted = layers[0][0].shape[1]
        if wanted != encoder.width:
            raise UserError(
                f"{self.params.head}: wants vectors of {wanted} numbers, {checkpoint} gives {encoder.width}; "
                "LAION's predictors belong to OpenAI's CLIP ViT-L/14"
            )
        return Predictor(encoder, layers)

    def score(self, network: Any, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The ratings."""
        seen = see_records(network.encoder, records, self.params.role)
        return [vector if isinstance(vector, Quarantine) else (rate(network.layers, vector),) for vector in seen]


def rate(layers: Sequence[Layer], vector: NDArray[Any]) -> float:
    """What the layers, one after the other, make of a unit vector [width]."""
    value = vector.astype(np.float64)
    for weight, bias in layers:
        # Row by row: a product of matrices may run in another order on another machine.
        value = (weight * value).sum(axis=1) + bias
    return float(value[0])


def read_head(path: Path) -> tuple[Layer, ...]:
    """The layers of a released head; raises UserError for a file that is none."""
    tensors = _tensors(path)
    improved = [(f"layers.{place}.weight", f"layers.{place}.bias") for place in LAYERS]
    for names in ([("weight", "bias")], improved):
        if set(tensors) == {name for pair in names for name in pair}:
            layers = tuple((_array(tensors[weight]), _array(tensors[bias])) for weight, bias in names)
            break
    else:
        found = ", ".join(sorted(tensors)[:6])
        raise UserError(f"{path}: is no head of LAION's predictors; it holds {found or 'nothing'}")
    outputs = WIDTHS if len(layers) > 1 else (1,)
    whole = all(weight.shape[:1] == bias.shape == (out,) for (weight, bias), out in zip(layers, outputs, strict=True))
    chained = all(weight.ndim == 2 for weight, _ in layers) and all(
        one[0].shape[0] == two[0].shape[1] for one, two in pairwise(layers)
    )
    if not whole or not chained:
        shapes = ", ".join(str(list(weight.shape)) for weight, _ in layers)
        raise UserError(f"{path}: layers of the shapes {shapes} are no head of LAION's predictors")
    return layers


def _tensors(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than tensors; such a file is not loaded") from error
    except Exception as error:  # torch's readers raise many kinds over a damaged file
        raise UserError(f"{path}: cannot be read as tensors: {one_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise UserError(f"{path}: holds no tensors by name")
    return found


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.double().numpy()
    return array
