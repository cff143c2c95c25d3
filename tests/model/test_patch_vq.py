from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import patch_vq
from model.embedded import fit_patch_vq
from model.image_tokenizer import Pixels
from model.patch_vq import EMBEDDED_FILE, PatchVQ
from model.resize import Size, apply, for_generation

BOOK = PatchVQ.embedded()


def noise(height: int, width: int, seed: int) -> Pixels:
    """Smooth blobs and grain: a picture with every kind of patch."""
    rng = np.random.Generator(np.random.PCG64(seed))
    small = rng.integers(0, 256, (max(1, height // 24), max(1, width // 24), 3), dtype=np.uint8)
    smooth = np.asarray(PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC))
    grain = rng.integers(-20, 21, smooth.shape)
    return np.clip(smooth.astype(np.int64) + grain, 0, 255).astype(np.uint8)


def photograph(name: str, side: int = 512) -> Pixels:
    data = pytest.importorskip("skimage.data")
    image = PIL.Image.fromarray(getattr(data, name)())
    return np.asarray(apply(image, for_generation(Size(*image.size), side)))


def slow_features(patch: Pixels) -> list[int]:
    """The definition, one patch [16, 16, 3] at a time, in Python's integers."""
    pixels = patch.tolist()

    def area(top: int, left: int, side: int, weights: tuple[int, int, int]) -> int:
        cells = [pixels[y][x] for y in range(top, top + side) for x in range(left, left + side)]
        total = sum(w * channel for cell in cells for w, channel in zip(weights, cell, strict=True))
        divisor = 256 * side * side
        return (2 * total + divisor) // (2 * divisor)

    luma = [2 * (area(y, x, 4, (77, 150, 29)) - 128) for y in range(0, 16, 4) for x in range(0, 16, 4)]
    blue = [3 * area(y, x, 8, (-43, -85, 128)) for y in (0, 8) for x in (0, 8)]
    red = [3 * area(y, x, 8, (128, -107, -21)) for y in (0, 8) for x in (0, 8)]
    return luma + blue + red


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_codes_are_the_nearest_centres_by_definition(height: int, width: int, seed: int):
    """Against exact integers, ties to the lowest code."""
    image = noise(16 * height, 16 * width, seed)
    expected = []
    for patch in patch_vq.patches_of(image):
        gaps = BOOK.centres.astype(np.int64) - np.array(slow_features(patch))
        expected.append(int(np.argmin((gaps**2).sum(axis=1))))
    assert BOOK.encode(image).tolist() == np.array(expected).reshape(height, width).tolist()


def test_equally_near_centres_give_the_lowest_code():
    doubled = PatchVQ(np.repeat(BOOK.centres, 2, axis=0), np.repeat(BOOK.pictures, 2, axis=0), "x")
    image = noise(64, 96, 1)
    np.testing.assert_array_equal(doubled.encode(image), 2 * BOOK.encode(image))


def test_all_sums_are_exact_in_float32():
    """The largest possible terms of a distance, added in any order, stay below 2^24."""
    extremes = patch_vq.features(np.array([[[0, 0, 0]], [[255, 255, 255]]], np.uint8).repeat(16, 0).repeat(16, 1))
    assert np.abs(extremes).max() <= 256
    colours = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)
    patches = np.broadcast_to(colours[:, None, None], (8, 16, 16, 3)).reshape(-1, 16, 3)
    found = patch_vq.features(np.ascontiguousarray(patches)).astype(np.int64)
    limits = np.abs(found).max(axis=0)
    assert 3 * int((limits**2).sum()) < 2**24
    assert np.abs(BOOK.centres).max() <= np.abs(found).max()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5000))
