"""Tiny releases with random weights under the released names, and what they compute, worked out another way."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from pipeline.scorers.released import transformers

Tensors = dict[str, Tensor]

OWL_PROMPT = (
    "USER: How would you rate the quality of this image?\n",
    "\nASSISTANT: The quality of the image is",
)
LEVELS = ("excellent", "good", "fair", "poor", "bad")
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

OWL_CONFIG: dict[str, Any] = {
    "architectures": ["MPLUGOwl2LlamaForCausalLM"],
    "model_type": "mplug_owl2",
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "visual_config": {
        "visual_model": {
            "model_type": "mplug_owl_vision_model",
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 28,
            "patch_size": 7,
            "layer_norm_eps": 1e-6,
            "hidden_act": "quick_gelu",
        },
        "visual_abstractor": {
            "model_type": "mplug_owl_visual_abstract",
            "hidden_size": 24,
            "intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_learnable_queries": 5,
            "encoder_hidden_size": 24,
            "layer_norm_eps": 1e-6,
            "grid_size": 4,
        },
    },
}

INTERNVL_CONFIG: dict[str, Any] = {
    "architectures": ["InternVLChatModel"],
    "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
    "model_type": "internvl_chat",
    "template": "internvl2_5",
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 28,
    "ps_version": "v2",
    "select_layer": -1,
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 28,
        "patch_size": 7,
        "qkv_bias": True,
        "qk_normalization": False,
        "norm_type": "layer_norm",
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
    },
    "llm_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
}


def write_owl(folder: Path, tensors: Tensors | None = None) -> Tensors:
    """A release of mPLUG-Owl2; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tensors or owl_tensors()
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", OWL_CONFIG)
    resized = {"size": 28, "crop_size": 28, "resample": 3, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    write_json(folder / "preprocessor_config.json", resized)
    owl_tokenizer().save(str(folder / "tokenizer.json"))
    return tensors


def write_internvl(folder: Path, tensors: Tensors | None = None) -> Tensors:
    """A release of InternVL with ArtiMuse's tokens; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tensors or internvl_tensors()
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", INTERNVL_CONFIG)
    qwen_tokenizer().save(str(folder / "tokenizer.json"))
    return tensors


def write_json(path: Path, data: Any) -> None:
    """A JSON file."""
    path.write_text(json.dumps(data, ensure_ascii=False))


def change_json(path: Path, **changes: Any) -> None:
    """Some keys of a JSON file set; None removes a key."""
    data = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in data.items() if value is not None})


def owl_tokenizer(words: tuple[str, ...] = LEVELS) -> Tokenizer:
    """LLaMA's kind: a mark for spaces, also before the text; `words` are one token each."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=OWL_CONFIG["vocab_size"], special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([*OWL_PROMPT, *LEVELS, *([" ".join(words)] * 50)], trainer)
    return tokenizer


def qwen_tokenizer() -> Tokenizer:
    """Qwen's kind: bytes, the 101 pairs of letters as merges, special tokens behind."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [f"a{second}" for second in letters]
    pairs += [f"{first}{second}" for first in "cde" for second in letters[:25]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, *pairs])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(pair[0], pair[1]) for pair in pairs]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"])
    return tokenizer


def _random(shapes: Iterator[tuple[str, tuple[int, ...]]], seed: int) -> Tensors:
    """Values that keep a signal at about its size; far apart logits, so that scores are."""
    generator = torch.Generator().manual_seed(seed)
    made: Tensors = {}
    for name, shape in shapes:
        values = torch.randn(shape, generator=generator)
        if name.endswith("lm_head.weight"):
            made[name] = 2 * values
        elif len(shape) > 1 and name.endswith("weight") and "embed_tokens" not in name:
            made[name] = values / math.sqrt(math.prod(shape[1:]))
        elif len(shape) > 1:
            made[name] = values
        else:
            made[name] = 0.2 * values + (0 if name.endswith("bias") else 1)
    return made


def owl_tensors(seed: int = 7) -> Tensors:
    """Random weights of the tiny mPLUG-Owl2."""
    return _random(_owl_shapes(), seed) | dict(_owl_tables())


def _owl_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    vision, abstractor = OWL_CONFIG["visual_config"]["visual_model"], OWL_CONFIG["visual_config"]["visual_abstractor"]
    c, wide = vision["hidden_size"], vision["intermediate_size"]
    stem = "model.vision_model"
    yield f"{stem}.embeddings.cls_token", (1, 1, c)
    yield f"{stem}.embeddings.patch_embed.weight", (c, 3, 7, 7)
    yield f"{stem}.embeddings.position_embedding", (1, 17, c)
    yield from _norm(f"{stem}.embeddings.pre_layernorm", c)
    for number in range(2):
        layer = f"{stem}.encoder.layers.{number}"
        yield from _linear(f"{layer}.self_attn.query_key_value", 3 * c, c)
        yield from _linear(f"{layer}.self_attn.dense", c, c)
        yield from _linear(f"{layer}.mlp.fc1", wide, c)
        yield from _linear(f"{layer}.mlp.fc2", c, wide)
        yield from _norm(f"{layer}.input_layernorm", c)
        yield from _norm(f"{layer}.post_attention_layernorm", c)
    yield from _norm(f"{stem}.post_layernorm", c)
    stem, wide, language = "model.visual_abstractor", abstractor["intermediate_size"], OWL_CONFIG["hidden_size"]
    yield f"{stem}.query_embeds", (1, 5, c)
    yield f"{stem}.vit_eos", (1, 1, language)
    yield from _linear(f"{stem}.visual_fc", language, c)
    for number in range(2):
        cross = f"{stem}.encoder.layers.{number}.crossattention"
        for name in ("attention.query", "attention.key", "attention.value", "output.out_proj"):
            yield from _linear(f"{cross}.{name}", c, c)
        for name in ("norm1", "normk", "output.norm2"):
            yield from _norm(f"{cross}.{name}", c)
        yield from _linear(f"{cross}.output.mlp.w1", wide, c)
        yield from _linear(f"{cross}.output.mlp.w2", c, wide)
        yield from _linear(f"{cross}.output.mlp.w3", wide, c)
        yield from _norm(f"{cross}.output.mlp.ffn_ln", wide)
    c, wide = language, OWL_CONFIG["intermediate_size"]
    for number in range(2):
        layer = f"model.layers.{number}"
        for name in ("q_proj", "o_proj"):
            yield f"{layer}.self_attn.{name}.weight", (c, c)
        for way in range(2):
            for name in ("self_attn.k_proj", "self_attn.v_proj"):
                yield f"{layer}.{name}.multiway.{way}.weight", (c, c)
            for name in ("input_layernorm", "post_attention_layernorm"):
                yield f"{layer}.{name}.multiway.{way}.weight", (c,)
        yield f"{layer}.mlp.gate_proj.weight", (wide, c)
        yield f"{layer}.mlp.up_proj.weight", (wide, c)
        yield f"{layer}.mlp.down_proj.weight", (c, wide)
    yield "model.embed_tokens.weight", (OWL_CONFIG["vocab_size"], c)
    yield "model.norm.weight", (c,)
    yield "lm_head.weight", (OWL_CONFIG["vocab_size"], c)


def _owl_tables() -> Iterator[tuple[str, Tensor]]:
    """The abstractor's fixed tables, as numpy has them in the released code."""

    def waves(places: Any, channels: int) -> Any:
        omega = 1.0 / 10000 ** (np.arange(channels // 2, dtype=np.float32) / (channels / 2.0))
        out = np.einsum("m,d->md", places.reshape(-1), omega)
        return np.concatenate([np.sin(out), np.cos(out)], axis=1)

    across, down = np.meshgrid(np.arange(4, dtype=np.float32), np.arange(4, dtype=np.float32))
    grid = np.concatenate([waves(across, 12), waves(down, 12)], axis=1)
    grid = np.concatenate([np.zeros([1, 24]), grid])
    for number in range(2):
        stem = f"model.visual_abstractor.encoder.layers.{number}.crossattention.attention"
        yield f"{stem}.q_pos_embed", torch.from_numpy(waves(np.arange(5, dtype=np.float32), 24)).float()
        yield f"{stem}.k_pos_embed", torch.from_numpy(grid).float()


def internvl_tensors(seed: int = 9) -> Tensors:
    """Random weights of the tiny InternVL; its texts are faint, or a long prompt would hide the picture."""
    made = _random(_internvl_shapes(), seed)
    made["language_model.model.embed_tokens.weight"] *= 1e-4
    made["language_model.lm_head.weight"] *= 0.3
    for number in range(2):
        made[f"language_model.model.layers.{number}.self_attn.v_proj.bias"] *= 0.01
    return made


def _internvl_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    vision, language = INTERNVL_CONFIG["vision_config"], INTERNVL_CONFIG["llm_config"]
    c, wide, to = vision["hidden_size"], vision["intermediate_size"], language["hidden_size"]
    yield "vision_model.embeddings.class_embedding", (1, 1, c)
    yield "vision_model.embeddings.position_embedding", (1, 17, c)
    yield "vision_model.embeddings.patch_embedding.weight", (c, 3, 7, 7)
    yield "vision_model.embeddings.patch_embedding.bias", (c,)
    for number in range(2):
        layer = f"vision_model.encoder.layers.{number}"
        yield from _linear(f"{layer}.attn.qkv", 3 * c, c)
        yield from _linear(f"{layer}.attn.proj", c, c)
        yield from _linear(f"{layer}.mlp.fc1", wide, c)
        yield from _linear(f"{layer}.mlp.fc2", c, wide)
        yield from _norm(f"{layer}.norm1", c)
        yield from _norm(f"{layer}.norm2", c)
        yield f"{layer}.ls1", (c,)
        yield f"{layer}.ls2", (c,)
    yield from _norm("mlp1.0", 4 * c)
    yield from _linear("mlp1.1", to, 4 * c)
    yield from _linear("mlp1.3", to, to)
    wide, narrow = language["intermediate_size"], to // 2
    for number in range(2):
        layer = f"language_model.model.layers.{number}"
        yield from _linear(f"{layer}.self_attn.q_proj", to, to)
        yield from _linear(f"{layer}.self_attn.k_proj", narrow, to)
        yield from _linear(f"{layer}.self_attn.v_proj", narrow, to)
        yield f"{layer}.self_attn.o_proj.weight", (to, to)
        yield f"{layer}.mlp.gate_proj.weight", (wide, to)
        yield f"{layer}.mlp.up_proj.weight", (wide, to)
        yield f"{layer}.mlp.down_proj.weight", (to, wide)
        yield f"{layer}.input_layernorm.weight", (to,)
        yield f"{layer}.post_attention_layernorm.weight", (to,)
    yield "language_model.model.embed_tokens.weight", (language["vocab_size"], to)
    yield "language_model.model.norm.weight", (to,)
    yield "language_model.lm_head.weight", (language["vocab_size"], to)


def _linear(name: str, to: int, of: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (to, of)
    yield f"{name}.bias", (to,)


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _apply(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _normed(tensors: Tensors, name: str, x: Tensor, epsilon: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)


def owl_pixels(picture: Image.Image) -> Tensor:
    """What the released code makes of a picture, by transformers' own CLIP processor."""
    mean = tuple(int(share * 255) for share in CLIP_MEAN)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), mean)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    made = transformers().CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=28, image_mean=CLIP_MEAN, image_std=CLIP_STD
    )
    found: Tensor = made(square, return_tensors="pt")["pixel_values"]
    return found


def owl_logits(tensors: Tensors, pixels: Tensor, before: list[int], after: list[int]) -> Tensor:
    """Logits after the prompt, from transformers' CLIP and LLaMA and torch's own attention."""
    with torch.inference_mode():
        picture = _owl_abstract(tensors, _owl_see(tensors, pixels))
        embedded = [F.embedding(torch.tensor([ids]), tensors["model.embed_tokens.weight"]) for ids in (before, after)]
        x = torch.cat([embedded[0], picture, embedded[1]], dim=1)
        places = torch.zeros(x.shape[1], dtype=torch.bool)
        places[len(before) : len(before) + picture.shape[1]] = True
        found: Tensor = _owl_language(tensors, places)(inputs_embeds=x).logits[0, -1]
        return found


def _owl_see(tensors: Tensors, pixels: Tensor) -> Tensor:
    library = transformers()
    given = OWL_CONFIG["visual_config"]["visual_model"]
    config = library.CLIPVisionConfig(**{key: given[key] for key in given if key != "model_type"})
    model = library.CLIPVisionModel(config).eval()
    own: Tensors = {}
    stem = "model.vision_model"
    own["embeddings.class_embedding"] = tensors[f"{stem}.embeddings.cls_token"][0, 0]
    own["embeddings.patch_embedding.weight"] = tensors[f"{stem}.embeddings.patch_embed.weight"]
    own["embeddings.position_embedding.weight"] = tensors[f"{stem}.embeddings.position_embedding"][0]
    for last in ("weight", "bias"):
        own[f"pre_layrnorm.{last}"] = tensors[f"{stem}.embeddings.pre_layernorm.{last}"]
        own[f"post_layernorm.{last}"] = tensors[f"{stem}.post_layernorm.{last}"]
        for number in range(2):
            theirs, ours = f"{stem}.encoder.layers.{number}", f"encoder.layers.{number}"
            mixed = tensors[f"{theirs}.self_attn.query_key_value.{last}"]
            heads = mixed.view(3, 3, 8, *mixed.shape[1:])  # head, kind, channel
            for kind, name in enumerate(("q_proj", "k_proj", "v_proj")):
                own[f"{ours}.self_attn.{name}.{last}"] = heads[:, kind].reshape(24, *mixed.shape[1:])
            own[f"{ours}.self_attn.out_proj.{last}"] = tensors[f"{theirs}.self_attn.dense.{last}"]
            own[f"{ours}.layer_norm1.{last}"] = tensors[f"{theirs}.input_layernorm.{last}"]
            own[f"{ours}.layer_norm2.{last}"] = tensors[f"{theirs}.post_attention_layernorm.{last}"]
            for name in ("fc1", "fc2"):
                own[f"{ours}.mlp.{name}.{last}"] = tensors[f"{theirs}.mlp.{name}.{last}"]
    prefix = next(iter(model.state_dict())).partition("embeddings.")[0]
    missing, unexpected = model.load_state_dict({prefix + name: value for name, value in own.items()}, strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    return _normed(tensors, f"{stem}.post_layernorm", model(pixels).last_hidden_state, 1e-6)


def _owl_abstract(tensors: Tensors, patches: Tensor) -> Tensor:
    stem = "model.visual_abstractor"
    x = tensors[f"{stem}.query_embeds"]
    for number in range(2):
        cross = f"{stem}.encoder.layers.{number}.crossattention"
        x = _normed(tensors, f"{cross}.norm1", x, 1e-5)
        seen = torch.cat([x, _normed(tensors, f"{cross}.normk", patches, 1e-5)], dim=1)
        first, second = (tensors[f"{cross}.attention.{name}_pos_embed"] for name in "qk")
        names = [f"{cross}.attention.{name}" for name in ("query", "key", "value")]
        attended, _ = F.multi_head_attention_forward(
            (x + first).transpose(0, 1),
            (seen + torch.cat([first, second])).transpose(0, 1),
            seen.transpose(0, 1),
            embed_dim_to_check=24,
            num_heads=2,
            in_proj_weight=torch.cat([tensors[f"{name}.weight"] for name in names]),
            in_proj_bias=torch.cat([tensors[f"{name}.bias"] for name in names]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=tensors[f"{cross}.output.out_proj.weight"],
            out_proj_bias=tensors[f"{cross}.output.out_proj.bias"],
            training=False,
            need_weights=False,
        )
        x = x + attended.transpose(0, 1)
        mlp, y = f"{cross}.output.mlp", _normed(tensors, f"{cross}.output.norm2", x, 1e-5)
        gated = F.silu(_apply(tensors, f"{mlp}.w1", y)) * _apply(tensors, f"{mlp}.w3", y)
        x = x + _apply(tensors, f"{mlp}.w2", _normed(tensors, f"{mlp}.ffn_ln", gated, 1e-6))
    return torch.cat([_apply(tensors, f"{stem}.visual_fc", x), tensors[f"{stem}.vit_eos"]], dim=1)


def _owl_language(tensors: Tensors, is_picture: Tensor) -> Any:
    """transformers' LLaMA with the weights of text, whose outputs hooks replace where a picture stands."""
    library = transformers()
    given = {key: value for key, value in OWL_CONFIG.items() if key not in {"visual_config", "model_type"}}
    model = library.LlamaForCausalLM(library.LlamaConfig(**given)).eval()
    text = {name.replace(".multiway.0", ""): value for name, value in tensors.items() if "visi" not in name}
    model.load_state_dict({name: text[name] for name in model.state_dict()}, strict=True)

    def other(weight: Tensor, epsilon: float) -> Any:
        def hook(module: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            x = given[0]
            normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight if weight.ndim == 1 else None
            return torch.where(is_picture[:, None], F.linear(x, weight) if normed is None else normed, out)

        return hook

    for name, module in model.named_modules():
        weight = tensors.get(f"{name}.multiway.1.weight")
        if weight is not None:
            module.register_forward_hook(other(weight, OWL_CONFIG["rms_norm_eps"]))
    return model


def internvl_pixels(picture: Image.Image) -> Tensor:
    """What the released code makes of a picture, by transformers' processor for InternVL without tiles."""
    made = transformers().GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28},
        crop_to_patches=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    found: Tensor = made(picture, return_tensors="pt")["pixel_values"]
    return found


def internvl_logits(tensors: Tensors, pixels: Tensor, ids: list[int], picture_token: int) -> Tensor:
    """Logits after the prompt: the vision part as the released code has it, the rest by transformers' Qwen2."""
    library = transformers()
    with torch.inference_mode():
        x = _internvl_see(tensors, pixels)
        given = {**INTERNVL_CONFIG["llm_config"], "tie_word_embeddings": False}
        config = library.Qwen2Config(**{key: given[key] for key in given if key != "model_type"})
        model = library.Qwen2ForCausalLM(config).eval()
        stem = "language_model."
        model.load_state_dict({key[len(stem) :]: tensors[key] for key in tensors if key.startswith(stem)})
        embedded = F.embedding(torch.tensor(ids), tensors["language_model.model.embed_tokens.weight"])
        embedded[torch.tensor(ids) == picture_token] = x
        found: Tensor = model(inputs_embeds=embedded[None]).logits[0, -1]
        return found


def _internvl_see(tensors: Tensors, pixels: Tensor) -> Tensor:
    stem = "vision_model.embeddings"
    x = F.conv2d(pixels, tensors[f"{stem}.patch_embedding.weight"], tensors[f"{stem}.patch_embedding.bias"], stride=7)
    x = torch.cat([tensors[f"{stem}.class_embedding"], x.flatten(2).transpose(1, 2)], dim=1)
    x = x + tensors[f"{stem}.position_embedding"]
    for number in range(2):
        layer = f"vision_model.encoder.layers.{number}"
        qkv = _apply(tensors, f"{layer}.attn.qkv", _normed(tensors, f"{layer}.norm1", x, 1e-6))
        query, key, value = qkv.reshape(1, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
        shares = (query * 8**-0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
        attended = (shares @ value).transpose(1, 2).reshape(1, 17, 24)
        x = x + _apply(tensors, f"{layer}.attn.proj", attended) * tensors[f"{layer}.ls1"]
        y = F.gelu(_apply(tensors, f"{layer}.mlp.fc1", _normed(tensors, f"{layer}.norm2", x, 1e-6)))
        x = x + _apply(tensors, f"{layer}.mlp.fc2", y) * tensors[f"{layer}.ls2"]
    n, w, h, c, half = 1, 4, 4, 24, 0.5
    x = x[:, 1:].reshape(n, w, h, c)
    x = x.view(n, w, int(h * half), int(c / half)).permute(0, 2, 1, 3).contiguous()
    x = x.view(n, int(h * half), int(w * half), int(c / half**2)).permute(0, 2, 1, 3).reshape(n, 4, 96)
    x = F.gelu(_apply(tensors, "mlp1.1", _normed(tensors, "mlp1.0", x, 1e-5)))
    return _apply(tensors, "mlp1.3", x)[0]
