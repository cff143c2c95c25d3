"""How a picture is brought to a size whose sides are whole patches: three rules, each giving a geometry.

A rule only computes; `apply` touches pixels. Sources: fact sheet section 7 (the released resizing for
understanding and cropping for editing) and, for generation, the paper's aspect buckets. Every side is a
multiple of 32 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import PIL.Image

from model.image_tokenizer import PATCH, Grid

UNIT = 32  # pixels; every output side is a multiple of it
LARGEST_ASPECT = 4.0
SMALLEST_AREA = 128 * 128
SINGLE_AREA = 800 * 800  # largest area for one picture in a question
SEVERAL_AREA = 448 * 448  # and for each of several
DECODER_SCALE = 2  # the image decoder draws this many times larger than the encoded picture

Resample = Literal["bicubic", "lanczos"]
_RESAMPLE = {"bicubic": PIL.Image.Resampling.BICUBIC, "lanczos": PIL.Image.Resampling.LANCZOS}


@dataclass(frozen=True, order=True)
class Size:
    """Width and height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"picture size {self.width}x{self.height}: both sides must be at least 1 pixel")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Geometry:
    """First scale `source` to `scaled`, then cut the window `output` at (`left`, `top`) of it.

    The window may reach beyond the scaled picture (negative `left` or `top`); what lies outside is black.
    """

    source: Size
    scaled: Size
    left: int
    top: int
    output: Size
    resample: Resample

    @property
    def grid(self) -> Grid:
        """Token grid of the output: pixels / 16."""
        return Grid(self.output.height // PATCH, self.output.width // PATCH)

    def map_box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float] | None:
        """A source box (left, top, right, bottom) in pixels of the output, cut to it; None if outside."""
        left, right = (self._across(x) for x in (box[0], box[2]))
        top, bottom = (self._down(y) for y in (box[1], box[3]))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _across(self, x: float) -> float:
        # Multiplied first, so that the picture's own edges map to whole pixels.
        return min(max(x * self.scaled.width / self.source.width - self.left, 0.0), float(self.output.width))

    def _down(self, y: float) -> float:
        return min(max(y * self.scaled.height / self.source.height - self.top, 0.0), float(self.output.height))


def smart_size(size: Size, largest_area: int) -> Size:
    """Nearest size of multiples of 32 whose area lies within SMALLEST_AREA .. `largest_area` pixels.

    The aspect is kept up to the rounding. A very long picture may keep a side of one unit and exceed the
    area.
    """
    width = max(UNIT, round(size.width / UNIT) * UNIT)
    height = max(UNIT, round(size.height / UNIT) * UNIT)
    area = size.width * size.height
    if width * height > largest_area:
        # A factor, not a divisor: in floats the two differ where a side lands on a multiple (800x800 to
        # 448x448 area).
        shrink = math.sqrt(largest_area / area)
        width = max(UNIT, math.floor(size.width * shrink / UNIT) * UNIT)
        height = max(UNIT, math.floor(size.height * shrink / UNIT) * UNIT)
    elif width * height < SMALLEST_AREA:
        grow = math.sqrt(SMALLEST_AREA / area)
        width = math.ceil(size.width * grow / UNIT) * UNIT
        height = math.ceil(size.height * grow / UNIT) * UNIT
    return Size(width, height)


