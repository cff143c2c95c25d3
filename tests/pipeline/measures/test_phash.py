from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from pipeline.measures.phash import GRID, Hashes, hash_distance, hash_grid, hash_picture, windows
from pipeline.pictures import open_picture
from tests.pipeline.pictures import CORPORA, columns_of, encode, measure, record, scene


def bits(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


def hashes(picture: Image.Image | np.ndarray, **options: object) -> Hashes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    found = hash_picture(encode(image, "JPEG", **{"quality": 90, **options}))
    assert found is not None
    return found


def cropped(image: Image.Image, share: float) -> Image.Image:
    """`share` of the side cut from each of the four sides."""
    left, top = round(image.width * share), round(image.height * share)
    return image.crop((left, top, image.width - left, image.height - top))


def banded(image: Image.Image) -> Image.Image:
    """A band with marks over the lowest 15 % of the height."""
    covered = image.copy()
    draw = ImageDraw.Draw(covered)
    top = image.height - round(image.height * 0.15)
    draw.rectangle((0, top, image.width, image.height), fill=(25, 25, 40))
    for left in range(0, image.width, max(8, image.width // 12)):
        draw.rectangle((left, top + 4, left + max(2, image.width // 25), top + 12), fill="white")
    return covered


def rewritten(image: Image.Image, quality: int = 90) -> Image.Image:
    return Image.open(io.BytesIO(encode(image, "JPEG", quality=quality)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "2 % cut from each side": lambda image: cropped(image, 0.02),
    "5 % cut from each side": lambda image: cropped(image, 0.05),
    "10 % cut from each side": lambda image: cropped(image, 0.10),
    "quality 30": lambda image: rewritten(image, 30),
    "a quarter of the size": lambda image: image.resize((max(1, image.width // 4), max(1, image.height // 4))),
    "mirrored": ImageOps.mirror,
    "mirrored, 5 % cut": lambda image: ImageOps.mirror(cropped(image, 0.05)),
    "a band over the lowest 15 %": banded,
}


def pinned_grid() -> np.ndarray:
    row, column = np.mgrid[0:GRID, 0:GRID]
    return np.asarray((row * row * 7 + column * 13 + row * column * 3) % 251, np.uint8)


PINNED = Hashes(
    full=-8792176868023284475,
    mirror=-3036142594653089707,
    windows=[
        -8864234454561550904,
        -8873382666698420791,
        -8873391185229134512,
        -8873382938827194150,
        -8875635425835367982,
        -9157601470935367249,
        -8891538135155819692,
    ],
)


def test_hashes_are_the_same_on_every_machine() -> None:
    assert hash_grid(pinned_grid()) == PINNED


def test_the_mirror_hash_is_the_hash_of_the_mirror_image_exactly() -> None:
    for seed in range(50):
        grid = np.random.default_rng(seed).integers(0, 256, (GRID, GRID), np.uint8)
        straight, mirrored = hash_grid(grid), hash_grid(grid[:, ::-1].copy())
        assert straight is not None
        assert mirrored is not None
        assert (straight.full, straight.mirror) == (mirrored.mirror, mirrored.full)


@given(st.integers(0, 2**32), st.integers(1, 256))
@settings(max_examples=50, deadline=None)
def test_hashes_fit_a_signed_column_and_half_of_their_bits_are_set(seed: int, levels: int) -> None:
    grid = np.random.default_rng(seed).integers(0, levels, (GRID, GRID), np.uint8)
    found = hash_grid(grid)
    if found is None:
        assert grid.std() < 1
        return
    for value in (found.full, found.mirror, *found.windows):
        assert -(2**63) <= value < 2**63
        assert (value & (2**64 - 1)).bit_count() <= 32
    assert len(found.windows) == len(windows())


@given(st.integers(0, 255))
def test_a_uniform_picture_has_no_hash(level: int) -> None:
    assert hash_grid(np.full((GRID, GRID), level, np.uint8)) is None


def test_the_hash_is_the_usual_one_but_for_a_few_bits() -> None:
    imagehash = pytest.importorskip("imagehash")
    for seed in range(10):
        picture = Image.fromarray(scene(400, 300, seed))
        usual = int(str(imagehash.phash(picture)), 16)
        assert bits(hashes(picture).full, usual) <= 6


def test_a_window_hashes_as_the_cropped_picture_does() -> None:
    for seed in range(5):
        picture = scene(640, 480, seed)
        found = hashes(picture)
        for (left, top, right, bottom), value in zip(windows(), found.windows, strict=True):
            part = picture[round(top * 480) : round(bottom * 480), round(left * 640) : round(right * 640)]
            assert bits(hashes(part).full, value) <= 4


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_candidates_and_other_pictures_are_not(copy: str) -> None:
    originals = [Image.fromarray(scene(640, 480, seed)) for seed in range(12)]
    known = [hashes(original) for original in originals]
    for number, original in enumerate(originals):
        found = hashes(COPIES[copy](original))
        distances = [hash_distance(found, other) for other in known]
        assert distances[number] <= 4
        assert min(distance for place, distance in enumerate(distances) if place != number) > 8


def test_the_distance_is_symmetric() -> None:
    one, other = hashes(scene(300, 200, 1)), hashes(cropped(Image.fromarray(scene(300, 200, 2)), 0.1))
    assert hash_distance(one, other) == hash_distance(other, one)
    assert hash_distance(one, one) == 0


def test_the_measure_writes_what_the_function_finds(tmp_path: Path) -> None:
    data = encode(scene(640, 480), "JPEG")
    found = columns_of(measure("phash"), record(tmp_path, data))
    known = hash_picture(data)
    assert known is not None
    assert found == {"phash": known.full, "phash_mirror": known.mirror, "phash_windows": known.windows}


def test_both_measures_agree_but_for_a_few_bits(tmp_path: Path) -> None:
    for seed in range(5):
        given_record = record(tmp_path, encode(scene(1100, 800, seed), "JPEG"))
        one = columns_of(measure("phash"), given_record)["phash"]
        assert bits(one, columns_of(measure("pixels"), given_record)["phash"]) <= 4


@cache
def real_pictures() -> list[tuple[Image.Image, Hashes]]:
    found = []
    for line in map(json.loads, (CORPORA / "images" / "manifest.jsonl").read_text().splitlines()[:100]):
        data = (CORPORA / "images" / line["file"]).read_bytes()
        known = hash_picture(data)
        original = open_picture(data)
        if known is not None and min(original.size) >= 128:
            found.append((original, known))
    return found


@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
@pytest.mark.parametrize("copy", COPIES)
def test_nineteen_of_twenty_copies_of_real_pictures_are_candidates_within_4(copy: str) -> None:
    found = [hash_distance(hashes(COPIES[copy](original)), known) <= 4 for original, known in real_pictures()]
    assert len(found) > 50
    assert sum(found) >= 0.95 * len(found)
