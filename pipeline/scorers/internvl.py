"""InternVL in its original layout (`internvl_chat`), run by transformers' own classes.

A vision transformer (InternViT) whose patches are folded two by two, a projector of two layers, and Qwen2. The network
is `InternVLForConditionalGeneration`; this file maps the released names to its names and the released config to its
config. Sources: OpenGVLab/InternVL `internvl_chat/internvl/model/internvl_chat/` and transformers' conversion script
`models/internvl/convert_internvl_weights_to_hf.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import model_validator

from catalog.errors import UserError
from pipeline.scorers.released import (
    Names,
    Part,
    Place,
    Tokens,
    check_fits,
    load_released,
    read_config,
    token_ids,
    transformers,
)

MODEL_TYPE = "internvl_chat"
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, which the releases normalise with."""

SYSTEM_MESSAGES = {
    "internvl2_5": (
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
    ),
}
"""System messages of the conversation templates that are known, by the template's name in `config.json`."""

MARKS = ("<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>")
"""Special tokens that the prompt is made of."""


class VisionConfig(Part):
    """`vision_config`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    qkv_bias: bool = False
    qk_normalization: Literal[False] = False
    norm_type: Literal["layer_norm", "rms_norm"] = "rms_norm"
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"


class LanguageConfig(Part):
    """`llm_config`: what is read here of it; the rest goes to transformers as it stands."""

    model_type: Literal["qwen2"]
    hidden_size: int
    vocab_size: int


class InternVLChatConfig(Part):
    """`config.json` of a release. Values that other members of the family have are refused, not guessed at."""

    vision_config: VisionConfig
    llm_config: dict[str, Any]
    template: str
    system_message: str | None = None
    downsample_ratio: float = 0.5
    force_image_size: int | None = None
    ps_version: Literal["v2"]
    select_layer: Literal[-1] = -1
    use_backbone_lora: Literal[0] = 0
    use_llm_lora: Literal[0] = 0

    @model_validator(mode="after")
    def _is_one_of_ours(self) -> InternVLChatConfig:
        LanguageConfig.model_validate(self.llm_config)
        if self.template not in SYSTEM_MESSAGES:
            raise ValueError(f"template {self.template!r} is not known; known: {', '.join(SYSTEM_MESSAGES)}")
        if self.force_image_size not in {None, self.vision_config.image_size}:
            raise ValueError(f"force_image_size {self.force_image_size} is not vision_config.image_size")
        return self

    @property
    def picture_tokens(self) -> int:
        """Positions that a picture takes."""
        side = self.vision_config.image_size // self.vision_config.patch_size
        return int(side**2 * self.downsample_ratio**2)


def prompt(config: InternVLChatConfig, question: str) -> str:
    """The conversation in which one picture is shown and `question` is asked, up to the answer."""
    system = SYSTEM_MESSAGES[config.template] if config.system_message is None else config.system_message
    picture = f"<img>{'<IMG_CONTEXT>' * config.picture_tokens}</img>"
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        f"<|im_start|>user\n{picture}\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def prompt_ids(config: InternVLChatConfig, tokens: Tokens, folder: Path, question: str) -> list[int]:
    """The ids of `prompt`; raises UserError where the tokenizer lacks a mark or an id that the model has."""
    token_ids(tokens, MARKS, folder, "which the prompt needs")
    found = tokens.ids(prompt(config, question))
    vocabulary = config.llm_config["vocab_size"]
    if max(found) >= vocabulary:
        raise UserError(f"{folder}: the tokenizer gives the id {max(found)}, the model has {vocabulary}")
    return found


def read_internvl_config(folder: Path) -> InternVLChatConfig:
    """The config of a release; raises UserError."""
    return read_config(folder, MODEL_TYPE, InternVLChatConfig)


def check_internvl(folder: Path) -> InternVLChatConfig:
    """Compare a release's weights with its config, from headers alone; raises UserError."""
    config = read_internvl_config(folder)
    check_fits(_empty(config, 0), folder, NAMES)
    return config


def load_internvl(folder: Path, picture_token: int, device: str, dtype: torch.dtype) -> Any:
    """transformers' `InternVLForConditionalGeneration` of a release, in evaluation mode; raises UserError."""
    network = _empty(read_internvl_config(folder), picture_token)
    load_released(network, folder, NAMES, device=device, dtype=dtype)
    # Its frequencies are in no state dict, and moving from the meta device has lost them.
    language = network.model.language_model
    language.rotary_emb = type(language.rotary_emb)(config=language.config).to(device)
    return network


def _empty(config: InternVLChatConfig, picture_token: int) -> Any:
    """The network without storage. Its vision config's `qkv_bias` and so on have other names in transformers."""
    library = transformers()
    given = config.vision_config
    vision = {
        "hidden_size": given.hidden_size,
        "intermediate_size": given.intermediate_size,
        "num_hidden_layers": given.num_hidden_layers,
        "num_attention_heads": given.num_attention_heads,
        "image_size": given.image_size,
        "patch_size": given.patch_size,
        "attention_bias": given.qkv_bias,
        "norm_type": given.norm_type,
        "layer_norm_eps": given.layer_norm_eps,
        "hidden_act": given.hidden_act,
    }
    made = library.InternVLConfig(
        vision_config=vision,
        # The release unties them whatever its config says.
        text_config={**config.llm_config, "tie_word_embeddings": False, "use_cache": False},
        image_token_id=picture_token,
        image_seq_length=config.picture_tokens,
        downsample_ratio=config.downsample_ratio,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return library.InternVLForConditionalGeneration(made)


_VISION = (
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
    ("encoder.layer.", "encoder.layers."),
    ("attention.projection_layer", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("lambda_", "ls"),
)
_PROJECTOR = {"layer_norm": "mlp1.0", "linear_1": "mlp1.1", "linear_2": "mlp1.3"}


def released_place(name: str) -> Place:
    """Where a release keeps what transformers calls `name`; query, key and value of a vision layer are one there."""
    if name.startswith("model.vision_tower."):
        released = name.replace("model.vision_tower.", "vision_model.", 1)
        for ours, theirs in _VISION:
            released = released.replace(ours, theirs)
        split = re.sub(r"attention\.[qkv]_proj", "attn.qkv", released)
        return Place(split, "qkv".index(released.split("_proj")[0][-1]) if split != released else 0)
    if name.startswith("model.multi_modal_projector."):
        _, _, layer, last = name.split(".")
        return Place(f"{_PROJECTOR[layer]}.{last}")
    if name.startswith("model.language_model."):
        return Place(name.replace("model.language_model.", "language_model.model.", 1))
    return Place(f"language_model.{name}")


NAMES = Names(place=released_place, ignored=lambda name: name.endswith(".rotary_emb.inv_freq"))
