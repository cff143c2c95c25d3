"""The embedded image tokenizer: vector quantisation of 16-pixel patches, which can also draw its codes.

It stands in for SigLIP-VQ where there is no download and no GPU. Its codes describe how a patch looks, not
what it means. Features are small integers held in float32, so every product and sum below is exact whatever
the order of summation: any BLAS, batch size or schedule gives the same codes.

Axes: n patches, k codes, f features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from model.image_tokenizer import PATCH, Codes, Grid, Pixels, check_pixels

EMBEDDED_FILE = Path(__file__).parent / "embedded" / "patch_vq.npz"
EMBEDDED_NAME = "patch-vq"
FORMAT = 1
PICTURE = 8  # pixels per side of a code's stored picture

# Weights of the squared distance: 4x4 luma cells against 2x2 cells of each chroma. A chroma cell covers four
# luma cells.
_LUMA_WEIGHT, _CHROMA_WEIGHT = 2, 3
FEATURES = 16 + 4 + 4
# |2 x.c| + |c|^2 < 2^24 for every feature vector, so float32 holds all partial sums exactly.
assert 3 * (16 * (_LUMA_WEIGHT * 128) ** 2 + 8 * (_CHROMA_WEIGHT * 128) ** 2) < 2**24

_SEAM = 48  # of 255: largest step between two pictures that counts as a seam
_DISTANCES_AT_ONCE = 1 << 21  # float32 numbers of one distance table; bounds memory, changes nothing else

Features = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class PatchVQ:
    """A code book: centre features int16 [k, f] and the mean picture of each code, uint8 RGB [k, 8, 8, 3]."""

    centres: Features
    pictures: Pixels
    revision: str
    name: str = EMBEDDED_NAME

    def __post_init__(self) -> None:
        k = len(self.centres)
        if self.centres.shape != (k, FEATURES) or self.centres.dtype != np.int16 or k == 0:
            raise ValueError(f"centres must be int16 [k, {FEATURES}], got {self.centres.dtype} {self.centres.shape}")
        if self.pictures.shape != (k, PICTURE, PICTURE, 3) or self.pictures.dtype != np.uint8:
            raise ValueError(f"pictures must be uint8 [{k}, {PICTURE}, {PICTURE}, 3], got {self.pictures.shape}")
        limit = _CHROMA_WEIGHT * 128
        if int(np.abs(self.centres.astype(np.int32)).max()) > limit:
            raise ValueError(f"a centre lies outside the features' range of +-{limit}")

    @property
    def is_embedded(self) -> bool:
        """Always: a patch quantiser is a stand-in, whoever fitted it."""
        return True

    @property
    def patch(self) -> int:
        """Pixels per side of a patch."""
        return PATCH

    @property
    def codes(self) -> int:
        """Size of the code book."""
        return len(self.centres)

    def fingerprint(self) -> str:
        """SHA-256 of name, format and both arrays."""
        digest = hashlib.sha256(f"{self.name} {FORMAT} {self.codes} ".encode())
        digest.update(np.ascontiguousarray(self.centres, dtype="<i2").tobytes())
        digest.update(np.ascontiguousarray(self.pictures).tobytes())
        return digest.hexdigest()

    def encode(self, image: Pixels) -> Codes:
        """uint8 RGB [H, W, 3], multiples of 16 -> int32 codes [H/16, W/16]; ties go to the lowest code."""
        grid = check_pixels(image, PATCH)
        return self._nearest(features(image)).reshape(grid.height, grid.width)

    def encode_batch(self, images: Sequence[Pixels]) -> list[Codes]:
        """`encode` of each picture; they may differ in size."""
        return [self.encode(image) for image in images]

    def decode(self, codes: Codes) -> Pixels:
        """int32 codes [h, w] -> uint8 RGB [16h, 16w, 3]: the codes' mean pictures, joined and enlarged."""
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"codes must be integers [height, width], got {codes.dtype} {list(codes.shape)}")
        grid = Grid(*codes.shape)
        if codes.min() < 0 or codes.max() >= self.codes:
            raise ValueError(f"codes {codes.min()}..{codes.max()} reach outside the code book 0..{self.codes - 1}")
        mosaic = self.pictures[codes].transpose(0, 2, 1, 3, 4)
        mosaic = mosaic.reshape(grid.height * PICTURE, grid.width * PICTURE, 3)
        small = PIL.Image.fromarray(_without_seams(mosaic))
        size = (grid.width * PATCH, grid.height * PATCH)
        return np.asarray(small.resize(size, PIL.Image.Resampling.BILINEAR)).copy()

    def save(self, path: str | Path) -> None:
        """Write an `.npz`; the same code book always gives the same bytes."""
        with Path(path).open("wb") as file:
            np.savez(
                file,
                format=np.int64(FORMAT),
                revision=np.array(self.revision),
                centres=self.centres,
                pictures=self.pictures,
            )

    @classmethod
    def load(cls, path: str | Path) -> PatchVQ:
        """Read what `save` wrote. Raises ValueError for another format."""
        with np.load(path, allow_pickle=False) as stored:
            if "format" not in stored or int(stored["format"]) != FORMAT:
                raise ValueError(f"{path} is no patch quantiser of format {FORMAT}")
            return cls(stored["centres"], stored["pictures"], str(stored["revision"]))

    @classmethod
    def embedded(cls) -> PatchVQ:
        """The 1,024-code book that ships with the project (`model/embedded/fit_patch_vq.py` made it)."""
        return cls.load(EMBEDDED_FILE)

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        """[f + 1, k]: [x, 1] @ table = |c|^2 - 2 x.c, the squared distance less what all codes share."""
        return _distance_table(self.centres.astype(np.int64))

    def _nearest(self, patch_features: Features) -> Codes:
        return _nearest(patch_features, self._table)


