from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import resize
from model.image_tokenizer import Grid
from model.resize import Geometry, Size
from tests.model.goldens import golden, golden_json

SIZES = st.builds(Size, st.integers(1, 5000), st.integers(1, 5000))


def noise(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    rng = np.random.Generator(np.random.PCG64(seed))
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "several", "expected"),
    [
        (Size(800, 800), False, Size(800, 800)),
        (Size(800, 800), True, Size(416, 416)),  # 448.0 less a rounding error, as in the released floats
        (Size(2000, 2000), False, Size(800, 800)),
        (Size(40, 40), False, Size(128, 128)),
        (Size(1600, 900), False, Size(1056, 576)),
        (Size(517, 333), True, Size(512, 320)),
    ],
)
def test_smart_size_keeps_the_area_in_bounds(size: Size, several: bool, expected: Size):
    area = resize.SEVERAL_AREA if several else resize.SINGLE_AREA
    assert resize.smart_size(size, area) == expected


def test_a_single_picture_gives_about_2500_tokens_at_most():
    assert resize.for_understanding(Size(3000, 3000)).grid == Grid(50, 50)
    assert resize.for_understanding(Size(3000, 3000), several=True).grid == Grid(28, 28)


@given(SIZES, st.booleans())
def test_understanding_scales_to_cover_and_cuts_inside(size: Size, several: bool):
    geometry = resize.for_understanding(size, several=several)
    target = resize.smart_size(size, resize.SEVERAL_AREA if several else resize.SINGLE_AREA)
    assert geometry.output.width % 32 == geometry.output.height % 32 == 0
    assert geometry.output.width >= target.width
    assert geometry.output.height >= target.height
    assert_cut_inside(geometry)


@given(SIZES, st.sampled_from([256, 512]))
def test_generation_scales_to_cover_a_bucket_and_cuts_inside(size: Size, side: int):
    geometry = resize.for_generation(size, side)
    assert geometry.output in resize.crop_sizes(side)
    assert_cut_inside(geometry)
    assert geometry == resize.for_editing(size, side)


def assert_cut_inside(geometry: Geometry) -> None:
    """The window lies in the scaled picture, in its middle, and nothing is scaled more than needed."""
    over = geometry.scaled.width - geometry.output.width
    under = geometry.scaled.height - geometry.output.height
    assert over >= 0
    assert under >= 0
    assert geometry.left == over // 2
    assert geometry.top == under // 2
    assert min(over, under) < 32
    across = geometry.scaled.width / geometry.source.width
    down = geometry.scaled.height / geometry.source.height
    # The aspect is kept to half a pixel, or to the pixel that covering needs.
    assert abs(across - down) <= 1.0 / min(geometry.source.width, geometry.source.height)


@given(st.integers(1, 40).map(lambda n: 32 * n))
def test_buckets_hold_the_area_and_the_aspect_and_mirror_each_other(side: int):
    sizes = resize.crop_sizes(side)
    assert Size(side, side) in sizes
    assert len(set(sizes)) == len(sizes)
    for size in sizes:
        assert size.width % 32 == size.height % 32 == 0
        assert size.width * size.height <= side * side
        assert max(size.width, size.height) <= 4 * min(size.width, size.height)
    assert [(s.height, s.width) for s in reversed(sizes)] == [(s.width, s.height) for s in sizes]


def test_the_smallest_stair_case_by_hand():
    # 2x2 cells: rows of 4, 3 and 2 cells, then 2 rows of 2, then columns.
    expected = [(128, 32), (96, 32), (64, 32), (64, 64), (32, 64), (32, 96), (32, 128)]
    assert [(s.width, s.height) for s in resize.crop_sizes(64)] == expected


@given(SIZES)
def test_no_bucket_is_nearer_in_aspect(size: Size):
    sizes = resize.crop_sizes(256)
    chosen = resize.nearest_size(size, sizes)

    def distance(other: Size) -> float:
        return abs(math.log(other.width / other.height) - math.log(size.width / size.height))

    assert distance(chosen) <= min(map(distance, sizes)) + 1e-9


def test_of_equally_near_buckets_the_wider_is_taken():
    assert resize.nearest_size(Size(10, 10), (Size(32, 64), Size(64, 32))) == Size(64, 32)


def test_released_editing_cuts_without_scaling():
    large, small = Size(1000, 1000), Size(100, 60)
    cut = resize.for_editing(large, released=True)
    assert (cut.scaled, cut.output, cut.left, cut.top) == (large, Size(512, 512), 244, 244)
    bordered = np.asarray(resize.apply(noise(100, 60), resize.for_editing(small, released=True)))
    assert bordered.shape == (384, 640, 3)
    assert bordered[:162].max() == bordered[-162:].max() == 0
    np.testing.assert_array_equal(bordered[162:222, 270:370], np.asarray(noise(100, 60)))


def test_editing_loses_no_margin_by_default():
    picture = PIL.Image.new("RGB", (2000, 2000), "black")
    picture.paste("white", (0, 0, 200, 200))
    kept = np.asarray(resize.apply(picture, resize.for_editing(Size(2000, 2000))))
    lost = np.asarray(resize.apply(picture, resize.for_editing(Size(2000, 2000), released=True)))
    assert kept[0, 0].tolist() == [255, 255, 255]
    assert lost.max() == 0


def test_the_decoder_draws_twice_as_large():
    assert resize.grid_of_request(Size(1024, 1024)) == Grid(32, 32)
    assert resize.grid_of_request(Size(768, 1024)) == Grid(32, 24)
    with pytest.raises(ValueError, match="1000x1024 cannot be drawn: both sides must be multiples of 32"):
        resize.grid_of_request(Size(1000, 1024))


