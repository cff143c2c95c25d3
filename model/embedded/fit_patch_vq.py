"""Fit the embedded image tokenizer's code book. Run from the repository root:

    python -m model.embedded.fit_patch_vq [OUTPUT.npz]

Reads the pictures that scikit-image ships and draws some of its own, and writes `model/embedded/patch_vq.npz`
(about ten seconds on one core). The same versions of scikit-image and Pillow give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from model.image_tokenizer import PATCH, Pixels
from model.patch_vq import EMBEDDED_FILE, PatchVQ, fit, patches_of

CODES = 1024
SEED = 20260422
ITERATIONS = 40
SIDES = (256, 384, 512)  # pixels of the shorter side: patches are met at the scales that stages use
PHOTO_PATCHES, DRAWN_PATCHES = 1000, 250  # at most, per picture and scale

# Those inside scikit-image's own package; the rest of its gallery would be downloaded.
PHOTOS = (
    "astronaut",
    "coffee",
    "cat",
    "rocket",
    "retina",
    "hubble_deep_field",
    "immunohistochemistry",
    "colorwheel",
)
GREY = ("camera", "coins", "moon", "page", "text", "brick", "grass", "gravel", "clock")


def shipped_pictures() -> Iterator[Pixels]:
    """uint8 RGB pictures of scikit-image, read from its installed package."""
    from skimage import data

    for name in PHOTOS:
        yield np.asarray(getattr(data, name)())[..., :3]
    for name in GREY:
        yield np.repeat(np.asarray(getattr(data, name)())[..., None], 3, axis=2)
    yield np.asarray(data.stereo_motorcycle()[0])


def drawn_pictures() -> Iterator[Pixels]:
    """Plain colours, ramps, coloured shapes, strokes and printed text: what photographs lack."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    steps = np.linspace(0, 255, 512)
    for corner in rng.integers(0, 256, (6, 3, 3)):
        start, across, down = corner.astype(np.float64)
        mix = (steps[None, :, None] * (across - start) + steps[:, None, None] * (down - start)) / 510 + start
        yield np.clip(mix, 0, 255).astype(np.uint8)
    for _ in range(12):
        yield np.asarray(_shapes(rng))
    for size in (14, 20, 28, 40):
        yield np.asarray(_printed(size))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
    return red, green, blue


def _shapes(rng: np.random.Generator) -> PIL.Image.Image:
    image = PIL.Image.new("RGB", (512, 512), _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = (int(v) for v in rng.integers(0, 440, 2))
        w, h = (int(v) for v in rng.integers(24, 180, 2))
        box, colour, kind = (x, y, x + w, y + h), _colour(rng), int(rng.integers(4))
        if kind == 0:
            draw.ellipse(box, fill=colour)
        elif kind == 1:
            draw.rectangle(box, fill=colour)
        elif kind == 2:
            draw.polygon([(x, y + h), (x + w // 2, y), (x + w, y + h)], fill=colour)
        else:
            draw.line(box, fill=colour, width=int(rng.integers(2, 14)))
    return image


def _printed(size: int) -> PIL.Image.Image:
    image = PIL.Image.new("RGB", (512, 512), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    text = "The quick brown fox jumps over the lazy dog 0123456789 "
    for row, top in enumerate(range(4, 500, size + 6)):
        draw.text((4, top), (text[row % 11 :] + text * 3)[: 900 // size], fill="black", font=font)
    return image


def training_patches(pictures: Iterator[Pixels], at_most: int) -> Pixels:
    """uint8 [n, 16, 16, 3]: `at_most` patches of each picture at each scale, evenly spread."""
    parts = []
    for picture in pictures:
        for side in SIDES:
            image = PIL.Image.fromarray(picture)
            scale = side / min(image.size)
            size = (max(PATCH, round(image.width * scale)), max(PATCH, round(image.height * scale)))
            patches = patches_of(np.asarray(image.resize(size, PIL.Image.Resampling.BICUBIC)))
            keep = np.linspace(0, len(patches) - 1, min(len(patches), at_most))
            parts.append(patches[keep.astype(np.int64)])
    return np.concatenate(parts)


def fit_embedded() -> PatchVQ:
    """The code book that ships with the project."""
    photos = training_patches(shipped_pictures(), PHOTO_PATCHES)
    drawn = training_patches(drawn_pictures(), DRAWN_PATCHES)
    return fit(np.concatenate([photos, drawn]), CODES, SEED, ITERATIONS)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED_FILE
    book = fit_embedded()
    book.save(target)
    print(f"{target}: {book.codes} codes, revision {book.revision}, {target.stat().st_size} bytes")
