"""Encoders as open_clip releases them: one folder with `open_clip_config.json` and the weights."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.errors import UserError
from model.checkpoint import CheckpointError, stored_tensors
from model.libraries import library
from pipeline.scorers.checkpoint import read_json
from pipeline.scorers.encoder import Encoder, check_device, one_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pipeline.scorers.encoder import Inputs

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weights, the first there wins; open_clip looks for them in this order."""
POSITIONS = ("positional_embedding", "pos_embed")


@dataclass(frozen=True)
class OpenClipEncoder(Encoder):
    """A network of open_clip with its own transform and tokenizer."""

    network: Any
    transform: Any
    tokenizer: Any
    width: int
    device: str

    def prepare(self, picture: Image) -> Inputs:
        """See Encoder."""
        return {"image": self.transform(picture)[None]}

    def see(self, inputs: Inputs) -> Tensor:
        """See Encoder."""
        vectors: Tensor = self.network.encode_image(inputs["image"])
        return vectors

    def tokens(self, text: str) -> Inputs:
        """See Encoder."""
        return {"text": self.tokenizer([text])}

    def read(self, inputs: Inputs) -> Tensor:
        """See Encoder."""
        vectors: Tensor = self.network.encode_text(inputs["text"])
        return vectors


def load_open_clip(folder: Path, device: str, texts: bool) -> OpenClipEncoder:
    """The encoder of a folder in the layout of open_clip's hub releases; raises UserError."""
    config = _read_model(folder)
    weights = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: holds no weights of open_clip ({' or '.join((FILES[0], FILES[2]))})")
    check_device(device)
    shapes = _stored_shapes(weights)
    place = f"local-dir:{folder}"
    try:
        open_clip = library("open_clip")
        network, _, transform = open_clip.create_model_and_transforms(place, precision="fp32", weights_only=True)
        tokenizer = open_clip.get_tokenizer(place) if texts else None
    except Exception as error:  # a library may raise anything over a folder it cannot read
        raise UserError(f"{folder}: open_clip cannot load it: {one_line(error)}") from error
    _check_positions(network, shapes, weights)
    return OpenClipEncoder(network.to(device).eval(), transform, tokenizer, int(config["embed_dim"]), device)


def _read_model(folder: Path) -> dict[str, Any]:
    """The configuration of the network, checked for parts that would be fetched from elsewhere."""
    path = folder / CONFIG
    model = read_json(path).get("model_cfg")
    if not isinstance(model, dict) or not isinstance(model.get("embed_dim"), int):
        raise UserError(f"{path}: has no `model_cfg` with an `embed_dim`")
    vision, text = (model.get(part, {}) for part in ("vision_cfg", "text_cfg"))
    for name in (vision.get("timm_model_name"), text.get("hf_model_name")):
        if name and (":" in name or name == text.get("hf_model_name")):
            raise UserError(f"{path}: {name!r} would be fetched from elsewhere; towers must lie in the folder")
    return model


def _stored_shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the stored tensors by name; raises UserError for a file that holds more than tensors."""
    import torch

    try:
        if weights.suffix == ".safetensors":
            return {name: tensor.shape for name, tensor in stored_tensors(weights).items()}
        stored = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        return {name: tuple(tensor.shape) for name, tensor in stored.get("state_dict", stored).items()}
    except CheckpointError as error:
        raise UserError(one_line(error)) from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{weights}: holds more than tensors; such a file is not loaded") from error
    except Exception as error:  # torch's readers raise many kinds over a damaged file
        raise UserError(f"{weights}: cannot be read as tensors: {one_line(error)}") from error


def _check_positions(network: Any, shapes: dict[str, tuple[int, ...]], weights: Path) -> None:
    """Raise UserError where positions were stretched: open_clip does so in silence, and scores change."""
    for name, tensor in network.state_dict().items():
        stored = shapes.get(name)
        if name.endswith(POSITIONS) and stored is not None and stored != tuple(tensor.shape):
            wanted = json.dumps(list(tensor.shape))
            raise UserError(f"{weights}: {name} is {json.dumps(list(stored))}, {CONFIG} asks for {wanted}")
