"""Tiny random checkpoints in the layouts in which the real ones are released."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.libraries import library

SIDE, WIDTH = 32, 16
WORDS = (
    "a photo of a red square",
    "two birds on a wire",
    "the quick brown fox jumps over the lazy dog",
    "blobs and noise",
)
TOWER = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODEL_CFG: dict[str, Any] = {
    "embed_dim": WIDTH,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS_CFG = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def lively(make: Callable[..., torch.nn.Module], seed: int, *given: Any, **named: Any) -> Any:
    """A network with weights large enough that other inputs give other outputs."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = make(*given, **named)
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    return network.eval()


def open_clip(folder: Path, kind: str = "safetensors", preprocess: dict[str, Any] = PREPROCESS_CFG) -> Any:
    """A release of open_clip: `open_clip_config.json` and the weights; returns the network."""
    found = library("open_clip")
    network = lively(found.model.CLIP, 1, **copy.deepcopy(MODEL_CFG))
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return network


def siglip(folder: Path) -> Any:
    """A SigLIP of transformers with its sentencepiece tokenizer."""
    transformers = library("transformers")
    words = spiece(folder)
    vision = {**TOWER, "image_size": SIDE, "patch_size": 8}
    text = {**TOWER, "vocab_size": words, "max_position_embeddings": 16}
    network = lively(transformers.SiglipModel, 2, transformers.SiglipConfig(vision_config=vision, text_config=text))
    network.save_pretrained(folder)
    preprocessor(folder, "SiglipImageProcessor", size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, resample=3)
    return network


def spiece(folder: Path) -> int:
    """`spiece.model` and its settings, as SigLIP is released; returns how many pieces it has."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(WORDS), model_writer=file, vocab_size=60, hard_vocab_limit=False, minloglevel=2
        )
    settings = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model")).vocab_size())


def siglip2(folder: Path) -> Any:
    """A SigLIP 2 of the kind that keeps a picture's aspect, with a byte-level tokenizer of its class."""
    transformers = library("transformers")
    vision = {**TOWER, "num_patches": 16, "patch_size": 8}
    text = {**TOWER, "vocab_size": 400, "max_position_embeddings": 16}
    network = lively(transformers.Siglip2Model, 3, transformers.Siglip2Config(vision_config=vision, text_config=text))
    network.save_pretrained(folder)
    preprocessor(folder, "Siglip2ImageProcessor", patch_size=8, max_num_patches=16, image_mean=[0.5] * 3, resample=2)
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(chr(code) for code in range(33, 127)), "▁"]
    vocab = {letter: place for place, letter in enumerate([*letters, *(f"<0x{byte:02X}>" for byte in range(256))])}
    transformers.Siglip2Tokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return network


def clip(folder: Path) -> Any:
    """A CLIP of transformers with a tokenizer of letters."""
    transformers = library("transformers")
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    vision = {**TOWER, "image_size": SIDE, "patch_size": 8}
    text = {**TOWER, "vocab_size": len(pieces), "max_position_embeddings": 20, "eos_token_id": len(pieces) - 1}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    network = lively(transformers.CLIPModel, 4, config)
    network.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True}
    preprocessor(folder, "CLIPImageProcessor", **sizes, image_mean=PREPROCESS_CFG["mean"], resample=3)
    return network


def classifier(folder: Path, labels: tuple[str, ...] = ("normal", "nsfw"), problem: str | None = None) -> Any:
    """A ViT with a head for these labels."""
    transformers = library("transformers")
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
    config = transformers.ViTConfig(**TOWER, image_size=SIDE, patch_size=8, problem_type=problem, **named)
    network = lively(transformers.ViTForImageClassification, 5, config)
    network.save_pretrained(folder)
    preprocessor(folder, "ViTImageProcessor", size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, resample=2)
    return network


def preprocessor(folder: Path, kind: str, image_mean: Any, **given: Any) -> None:
    """`preprocessor_config.json`."""
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    settings = {**steps, "image_processor_type": kind, "image_mean": image_mean, "image_std": [0.5] * 3, **given}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def head(path: Path, width: int = WIDTH, centre: float = 5.0) -> dict[str, torch.Tensor]:
    """The improved predictor's layers, with scores around `centre`."""
    generator = torch.Generator().manual_seed(7)
    places, widths = (0, 2, 4, 6, 7), (width, 1024, 128, 64, 16, 1)
    tensors = {}
    for place, given, made in zip(places, widths, widths[1:], strict=False):
        tensors[f"layers.{place}.weight"] = torch.randn(made, given, generator=generator) / given**0.5
        tensors[f"layers.{place}.bias"] = torch.zeros(made)
    tensors["layers.7.bias"] += centre
    torch.save(tensors, path)
    return tensors
