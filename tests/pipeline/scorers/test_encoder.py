from __future__ import annotations

import dataclasses
import json
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catalog.errors import UserError
from pipeline.scorers.encoder import GPU_BATCH, Encoder, in_fixed_batches, load_encoder, unit
from tests.pipeline.conftest import Checkpoints
from tests.pipeline.pictures import scene
from tests.pipeline.scorers import checkpoints

FAMILY: dict[str, Any] = {"open_clip": "openclip", "siglip": "siglip", "siglip2": "siglip", "clip": "clip"}
PICTURES = [Image.fromarray(scene(60 + 7 * number, 90 - 5 * number, number)) for number in range(7)]
TEXTS = ["a photo of a red square", "Two birds on a wire", "noise", "the quick brown fox jumps over the lazy dog " * 9]


@pytest.fixture(params=list(FAMILY))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def loaded(tiny: Checkpoints, kind: str) -> Encoder:
    return load_encoder(tiny(kind)[0], FAMILY[kind], "cpu", texts=True)


def test_loading_gives_back_the_vectors_of_the_network_that_was_saved(tiny: Checkpoints, kind: str) -> None:
    encoder, network = loaded(tiny, kind), tiny(kind)[1]
    with torch.no_grad():
        for picture in PICTURES[:3]:
            inputs = dict(encoder.prepare(picture))
            if kind == "open_clip":
                own = network.encode_image(inputs["image"])
            else:
                own = network.get_image_features(**inputs).pooler_output
            assert np.abs(encoder.pictures([picture]) - unit(own.numpy())).max() == 0
        for text in TEXTS:
            inputs = dict(encoder.tokens(text))
            if kind == "open_clip":
                own = network.encode_text(inputs["text"])
            else:
                own = network.get_text_features(**inputs).pooler_output
            assert np.abs(encoder.texts([text]) - unit(own.numpy())).max() == 0
    assert encoder.pictures(PICTURES).shape == (7, encoder.width)
    assert not np.allclose(*encoder.pictures(PICTURES[:2]), atol=1e-3)
    assert not np.allclose(*encoder.texts(TEXTS[:2]), atol=1e-3)


def test_vectors_are_the_same_in_any_batch_and_order(tiny: Checkpoints, kind: str) -> None:
    encoder = loaded(tiny, kind)
    pictures, texts = encoder.pictures(PICTURES), encoder.texts(TEXTS)
    assert np.abs(np.linalg.norm(pictures, axis=1) - 1).max() < 1e-6
    places = list(range(len(PICTURES)))
    for seed in range(4):
        random.Random(seed).shuffle(places)
        for size in (1, 2, 5):
            some = places[:size]
            assert np.array_equal(encoder.pictures([PICTURES[place] for place in some]), pictures[some])
    assert np.array_equal(encoder.texts(TEXTS[::-1]), texts[::-1])


def test_a_gpu_sees_batches_of_one_size_whatever_is_asked() -> None:
    seen = []

    def network(inputs: Any) -> torch.Tensor:
        seen.append(len(inputs["x"]))
        return inputs["x"] * 2

    inputs = [{"x": torch.tensor([[float(number)]])} for number in range(GPU_BATCH + 3)]
    found = in_fixed_batches(network, inputs, "cpu:0")  # any device but `cpu` is taken for one that wants batches
    assert seen == [GPU_BATCH, GPU_BATCH]
    assert found[:, 0].tolist() == [2.0 * number for number in range(GPU_BATCH + 3)]
    assert in_fixed_batches(network, [], "cpu").shape == (0, 1)


