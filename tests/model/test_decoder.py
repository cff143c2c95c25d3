from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint import CheckpointError, save_weights
from model.configs import ConfigError, DecoderConfig
from model.decoder import Conditioner, ImageDecoder, released_name
from model.decoder_sampling import euler, flow_matching_loss, guided, turbo
from model.inspection import decoder_shapes
from tests.model import parity, reference
from tests.model.networks import tiny_autoencoder, tiny_decoder

CODES = np.array([[3, 1, 60], [7, 7, 0]], np.int32)


@pytest.fixture(scope="module")
def decoder() -> ImageDecoder:
    return tiny_decoder()


def released_weights(decoder: ImageDecoder) -> reference.Weights:
    return {released_name(n): t.double().numpy() for n, t in decoder.transformer.state_dict().items()}


def test_the_velocity_equals_the_float64_reference(decoder: ImageDecoder) -> None:
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 16, 1, 8, 12, generator=generator)
    condition = decoder.condition(CODES).detach()
    found = decoder.velocity(latent, torch.tensor([0.3]), [condition])[0].detach().numpy()
    weights = released_weights(decoder)
    expected = reference.z_velocity(
        weights, DecoderConfig.tiny(), latent[0].double().numpy(), 0.3, condition.double().numpy()
    )
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_each_code_conditions_a_square_of_two_by_two(decoder: ImageDecoder) -> None:
    condition = decoder.condition(CODES).view(4, 6, -1)
    for row in range(4):
        for column in range(6):
            code = torch.tensor([int(CODES[row // 2, column // 2])])
            torch.testing.assert_close(condition[row, column], decoder.conditioner(code)[0])


def test_a_picture_is_32_pixels_per_code_and_depends_on_its_seed_alone(decoder: ImageDecoder) -> None:
    pictures = [decoder.draw(CODES, seed=seed, steps=3) for seed in (0, 0, 1)]
    assert pictures[0].shape == (64, 96, 3)
    assert pictures[0].dtype == np.uint8
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_turbo_draws_with_as_many_evaluations_as_steps(decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    distilled = ImageDecoder(decoder.conditioner, decoder.transformer, decoder.autoencoder, "turbo")
    batches: list[int] = []
    velocity = ImageDecoder.velocity

    def counted(self: ImageDecoder, x: Tensor, t: Tensor, conditions: list[Tensor]) -> Tensor:
        batches.append(len(x))
        return velocity(self, x, t, conditions)

    monkeypatch.setattr(ImageDecoder, "velocity", counted)
    assert distilled.draw(CODES).shape == (64, 96, 3)
    assert batches == [1] * 8  # no guidance branch
    batches.clear()
    decoder.latents(CODES, 0, steps=4)
    assert batches == [2] * 3


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (CODES.ravel(), "codes must be integers [height, width], got int32 [6]"),
        (CODES.astype(np.float32), "codes must be integers [height, width], got float32 [2, 3]"),
        (CODES[:0], "codes must be integers [height, width], got int32 [0, 3]"),
        (CODES + 5, "code 65 at row 0, column 2 is outside the table's 0..63"),
        (CODES - 1, "code -1 at row 1, column 2 is outside the table's 0..63"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_named(decoder: ImageDecoder, codes: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        decoder.draw(codes)  # type: ignore[arg-type]


@pytest.fixture
def folder(decoder: ImageDecoder, tmp_path: Path) -> Path:
    """A checkpoint as released: pickled conditioning, one transformer per mode, the autoencoder."""
    (tmp_path / "image_tokenizer").mkdir()
    torch.save(decoder.conditioner.state_dict(), tmp_path / "image_tokenizer" / "sigvq_embedding.pt")
    for name, stem in (("decoder", "model"), ("decoder-turbo", "decoder_model")):
        save_weights(decoder.transformer, tmp_path / name, name=stem, rename=released_name)
        # The released file keeps Z-Image's own caption width; the code overrides it.
        DecoderConfig.tiny(cap_feat_dim=2560).write(tmp_path / name / "config.json")
    decoder.autoencoder.save_pretrained(tmp_path / "vae")
    return tmp_path


@pytest.mark.parametrize("mode", ["normal", "turbo"])
def test_a_released_folder_is_read(decoder: ImageDecoder, folder: Path, mode: str) -> None:
    read = ImageDecoder.load(folder, mode=mode)  # type: ignore[arg-type]
    same = ImageDecoder(decoder.conditioner, decoder.transformer, decoder.autoencoder, mode)  # type: ignore[arg-type]
    assert np.array_equal(read.draw(CODES, steps=2), same.draw(CODES, steps=2))


def test_conditioning_in_safetensors_is_preferred(decoder: ImageDecoder, folder: Path) -> None:
    other = {name: tensor + 1 for name, tensor in decoder.conditioner.state_dict().items()}
    save_file(other, folder / "image_tokenizer" / "sigvq_embedding.safetensors")
    read = Conditioner.load(folder / "image_tokenizer")
    assert torch.equal(read.prior_token_embedding.weight, other["prior_token_embedding.weight"])


def test_parts_that_do_not_fit_are_named(decoder: ImageDecoder, folder: Path) -> None:
    state = dict(decoder.conditioner.state_dict())
    pt = folder / "image_tokenizer" / "sigvq_embedding.pt"
    del state["prior_projector.net.2.bias"]
    torch.save(state, pt)
    with pytest.raises(CheckpointError, match=r"missing tensor 'prior_projector\.net\.2\.bias' of shape \[32\]"):
        ImageDecoder.load(folder)
    pt.unlink()
    with pytest.raises(CheckpointError, match=r"neither sigvq_embedding\.safetensors nor sigvq_embedding\.pt"):
        ImageDecoder.load(folder)
    torch.save(decoder.conditioner.state_dict(), pt)
    (folder / "vae" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"vae/config\.json: not readable"):
        ImageDecoder.load(folder)


def test_code_in_a_pickle_is_not_run(folder: Path) -> None:
    torch.save({"prior_token_embedding.weight": Path("/")}, folder / "image_tokenizer" / "sigvq_embedding.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        ImageDecoder.load(folder)


def test_the_released_transformer_has_the_released_names_and_shapes() -> None:
    """On the shapes that `inspect` uses; test_inspection proves them equal to what diffusers builds."""
    shapes = decoder_shapes(DecoderConfig.released())
    assert 6.1e9 < sum(math.prod(shape) for shape in shapes.values()) < 6.3e9
    for name, shape in {
        "semantic_embedder.0.weight": (4096,),
        "semantic_embedder.1.weight": (3840, 4096),
        "x_pad_token": (1, 3840),
        "layers.29.adaLN_modulation.0.weight": (15360, 256),
        "noise_refiner.1.attention.norm_q.weight": (128,),
        "context_refiner.0.feed_forward.w1.weight": (10240, 3840),
        "all_final_layer.2-1.adaLN_modulation.1.weight": (3840, 256),
        "all_x_embedder.2-1.weight": (3840, 64),
        "t_embedder.mlp.2.bias": (256,),
    }.items():
        assert shapes[name] == shape
    assert "context_refiner.0.adaLN_modulation.0.weight" not in shapes


def test_the_tiny_autoencoder_reduces_eightfold() -> None:
    assert tiny_autoencoder().config.latent_channels == 16


@pytest.fixture(scope="module")
def golden(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ImageDecoder, dict[str, Tensor], dict[str, object]]:
    folder = parity.golden_folder("decoder")
    here = tmp_path_factory.mktemp("decoder")
    for sub in ("image_tokenizer", "decoder"):
        (here / sub).mkdir()
    (here / "image_tokenizer" / "sigvq_embedding.safetensors").symlink_to(folder / "sigvq_weights.safetensors")
    (here / "decoder" / "config.json").symlink_to(folder / "config.json")
    (here / "decoder" / "model.safetensors").symlink_to(folder / "weights.safetensors")
    tiny_autoencoder().save_pretrained(here / "vae")
    return (
        ImageDecoder.load(here),
        parity.tensors(folder / "io.safetensors"),
        parity.numbers(folder / "io.json"),
    )


Golden = tuple[ImageDecoder, dict[str, Tensor], dict[str, object]]


@pytest.mark.golden
@torch.no_grad()
def test_conditioning_and_velocities_match_the_reference(golden: Golden) -> None:
    decoder, stored, facts = golden
    grid = stored["token_ids"].view(*facts["grid_hw"]).int().numpy()  # type: ignore[misc]
    condition = decoder.condition(grid)
    parity.close("decoder/sigvq_features", condition[None], stored["sigvq_features"])
    parity.same("decoder/token_ids_up2", grid.repeat(2, 0).repeat(2, 1).reshape(1, -1), stored["token_ids_up2"])
    null, latent, t = torch.zeros_like(condition), stored["latent"], stored["t"]
    velocity = decoder.velocity(latent, t, [condition])
    parity.close("decoder/velocity", velocity[0], stored["velocity"])
    parity.close("decoder/velocity_null", decoder.velocity(latent, t, [null])[0], stored["velocity_null"])
    # The second sample of the batch: half the latent, no condition, at the time the README states.
    both = decoder.velocity(torch.cat([latent, latent / 2]), torch.tensor([float(t), 0.8]), [condition, null])
    for i in range(2):
        parity.close(f"decoder/batch_velocity{i}", both[i], stored[f"batch_velocity{i}"])
    for name in (n for n in stored if n.startswith("guided_scale")):
        scale = float(name.removeprefix("guided_scale"))
        two = guided(stored["velocity"][None], stored["velocity_null"][None], scale)[0]
        parity.close(f"decoder/{name} (from stored velocities)", two, stored[name])
        parity.close(f"decoder/{name}", decoder.guided_velocity(latent, t, condition, scale)[0], stored[name])


@pytest.mark.golden
@torch.no_grad()
def test_both_samplers_match_the_reference(golden: Golden) -> None:
    decoder, stored, facts = golden
    condition = stored["sigvq_features"][0]
    times: list[float] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t[0]))
        return decoder.guided_velocity(x, t, condition, float(facts["cfg_scale"]))  # type: ignore[arg-type]

    trajectory = euler(field, stored["ode.z"], len(stored["ode.t"]))
    parity.close("decoder/ode.t", [*times, 1.0], stored["ode.t"])
    parity.close("decoder/ode.trajectory", torch.stack(trajectory), stored["ode.trajectory"])
    draws = iter(stored["turbo.noise"])
    plain = lambda x, t: decoder.velocity(x, t, [condition])  # noqa: E731
    final = turbo(plain, stored["ode.z"], lambda: next(draws), len(stored["turbo.noise"]))
    parity.close("decoder/turbo.final", final, stored["turbo.final"])


@pytest.mark.golden
@torch.no_grad()
def test_the_flow_matching_example_matches_the_reference(golden: Golden) -> None:
    decoder, stored, _ = golden
    condition = stored["sigvq_features"][0]
    data, noise, t = stored["fm.x1"], stored["fm.x0"], stored["fm.t"]
    seen: list[Tensor] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.extend((x, decoder.velocity(x, t, [condition])))
        return seen[-1]

    loss = flow_matching_loss(field, data, noise, t)
    parity.close("decoder/fm.xt", seen[0], stored["fm.xt"])
    parity.close("decoder/fm.pred", seen[1], stored["fm.pred"])
    parity.close("decoder/fm.ut", data - noise, stored["fm.ut"])
    parity.close("decoder/fm.loss", loss, stored["fm.loss"])
