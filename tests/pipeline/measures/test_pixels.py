from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipeline.measures.pixels import ANALYSIS_SIDE, analysis_grey, analysis_size, figures
from pipeline.operator import Quarantine, check_row
from pipeline.pictures import decode_scaled
from tests.pipeline.pictures import columns_of, cut, encode, measure, record, scene


def look(tmp_path: Path, picture: np.ndarray | Image.Image | bytes, **options: Any) -> dict[str, Any]:
    data = picture if isinstance(picture, bytes) else encode(picture, **options)
    made = measure("pixels")
    given_record = record(tmp_path, data)
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def test_a_grey_picture_is_flat_colourless_and_without_hash(tmp_path: Path) -> None:
    found = look(tmp_path, np.full((300, 400, 3), 51, np.uint8))
    assert found["brightness"] == pytest.approx(0.2)
    zero = ("sharpness", "contrast", "colourfulness", "entropy", "dark_share", "bright_share")
    assert {name: found[name] for name in zero} == dict.fromkeys(zero, 0)
    assert (found["border_share"], found["flat_share"]) == (1, 1)
    assert found["phash"] is found["phash_mirror"] is found["phash_windows"] is None


def test_half_black_half_white_is_clipped_at_both_ends(tmp_path: Path) -> None:
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[:, 256:] = 255
    found = look(tmp_path, picture)
    assert found["dark_share"] == found["bright_share"] == pytest.approx(0.5, abs=0.01)
    assert found["brightness"] == pytest.approx(0.5, abs=0.01)
    assert found["contrast"] == pytest.approx(1, abs=0.01)
    assert found["entropy"] == pytest.approx(1, abs=0.1)