def by_hand(picture: Image.Image, mean: list[float], std: list[float], crop: bool) -> np.ndarray:
    """Bicubic to 32 pixels, the shorter side and then the middle, or both sides at once; normalised."""
    side = checkpoints.SIDE
    if crop:
        width, height = (side * length // min(picture.size) for length in picture.size)
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - side) / 2), round((height - side) / 2)
        small = small.crop((left, top, left + side, top + side))
    else:
        small = picture.resize((side, side), Image.Resampling.BICUBIC)
    values = np.asarray(small).astype(np.float64) / 255
    return ((values - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["open_clip", "siglip", "clip"], indirect=True)
def test_pictures_are_prepared_as_the_checkpoint_says(tiny: Checkpoints, kind: str) -> None:
    encoder = loaded(tiny, kind)
    mean = [0.5] * 3 if kind == "siglip" else checkpoints.PREPROCESS_CFG["mean"]
    std = checkpoints.PREPROCESS_CFG["std"] if kind == "open_clip" else [0.5] * 3
    for picture in PICTURES:
        prepared = next(iter(encoder.prepare(picture).values()))[0].numpy()
        expected = by_hand(picture, mean, std, crop=kind != "siglip")  # type: ignore[arg-type]
        assert np.abs(prepared - expected).max() < 2e-6


def test_preprocessing_does_not_depend_on_whether_torchvision_is_installed(tiny: Checkpoints) -> None:
    encoder: Any = loaded(tiny, "siglip")
    assert type(encoder.preprocessor).__name__ == "SiglipImageProcessorPil"
    squash = {**checkpoints.PREPROCESS_CFG, "resize_mode": "squash", "interpolation": "bilinear"}
    folder = tiny.root / "squash"
    checkpoints.open_clip(folder, preprocess=squash)
    picture = PICTURES[0]
    prepared = load_encoder(folder, "openclip", "cpu").prepare(picture)["image"][0].numpy()
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)) / 255
    expected = (small - np.array(squash["mean"])) / np.array(squash["std"])
    assert np.abs(prepared - expected.transpose(2, 0, 1)).max() < 2e-6


def test_siglip_reads_padding_and_lowered_texts_and_clip_does_not(tiny: Checkpoints) -> None:
    siglip: Any = loaded(tiny, "siglip2")
    clip: Any = loaded(tiny, "clip")
    assert set(siglip.tokens("A")) == {"input_ids"}
    assert set(clip.tokens("A")) == {"input_ids", "attention_mask"}
    heard = []
    for encoder in (siglip, clip):

        def listening(text: str, own: Any = encoder.tokenizer, **how: Any) -> Any:
            heard.append(text)
            return own(text, **how)

        dataclasses.replace(encoder, tokenizer=listening).tokens("A BIRD")
    assert heard == ["a bird", "A BIRD"]
    assert [encoder.tokens(TEXTS[3])["input_ids"].shape for encoder in (siglip, clip)] == [(1, 16), (1, 20)]


def test_weights_of_open_clip_may_come_as_bin(tiny: Checkpoints, tmp_path: Path) -> None:
    checkpoints.open_clip(tmp_path, "bin")
    one, other = load_encoder(tmp_path, "openclip", "cpu"), loaded(tiny, "open_clip")
    assert np.array_equal(one.pictures(PICTURES[:2]), other.pictures(PICTURES[:2]))


