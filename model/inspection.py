"""What a checkpoint is, told from configurations and file headers alone: no weights are read into a model.

Every network is built on the meta device (the decoder's shapes are written out, since importing diffusers
takes longer than everything else here), counted, and compared with what the files hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbone import Backbone
from model.checkpoint import Slot, StoredTensor, compare, layout_of, slots, stored_tensors
from model.configs import BackboneConfig, ConfigError, DecoderConfig, SigLIPVQConfig
from model.decoder import FOLDERS, WEIGHT_FILES
from model.siglip_vq import WEIGHT_NAMES, WEIGHTS, SigLIPVQ
from model.text_tokenizer import TextTokenizer

LAYOUT_NAMES = {"separate": "separate experts", "merged": "merged experts", "dense": "plain"}
CONFIG_ONLY = "config only"


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint.

    Attributes:
        name: `backbone`, `image tokenizer`, `decoder` or `decoder-turbo`.
        layout: how experts are stored, `plain` without experts, or `config only`.
        types: how many stored tensors have which number format.
        tensors: how many the network has, in that layout (separate experts where nothing is stored).
        parameters: numbers that training changes.
        active: parameters that serve one token: all but the routed experts it does not choose.
        vocabulary: how many of those are rows of the embedding and of the head.
        problems: what does not fit, one line each.
    """

    name: str
    layout: str
    types: Mapping[str, int]
    tensors: int
    parameters: int
    active: int
    vocabulary: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint, with what a shard set is compared with.

    Attributes:
        parts: in the order in which they were found.
        backbone: the backbone's configuration, if there is one.
        tokenizer: the image tokenizer's configuration, if there is one.
        folder: where the image tokenizer's weights lie, if there are any.
        text: fingerprint of the text tokenizer, if there is one.
    """

    parts: tuple[Part, ...]
    backbone: BackboneConfig | None = None
    tokenizer: SigLIPVQConfig | None = None
    folder: Path | None = None
    text: str | None = None

    def joined(self, part: Part, **known: Any) -> Checkpoint:
        """The checkpoint with one more part."""
        return replace(self, parts=(*self.parts, part), **known)


def released() -> Checkpoint:
    """The released model, from the values written in `model.configs`."""
    backbone, tokenizer, decoder = BackboneConfig.released(), SigLIPVQConfig.released(), DecoderConfig.released()
    parts = (
        backbone_part(backbone, None),
        tokenizer_part(tokenizer, None),
        decoder_part("decoder", decoder, None),
    )
    return Checkpoint(parts, backbone, tokenizer)


def inspect_checkpoint(folder: Path) -> Checkpoint:
    """All parts that a folder holds: a whole checkpoint, or the folder of one of its parts.

    Raises:
        ConfigError: a configuration that cannot be used, or none at all.
        CheckpointError: weight files that are damaged.
    """
    found = Checkpoint(())
    for where in (folder, folder / WEIGHTS, *(folder / name for name in FOLDERS.values())):
        file = where / "config.json"
        kind = _kind(file)
        if kind == "backbone":
            backbone = BackboneConfig.read(file)
            found = found.joined(backbone_part(backbone, _stored(where)), backbone=backbone)
        elif kind == "tokenizer":
            tokenizer = SigLIPVQConfig.read(file)
            stored = _stored(where, WEIGHT_NAMES)
            found = found.joined(
                tokenizer_part(tokenizer, stored), tokenizer=tokenizer, folder=where if stored else None
            )
        elif kind == "decoder":
            name = where.name if where != folder else FOLDERS["normal"]
            found = found.joined(decoder_part(name, DecoderConfig.read(file), _stored(where, WEIGHT_FILES)))
    if (folder / "tokenizer.json").is_file():
        found = replace(found, text=TextTokenizer.load(folder).fingerprint)
    if not found.parts:
        raise ConfigError(f"{folder}: no config.json of a backbone, an image tokenizer or a decoder in it")
    return found


def backbone_part(config: BackboneConfig, stored: Mapping[str, StoredTensor] | None) -> Part:
    """Count the backbone, and compare it with stored tensors."""
    with torch.device("meta"):
        model = Backbone(config)
    routed = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    idle = routed - routed * config.num_experts_per_tok // config.num_experts
    part = _module_part("backbone", model, stored)
    vocabulary = 2 * config.vocab_size * config.hidden_size
    return replace(part, active=part.parameters - idle, vocabulary=vocabulary)


def tokenizer_part(config: SigLIPVQConfig, stored: Mapping[str, StoredTensor] | None) -> Part:
    """Count the image tokenizer, and compare it with stored tensors."""
    with torch.device("meta"):
        model = SigLIPVQ(config)
    return _module_part("image tokenizer", model, stored)


def decoder_part(name: str, config: DecoderConfig, stored: Mapping[str, StoredTensor] | None) -> Part:
    """Count the decoder's transformer, and compare it with stored tensors.

    Where weights are stored, the width of their condition tokens wins over the config's, as when loading.
    """
    told = (stored or {}).get("semantic_embedder.0.weight")
    if told is not None and len(told.shape) == 1:
        config = config.model_copy(update={"cap_feat_dim": told.shape[0]})
    needed = {n: Slot(torch.empty(shape, device="meta")) for n, shape in decoder_shapes(config).items()}
    count = sum(slot.tensor.numel() for slot in needed.values())
    return _part(name, needed, count, stored, "plain")


def decoder_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Released names and shapes of the Z-Image transformer's tensors."""
    dim, head, inner = config.dim, config.dim // config.n_heads, int(config.dim / 3 * 8)
    time, patch = min(dim, 256), 4 * config.in_channels
    block: dict[str, tuple[int, ...]] = {
        **{f"attention.{part}.weight": (dim, dim) for part in ("to_q", "to_k", "to_v", "to_out.0")},
        **{f"attention.{part}.weight": (head,) for part in ("norm_q", "norm_k") if config.qk_norm},
        **{f"feed_forward.{part}.weight": (inner, dim) for part in ("w1", "w3")},
        "feed_forward.w2.weight": (dim, inner),
        **{f"{part}.weight": (dim,) for part in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")},
    }
    modulated = {**block, "adaLN_modulation.0.weight": (4 * dim, time), "adaLN_modulation.0.bias": (4 * dim,)}
    stacks = (
        ("layers", config.n_layers, modulated),
        ("noise_refiner", config.n_refiner_layers, modulated),
        ("context_refiner", config.n_refiner_layers, block),
    )
    return {
        "all_x_embedder.2-1.weight": (dim, patch),
        "all_x_embedder.2-1.bias": (dim,),
        "all_final_layer.2-1.linear.weight": (patch, dim),
        "all_final_layer.2-1.linear.bias": (patch,),
        "all_final_layer.2-1.adaLN_modulation.1.weight": (dim, time),
        "all_final_layer.2-1.adaLN_modulation.1.bias": (dim,),
        "t_embedder.mlp.0.weight": (1024, 256),
        "t_embedder.mlp.0.bias": (1024,),
        "t_embedder.mlp.2.weight": (time, 1024),
        "t_embedder.mlp.2.bias": (time,),
        "semantic_embedder.0.weight": (config.cap_feat_dim,),
        "semantic_embedder.1.weight": (dim, config.cap_feat_dim),
        "semantic_embedder.1.bias": (dim,),
        "x_pad_token": (1, dim),
        "cap_pad_token": (1, dim),
        **{
            f"{stack}.{i}.{name}": shape
            for stack, count, tensors in stacks
            for i in range(count)
            for name, shape in tensors.items()
        },
    }


def shard_problems(checkpoint: Checkpoint, card: Mapping[str, Any]) -> list[str]:
    """Why a shard set cannot feed this checkpoint; empty when it can.

    Args:
        checkpoint: what would be trained or evaluated.
        card: the shard set's card, as `catalog` writes it: `vocabulary` and `tokenizers` are read.
    """
    vocabulary, image, text = card["vocabulary"], card["tokenizers"]["image"], card["tokenizers"]["text"]
    problems = []
    if checkpoint.text is not None and checkpoint.text != text["fingerprint"]:
        problems.append(
            f"the shards' text was made by {text['name']} {text['fingerprint'][:12]}, "
            f"the checkpoint's tokenizer is {checkpoint.text[:12]}"
        )
    if checkpoint.backbone is not None:
        config, size = checkpoint.backbone, vocabulary["image_offset"] + vocabulary["image_codes"]
        offset = config.image_token_offset
        if size > config.vocab_size:
            problems.append(f"the shards use ids up to {size - 1}, the backbone has {config.vocab_size} rows")
        if offset is not None and vocabulary["image_offset"] != offset:
            problems.append(f"the shards' image ids begin at {vocabulary['image_offset']}, the backbone's at {offset}")
        if vocabulary["pad"] != config.pad_token_id:
            problems.append(f"the shards pad with id {vocabulary['pad']}, the backbone with {config.pad_token_id}")
    if checkpoint.tokenizer is not None:
        codes = checkpoint.tokenizer.vq_config.num_embeddings
        if vocabulary["image_codes"] != codes:
            problems.append(f"the shards have {vocabulary['image_codes']} image codes, the tokenizer {codes}")
        elif checkpoint.folder is not None:
            mine = SigLIPVQ.identify(checkpoint.folder).fingerprint
            if mine != image["fingerprint"]:
                problems.append(
                    f"the shards' image codes were made by {image['name']} {image['fingerprint'][:12]}, "
                    f"the checkpoint's tokenizer is {SigLIPVQ.name} {mine[:12]}"
                )
    return problems


def _module_part(name: str, module: nn.Module, stored: Mapping[str, StoredTensor] | None) -> Part:
    layout = "separate" if stored is None else layout_of(stored)
    needed = slots(module, layout)
    count = sum(p.numel() for p in module.parameters())
    return _part(name, needed, count, stored, LAYOUT_NAMES[layout])


def _part(
    name: str, needed: Mapping[str, Slot], count: int, stored: Mapping[str, StoredTensor] | None, layout: str
) -> Part:
    if stored is None:
        return Part(name, CONFIG_ONLY, {}, len(needed), count, count)
    types = dict(sorted(Counter(tensor.dtype for tensor in stored.values()).items()))
    return Part(name, layout, types, len(needed), count, count, problems=tuple(compare(needed, stored)))


def _stored(folder: Path, preferred: tuple[str, ...] = ()) -> dict[str, StoredTensor] | None:
    """Headers of a folder's weights; None when it has no weight file at all."""
    if not any(folder.glob("*.safetensors*")):
        return None
    return stored_tensors(folder, preferred)


def _kind(config: Path) -> str:
    """Which configuration a file is, by fields that only it has; empty for none of ours."""
    if not config.is_file():
        return ""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise ConfigError(f"{config}: not JSON ({problem})") from None
    fields = values if isinstance(values, dict) else {}
    if str(fields.get("model_type", "")).startswith("llada2") or "num_experts" in fields:
        return "backbone"
    signs = {"tokenizer": "vision_config", "decoder": "cap_feat_dim"}
    return next((kind for kind, field in signs.items() if field in fields), "")
