"""Whether two pictures show the same photograph: copies are found, look-alikes are not."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from pipeline.measures.same_picture import agreeing, describe, match, same_picture, sketch
from tests.pipeline.measures.copies import COPIES, captioned, cropped, mirrored, recompressed, resized
from tests.pipeline.pictures import scene

IMAGES = Path(__file__).parents[4] / "shared" / "corpora" / "images"

data = pytest.importorskip("skimage.data")
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry")


def photo(name: str) -> np.ndarray:
    picture = getattr(data, name)()
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_the_same_picture_seen_from_either_side(name, copy):
    picture = photo(name)
    one, two = describe(picture), describe(COPIES[copy](picture))
    assert match(one, two).same
    assert match(two, one).same
    assert match(one, two).mirrored == match(two, one).mirrored == (copy == "mirror")


@pytest.mark.parametrize("name", PHOTOS[:3])
def test_a_small_recompressed_mirrored_crop_is_the_same_picture(name):
    picture = photo(name)
    copy = recompressed(resized(mirrored(cropped(picture, 0.08)), 0.5), 60)
    found = same_picture(picture, copy)
    assert found.same
    assert found.mirrored
    assert found.inliers > 0
    assert found.scale == pytest.approx(0.5, rel=0.03)
    assert found.overlap == pytest.approx(1.0, abs=0.03)


def test_scale_is_pixels_of_the_second_to_one_of_the_first():
    picture = photo("coffee")
    assert same_picture(picture, resized(picture, 0.25)).scale == pytest.approx(0.25, rel=0.02)
    assert same_picture(resized(picture, 0.25), picture).scale == pytest.approx(4.0, rel=0.02)
    assert same_picture(picture, cropped(picture, 0.1)).scale == pytest.approx(1.0, rel=0.02)


def test_a_picture_squeezed_to_a_square_is_the_same_picture():
    picture = photo("rocket")
    assert same_picture(picture, np.asarray(Image.fromarray(picture).resize((400, 400)))).same


def clouds(seed: int, strength: float = 90.0) -> np.ndarray:
    """Soft light and shade without a corner."""
    coarse = np.random.default_rng(seed).normal(128, strength, (7, 9)).astype(np.float32)
    soft = cv2.GaussianBlur(cv2.resize(coarse, (600, 440), interpolation=cv2.INTER_CUBIC), (0, 0), 20)
    return np.repeat(np.clip(soft, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_crops_and_squeezes_are_found_without_key_points(share):
    picture = clouds(1)
    copy = cropped(picture, share)
    assert len(describe(copy).plain.codes) < 20
    assert same_picture(picture, copy).same
    assert same_picture(mirrored(copy), picture).same
    assert same_picture(picture, np.asarray(Image.fromarray(picture).resize((400, 400)))).same


def test_textures_of_one_shade_are_different_pictures():
    one, two = (
        cv2.resize(np.random.default_rng(seed).normal(128, 20, (44, 60)), (600, 440)).clip(0, 255).astype(np.uint8)
        for seed in (1, 2)
    )
    assert abs(cv2.resize(one, (12, 24), interpolation=cv2.INTER_AREA).astype(int) - 128).max() < 24
    assert not same_picture(*(np.repeat(each[..., None], 3, axis=2) for each in (one, two))).same


def test_an_icon_is_the_same_picture_as_the_large_original():
    assert same_picture(photo("brick"), resized(photo("brick"), 0.05)).same
    assert same_picture(photo("rocket"), resized(photo("rocket"), 0.05)).same


def test_different_photos_are_different_pictures():
    described = {name: describe(photo(name)) for name in (*PHOTOS, "camera", "coins", "brick", "grass", "page")}
    names = sorted(described)
    for place, one in enumerate(names):
        for two in names[:place]:
            found = match(described[one], described[two])
            assert not found.same, (one, two, found)
            assert found.score < 0.6, (one, two, found)


def test_two_photos_under_the_same_captions_are_different_pictures():
    framed = [
        captioned(captioned(np.asarray(Image.fromarray(photo(name)).resize((600, 400)))), "WHEN YOU SEE IT", True)
        for name in ("coffee", "rocket")
    ]
    assert not same_picture(*framed).same


def chart(values: list[int]) -> np.ndarray:
    page = Image.new("RGB", (640, 480), "white")
    pen = ImageDraw.Draw(page)
    for level in range(8):
        pen.text((10, 420 - level * 50), str(level * 10), fill="black")
        pen.line((50, 425 - level * 50, 620, 425 - level * 50), fill=(210, 210, 210))
    for place, value in enumerate(values):
        left = 80 + place * 90
        pen.rectangle((left, 425 - value * 5, left + 50, 425), fill=(40, 90, 160))
        pen.text((left + 10, 440), f"Q{place + 1}", fill="black")
    return np.asarray(page)


def test_two_charts_with_the_same_axes_are_different_pictures():
    one = chart([70, 30, 10, 55, 20, 62])
    assert not same_picture(one, chart([20, 66, 48, 12, 60, 25])).same
    assert same_picture(one, recompressed(one)).same
    assert same_picture(one, cropped(one, 0.05)).same


def table_with(angle: float, middle: tuple[int, int]) -> np.ndarray:
    """A patterned thing on a bare table."""
    grain = np.random.default_rng(1).integers(0, 255, (12, 30, 3), np.uint8)
    thing = Image.fromarray(grain).resize((240, 96), Image.Resampling.NEAREST)
    turned = thing.convert("RGBA").rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    shade = np.linspace(190, 225, 640)[None].repeat(480, 0)
    table = Image.fromarray(np.stack([shade, shade - 10, shade - 25], axis=2).astype(np.uint8))
    table.paste(turned, (middle[0] - turned.width // 2, middle[1] - turned.height // 2), turned)
    return np.asarray(table)


def test_the_same_thing_moved_on_the_same_table_is_a_different_picture():
    assert same_picture(table_with(20, (250, 200)), recompressed(table_with(20, (250, 200)))).same
    assert not same_picture(table_with(20, (250, 200)), table_with(75, (400, 260))).same
    assert not same_picture(table_with(20, (250, 200)), table_with(20, (420, 300))).same


def plain(colour: tuple[int, int, int], height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_flat_pictures_are_the_same_in_the_same_colour_only():
    assert same_picture(plain((200, 30, 30)), recompressed(plain((200, 30, 30), 10, 15))).same
    assert not same_picture(plain((200, 30, 30)), plain((30, 200, 30))).same
    assert not same_picture(plain((0, 0, 0)), plain((40, 40, 40))).same


def test_a_blank_page_is_no_copy_of_a_page_with_a_line_of_text():
    page = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(page).text((30, 20), "The only line of this page", fill="black", font_size=24)
    assert not same_picture(plain((255, 255, 255), 300, 400), np.asarray(page)).same
    assert same_picture(np.asarray(page), recompressed(np.asarray(page))).same


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (4, 4), (7, 13), (16, 16)])
def test_tiny_and_thin_pictures_are_themselves_and_no_photo(shape):
    tiny = np.random.default_rng(2).integers(0, 255, (*shape, 3), np.uint8)
    assert same_picture(tiny, tiny.copy()).same
    for name in PHOTOS:
        assert not same_picture(tiny, photo(name)).same
        assert not same_picture(photo(name), tiny).same


def test_nothing_that_ran_before_changes_the_answer():
    one, two = photo("coffee"), cropped(photo("coffee"), 0.1)
    first = same_picture(one, two)
    cv2.setRNGSeed(99)
    cv2.setNumThreads(2)
    same_picture(photo("rocket"), photo("astronaut"))
    assert same_picture(one, two) == first
    again, before = describe(two), describe(two)
    assert (again.plain.codes == before.plain.codes).all()
    assert (again.mirrored.points == before.mirrored.points).all()


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_not_an_rgb_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        describe(wrong)


@pytest.mark.corpora
@pytest.mark.skipif(not IMAGES.exists(), reason="the sample corpora are not here")
def test_real_pictures_match_their_copies_and_no_other():
    lines = [json.loads(line) for line in (IMAGES / "manifest.jsonl").read_text().splitlines()]
    chosen = [line for line in lines if "coco-mini" in line["id"]][:8]
    chosen += [line for line in lines if any(word in line["id"] for word in ("hemlock", "fork", "scissors", "berry"))]
    pictures = [
        np.asarray(ImageOps.exif_transpose(Image.open(IMAGES / line["file"])).convert("RGB")) for line in chosen
    ]
    described = [describe(picture) for picture in pictures]
    for line, picture, one in zip(chosen, pictures, described, strict=True):
        for copy in ("crop10", "band"):
            assert match(one, describe(COPIES[copy](picture))).same, (line["id"], copy)
    for place, one in enumerate(described):
        for other, two in enumerate(described[:place]):
            assert not match(one, two).same, (chosen[place]["id"], chosen[other]["id"])


def test_key_points_agree_on_crops_and_mirror_images_but_not_on_a_turned_thing() -> None:
    picture = scene(480, 360, 3)
    known = describe(picture)
    kept = sketch(known.height, known.width, known.plain.points, known.plain.codes)
    for copy, turned_over in ((picture[40:330, 60:450], False), (picture[:, ::-1], True)):
        inliers, flipped = agreeing(kept, describe(np.ascontiguousarray(copy)))
        assert inliers >= 100
        assert flipped is turned_over
    turn = cv2.getRotationMatrix2D((240, 180), 25, 1.0)
    assert agreeing(kept, describe(cv2.warpAffine(picture, turn, (480, 360)))) == (0, False)
    assert agreeing(kept, describe(scene(480, 360, 4)))[0] < 20
