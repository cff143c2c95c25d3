from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner

from catalog.errors import UserError
from jobs.verbs.inspect import inspect
from model.checkpoint import save_backbone
from model.configs import SigLIPVQConfig
from model.siglip_vq import SigLIPVQ
from tests.model.networks import tiny_backbone

app = typer.Typer()
app.command()(inspect)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    save_backbone(tiny_backbone(), folder)
    SigLIPVQ.random(SigLIPVQConfig.tiny(codes=128), 0).save(folder / "image_tokenizer")
    return folder


def shard_set(folder: Path, fingerprint: str, pad: int = 0) -> Path:
    folder.mkdir()
    card = {
        "corpus": "c",
        "split": "train",
        "vocabulary": {"image_offset": 384, "image_codes": 128, "pad": pad},
        "tokenizers": {
            "image": {"name": "siglip-vq", "fingerprint": fingerprint},
            "text": {"name": "embedded-bpe", "fingerprint": "1" * 64},
        },
        "templates": {},
        "branches": {},
        "embedded": [],
        "generations": [],
        "samples": 0,
        "text_tokens": 0,
        "image_tokens": 0,
    }
    (folder / "card.json").write_bytes(orjson.dumps(card))
    return folder


def test_the_released_sizes_are_printed_without_a_checkpoint() -> None:
    result = CliRunner().invoke(app, ["released"])
    assert result.exit_code == 0, result.output
    for word in ("488", "1,199,457,280", "16,322,747,392", "1,500,077,056"):
        assert word in result.output


def test_a_checkpoint_and_shards_that_fit_end_with_code_0(checkpoint: Path, tmp_path: Path) -> None:
    shards = shard_set(tmp_path / "shards", SigLIPVQ.load(checkpoint).fingerprint())
    result = CliRunner().invoke(app, [str(checkpoint), "--shards", str(shards)])
    assert result.exit_code == 0, result.output
    assert "separate experts" in result.output
    assert f"{shards}: fits" in result.output


def test_shards_that_do_not_fit_end_with_code_1(checkpoint: Path, tmp_path: Path) -> None:
    shards = shard_set(tmp_path / "shards", "0" * 64, pad=3)
    result = CliRunner().invoke(app, [str(checkpoint), "--shards", str(shards)])
    assert result.exit_code == 1
    assert f"{shards}: does not fit" in result.output
    assert "the shards pad with id 3, the backbone with 0" in result.output
    assert "made by siglip-vq 000000000000" in result.output


def test_a_checkpoint_that_does_not_fit_its_config_ends_with_code_1(checkpoint: Path) -> None:
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 128'))
    result = CliRunner().invoke(app, [str(checkpoint)])
    assert result.exit_code == 1
    assert "tensor 'model.norm.weight' has shape [64], the model needs [128]" in result.output


@pytest.mark.parametrize("what", ["checkpoint", "shards"])
def test_a_folder_that_is_none_is_a_user_error(checkpoint: Path, tmp_path: Path, what: str) -> None:
    arguments = [str(tmp_path / "nothing")] if what == "checkpoint" else [str(checkpoint), "--shards", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, standalone_mode=False)
    assert isinstance(result.exception, UserError)
