from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from model.checkpoint import CheckpointError, save_backbone
from model.configs import BackboneConfig, ConfigError, DecoderConfig, SigLIPVQConfig
from model.inspection import Checkpoint, decoder_shapes, inspect_checkpoint, released, shard_problems
from model.siglip_vq import SigLIPVQ
from model.text_tokenizer import EMBEDDED_FILE, TextTokenizer
from tests.model import parity
from tests.model.networks import tiny_backbone


def test_the_released_sizes_count_as_published() -> None:
    backbone, tokenizer, decoder = released().parts
    assert (tokenizer.tensors, tokenizer.parameters) == (488, 1_199_457_280)
    assert backbone.parameters == 16_322_747_392
    # "16B-A1.4B" was said of the text model; image rows of embedding and head are on top here.
    text_model = backbone.active - 2 * 16384 * 2048
    assert 1.4e9 < text_model < 1.45e9
    assert backbone.active == 1_500_077_056
    assert backbone.vocabulary == 2 * 173568 * 2048
    assert 6.1e9 < decoder.parameters < 6.3e9


def test_counting_the_released_model_takes_no_memory() -> None:
    """Peak resident memory above the imports, in a process of its own; the weights would be 48 GB."""
    code = """
from model.inspection import released
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
start = peak()
released()
print((peak() - start) / 1024)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=parity.ROOT, check=True)
    assert float(done.stdout) < 64


OTHER = DecoderConfig.tiny(cap_feat_dim=48).model_copy(update={"n_layers": 3, "n_refiner_layers": 2, "in_channels": 4})


@pytest.mark.parametrize("config", [OTHER, DecoderConfig.tiny()])
def test_the_decoders_shapes_are_those_that_diffusers_builds(config: DecoderConfig) -> None:
    import torch

    from model.decoder import build_transformer, released_name

    with torch.device("meta"):
        built = build_transformer(config).state_dict()
    assert decoder_shapes(config) == {released_name(n): tuple(t.shape) for n, t in built.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_backbone(tiny_backbone(), tmp_path)
    SigLIPVQ.random(SigLIPVQConfig.tiny(codes=128), 0).save(tmp_path / "image_tokenizer")
    (tmp_path / "decoder").mkdir()
    DecoderConfig.tiny().write(tmp_path / "decoder" / "config.json")
    return tmp_path


def test_every_part_of_a_folder_is_found(folder: Path) -> None:
    backbone, tokenizer, decoder = inspect_checkpoint(folder).parts
    assert (backbone.name, backbone.layout, backbone.types) == ("backbone", "separate experts", {"F32": 82})
    assert backbone.tensors == 82
    assert backbone.parameters == sum(p.numel() for p in tiny_backbone().parameters())
    assert (tokenizer.name, tokenizer.layout, tokenizer.problems) == ("image tokenizer", "plain", ())
    assert (decoder.name, decoder.layout, decoder.types) == ("decoder", "config only", {})
    assert [p.name for p in inspect_checkpoint(folder / "image_tokenizer").parts] == ["image tokenizer"]
    assert [p.name for p in inspect_checkpoint(folder / "decoder").parts] == ["decoder"]


def test_layouts_and_number_formats_are_told(tmp_path: Path) -> None:
    save_backbone(tiny_backbone(), tmp_path / "merged", layout="merged")
    save_backbone(tiny_backbone().bfloat16(), tmp_path / "fp8", fp8_experts=True)
    (merged,) = inspect_checkpoint(tmp_path / "merged").parts
    assert (merged.layout, merged.tensors, merged.problems) == ("merged experts", 40, ())
    (fp8,) = inspect_checkpoint(tmp_path / "fp8").parts
    # 2 MoE layers x 8 experts x 3 matrices in FP8, a table of factors each; selection biases stay fp32.
    assert fp8.types == {"BF16": 32, "F32": 50, "F8_E4M3": 48}
    assert (fp8.tensors, fp8.problems) == (82, ())


def test_what_does_not_fit_is_listed(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file)
    assert inspect_checkpoint(folder).parts[0].problems == ("missing tensor 'model.norm.weight' of shape [64]",)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        inspect_checkpoint(folder)


def test_a_folder_without_a_known_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json of a backbone, an image tokenizer or a decoder in it"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llada2_moe", "hidden_size": 3}))
    with pytest.raises(ConfigError, match="field 'num_experts' is missing"):
        inspect_checkpoint(tmp_path)


def card(checkpoint: Checkpoint, fingerprint: str, **changes: Any) -> dict[str, Any]:
    config = checkpoint.backbone or BackboneConfig.tiny()
    vocabulary = {"image_offset": config.image_token_offset, "image_codes": 128, "pad": config.pad_token_id}
    image = {"name": "siglip-vq", "fingerprint": fingerprint}
    text = {"name": "embedded-bpe", "fingerprint": "1" * 64}
    return {"vocabulary": {**vocabulary, **changes}, "tokenizers": {"image": image, "text": text}}


def test_shards_fit_the_model_they_were_made_for(folder: Path) -> None:
    checkpoint = inspect_checkpoint(folder)
    mine = SigLIPVQ.load(folder).fingerprint()
    assert shard_problems(checkpoint, card(checkpoint, mine)) == []
    assert shard_problems(checkpoint, card(checkpoint, mine, image_offset=400, pad=7, image_codes=127)) == [
        "the shards use ids up to 526, the backbone has 512 rows",
        "the shards' image ids begin at 400, the backbone's at 384",
        "the shards pad with id 7, the backbone with 0",
        "the shards have 127 image codes, the tokenizer 128",
    ]
    assert shard_problems(checkpoint, card(checkpoint, "0" * 64)) == [
        "the shards' image codes were made by siglip-vq 000000000000, "
        f"the checkpoint's tokenizer is siglip-vq {mine[:12]}"
    ]
    shutil.copy(EMBEDDED_FILE, folder / "tokenizer.json")
    with_text = inspect_checkpoint(folder)
    theirs = TextTokenizer.embedded().fingerprint
    assert shard_problems(with_text, card(checkpoint, mine)) == [
        f"the shards' text was made by embedded-bpe 111111111111, the checkpoint's tokenizer is {theirs[:12]}"
    ]
    without_weights = replace(checkpoint, folder=None)
    assert shard_problems(without_weights, card(checkpoint, "0" * 64)) == []


def test_a_fingerprint_is_the_same_from_files_and_from_memory(folder: Path) -> None:
    assert SigLIPVQ.identify(folder).fingerprint == SigLIPVQ.load(folder).fingerprint()
