"""Pictures of pure pattern: Julia sets and stained glass; and smooth gradients, which a recipe should drop."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from pipeline.embedded.picture import COLOURS, Colour, Floats, Origin, Picture, finished, noise, paint, seeded

_PATH = "pipeline/embedded/patterns.py"
_PALETTES: dict[str, tuple[Colour, ...]] = {
    "blue and gold": ((8, 12, 44), (32, 84, 160), (226, 232, 236), (238, 178, 54), (96, 42, 12)),
    "green and violet": ((22, 8, 42), (96, 44, 136), (202, 166, 212), (120, 186, 112), (14, 62, 42)),
    "red and black": ((12, 8, 10), (122, 18, 24), (232, 92, 42), (252, 222, 152), (70, 12, 22)),
}
_CENTRES = ((-0.4, 0.6), (0.285, 0.01), (-0.70176, -0.3842), (-0.835, -0.2321), (-0.8, 0.156), (0.355, 0.355))


def julia(name: str, size: tuple[int, int], number: int) -> Picture:
    """A Julia set z -> z^2 + c, coloured by the number of steps to escape."""
    rng = seeded(name)
    width, height = size
    real, imaginary = _CENTRES[number % len(_CENTRES)]
    palette = list(_PALETTES)[number % len(_PALETTES)]
    zoom, turn = rng.uniform(0.9, 1.3), rng.uniform(0, 3)
    x = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / height * 2 * zoom
    y = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / height * 2 * zoom
    z = ((x + 1j * y) * np.exp(1j * turn)).astype(np.complex64).ravel()
    steps = np.zeros(z.size, np.float32)
    active = np.arange(z.size)
    for step in range(1, 64):
        z = z * z + np.complex64(complex(real, imaginary))
        size_squared = z.real**2 + z.imag**2
        gone = size_squared > 16
        steps[active[gone]] = step + 1 - np.log2(0.5 * np.log2(size_squared[gone]))
        active, z = active[~gone], z[~gone]
    steps = steps.reshape(height, width)
    inside = steps == 0
    pixels = _coloured((np.log1p(steps) * 0.42 + rng.uniform(0, 1)) % 1, _PALETTES[palette])
    pixels[inside] = _PALETTES[palette][0]
    caption = f"A fractal of swirling branches in {palette}."
    return Picture(name, finished(rng, pixels), caption, ("drawing", "fractal"), origin=_origin("julia"))


def glass(name: str, size: tuple[int, int], panes: int) -> Picture:
    """Stained glass: irregular coloured panes with dark lead between them."""
    rng = seeded(name)
    width, height = size
    seeds = rng.random((panes, 2)).astype(np.float32) * (height, width)
    # Distances are smooth, so that a quarter of the points suffices.
    rows, columns = np.mgrid[0:height:2, 0:width:2].astype(np.float32)
    first = np.full(rows.shape, np.inf, np.float32)
    second = first.copy()
    nearest = np.zeros(rows.shape, np.int64)
    for number, (y, x) in enumerate(seeds):
        far = np.hypot(rows - y, columns - x)
        closer = far < first
        second = np.where(closer, first, np.minimum(second, far))
        first = np.where(closer, far, first)
        nearest[closer] = number
    first, second = (cv2.resize(far, (width, height), interpolation=cv2.INTER_LINEAR) for far in (first, second))
    nearest = np.repeat(np.repeat(nearest, 2, axis=0), 2, axis=1)[:height, :width]
    palette = np.array(((176, 36, 44), (32, 74, 160), (232, 184, 62), (38, 120, 74), (110, 56, 140), (226, 214, 190)))
    colours = palette[rng.integers(0, len(palette), panes)] * rng.uniform(0.75, 1.15, (panes, 1))
    pixels = colours[nearest].astype(np.float32) * (0.72 + 0.5 * noise(rng, height, width, (40, 40), 5)[..., None])
    lead = np.clip((second - first - 4.5) / 2, 0, 1)[..., None]
    pixels = pixels * lead + np.array((34, 32, 36), np.float32) * (1 - lead)
    caption = "A stained glass window of irregular panes in red, blue, yellow, green, violet and cream, held by lead."
    return Picture(name, finished(rng, pixels), caption, ("drawing", "pattern"), origin=_origin("glass"))


def smooth(name: str, size: tuple[int, int]) -> Picture:
    """A soft gradient between two colours without any detail."""
    rng = seeded(name)
    width, height = size
    one, two = rng.integers(20, 90, 3).astype(np.float32), rng.integers(150, 240, 3).astype(np.float32)
    share = noise(rng, height, width, (height, width), 1)[..., None]
    pixels = one + (two - one) * share
    caption = "A smooth gradient between two colours."
    image = Image.fromarray(pixels.astype(np.uint8))
    return Picture(name, image, caption, ("gradient",), origin=_origin("smooth"))


def dot(name: str, size: tuple[int, int], colour: str) -> Picture:
    """A dot on a plain ground, such as signs and icons are made of."""
    width, height = size
    pixels = np.full((height, width, 3), 226, np.float32)
    turns = np.linspace(0, math.tau, 60, endpoint=False)
    rng = seeded(name)
    x, y, radius = width * rng.uniform(0.25, 0.75), height * rng.uniform(0.25, 0.75), height * rng.uniform(0.1, 0.2)
    paint(pixels, [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns], COLOURS[colour])
    caption = f"A {colour} dot on a light grey ground."
    return Picture(name, Image.fromarray(pixels.astype(np.uint8)), caption, ("icon",), origin=_origin("dot"))


def _coloured(values: Floats, palette: tuple[Colour, ...]) -> Floats:
    """Values of 0 to 1 [height, width] as colours that run through the palette and back to its start."""
    stops = np.linspace(0, 1, len(palette) + 1)
    channels = [np.interp(values, stops, [*(c[k] for c in palette), palette[0][k]]) for k in range(3)]
    coloured: Floats = np.stack(channels, axis=-1).astype(np.float32)
    return coloured


def _origin(function: str) -> Origin:
    return Origin(path=f"{_PATH}:{function}")