def for_understanding(size: Size, *, several: bool = False) -> Geometry:
    """The released rule for pictures in a question: scale to cover the smart size, cut to multiples of 32.

    `several` says that the question has more than one picture. The output may exceed the smart size on one
    side, because the cut follows the scaled picture.
    """
    target = smart_size(size, SEVERAL_AREA if several else SINGLE_AREA)
    scaled = _cover(size, target)
    output = Size(scaled.width // UNIT * UNIT, scaled.height // UNIT * UNIT)
    return centred(size, scaled, output, "bicubic")


def for_generation(size: Size, side: int) -> Geometry:
    """Aspect bucket of a stage with side `side` (256 or 512): scale to cover the nearest bucket, centre crop.

    The encoded picture has this size; the image decoder draws it twice as large (`grid_of_request`).
    """
    return covering(size, nearest_size(size, crop_sizes(side)))


def for_editing(size: Size, side: int = 512, *, released: bool = False) -> Geometry:
    """Bucket of an editing source. By default as for generation.

    `released` is what the released script does: it cuts a window of exactly the bucket's size out of the
    picture without scaling it, so that large pictures lose their margins and small ones get black borders.
    """
    if not released:
        return for_generation(size, side)
    return centred(size, size, nearest_size(size, crop_sizes(side)), "lanczos")


def covering(size: Size, output: Size) -> Geometry:
    """A picture scaled to cover a given size, and cut to it: an edited picture takes the grid of its source."""
    return centred(size, _cover(size, output), output, "bicubic")


def grid_of_request(picture: Size) -> Grid:
    """Grid to generate for a finished picture. Raises ValueError unless its sides are multiples of 32."""
    step = PATCH * DECODER_SCALE
    if picture.width % step or picture.height % step:
        raise ValueError(f"a picture of {picture} cannot be drawn: both sides must be multiples of {step}")
    return Grid(picture.height // step, picture.width // step)


@cache
def crop_sizes(side: int, unit: int = UNIT) -> tuple[Size, ...]:
    """Candidate sizes for square side `side`: the staircase under (side/unit)^2 cells, widest first.

    From one row as wide as all cells, each step adds a row where the cells allow it and else drops a column;
    sizes with an aspect above 4 are left out. Raises ValueError unless `side` is a positive multiple of
    `unit`.
    """
    if side < unit or side % unit:
        raise ValueError(f"bucket side {side} is not a positive multiple of {unit}")
    cells = (side // unit) ** 2
    columns, rows, sizes = cells, 1, []
    while columns:
        if max(columns, rows) <= LARGEST_ASPECT * min(columns, rows):
            sizes.append(Size(columns * unit, rows * unit))
        if columns * (rows + 1) <= cells:
            rows += 1
        else:
            columns -= 1
    return tuple(sizes)


def nearest_size(size: Size, candidates: tuple[Size, ...]) -> Size:
    """Candidate whose aspect is nearest to that of `size`; the wider one of equally near candidates."""

    def nearness(candidate: Size) -> tuple[float, Size]:
        across = candidate.width / size.width
        down = candidate.height / size.height
        return min(across, down) / max(across, down), candidate

    return max(candidates, key=nearness)


def apply(image: PIL.Image.Image, geometry: Geometry) -> PIL.Image.Image:
    """Pixels of `image` under `geometry`: RGB of the output size. Transparency is laid on white first.

    Raises ValueError when the picture is not of the size the geometry was made for.
    """
    if image.size != (geometry.source.width, geometry.source.height):
        raise ValueError(f"geometry for a picture of {geometry.source} applied to one of {Size(*image.size)}")
    image = on_white(image)
    scaled = (geometry.scaled.width, geometry.scaled.height)
    if image.size != scaled:
        image = image.resize(scaled, _RESAMPLE[geometry.resample])
    right, bottom = geometry.left + geometry.output.width, geometry.top + geometry.output.height
    return image.crop((geometry.left, geometry.top, right, bottom))


def on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """RGB picture; whatever is transparent shows white, as the released tokenizer does."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = PIL.Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return PIL.Image.alpha_composite(paper, layer).convert("RGB")


def _cover(size: Size, target: Size) -> Size:
    """Smallest size of the same aspect, rounded to pixels, that covers `target`. Integers only, so exact."""
    if target.width * size.height >= target.height * size.width:
        return Size(target.width, max(target.height, _ratio(size.height * target.width, size.width)))
    return Size(max(target.width, _ratio(size.width * target.height, size.height)), target.height)


def _ratio(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def centred(source: Size, scaled: Size, output: Size, resample: Resample) -> Geometry:
    """Geometry that scales `source` to `scaled` and cuts the central window `output`."""
    left = (scaled.width - output.width) // 2
    top = (scaled.height - output.height) // 2
    return Geometry(source, scaled, left, top, output, resample)