def test_the_batch_never_matters(seed: int, at_once: int):
    image = noise(160, 96, seed)
    whole = BOOK.encode(image)
    rows = [BOOK.encode(np.ascontiguousarray(image[top : top + 16]))[0] for top in range(0, 160, 16)]
    np.testing.assert_array_equal(whole, np.stack(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_vq, "_DISTANCES_AT_ONCE", at_once)
        np.testing.assert_array_equal(BOOK.encode(image), whole)


def test_pictures_of_several_sizes_encode_as_one_by_one():
    images = [noise(32, 64, 1), noise(64, 32, 2)]
    for codes, image in zip(BOOK.encode_batch(images), images, strict=True):
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(codes, BOOK.encode(image))


def test_a_picture_need_not_be_contiguous():
    image = noise(64, 64, 3)
    np.testing.assert_array_equal(BOOK.encode(image[::-1]), BOOK.encode(image[::-1].copy()))


def test_codes_outside_the_book_are_refused():
    for wrong in (np.array([[1024]]), np.array([[-1]])):
        with pytest.raises(ValueError, match=r"reach outside the code book 0\.\.1023"):
            BOOK.decode(wrong)
    with pytest.raises(ValueError, match="codes must be integers"):
        BOOK.decode(np.zeros(3, np.int32))


def test_a_plain_colour_is_drawn_back():
    for colour in ((0, 0, 0), (255, 255, 255), (128, 128, 128)):
        image = np.broadcast_to(np.array(colour, np.uint8), (64, 48, 3))
        drawn = BOOK.decode(BOOK.encode(image))
        assert drawn.shape == image.shape
        assert np.abs(drawn.astype(int) - image).max() < 24


@pytest.mark.parametrize(("name", "least"), [("astronaut", 20.5), ("coffee", 22.0), ("chelsea", 25.0)])
def test_a_drawn_photograph_is_recognisable(name: str, least: float):
    image = photograph(name)
    drawn = BOOK.decode(BOOK.encode(image))
    error = np.mean((image.astype(np.float64) - drawn) ** 2)
    assert 10 * np.log10(255**2 / error) > least


def test_a_small_step_between_codes_is_spread_over_both():
    flat = PatchVQ(BOOK.centres[:2], np.stack([np.full((8, 8, 3), v, np.uint8) for v in (100, 120)]), "x")
    for codes in (np.array([[0, 1]]), np.array([[0], [1]])):
        line = flat.decode(codes).astype(int).mean(axis=(codes.shape.index(1), 2))
        assert (line[0], line[-1]) == (100, 120)
        assert np.all(np.diff(line) >= 0)
        assert np.diff(line).max() <= 2


def test_an_edge_of_the_picture_is_not_smeared():
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    mosaic = np.concatenate([black, white], axis=1)
    np.testing.assert_array_equal(patch_vq._without_seams(mosaic), mosaic)


def test_fitting_is_a_function_of_its_arguments():
    patches = patch_vq.patches_of(noise(320, 320, 4))
    first = patch_vq.fit(patches, 16, seed=1, iterations=5)
    assert patch_vq.fit(patches, 16, seed=1, iterations=5).fingerprint() == first.fingerprint()
    assert patch_vq.fit(patches, 16, seed=2, iterations=5).fingerprint() != first.fingerprint()


def test_more_iterations_fit_better():
    patches = patch_vq.patches_of(noise(320, 320, 4))
    points = patch_vq.features(patches.reshape(-1, 16, 3)).astype(np.int64)

    def error(iterations: int) -> int:
        book = patch_vq.fit(patches, 16, seed=1, iterations=iterations)
        codes = book.encode(patches.reshape(-1, 16, 3))[:, 0]
        return int(((points - book.centres[codes]) ** 2).sum())

    assert error(0) > error(2) > error(10)


def test_a_fit_finds_the_colours_that_are_there():
    colours = np.array([[250, 0, 0], [0, 0, 250], [0, 250, 0], [250, 250, 250]], np.uint8)
    patches = np.broadcast_to(colours[:, None, None, :], (4, 16, 16, 3)).repeat(5, axis=0)
    book = patch_vq.fit(np.ascontiguousarray(patches), 4, seed=0, iterations=3)
    found = {tuple(picture[0, 0].tolist()) for picture in book.pictures}
    assert found == {tuple(colour.tolist()) for colour in colours}
    assert np.all(np.diff(book.centres[:, :16].astype(int).sum(axis=1)) >= 0)
    row = colours.repeat(16, axis=0)[None].repeat(16, axis=0)
    np.testing.assert_array_equal(book.pictures[book.encode(row)[0], 4, 4], colours)


def test_fitting_needs_enough_different_patches():
    patches = np.zeros((50, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="only 1 different features; 2 codes were asked for"):
        patch_vq.fit(patches, 2, seed=0, iterations=1)
    with pytest.raises(ValueError, match="patches must be uint8"):
        patch_vq.fit(patches[:, :8], 2, seed=0, iterations=1)


def test_a_saved_book_comes_back_and_saves_to_the_same_bytes(tmp_path: Path):
    for name in ("a.npz", "b.npz"):
        BOOK.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = PatchVQ.load(tmp_path / "a.npz")
    assert (again.fingerprint(), again.revision) == (BOOK.fingerprint(), BOOK.revision)


def test_a_foreign_file_is_refused(tmp_path: Path):
    np.savez(tmp_path / "x.npz", centres=BOOK.centres)
    with pytest.raises(ValueError, match="no patch quantiser of format 1"):
        PatchVQ.load(tmp_path / "x.npz")


def test_impossible_books_are_refused():
    with pytest.raises(ValueError, match="centres must be int16"):
        PatchVQ(BOOK.centres[:, :5], BOOK.pictures, "x")
    with pytest.raises(ValueError, match="pictures must be uint8"):
        PatchVQ(BOOK.centres, BOOK.pictures[:5], "x")
    with pytest.raises(ValueError, match="outside the features' range"):
        PatchVQ(BOOK.centres + np.int16(2000), BOOK.pictures, "x")


def test_every_part_of_the_book_counts_for_the_fingerprint():
    pictures = BOOK.pictures.copy()
    pictures[3, 0, 0, 0] ^= 1
    centres = BOOK.centres.copy()
    centres[3, 0] += 1
    prints = {
        BOOK.fingerprint(),
        PatchVQ(BOOK.centres, pictures, "x").fingerprint(),
        PatchVQ(centres, BOOK.pictures, "x").fingerprint(),
    }
    assert len(prints) == 3


def test_the_shipped_book_is_small_and_all_of_it_is_used():
    assert EMBEDDED_FILE.stat().st_size < 300_000
    assert len(np.unique(BOOK.centres, axis=0)) == BOOK.codes == fit_patch_vq.CODES


def test_the_fitting_script_draws_and_fits():
    patches = fit_patch_vq.training_patches(fit_patch_vq.drawn_pictures(), 20)
    assert patches.shape[1:] == (16, 16, 3)
    assert patch_vq.fit(patches, 32, seed=0, iterations=1).codes == 32


def test_codes_of_a_picture_never_change():
    """Shards hold these codes. A new code book is a new tokenizer, with a new fingerprint."""
    rng = np.random.Generator(np.random.PCG64(20260422))
    image = rng.integers(0, 256, (12, 24, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    assert BOOK.fingerprint() == "b079aa5f724a8fd48b9532e7558097679ad982dcef4f7392ac328341e3b64682"
    assert BOOK.encode(image).tolist() == [
        [336, 472, 351, 391, 587, 599],
        [561, 543, 604, 560, 645, 450],
        [639, 637, 550, 521, 710, 381],
    ]
