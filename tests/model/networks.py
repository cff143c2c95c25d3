"""Tiny random networks, and the bridge between merged experts and experts under their own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.backbone import Backbone
from model.configs import BackboneConfig, DecoderConfig
from model.libraries import library
from tests.model.reference import Weights

if TYPE_CHECKING:
    from model.decoder import ImageDecoder


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


def tiny_decoder(codes: int = 64, seed: int = 0) -> ImageDecoder:
    """A decoder with a tiny transformer and a tiny autoencoder, weights at random."""
    from model.decoder import Conditioner, ImageDecoder, build_transformer

    config = DecoderConfig.tiny()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        conditioner = Conditioner(codes, config.cap_feat_dim)
        transformer = build_transformer(config)
        autoencoder = tiny_autoencoder()
        with torch.no_grad():
            for parameter in (*conditioner.parameters(), *transformer.parameters()):
                parameter.normal_(0, 0.2)
    return ImageDecoder(conditioner.eval(), transformer.eval(), autoencoder.eval())


def tiny_autoencoder() -> torch.nn.Module:
    """The released autoencoder's form (16 latent channels, eightfold reduction), a few channels wide."""
    library("diffusers")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
