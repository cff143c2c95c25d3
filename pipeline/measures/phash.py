"""Perceptual hashes of 64 bits: of the whole picture, of its mirror image, and of windows of it.

The definition is the common one (`imagehash.phash`): the picture's grey values on 32 x 32 cells, their
two-dimensional DCT, the 8 x 8 lowest frequencies, one bit each: above their median or not. Ours averages
areas where the library resamples with a Lanczos filter, so its hashes differ from ours by a few bits.

Windows find cropped copies: the hash of a crop is close to the hash of the same window of the original. So
candidates are

- `phash` of one picture against `phash`, `phash_mirror` and each of `phash_windows` of the other, both ways;
- the last two windows of both, index by index: they leave out a band of 15 % at the bottom and at the top,
  where captions and watermarks stand.

Everything from 64 x 64 grey values on is exact integer arithmetic (in float64, below 2^53), the same on every
machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.operator import Column, Measure, Params, Record
from pipeline.pictures import DEFAULT_LIMITS, PILLOW_LIMIT, Limits, decode_scaled

GRID = 64
"""Side of the square of grey values that hashes are computed from."""

CELLS = 32
FREQUENCIES = 8

CENTRE_WINDOWS = (0.96, 0.92, 0.88, 0.84, 0.80)
"""Share of each side that a centre window keeps: cuts of 2 to 10 % a side, and those in between."""

BAND = 0.15
"""Share of the height that the last two windows leave out."""

MIN_CONTRAST = 1.0
"""Standard deviation of the grey values (0-255) below which a picture has no structure to hash."""

_SCALE = 2.0**16


class Hashes(NamedTuple):
    """64-bit hashes as signed integers of the same bits; row-major, lowest frequency in the highest bit."""

    full: int
    mirror: int
    windows: list[int]


def hash_grid(grid: NDArray[np.uint8]) -> Hashes | None:
    """Hashes of grey values [64, 64], the picture squeezed into a square; None when it is all but uniform."""
    if grid.std() < MIN_CONTRAST:
        return None
    rows, columns, mirror = _bases()
    projected = (rows @ grid.astype(np.float64)).reshape(-1, FREQUENCIES, GRID)
    spectra = np.empty((len(projected) + 1, FREQUENCIES, FREQUENCIES))
    np.matmul(projected, columns, out=spectra[1:])
    np.multiply(spectra[1], mirror, out=spectra[0])
    flat = spectra.reshape(len(spectra), -1)
    middle = np.partition(flat, (31, 32), axis=1)[:, 31:33].sum(axis=1, keepdims=True)
    hashes = np.packbits(2 * flat > middle, axis=1).view(">i8")[:, 0].tolist()
    return Hashes(hashes[1], hashes[0], hashes[2:])


def hash_grey(grey: NDArray[np.uint8]) -> Hashes | None:
    """Hashes of an upright grey picture [height, width]."""
    import cv2

    return hash_grid(cv2.resize(grey, (GRID, GRID), interpolation=cv2.INTER_AREA))


def hash_picture(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Hashes | None:
    """Hashes straight from a file's bytes, from the smallest decode that will do; raises Quarantine."""
    import cv2

    return hash_grey(cv2.cvtColor(decode_scaled(data, GRID, limits), cv2.COLOR_RGB2GRAY))


def hash_distance(a: Hashes, b: Hashes) -> int:
    """The smallest number of differing bits over all comparisons that make candidates (see above)."""
    pairs = [(a.full, b.full), (a.full, b.mirror), *zip(a.windows[-2:], b.windows[-2:], strict=True)]
    for one, other in ((a, b), (b, a)):
        pairs += [(hash_, window) for window in other.windows for hash_ in (one.full, one.mirror)]
    return min(((left ^ right) & 0xFFFF_FFFF_FFFF_FFFF).bit_count() for left, right in pairs)


def windows() -> list[tuple[float, float, float, float]]:
    """The windows hashed, in order, as shares of the sides: left, top, right, bottom."""
    centred = [(0.5 - keep / 2, 0.5 - keep / 2, 0.5 + keep / 2, 0.5 + keep / 2) for keep in CENTRE_WINDOWS]
    return [*centred, (0.0, 0.0, 1.0, 1.0 - BAND), (0.0, BAND, 1.0, 1.0)]


@cache
def _bases() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What turns a grid into spectra, as whole numbers.

    Rows [window * 8, 64], columns [window, 64, 8], and the signs [8] of horizontal frequencies in a mirror.
    """
    boxes = [(0.0, 0.0, 1.0, 1.0), *windows()]
    rows = np.concatenate([_basis(top, bottom) for _, top, _, bottom in boxes])
    columns = np.stack([_basis(left, right).T for left, _, right, _ in boxes])
    # Mirroring turns the sign of the odd horizontal frequencies and changes nothing else.
    mirror = np.where(np.arange(FREQUENCIES) % 2 == 1, -1.0, 1.0)
    return rows, np.ascontiguousarray(columns), mirror


def _basis(start: float, end: float) -> NDArray[np.float64]:
    """[8, 64]: area averages of `CELLS` cells between two shares of the side, then their DCT-II."""
    edges = np.linspace(start * GRID, end * GRID, CELLS + 1)
    pixels = np.arange(GRID)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    averages = np.clip(overlap, 0, None) / (edges[1] - edges[0])
    frequency, cell = np.arange(FREQUENCIES)[:, None], np.arange(CELLS)
    cosines = np.cos(np.pi * frequency * (2 * cell + 1) / (2 * CELLS)) * np.sqrt(2 / CELLS)
    cosines[0] /= np.sqrt(2)
    whole: NDArray[np.float64] = np.round(cosines @ averages * _SCALE)
    return whole


def hash_columns() -> tuple[Column, ...]:
    """The columns of `hash_values`."""
    return (
        Column(
            "phash",
            pa.int64(),
            "perceptual hash, 64 bits as a signed integer; null for an all but uniform picture",
        ),
        Column("phash_mirror", pa.int64(), "perceptual hash of the picture mirrored left to right"),
        Column(
            "phash_windows",
            pa.list_(pa.int64()),
            "hashes of windows: centred ones that keep 96, 92, 88, 84, 80 % of each side, "
            "the picture without its lowest and without its highest 15 %",
        ),
    )


def hash_values(hashes: Hashes | None) -> tuple[Any, ...]:
    """The values of `hash_columns`."""
    return (None, None, None) if hashes is None else tuple(hashes)


class PHashParams(Params):
    """Parameters of `phash`."""

    role: str = "image"
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1, le=PILLOW_LIMIT)


class PHash(Measure):
    """The hashes alone, for recipes that need no other pixel measure; `pixels` has them from its one decode.

    The two decode at different scales: their hashes may differ by a few bits, so compare within one node.
    """

    name = "phash"
    version = 1
    Params = PHashParams
    params: PHashParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return hash_columns()

    def setup(self) -> None:
        """Keep OpenCV to one thread: the engine runs one process per core."""
        import cv2

        cv2.setNumThreads(1)

    def process(self, record: Record) -> Sequence[Any]:
        """The hashes; raises Quarantine."""
        data = record.read(self.params.role)
        return hash_values(hash_picture(data, Limits(self.params.max_pixels)))
