"""Measure `pixels`: what one scaled decode tells of a picture, and its perceptual hashes.

Every figure is taken at one fixed analysis size (about 65,536 pixels, the picture's own aspect), so that it
hardly depends on the size at which the picture is stored: a small picture is enlarged, a large one reduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.measures.phash import hash_columns, hash_grey, hash_values
from pipeline.operator import Column, Measure, Params, Record
from pipeline.pictures import DEFAULT_LIMITS, PILLOW_LIMIT, Limits, decode_noted

ANALYSIS_SIDE = 256
"""Side of the square that has as many pixels as the analysis picture."""

DECODE_SIDE = 384
"""Shorter side decoded at least: 1.5 times the analysis size keeps sharpness free of scaling artefacts."""

CLIP_DARK = 8
CLIP_BRIGHT = 247
"""Grey values up to and from which a pixel counts as clipped."""

FLAT_RANGE = 8
"""Largest difference of grey values within a flat block, or along a uniform line of the border."""

BLOCK = 8

_MIN_SIDE = 16
"""Shorter side of the analysis picture at least, whatever the aspect."""


class PixelFigures(NamedTuple):
    """The figures of one picture, in the order of the columns."""

    sharpness: float
    brightness: float
    dark_share: float
    bright_share: float
    contrast: float
    colourfulness: float
    entropy: float
    border_share: float
    flat_share: float


FIGURE_COLUMNS = (
    Column(
        "sharpness",
        pa.float64(),
        "variance of the Laplacian of the grey picture at the analysis size; blurred below about 50",
        0,
        1_040_400,
        "higher",
    ),
    Column("brightness", pa.float64(), "mean grey value, 0 black to 1 white", 0, 1),
    Column("dark_share", pa.float64(), "share of pixels with a grey value of 8 or less of 255", 0, 1, "lower"),
    Column("bright_share", pa.float64(), "share of pixels with a grey value of 247 or more of 255", 0, 1, "lower"),
    Column("contrast", pa.float64(), "standard deviation of the grey values / 127.5", 0, 1, "higher"),
    Column(
        "colourfulness",
        pa.float64(),
        "Hasler and Suesstrunk 2003 on 0-255: 0 grey, 33 moderate, 59 quite, 109 extremely colourful",
        0,
        469,
        "higher",
    ),
    Column("entropy", pa.float64(), "entropy of the histogram of grey values, in bits", 0, 8, "higher"),
    Column(
        "border_share",
        pa.float64(),
        "share of the area in a frame of uniform lines around the picture",
        0,
        1,
        "lower",
    ),
    Column(
        "flat_share",
        pa.float64(),
        "share of 8 x 8 blocks of the analysis picture with next to no structure",
        0,
        1,
    ),
)


def figures(rgb: NDArray[np.uint8], grey: NDArray[np.uint8]) -> PixelFigures:
    """The figures of an upright picture.

    `rgb`: [height, width, 3] at any size; `grey`: what `analysis_grey` makes of it.
    """
    import cv2

    height, width = grey.shape
    shares = cv2.calcHist([grey], [0], None, [256], [0, 256]).reshape(-1) / np.float64(grey.size)
    levels = np.arange(256)
    mean = float(shares @ levels)
    variance = float(shares @ (levels - mean) ** 2)
    present = shares[shares > 0]
    _, spread = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return PixelFigures(
        sharpness=float(spread[0, 0]) ** 2,
        brightness=mean / 255,
        dark_share=_share(float(shares[: CLIP_DARK + 1].sum())),
        bright_share=_share(float(shares[CLIP_BRIGHT:].sum())),
        contrast=_share(math.sqrt(variance) / 127.5),
        colourfulness=_colourfulness(rgb, height, width),
        entropy=min(8.0, max(0.0, -float(present @ np.log2(present)))),
        border_share=_border_share(grey),
        flat_share=_flat_share(grey),
    )


def analysis_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is analysed: its own aspect, unless it is thinner than 1 : 256."""
    scale = ANALYSIS_SIDE / math.sqrt(height * width)
    longest = ANALYSIS_SIDE**2 // _MIN_SIDE
    return (
        min(longest, max(_MIN_SIDE, round(height * scale))),
        min(longest, max(_MIN_SIDE, round(width * scale))),
    )