def test_all_greys_alike_have_eight_bits_of_entropy(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    assert look(tmp_path, ramp)["entropy"] == pytest.approx(8)


def test_colourfulness_is_the_published_formula(tmp_path: Path) -> None:
    # Areas of one colour each, so that scaling changes next to nothing.
    colours = np.random.default_rng(0).integers(0, 100, (4, 4, 3)).astype(np.uint8)
    colours[..., 0] += 150
    picture = np.kron(colours, np.ones((128, 128, 1), np.uint8))
    red, green, blue = (colours[..., channel].astype(float).ravel() for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    expected = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
    assert look(tmp_path, picture)["colourfulness"] == pytest.approx(expected, rel=0.02)


def test_a_frame_is_found_and_measured(tmp_path: Path) -> None:
    picture = np.full((600, 800, 3), 255, np.uint8)
    picture[60:540, 80:720] = scene(640, 480)
    assert look(tmp_path, picture)["border_share"] == pytest.approx(1 - 0.8 * 0.8, abs=0.02)
    letterbox = np.zeros((600, 800, 3), np.uint8)
    letterbox[100:500] = scene(800, 400)
    assert look(tmp_path, letterbox)["border_share"] == pytest.approx(1 / 3, abs=0.02)
    assert look(tmp_path, scene(800, 600))["border_share"] == 0


def test_flat_areas_are_measured(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 1), np.uint8).repeat(3, axis=2)
    assert look(tmp_path, noise)["flat_share"] == 0
    noise[:, :256] = 90
    assert look(tmp_path, noise)["flat_share"] == pytest.approx(0.5, abs=0.04)


def test_flat_blocks_are_counted_block_by_block() -> None:
    levels = np.random.default_rng(0).permutation(32 * 32).reshape(32, 32) % 8 * 30
    grey = np.kron(levels, np.ones((8, 8))).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    assert figures(rgb, grey).flat_share == 1
    grey[100, 100] ^= 128
    assert figures(rgb, grey).flat_share == 1 - 1 / 1024


def test_blur_lowers_sharpness(tmp_path: Path) -> None:
    checks = np.kron(np.indices((48, 64)).sum(axis=0) % 2 * 60, np.ones((16, 16))).astype(np.uint8)
    sharp = Image.fromarray(scene(1024, 768) // 2 + checks[..., None])
    blurred = [sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 4, 12, 30)]
    values = [look(tmp_path, picture)["sharpness"] for picture in blurred]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_figures_hardly_depend_on_the_stored_size(tmp_path: Path, format: str) -> None:
    original = Image.fromarray(scene(2000, 1500, 3))
    options = {} if format == "PNG" else {"quality": 92}
    found = [
        look(
            tmp_path,
            original.resize((width, width * 3 // 4), Image.Resampling.LANCZOS),
            format=format,
            **options,
        )
        for width in (600, 800, 1100, 1500, 2000)
    ]
    for name in ("brightness", "dark_share", "bright_share", "contrast", "border_share"):
        values = [figure[name] for figure in found]
        assert max(values) - min(values) < 0.02, name
    for name, tolerance in (("colourfulness", 0.03), ("entropy", 0.02), ("sharpness", 0.35)):
        values = [figure[name] for figure in found]
        assert max(values) / min(values) < 1 + tolerance, (name, values)
    assert all(((figure["phash"] ^ found[0]["phash"]) & (2**64 - 1)).bit_count() <= 4 for figure in found)


def test_figures_do_not_depend_on_how_the_camera_was_held(tmp_path: Path) -> None:
    upright = scene(640, 480)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = look(tmp_path, np.rot90(upright).copy(), format="PNG", exif=exif)
    assert turned == look(tmp_path, upright, format="PNG")


def test_the_same_bytes_give_the_same_row_in_any_process(tmp_path: Path) -> None:
    made = measure("pixels")
    given_record = record(tmp_path, encode(scene(900, 700), "JPEG"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.pipeline.pictures import measure, record\n"
        "p = Path(sys.argv[1])\n"
        "print(measure('pixels').process(record(p, p.joinpath('medium').read_bytes())))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == str(made.process(given_record))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.integers(1, 256))
@settings(max_examples=60, deadline=None)
def test_figures_lie_within_their_declared_ranges(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int, levels: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, levels, (height, width, 3), np.uint8)
    found = look(tmp_path_factory.getbasetemp(), picture)
    assert all(isinstance(value, float) for value in list(found.values())[:9])


@pytest.mark.parametrize(("height", "width"), [(256, 256), (3000, 2000), (10, 10), (1, 5000), (5000, 1), (100, 900)])
def test_the_analysis_picture_has_a_fixed_area(height: int, width: int) -> None:
    found = analysis_size(height, width)
    assert min(found) >= 16
    assert found[0] * found[1] <= ANALYSIS_SIDE**2 * 1.05
    if 1 / 200 < height / width < 200:
        assert found[0] * found[1] >= ANALYSIS_SIDE**2 * 0.95
        assert found[0] / found[1] == pytest.approx(height / width, rel=0.04)


def test_damage_is_said_and_a_cut_is_a_verdict(tmp_path: Path) -> None:
    whole = encode(scene(400, 300), "JPEG")
    table = whole.index(b"\xff\xdb")
    found = look(tmp_path, whole[:table] + b"\x01\x02" + whole[table:])
    assert found["damaged"]
    assert "2 extraneous bytes" in found["damage"]
    clean = look(tmp_path, whole)
    assert (clean["damaged"], clean["damage"]) == (False, None)
    assert clean["sharpness"] == pytest.approx(found["sharpness"], rel=0.3)
    with pytest.raises(Quarantine) as caught:
        look(tmp_path, cut(whole, 0.7))
    assert caught.value.reason == "truncated image"


def test_the_pixel_limit_is_a_parameter(tmp_path: Path) -> None:
    with pytest.raises(Quarantine) as caught:
        measure("pixels", max_pixels=100).process(record(tmp_path, encode(scene(20, 20))))
    assert caught.value.reason == "too many pixels"


def test_figures_can_be_taken_of_any_array() -> None:
    rgb = decode_scaled(encode(scene(640, 480)), 384)
    assert figures(rgb, analysis_grey(rgb)).sharpness > 0