def features(image: Pixels) -> Features:
    """Patches of a uint8 RGB picture [H, W, 3] -> int16 [n, f] in raster order, each number within +-384.

    Area means of 4x4 pixels give luma, of 8x8 pixels give two colour differences (JPEG's, in integers), all
    centred on zero and multiplied by their weight.
    """
    height, width = image.shape[0] // PATCH, image.shape[1] // PATCH
    rows = image.reshape(-1, 4, image.shape[1], 3)
    sums = rows[:, 0].astype(np.uint16)
    for r in range(1, 4):
        sums += rows[:, r]
    columns = sums.reshape(len(sums), -1, 4, 3)
    cells = columns[:, :, 0].astype(np.int32)
    for c in range(1, 4):
        cells += columns[:, :, c]
    quads = cells.reshape(height * 2, 2, width * 2, 2, 3)
    quads = quads[:, 0, :, 0] + quads[:, 0, :, 1] + quads[:, 1, :, 0] + quads[:, 1, :, 1]
    # Weights sum to 256 (luma) and 0 (chroma); the shifts divide by them and by the pixels of a cell,
    # rounding.
    luma = (cells @ np.array([77, 150, 29], np.int32) + (1 << 11)) >> 12
    blue = (quads @ np.array([-43, -85, 128], np.int32) + (1 << 13)) >> 14
    red = (quads @ np.array([128, -107, -21], np.int32) + (1 << 13)) >> 14
    parts = [(luma - 128, 4, _LUMA_WEIGHT), (blue, 2, _CHROMA_WEIGHT), (red, 2, _CHROMA_WEIGHT)]
    rows_of_parts = [
        (part.reshape(height, side, width, side).transpose(0, 2, 1, 3) * weight).reshape(height * width, side * side)
        for part, side, weight in parts
    ]
    return np.concatenate(rows_of_parts, axis=1).astype(np.int16)


def patches_of(image: Pixels) -> Pixels:
    """uint8 RGB [H, W, 3] -> its whole patches [n, 16, 16, 3] in raster order; a rest is left out."""
    height, width = image.shape[0] // PATCH, image.shape[1] // PATCH
    whole = image[: height * PATCH, : width * PATCH].reshape(height, PATCH, width, PATCH, 3)
    return np.ascontiguousarray(whole.transpose(0, 2, 1, 3, 4)).reshape(-1, PATCH, PATCH, 3)