def analysis_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey picture [height, width] at the analysis size."""
    import cv2

    height, width = analysis_size(*rgb.shape[:2])
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    # To twice the size, then halved: as even as area averaging and twice as quick, for small ratios.
    much = rgb.shape[0] * rgb.shape[1] > 16 * height * width
    double = cv2.resize(grey, (2 * width, 2 * height), interpolation=cv2.INTER_AREA if much else cv2.INTER_LINEAR)
    halved: NDArray[np.uint8] = cv2.resize(double, (width, height), interpolation=cv2.INTER_AREA)
    return halved


def _share(value: float) -> float:
    """Rounding may leave a share a hair outside 0 to 1."""
    return min(1.0, max(0.0, value))


def _colourfulness(rgb: NDArray[np.uint8], height: int, width: int) -> float:
    """M = sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2) at half the analysis size.

    rg = R - G, yb = (R + G) / 2 - B; s standard deviations, m means (Hasler and Suesstrunk 2003, section 7).
    """
    import cv2

    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(small, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    opponents = (small.reshape(-1, 3).astype(np.float32) @ _OPPONENTS).reshape(-1, 1, 2)
    mean, spread = cv2.meanStdDev(opponents)
    (mean_rg, mean_yb), (spread_rg, spread_yb) = mean.reshape(-1).tolist(), spread.reshape(-1).tolist()
    return math.hypot(spread_rg, spread_yb) + 0.3 * math.hypot(mean_rg, mean_yb)


_OPPONENTS = np.array([[1, 0.5], [-1, 0.5], [0, -1]], np.float32)


def _border_share(grey: NDArray[np.uint8]) -> float:
    """Share of the area outside the smallest box that leaves only uniform, equal lines around it."""
    low_rows, high_rows = grey.min(axis=1), grey.max(axis=1)
    low_columns, high_columns = grey.min(axis=0), grey.max(axis=0)
    top = _uniform_lines(low_rows, high_rows)
    bottom = _uniform_lines(low_rows[::-1], high_rows[::-1])
    left = _uniform_lines(low_columns, high_columns)
    right = _uniform_lines(low_columns[::-1], high_columns[::-1])
    height, width = grey.shape
    inner = max(0, height - top - bottom) * max(0, width - left - right)
    return float(1 - inner / (height * width))


def _uniform_lines(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> int:
    """How many lines from the first on lie, all together, within FLAT_RANGE grey values."""
    spread = np.maximum.accumulate(high) - np.minimum.accumulate(low)
    return int(np.count_nonzero(spread <= FLAT_RANGE))


def _flat_share(grey: NDArray[np.uint8]) -> float:
    """Share of whole blocks whose grey values lie within FLAT_RANGE."""
    import cv2

    kernel = np.ones((BLOCK, BLOCK), np.uint8)
    height, width = (side // BLOCK * BLOCK for side in grey.shape)
    # The kernel's anchor is its element 4, 4: sampled there, it covers exactly one block.
    centres = (slice(BLOCK // 2, height, BLOCK), slice(BLOCK // 2, width, BLOCK))
    spread = cv2.dilate(grey, kernel)[centres] - cv2.erode(grey, kernel)[centres]
    return float(np.count_nonzero(spread <= FLAT_RANGE) / spread.size)


class PixelsParams(Params):
    """Parameters of `pixels`."""

    role: str = "image"
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1, le=PILLOW_LIMIT)


class Pixels(Measure):
    """Sharpness, exposure, contrast, colour, entropy, borders, flat areas and hashes, from one scaled decode.

    Quarantines what cannot be decoded to its end (`truncated image`, `broken image`); a picture that is all
    there although the decoder complained is measured, and `damaged`.
    """

    name = "pixels"
    version = 1
    Params = PixelsParams
    params: PixelsParams

    def __init__(self, params: PixelsParams) -> None:
        super().__init__(params)
        self._limits = Limits(params.max_pixels)

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            *FIGURE_COLUMNS,
            Column("damaged", pa.bool_(), "the decoder complained of the data, yet all pixels are there"),
            Column("damage", pa.string(), "what the decoder complained of; null when of nothing"),
            *hash_columns(),
        )

    def setup(self) -> None:
        """Keep OpenCV to one thread: the engine runs one process per core."""
        import cv2

        cv2.setNumThreads(1)

    def process(self, record: Record) -> Sequence[Any]:
        """The figures and the hashes; raises Quarantine."""
        picture = decode_noted(record.read(self.params.role), DECODE_SIDE, self._limits)
        grey = analysis_grey(picture.rgb)
        return (
            *figures(picture.rgb, grey),
            picture.damage is not None,
            picture.damage,
            *hash_values(hash_grey(grey)),
        )