@given(SIZES, st.booleans())
def test_the_whole_picture_maps_to_the_whole_output(size: Size, released: bool):
    geometry = resize.for_editing(size, released=released)
    box = geometry.map_box((0, 0, size.width, size.height))
    assert box is not None
    if not released:
        assert box == (0, 0, geometry.output.width, geometry.output.height)
    inside = geometry.map_box((0.25 * size.width, 0.25 * size.height, 0.75 * size.width, 0.75 * size.height))
    assert inside is not None
    assert inside[0] + inside[2] == pytest.approx(geometry.output.width, abs=2)


def test_a_box_follows_its_pixels():
    picture = PIL.Image.new("RGB", (1500, 900), "black")
    picture.paste("white", (600, 300, 900, 600))
    geometry = resize.for_generation(Size(1500, 900), 512)
    pixels = np.asarray(resize.apply(picture, geometry))[..., 0] > 127
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    box = geometry.map_box((600, 300, 900, 600))
    assert box == pytest.approx((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), abs=1)


def test_a_box_that_is_cut_away_is_gone():
    geometry = resize.for_editing(Size(1000, 1000), released=True)
    assert geometry.map_box((0, 0, 200, 200)) is None
    assert geometry.map_box((0, 0, 300, 300)) == (0, 0, 56, 56)


def test_transparency_lies_on_white():
    layer = PIL.Image.new("RGBA", (128, 128), (255, 0, 0, 0))
    layer.paste((0, 0, 255, 255), (64, 0, 128, 128))
    seen = np.asarray(resize.apply(layer, resize.for_understanding(Size(128, 128))))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[0, 127].tolist() == [0, 0, 255]
    for mode in ("L", "P", "CMYK", "LA", "1"):
        assert resize.on_white(PIL.Image.new(mode, (4, 4))).mode == "RGB"


def test_a_palette_picture_with_a_transparent_colour_lies_on_white():
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.info["transparency"] = 0
    assert np.asarray(resize.on_white(picture)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_colour_picture_with_a_transparent_colour_lies_on_white():
    picture = PIL.Image.new("RGB", (2, 1), (10, 20, 30))
    picture.putpixel((1, 0), (40, 50, 60))
    picture.info["transparency"] = (10, 20, 30)
    assert np.asarray(resize.on_white(picture)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_geometry_is_for_one_size():
    with pytest.raises(ValueError, match="picture of 128x128 applied to one of 128x64"):
        resize.apply(noise(128, 64), resize.for_understanding(Size(128, 128)))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="0x5"):
        Size(0, 5)
    for side in (0, 100, -32):
        with pytest.raises(ValueError, match=f"bucket side {side}"):
            resize.crop_sizes(side)


@pytest.mark.golden
def test_smart_size_is_the_reference():
    rules = golden_json("image_tokenizer/resize_rules.json")["smart_resize"]
    for rule in rules:
        for name, area in (("single", resize.SINGLE_AREA), ("multi", resize.SEVERAL_AREA)):
            found = resize.smart_size(Size(rule["w"], rule["h"]), area)
            assert [found.height, found.width] == rule[f"{name}_target_hw"], rule
    assert rules


@pytest.mark.golden
def test_understanding_output_is_the_reference():
    rules = golden_json("image_tokenizer/resize_rules.json")["resize_and_center_crop_single"]
    for rule in rules:
        found = resize.for_understanding(Size(rule["w"], rule["h"])).output
        assert [found.height, found.width] == rule["result_hw"], rule
    assert rules


@pytest.mark.golden
@pytest.mark.parametrize("side", [256, 512])
def test_buckets_are_the_reference(side: int):
    rules = golden_json("image_tokenizer/resize_rules.json")
    assert [[s.width, s.height] for s in resize.crop_sizes(side)] == rules[f"crop_size_list_{side}_wh"]


@pytest.mark.golden
def test_the_chosen_bucket_is_the_reference():
    rules = golden_json("image_tokenizer/resize_rules.json")["var_center_crop_512"]
    for rule in rules:
        for released in (True, False):
            found = resize.for_editing(Size(rule["w"], rule["h"]), released=released).output
            assert [found.width, found.height] == rule["result_wh"], rule
    assert rules


@pytest.mark.golden
def test_understanding_pixels_are_the_reference():
    from safetensors.numpy import load_file

    about = golden_json("image_tokenizer/resize_pixels.json")
    pixels = load_file(golden("image_tokenizer/resize_pixels.safetensors"))
    source = PIL.Image.fromarray(pixels["input_hwc"])
    geometry = resize.for_understanding(Size(*source.size))
    target = resize.smart_size(geometry.source, resize.SINGLE_AREA)
    assert [target.height, target.width] == about["smart_resize_target_hw"]
    np.testing.assert_array_equal(np.asarray(resize.apply(source, geometry)), pixels["smart_resize_crop_hwc"])


@pytest.mark.golden
def test_released_editing_pixels_are_the_reference():
    from safetensors.numpy import load_file

    about = golden_json("image_tokenizer/resize_pixels.json")
    pixels = load_file(golden("image_tokenizer/resize_pixels.safetensors"))
    source = PIL.Image.fromarray(pixels["input_hwc"])
    size = Size(*source.size)
    chosen = resize.nearest_size(size, tuple(Size(w, h) for w, h in about["var_center_crop_candidates_wh"]))
    assert [chosen.width, chosen.height] == about["var_center_crop_chosen_wh"]
    geometry = resize.centred(size, size, chosen, "lanczos")
    np.testing.assert_array_equal(np.asarray(resize.apply(source, geometry)), pixels["var_center_crop_hwc"])
