from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from model.configs import BackboneConfig, ConfigError, DecoderConfig, PreprocessorConfig, SigLIPVQConfig
from tests.model import parity

PRESETS = [
    BackboneConfig.released(),
    BackboneConfig.tiny(),
    SigLIPVQConfig.released(),
    SigLIPVQConfig.tiny(),
    DecoderConfig.released(),
    DecoderConfig.tiny(),
]


@pytest.mark.parametrize("config", PRESETS, ids=lambda c: f"{type(c).__name__}")
def test_a_config_reads_back_what_it_wrote(config: BackboneConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config.write(path)
    assert type(config).read(path) == config


def test_the_released_values_are_those_of_the_fact_sheet() -> None:
    c = BackboneConfig.released()
    assert (c.vocab_size, c.image_token_offset) == (157184 + 16384, 157184)
    assert (c.rotary_channels, list(c.moe_layers)) == (64, list(range(1, 20)))
    assert (c.num_experts, c.num_experts_per_tok, c.n_group, c.topk_group) == (256, 8, 8, 4)
    v = SigLIPVQConfig.released()
    assert (v.vision_config.table_side, v.vq_config.num_embeddings) == (128, 16384)
    d = DecoderConfig.released()
    assert (d.axes_lens, d.cap_feat_dim) == ((32768, 1024, 1024), 4096)


def test_the_released_file_with_its_bookkeeping_fields_is_accepted(tmp_path: Path) -> None:
    values = json.loads(BackboneConfig.released().model_dump_json())
    values |= {
        "architectures": ["LLaDA2MoeModelLM"],
        "auto_map": {"AutoConfig": "configuration_llada2uni_moe.LLaDA2MoeConfig"},
        "transformers_version": "4.51.0",
        "rope_parameters": {"rope_type": "default", "rope_theta": 600000, "partial_rotary_factor": 0.5},
        "sliding_window": None,
        "use_cache": False,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    assert BackboneConfig.read(path).hidden_size == 2048


def tiny(**changes: object) -> dict[str, object]:
    values = json.loads(BackboneConfig.tiny().model_dump_json(exclude_none=True))
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            tiny(hiden_size=64),
            "config: unknown field 'hiden_size' (value 64), did you mean 'hidden_size'?",
        ),
        (
            tiny(xyzzy=1),
            "config: unknown field 'xyzzy' (value 1); remove it or teach model/configs.py what it means",
        ),
        (
            tiny(num_experts=...),
            "config: field 'num_experts' is missing; add it, its value is part of the architecture",
        ),
        (
            tiny(score_function="softmax"),
            "config: field 'score_function' has value 'softmax': Input should be 'sigmoid'",
        ),
        (
            tiny(hidden_size=0),
            "config: field 'hidden_size' has value 0: Input should be greater than 0",
        ),
        (
            tiny(num_key_value_heads=3),
            "config: num_attention_heads 4 is no multiple of num_key_value_heads 3",
        ),
        (tiny(n_group=3), "config: num_experts 8 is no multiple of n_group 3"),
        (
            tiny(num_experts_per_tok=5),
            "config: num_experts_per_tok 5 exceeds the 4 experts that the chosen groups hold",
        ),
        (tiny(image_token_offset=600), "config: image_token_offset 600 lies outside 1..vocab_size 512"),
        (
            tiny(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
            "config: rope_parameters disagrees with rope_theta / partial_rotary_factor; make the spellings equal",
        ),
        (
            tiny(rope_parameters={"rope_thta": 1e4, "rope_theta": 600000, "partial_rotary_factor": 0.5}),
            "config: unknown field 'rope_parameters.rope_thta' (value 10000.0), did you mean 'rope_theta'?",
        ),
    ],
)
def test_a_config_that_means_another_model_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        BackboneConfig.parse(values)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=r"config\.json: no such file"):
        BackboneConfig.read(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: not JSON"):
        BackboneConfig.read(path)
    path.write_text("[1]")
    with pytest.raises(ConfigError, match=r"config\.json: must hold a JSON object, not list"):
        BackboneConfig.read(path)


def test_a_tokenizer_whose_parts_do_not_fit_is_refused() -> None:
    values = json.loads(SigLIPVQConfig.tiny().model_dump_json(exclude_none=True))
    values["vq_config"]["latent_channels"] = 49
    with pytest.raises(ConfigError, match=r"vision_config\.hidden_size 48 must equal vq_config\.latent_channels 49"):
        SigLIPVQConfig.parse(values)
    values["vision_config"]["num_heads"] = 5
    with pytest.raises(ConfigError, match="hidden_size 48 is no multiple of num_heads 5"):
        SigLIPVQConfig.parse(values)


def test_a_decoder_whose_axes_do_not_fill_a_head_is_refused() -> None:
    values = json.loads(DecoderConfig.tiny().model_dump_json(by_alias=True, exclude_none=True))
    values["axes_dims"] = [8, 12, 8]
    with pytest.raises(ConfigError, match=r"axes_dims \(8, 12, 8\) must sum to dim / n_heads = 32"):
        DecoderConfig.parse(values)


@pytest.mark.golden
def test_the_reference_configs_are_read() -> None:
    backbone = parity.golden_folder("backbone") / "config.json"
    parity.same(
        "backbone/config.vocab_size",
        BackboneConfig.read(backbone).vocab_size,
        parity.numbers(backbone)["vocab_size"],
    )
    folder = parity.golden_folder("image_tokenizer")
    codes = SigLIPVQConfig.read(folder / "config.json").vq_config.num_embeddings
    parity.same(
        "image_tokenizer/config.num_embeddings",
        codes,
        parity.numbers(folder / "config.json")["vq_config"]["num_embeddings"],
    )
    assert PreprocessorConfig.read(folder / "preprocessor_config.json").patch_size > 0
    decoder = parity.golden_folder("decoder") / "config.json"
    parity.same("decoder/config.dim", DecoderConfig.read(decoder).dim, parity.numbers(decoder)["dim"])