def test_no_other_machine_is_asked(tiny: Checkpoints, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny(kind)[0]

    def refused(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    load_encoder(folder, FAMILY[kind], "cpu", texts=True)


@pytest.mark.parametrize("kind", ["siglip", "clip"], indirect=True)
def test_places_of_positions_that_older_releases_hold_are_no_misfit(
    tiny: Checkpoints, tmp_path: Path, kind: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "old"
    shutil.copytree(tiny(kind)[0], folder)
    places = {f"{tower}_model.embeddings.position_ids": torch.arange(16)[None] for tower in ("text", "vision")}
    save_file({**load_file(folder / "model.safetensors"), **places}, folder / "model.safetensors", {"format": "pt"})
    assert np.array_equal(
        load_encoder(folder, FAMILY[kind], "cpu").pictures(PICTURES[:1]), loaded(tiny, kind).pictures(PICTURES[:1])
    )


class Bomb:
    def __reduce__(self) -> tuple[Any, Any]:
        return (Path.touch, (Path("exploded"),))


def changed(path: Path, *keys: str, to: Any) -> None:
    """Set one value of a JSON file; None takes it out."""
    found = json.loads(path.read_text())
    place = found
    for key in keys[:-1]:
        place = place[key]
    if to is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    path.write_text(json.dumps(found))


def layers(folder: Path, part: str, count: int) -> None:
    changed(folder / "config.json", part, "num_hidden_layers", to=count)


CONFIG = "open_clip_config.json"
WRONG: list[tuple[str, str, Callable[[Path], Any], str]] = [
    ("open_clip", "openclip", lambda at: (at / CONFIG).unlink(), f"{CONFIG}: no such file; a release has one"),
    ("open_clip", "openclip", lambda at: (at / CONFIG).write_text("{"), f"{CONFIG}: cannot be read as JSON: "),
    ("open_clip", "openclip", lambda at: (at / CONFIG).write_text("[]"), f"{CONFIG}: holds no JSON object"),
    ("open_clip", "openclip", lambda at: changed(at / CONFIG, "model_cfg", to=None), "has no `model_cfg` with an"),
    (
        "open_clip",
        "openclip",
        lambda at: changed(at / CONFIG, "model_cfg", "text_cfg", "hf_model_name", to="roberta-base"),
        "'roberta-base' would be fetched from elsewhere; towers must lie in the folder",
    ),
    (
        "open_clip",
        "openclip",
        lambda at: (at / "open_clip_model.safetensors").unlink(),
        "holds no weights of open_clip (open_clip_model.safetensors or open_clip_pytorch_model.bin)",
    ),
    (
        "open_clip",
        "openclip",
        lambda at: (at / "open_clip_model.safetensors").write_bytes(b"\x01" * 40),
        "open_clip_model.safetensors",
    ),
    (
        "open_clip",
        "openclip",
        lambda at: changed(at / CONFIG, "model_cfg", "vision_cfg", "layers", to=3),
        "open_clip cannot load it: Error(s) in loading state_dict for CLIP: Missing key(s) in state_dict: "
        '"visual.transformer.resblocks.2',
    ),
    (
        "open_clip",
        "openclip",
        lambda at: changed(at / CONFIG, "model_cfg", "vision_cfg", "image_size", to=64),
        "visual.positional_embedding is [17, 32], open_clip_config.json asks for [65, 32]",
    ),
    (
        "open_clip",
        "openclip",
        lambda at: (
            (at / "open_clip_model.safetensors").unlink(),
            torch.save({"a": Bomb()}, at / "open_clip_pytorch_model.bin"),
        ),
        "open_clip_pytorch_model.bin: holds more than tensors; such a file is not loaded",
    ),
    ("siglip", "clip", lambda at: None, "model_type is 'siglip', not clip; write `family: siglip`"),
    (
        "siglip",
        "siglip",
        lambda at: changed(at / "config.json", "model_type", to="bert"),
        "model_type is 'bert', not siglip or siglip2",
    ),
    ("siglip", "openclip", lambda at: None, f"{CONFIG}: no such file"),
    (
        "siglip",
        "siglip",
        lambda at: layers(at, "vision_config", 3),
        "the weights do not fit config.json: missing tensor vision_model.encoder.layers.2.layer_norm1.bias, ",
    ),
    (
        "siglip",
        "siglip",
        lambda at: layers(at, "text_config", 1),
        "the weights do not fit config.json: tensor without a place text_model.encoder.layers.1.layer_norm1.bias, ",
    ),
    (
        "siglip",
        "siglip",
        lambda at: changed(at / "config.json", "vision_config", "intermediate_size", to=48),
        "the weights do not fit config.json: tensor of another shape vision_model.",
    ),
    (
        "siglip",
        "siglip",
        lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"),
        "transformers cannot load the network: Error no file named model.safetensors",
    ),
    (
        "siglip",
        "siglip",
        lambda at: (at / "preprocessor_config.json").unlink(),
        "transformers cannot load the preprocessor: ",
    ),
    (
        "siglip",
        "siglip",
        lambda at: changed(at / "preprocessor_config.json", "size", to={"height": 48, "width": 48}),
        "the network does not take what its preprocessing makes: The size of tensor a (36) must match ",
    ),
    ("siglip", "siglip", lambda at: (at / "spiece.model").unlink(), "transformers cannot load the tokenizer: "),
]


@pytest.mark.parametrize(("kind", "family", "damage", "message"), WRONG, ids=[f"{w[0]}-{w[3][:50]}" for w in WRONG])
def test_what_is_wrong_with_a_checkpoint_is_said_on_one_line(
    tiny: Checkpoints,
    tmp_path: Path,
    kind: str,
    family: Any,
    damage: Callable[[Path], Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny(kind)[0], folder)
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_encoder(folder, family, "cpu", texts=True)
    said = str(caught.value)
    assert message in said
    assert str(folder) in said
    assert "\n" not in said
    assert not Path("exploded").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_said(tiny: Checkpoints, kind: str) -> None:
    with pytest.raises(UserError, match="torch finds no GPU here; write `device: cpu`"):
        load_encoder(tiny(kind)[0], FAMILY[kind], "cuda")
