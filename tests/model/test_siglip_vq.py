from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import siglip_vq
from model.checkpoint import CheckpointError
from model.configs import ConfigError, PreprocessorConfig, SigLIPVQConfig
from model.image_tokenizer import Grid, ImageTokenizer, load_image_tokenizer
from model.siglip_vq import SigLIPVQ
from tests.model import parity, reference
from tests.model.networks import separate

TINY = SigLIPVQConfig.tiny(codes=32, patch_size=4)
CORPUS = parity.ROOT / "../shared/corpora/images"


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tokenizer() -> SigLIPVQ:
    return SigLIPVQ.random(TINY, seed=0)


def test_it_is_an_image_tokenizer(tokenizer: SigLIPVQ) -> None:
    assert isinstance(tokenizer, ImageTokenizer)
    assert (tokenizer.name, tokenizer.is_embedded, tokenizer.patch, tokenizer.codes) == (
        "siglip-vq",
        False,
        4,
        32,
    )
    assert SigLIPVQ(SigLIPVQConfig.tiny()).patch == 16


@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 20), (40, 8)])
def test_features_and_codes_equal_the_float64_reference(tokenizer: SigLIPVQ, height: int, width: int) -> None:
    image = picture(height, width)
    weights = separate(tokenizer)
    rows = tokenizer.patch_rows(image)
    assert np.abs(rows.numpy() - reference.patch_rows(image, 4)).max() < 1e-6
    z = tokenizer.features(rows, [Grid(height // 4, width // 4)]).detach().numpy()
    expected = reference.siglip_features(weights, TINY, image)
    assert np.abs(z - expected).max() < 1e-5 * np.abs(expected).max()
    codes = tokenizer.encode(image)
    assert codes.dtype == np.int32
    assert codes.shape == (height // 4, width // 4)
    assert codes.ravel().tolist() == reference.nearest(weights, expected)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_picture_has_the_same_codes_in_any_company(sizes: list[tuple[int, int]], packed: bool) -> None:
    """Also when pictures are packed into products of a fixed number of rows, as on a GPU."""
    tokenizer = SigLIPVQ.random(TINY, seed=1)
    images = [picture(4 * h, 4 * w, seed) for seed, (h, w) in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SigLIPVQ, "packs_pictures", packed)
        patch.setattr(siglip_vq, "GPU_ROWS", 96)
        alone = [tokenizer.encode(image) for image in images]
        together = tokenizer.encode_batch(images)
        backwards = tokenizer.encode_batch(images[::-1])[::-1]
    for a, b, c in zip(alone, together, backwards, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def test_features_are_equal_to_the_last_bit_in_any_company() -> None:
    """Equal codes could be luck; with one picture at a time on CPU even the features' bits are the same."""
    tokenizer = SigLIPVQ.random(SigLIPVQConfig.tiny(patch_size=4), seed=2)
    seen: list[torch.Tensor] = []
    project = tokenizer.model.vqmodel.nearest
    tokenizer.model.vqmodel.nearest = lambda z: (seen.append(z.clone()), project(z))[1]  # type: ignore[method-assign]
    images = [picture(4 * h, 4 * w, h) for h, w in ((3, 5), (7, 2), (1, 1), (16, 16))]
    for image in images:
        tokenizer.encode(image)
    tokenizer.encode_batch(images[::-1])
    for alone, together in zip(seen[:4], seen[:3:-1], strict=True):
        assert torch.equal(alone, together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_on_a_gpu_are_the_same_in_any_company(dtype: torch.dtype, tmp_path: Path) -> None:
    SigLIPVQ.random(SigLIPVQConfig.tiny(), seed=2).save(tmp_path)
    tokenizer = SigLIPVQ.load(tmp_path, device="cuda", dtype=dtype)
    images = [picture(16 * h, 16 * w, h) for h, w in ((3, 5), (7, 2), (1, 1), (60, 80), (16, 16))]
    alone = [tokenizer.encode(image) for image in images]
    for a, b in zip(alone, tokenizer.encode_batch(images), strict=True):
        assert np.array_equal(a, b)


def test_a_position_depends_on_the_grid_not_on_the_table() -> None:
    tokenizer = SigLIPVQ.random(TINY, seed=0)
    embeddings = tokenizer.model.visual.embeddings
    table = embeddings.position_embedding.weight.detach()
    assert torch.allclose(embeddings(Grid(8, 8)), table, atol=1e-6)
    quarter = embeddings(Grid(4, 8)).view(4, 8, -1)
    assert torch.allclose(quarter, (table.view(8, 8, -1)[::2] + table.view(8, 8, -1)[1::2]) / 2, atol=1e-6)


def test_the_lowest_code_wins_a_tie(tokenizer: SigLIPVQ) -> None:
    quantiser = SigLIPVQ.random(TINY, seed=0).model.vqmodel
    with torch.no_grad():
        quantiser.quantize.embedding.weight[7] = 3 * quantiser.quantize.embedding.weight[20]
    z = quantiser.quantize.embedding.weight[20:21]
    # Length does not matter on the sphere, so codes 7 and 20 are the same direction.
    assert quantiser.nearest(z).item() == 7


def test_memory_is_bounded_by_a_portion() -> None:
    grids = [Grid(4, 4)] * 5 + [Grid(20, 20)] + [Grid(1, 1)]
    assert list(siglip_vq._portions(grids, 48)) == [[0, 1, 2], [3, 4], [5], [6]]
    assert list(siglip_vq._portions(grids, 0)) == [[i] for i in range(7)]
    assert list(siglip_vq._portions([], 48)) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            picture(4, 6),
            "picture 1 of the batch: picture of 6x4 pixels: both sides must be multiples of 4; resize first",
        ),
        (
            picture(4, 4)[..., :1],
            "picture 1 of the batch: a picture must be uint8 [height, width, 3], got uint8 [4, 4, 1]",
        ),
        (
            picture(4, 4).astype(np.float32),
            "picture 1 of the batch: a picture must be uint8 [height, width, 3], got float32 [4, 4, 3]",
        ),
    ],
)
def test_a_picture_that_cannot_be_read_is_named_before_compute(
    tokenizer: SigLIPVQ, image: NDArray[np.uint8], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SigLIPVQ, "features", lambda *_: pytest.fail("computed"))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tokenizer.encode_batch([picture(8, 8), image])


def test_rows_that_do_not_fit_their_grids_are_named(tokenizer: SigLIPVQ) -> None:
    rows = tokenizer.patch_rows(picture(8, 8))
    with pytest.raises(ValueError, match=r"^rows must be \[6 or more, 48\] for these grids, got \[4, 48\]$"):
        tokenizer.features(rows, [Grid(2, 3)])
    with pytest.raises(ValueError, match=r"^rows must be \[4 or more, 48\] for these grids, got \[4, 47\]$"):
        tokenizer.features(rows[:, 1:], [Grid(2, 2)])


def test_a_folder_reads_back_what_was_saved(tokenizer: SigLIPVQ, tmp_path: Path) -> None:
    folder = tmp_path / "image_tokenizer"
    tokenizer.save(folder)
    assert sorted(f.name for f in folder.iterdir()) == [
        "config.json",
        "image_tokenizer.safetensors",
        "preprocessor_config.json",
    ]
    for where in (folder, tmp_path):
        read = SigLIPVQ.load(where)
        assert read.fingerprint() == tokenizer.fingerprint()
        assert np.array_equal(read.encode(picture(8, 12)), tokenizer.encode(picture(8, 12)))
    assert load_image_tokenizer(str(folder)).fingerprint() == tokenizer.fingerprint()


def test_the_fingerprint_covers_all_that_decides_codes(tokenizer: SigLIPVQ, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    first = SigLIPVQ.load(tmp_path)
    prints = [first.fingerprint(), SigLIPVQ.load(tmp_path, dtype=torch.bfloat16).fingerprint()]
    assert first.revision == prints[0][:12]
    with torch.no_grad():
        first.model.visual.blocks[1].norm2.bias[3] += 1e-3
    prints.append(first.fingerprint())
    darker = PreprocessorConfig(patch_size=4, image_mean=(0.4, 0.5, 0.5))
    darker.write(tmp_path / "preprocessor_config.json")
    prints.append(SigLIPVQ.load(tmp_path).fingerprint())
    assert len(set(prints)) == 4


def test_a_tokenizer_that_does_not_fit_its_files_is_refused(tokenizer: SigLIPVQ, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    TINY.model_copy(update={"vq_config": TINY.vq_config.model_copy(update={"num_embeddings": 33})}).write(
        tmp_path / "config.json"
    )
    with pytest.raises(CheckpointError, match=r"embedding\.weight' has shape \[32, 32\], the model needs \[33, 32\]"):
        SigLIPVQ.load(tmp_path)
    PreprocessorConfig(patch_size=16).write(tmp_path / "preprocessor_config.json")
    with pytest.raises(ValueError, match=r"the preprocessor cuts patches of 16 pixels, the tower reads 4"):
        SigLIPVQ.load(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.json: no such file"):
        SigLIPVQ.load(tmp_path / "nowhere")


def test_the_released_tokenizer_has_488_tensors_and_1199457280_parameters() -> None:
    with torch.device("meta"):
        released = SigLIPVQ(SigLIPVQConfig.released())
    assert len(released.state_dict()) == 488
    assert sum(p.numel() for p in released.parameters()) == 1_199_457_280
    shapes = {name: list(tensor.shape) for name, tensor in released.state_dict().items()}
    for name, shape in {
        "model.visual.patch_embed.proj.weight": [1536, 3, 16, 16],
        "model.visual.embeddings.position_embedding.weight": [16384, 1536],
        "model.visual.blocks.39.attn.qkv.weight": [4608, 1536],
        "model.visual.blocks.0.mlp.fc2.weight": [1536, 6144],
        "model.vqmodel.quantize.embedding.weight": [16384, 2048],
        "model.vqmodel.quant_conv.weight": [2048, 1536, 1, 1],
        "model.vqmodel.post_quant_conv.bias": [1536],
    }.items():
        assert shapes[name] == shape


@pytest.mark.corpora
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
def test_the_picture_corpus_is_encoded_through_the_door_of_the_factory(tmp_path: Path) -> None:
    from PIL import Image

    from model.resize import Size, apply, for_generation

    SigLIPVQ.random(SigLIPVQConfig.tiny(), seed=0).save(tmp_path)
    tokenizer = load_image_tokenizer(str(tmp_path))
    files = [f for f in sorted(CORPUS.rglob("*")) if f.suffix in (".jpg", ".png", ".webp")][:24]
    assert files
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(np.asarray(apply(image, for_generation(Size(*image.size), 256))))
    encoded = tokenizer.encode_batch(images)
    assert len({codes.tobytes() for codes in encoded}) > len(files) // 2
    for image, codes in zip(images, encoded, strict=True):
        assert codes.shape == (image.shape[0] // 16, image.shape[1] // 16)
        assert 0 <= codes.min() <= codes.max() < tokenizer.codes


@pytest.mark.golden
def test_every_stage_matches_the_reference(tmp_path: Path) -> None:
    folder = parity.golden_folder("image_tokenizer")
    for source, name in (
        ("config.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("weights.safetensors", "image_tokenizer.safetensors"),
    ):
        (tmp_path / name).symlink_to(folder / source)
    tokenizer = SigLIPVQ.load(tmp_path)
    stored = parity.tensors(folder / "io.safetensors")
    grids = [Grid(h, w) for _, h, w in stored["image_grid_thw"].tolist()]
    images = [stored[f"image{i}"].numpy() for i in range(len(grids))]
    rows = torch.cat([tokenizer.patch_rows(image) for image in images])
    parity.close("image_tokenizer/pixel_values", rows, stored["pixel_values"])
    visual = tokenizer.model.visual
    parity.close("image_tokenizer/patch_embed", visual.patch_embed(rows), stored["patch_embed"])
    parity.close("image_tokenizer/vision_hidden", visual(rows, grids), stored["vision_hidden"])
    z = tokenizer.features(rows, grids).split([g.area for g in grids])
    for i, (grid, codes) in enumerate(zip(grids, tokenizer.encode_batch(images), strict=True)):
        feature_map = z[i].T.reshape(1, -1, grid.height, grid.width)
        parity.close(f"image_tokenizer/quant_conv{i}", feature_map, stored[f"quant_conv{i}"])
        parity.same(f"image_tokenizer/token_ids{i}", codes.ravel(), stored[f"token_ids{i}"])
