"""Networks as transformers saves them: `config.json`, safetensors, a preprocessor's and a tokenizer's files.

No code of the folder is run, no network is asked, and only safetensors are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.errors import UserError
from model.libraries import library
from pipeline.scorers.checkpoint import read_json
from pipeline.scorers.encoder import Encoder, check_device, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from torch import Tensor

    from pipeline.scorers.encoder import Inputs

KINDS = {"siglip": ("siglip", "siglip2"), "clip": ("clip",)}
"""`model_type` of the configurations that belong to a family."""
SHOWN = 3
"""Tensors named in a message; the rest is counted."""


@dataclass(frozen=True)
class TransformersEncoder(Encoder):
    """A CLIP, SigLIP or SigLIP 2 of transformers with its own preprocessor and tokenizer."""

    network: Any
    preprocessor: Any
    tokenizer: Any
    length: int
    """Tokens of a text."""
    lower: bool
    """Texts are lowered: SigLIP was trained so, and not every released tokenizer does it."""
    width: int
    device: str

    def prepare(self, picture: Image) -> Inputs:
        """See Encoder."""
        return dict(self.preprocessor(images=picture, return_tensors="pt"))

    def see(self, inputs: Inputs) -> Tensor:
        """See Encoder."""
        vectors: Tensor = self.network.get_image_features(**inputs).pooler_output
        return vectors

    def tokens(self, text: str) -> Inputs:
        """See Encoder."""
        found = self.tokenizer(
            text.lower() if self.lower else text,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        # SigLIP attends to its padding; CLIP must not.
        names = ("input_ids",) if self.lower else ("input_ids", "attention_mask")
        return {name: found[name] for name in names}

    def read(self, inputs: Inputs) -> Tensor:
        """See Encoder."""
        vectors: Tensor = self.network.get_text_features(**inputs).pooler_output
        return vectors


def load_transformers_encoder(folder: Path, family: str, device: str, texts: bool) -> TransformersEncoder:
    """The encoder of a folder; raises UserError."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in KINDS[family]:
        fits = next((name for name, kinds in KINDS.items() if kind in kinds), None)
        hint = f"; write `family: {fits}`" if fits else ""
        raise UserError(f"{folder / 'config.json'}: model_type is {kind!r}, not {' or '.join(KINDS[family])}{hint}")
    network = load_network(folder, "AutoModel", device)
    config = network.config
    # CLIP projects into the shared space; SigLIP's towers meet without a projection of the pictures.
    width = int(getattr(config, "projection_dim", 0) or config.vision_config.hidden_size)
    tokenizer = _loaded(folder, "tokenizer", "AutoTokenizer") if texts else None
    length = int(config.text_config.max_position_embeddings)
    return TransformersEncoder(network, load_preprocessor(folder), tokenizer, length, family == "siglip", width, device)


def load_network(folder: Path, auto: str, device: str) -> Any:
    """The network that one of transformers' `Auto` classes makes of a folder, in fp32 and evaluation mode.

    Raises UserError unless the weights fit the configuration in full: nothing is left random, nothing left over.
    """
    import torch

    check_device(device)
    settings = {
        "use_safetensors": True,
        "dtype": torch.float32,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are refused below, by name
    }
    network, found = _loaded(folder, "network", auto, **settings)
    problems = [
        *_named("missing tensor", found["missing_keys"]),
        *_named("tensor of another shape", (key[0] for key in found["mismatched_keys"])),
        *_named("tensor without a place", found["unexpected_keys"]),
        *found["error_msgs"],
    ]
    if problems:
        raise UserError(f"{folder}: the weights do not fit config.json: {'; '.join(problems)}")
    return network.to(device).eval()


def load_preprocessor(folder: Path) -> Any:
    """The folder's own preprocessor, computing with Pillow whether or not torchvision is installed."""
    return _loaded(folder, "preprocessor", "AutoImageProcessor", backend="pil")


def _loaded(folder: Path, what: str, auto: str, **settings: Any) -> Any:
    try:
        transformers = library("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        make: Callable[..., Any] = getattr(transformers, auto).from_pretrained
        return make(folder, local_files_only=True, trust_remote_code=False, **settings)
    except Exception as error:  # a library may raise anything over a folder it cannot read
        raise UserError(f"{folder}: transformers cannot load the {what}: {one_line(error)}") from error


def _named(what: str, keys: Any) -> list[str]:
    names = sorted(keys)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what} {', '.join(names[:SHOWN])}{more}"] if names else []
