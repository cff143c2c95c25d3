"""A picture together with everything that is true of it, and what drawing one needs: seeds, noise, grain, colours."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]
Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

COLOURS: dict[str, Colour] = {
    "red": (200, 38, 42),
    "orange": (236, 128, 30),
    "yellow": (240, 204, 52),
    "green": (48, 142, 66),
    "blue": (44, 86, 184),
    "purple": (126, 62, 158),
    "pink": (232, 132, 168),
    "white": (240, 238, 232),
    "black": (44, 42, 46),
}
"""Colours that captions name."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Thing:
    """One object in a picture. `box` is x, y, width, height in pixels."""

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Origin:
    """Where a picture comes from and under which terms."""

    repo: str = "(generated)"
    path: str = ""
    licence: str | None = "CC0-1.0"
    note: str = "generated"


@dataclass(frozen=True)
class Picture:
    """A picture in RGB or L with its truths: a caption, the text that stands in it, the things in it."""

    name: str
    image: Image.Image
    caption: str | None = None
    tags: tuple[str, ...] = ()
    text: str | None = None
    things: tuple[Thing, ...] = ()
    origin: Origin = field(default_factory=Origin)

    @property
    def counts(self) -> dict[str, int]:
        """How many things of each label, in order of appearance."""
        return dict(Counter(thing.label for thing in self.things))


def seeded(name: str) -> np.random.Generator:
    """A generator that depends on the picture's name alone, so that no picture hangs on another."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def counted(count: int, noun: str) -> str:
    """`three boats`, `a boat`."""
    if count == 1:
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    return f"{NUMBERS[count]} {noun}s"


def listed(parts: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def noise(rng: np.random.Generator, height: int, width: int, cell: tuple[float, float], octaves: int = 4) -> Floats:
    """Smooth noise of 0 to 1 [height, width]; `cell` is the size of its largest spots (height, width) in pixels."""
    total = np.zeros((height, width), np.float32)
    weight = 0.0
    for octave in range(octaves):
        rows = max(2, round(height / cell[0] * 2**octave) + 2)
        columns = max(2, round(width / cell[1] * 2**octave) + 2)
        if rows > height or columns > width:
            break
        spots = rng.random((rows, columns), np.float32)
        total += cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
        weight += 1 / 2**octave
    total /= max(weight, 1e-6)
    low, high = float(total.min()), float(total.max())
    return ((total - low) / max(high - low, 1e-6)).astype(np.float32)


def gradient(height: int, width: int, *stops: Colour) -> Floats:
    """Colours from top to bottom [height, width, 3]."""
    where = np.linspace(0, len(stops) - 1, height)
    column = np.stack([np.interp(where, range(len(stops)), [stop[c] for stop in stops]) for c in range(3)], axis=1)
    return np.repeat(column[:, None, :], width, axis=1).astype(np.float32)


def mix(below: Floats, above: Floats | Colour, share: Floats) -> Floats:
    """`above` laid over `below` [height, width, 3] where `share` [height, width] is 1."""
    mixed: Floats = np.subtract(np.asarray(above, np.float32), below)
    mixed *= share[..., None]
    mixed += below
    return mixed


def finished(rng: np.random.Generator, pixels: Floats, grain: float = 5.0) -> Image.Image:
    """The drawn picture [height, width, 3] as an image, with the grain that paper and film have."""
    height, width = pixels.shape[:2]
    specks = rng.standard_normal((height, width, 1), np.float32)
    specks *= grain
    specked = pixels + specks
    return Image.fromarray(np.clip(specked, 0, 255, out=specked).astype(np.uint8))


def paint(pixels: Floats, points: Points, colour: Floats | Colour, texture: Floats | None = None) -> None:
    """Fill a polygon of (x, y) points in place; `texture` [h, w] of about 1 is laid into it from its upper left."""
    corners = np.array(points, np.float32)
    height, width = pixels.shape[:2]
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, (width, height))
    if right <= left or bottom <= top:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    # The last four bits are fractions of a pixel.
    cv2.fillPoly(mask, [np.round((corners - (left, top)) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    surface: Floats = np.asarray(colour, np.float32)
    if texture is not None:
        surface = surface * _tiled(texture, *mask.shape)[..., None]
    spot = pixels[top:bottom, left:right]
    spot += (surface - spot) * (mask.astype(np.float32) / 255)[..., None]


def _tiled(texture: Floats, height: int, width: int) -> Floats:
    times = (-(-height // texture.shape[0]), -(-width // texture.shape[1]))
    return np.tile(texture, times)[:height, :width]


def rectangle(left: float, top: float, width: float, height: float) -> Points:
    """The corners of an upright rectangle."""
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
