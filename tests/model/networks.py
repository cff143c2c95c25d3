"""Tiny random networks, and the bridge between merged experts and experts under their own names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.backbone import Backbone
from model.configs import BackboneConfig
from tests.model.reference import Weights


def tiny_backbone(seed: int = 0, **changes: object) -> Backbone:
    """A tiny backbone whose weights are large enough for routes and logits to differ between tokens."""
    config = BackboneConfig.tiny().model_copy(update=changes)
    model = Backbone(config).initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
            else:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
        for router in model.routers():
            router.expert_bias.normal_(0, 0.1, generator=generator)
    return model.eval()


def separate(model: torch.nn.Module, tensors: Mapping[str, Tensor] | None = None) -> Weights:
    """Tensors of the model (by default its state) in float64, each expert under its own name."""
    weights: Weights = {}
    for name, tensor in (model.state_dict() if tensors is None else tensors).items():
        array = tensor.detach().double().numpy()
        stem, _, last = name.rpartition(".")
        if stem.endswith(".experts"):
            weights |= {f"{stem}.{e}.{last}.weight": part for e, part in enumerate(array)}
        else:
            weights[name] = array
    return weights


def load_separate(model: torch.nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Fill the model from tensors with separate experts, without the checkpoint code under test elsewhere."""
    state = {}
    for name, tensor in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        if stem.endswith(".experts"):
            state[name] = torch.stack([stored[f"{stem}.{e}.{last}.weight"] for e in range(len(tensor))])
        else:
            state[name] = stored[name]
    model.load_state_dict(state)