def _without_seams(mosaic: Pixels) -> Pixels:
    """Spread each small step between neighbouring pictures over four pixels either side. uint8 [8h, 8w, 3].

    A step above _SEAM is taken for an edge of the picture and left alone.
    """
    smooth = mosaic.astype(np.int32)
    for axis in (0, 1):
        lines = np.moveaxis(smooth, axis, 0)
        tiles = lines.reshape(-1, PICTURE, *lines.shape[1:])
        step = tiles[1:, 0] - tiles[:-1, -1]
        step[np.abs(step).max(axis=-1) > _SEAM] = 0
        joined = tiles.copy()
        for distance in range(4):
            share = step * (4 - distance) // 10
            joined[:-1, -1 - distance] += share
            joined[1:, distance] -= share
        smooth = np.moveaxis(joined.reshape(lines.shape), 0, axis)
    joined_up: Pixels = np.clip(smooth, 0, 255).astype(np.uint8)
    return joined_up


def fit(patches: Pixels, codes: int, seed: int, iterations: int) -> PatchVQ:
    """k-means over uint8 patches [n, 16, 16, 3], all in integers: a function of its arguments alone.

    Raises ValueError when the patches show fewer than `codes` different features.
    """
    if patches.dtype != np.uint8 or patches.shape[1:] != (PATCH, PATCH, 3):
        raise ValueError(f"patches must be uint8 [n, {PATCH}, {PATCH}, 3], got {patches.dtype} {list(patches.shape)}")
    points = features(patches.reshape(-1, PATCH, 3))
    centres = _spread_start(points, codes, np.random.Generator(np.random.PCG64(seed)))
    for _ in range(iterations):
        moved = _means(points, _nearest(points, _distance_table(centres)), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    labels = _nearest(points, _distance_table(centres))
    # Codes by brightness: a reader of raw codes sees dark to light, and equal fits give equal orders.
    order = np.lexsort([*centres.T[::-1], centres[:, :16].sum(axis=1)])
    rank = np.argsort(order)
    pictures = _mean_pictures(patches, rank[labels], codes)
    revision = hashlib.sha256(np.ascontiguousarray(centres[order], dtype="<i2").tobytes()).hexdigest()[:12]
    return PatchVQ(centres[order].astype(np.int16), pictures, revision)


def _distance_table(centres: NDArray[np.int64]) -> NDArray[np.float32]:
    squares = (centres**2).sum(axis=1)
    return np.concatenate([-2 * centres.T, squares[None]]).astype(np.float32)


def _nearest(points: Features, table: NDArray[np.float32]) -> Codes:
    found = np.empty(len(points), np.int32)
    step = max(1, _DISTANCES_AT_ONCE // table.shape[1])
    for start in range(0, len(points), step):
        part = points[start : start + step]
        augmented = np.ones((len(part), FEATURES + 1), np.float32)
        augmented[:, :FEATURES] = part
        found[start : start + step] = np.argmin(augmented @ table, axis=1)
    return found


def _spread_start(points: Features, codes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """k-means++: a centre is drawn in proportion to its squared distance from those before it."""
    exact = points.astype(np.float32)
    chosen = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.iinfo(np.int64).max)
    while len(chosen) < codes:
        gap = exact - exact[chosen[-1]]
        distance = np.minimum(distance, np.einsum("nf,nf->n", gap, gap).astype(np.int64))
        total = distance.cumsum()
        if total[-1] == 0:
            raise ValueError(f"the patches show only {len(chosen)} different features; {codes} codes were asked for")
        chosen.append(int(np.searchsorted(total, rng.integers(total[-1]), side="right")))
    return points[chosen].astype(np.int64)


def _means(points: Features, labels: Codes, centres: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rounded mean of each code's points; a code without points stays where it is."""
    counts = np.bincount(labels, minlength=len(centres))
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    used = counts > 0
    sums = np.add.reduceat(points[order].astype(np.int64), starts[used], axis=0)
    moved = centres.copy()
    moved[used] = (2 * sums + counts[used, None]) // (2 * counts[used, None])
    return moved


def _mean_pictures(patches: Pixels, labels: NDArray[np.int64], codes: int) -> Pixels:
    """Mean of each code's patches, halved in size by area, rounded."""
    halves = patches.reshape(-1, PICTURE, 2, PICTURE, 2, 3).sum(axis=(2, 4), dtype=np.int64)
    flat = halves.reshape(len(patches), -1)
    sums = np.zeros((codes, flat.shape[1]), np.int64)
    np.add.at(sums, labels, flat)
    pixels = 4 * np.maximum(np.bincount(labels, minlength=codes), 1)[:, None]
    means: Pixels = ((2 * sums + pixels) // (2 * pixels)).astype(np.uint8)
    return means.reshape(codes, PICTURE, PICTURE, 3)
