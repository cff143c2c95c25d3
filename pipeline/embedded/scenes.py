"""Drawn scenes: landscapes, harbours and skylines whose parts are counted and known."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pipeline.embedded.picture import (
    COLOURS,
    Colour,
    Floats,
    Origin,
    Picture,
    Points,
    Thing,
    counted,
    finished,
    gradient,
    listed,
    mix,
    noise,
    paint,
    rectangle,
    seeded,
)

_SKIES: dict[str, tuple[Colour, ...]] = {
    "on a clear day": ((70, 128, 205), (150, 195, 232), (222, 235, 240)),
    "at sunset": ((62, 62, 118), (196, 104, 104), (250, 190, 112)),
    "on a misty morning": ((140, 158, 178), (190, 200, 206), (228, 224, 212)),
    "at night": ((12, 16, 40), (26, 36, 72), (58, 70, 104)),
    "under a stormy sky": ((58, 66, 80), (98, 108, 118), (150, 154, 152)),
}
_LIGHT = {"at night": 0.42, "at sunset": 0.8, "under a stormy sky": 0.72}
TIMES = tuple(_SKIES)
_WALLS: tuple[Colour, ...] = ((222, 206, 178), (198, 108, 84), (206, 212, 214))
_ROOFS: tuple[Colour, ...] = ((142, 62, 48), (84, 84, 92), (110, 74, 52))
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
_ORIGIN = "pipeline/embedded/scenes.py"


def landscape(name: str, size: tuple[int, int], time: str, trees: int, houses: int) -> Picture:
    """Mountains behind a meadow with counted trees and houses. `size` is width, height in pixels."""
    rng = seeded(name)
    width, height = size[0], size[1]
    pixels = _sky(rng, width, height, time)
    light = _LIGHT.get(time, 1.0)
    horizon = int(height * rng.uniform(0.5, 0.64))
    pixels = _mountains(rng, pixels, horizon, time)
    pixels = _meadow(rng, pixels, horizon, light)
    things: list[Thing] = []
    spots = _spots(rng, trees + houses, width, horizon, height)
    kinds = ["tree"] * trees + ["house"] * houses
    rng.shuffle(kinds)
    # What stands lower in the picture stands nearer, and is drawn later.
    for (x, y), kind in sorted(zip(spots, kinds, strict=True), key=lambda spot: spot[0][1]):
        draw = _tree if kind == "tree" else _house
        tall = height * (0.1 + 0.26 * (y - horizon) / (height - horizon)) * (1.0 if kind == "tree" else 0.72)
        things.append(Thing(kind, _inside(draw(rng, pixels, x, y, tall, light), size)))
    parts = [counted(n, noun) for n, noun in ((trees, "tree"), (houses, "house")) if n]
    caption = f"A drawn landscape {time}: mountains behind a meadow with {listed(parts)}."
    image = finished(rng, pixels)
    return Picture(name, image, caption, ("drawing", "landscape"), things=tuple(things), origin=_origin("landscape"))


def harbour(name: str, size: tuple[int, int], time: str, boats: int) -> Picture:
    """Sailing boats on a lake below hills."""
    rng = seeded(name)
    width, height = size[0], size[1]
    pixels = _sky(rng, width, height, time)
    light = _LIGHT.get(time, 1.0)
    horizon = int(height * rng.uniform(0.42, 0.56))
    pixels = _hill(rng, pixels, horizon, np.array((92, 116, 106), np.float32) * light, 0.16)
    mirrored = pixels[:horizon][::-1]
    mirrored = cv2.resize(mirrored, (width, height - horizon), interpolation=cv2.INTER_LINEAR)
    water = mix(mirrored * 0.62, (38, 84, 108), np.full((height - horizon, width), 0.35, np.float32))
    ripples = noise(rng, height - horizon, width, (11, 95), 4) + noise(rng, height - horizon, width, (4, 30), 2)
    water = water * (0.62 + 0.42 * ripples[..., None])
    pixels = np.concatenate([pixels[:horizon], water])
    things = []
    colours = list(COLOURS)[:7]
    rng.shuffle(colours)
    for index, (x, y) in enumerate(sorted(_spots(rng, boats, width, horizon, height), key=lambda spot: spot[1])):
        tall = height * (0.14 + 0.28 * (y - horizon) / (height - horizon))
        box = _boat(rng, pixels, x, y, tall, light, COLOURS[colours[index % 7]])
        things.append(Thing("boat", _inside(box, size)))
    caption = f"A drawing of {counted(boats, 'sailing boat')} on a lake {time}, hills in the distance."
    image = finished(rng, pixels)
    return Picture(name, image, caption, ("drawing", "harbour"), things=tuple(things), origin=_origin("harbour"))


def skyline(name: str, size: tuple[int, int], time: str) -> Picture:
    """Tall buildings with lit windows, mirrored in a river."""
    rng = seeded(name)
    width, height = size[0], size[1]
    pixels = _sky(rng, width, height, time)
    light = _LIGHT.get(time, 1.0)
    shore = int(height * rng.uniform(0.66, 0.78))
    for layer, (tone, tallest) in enumerate(((0.55, 0.75), (0.32, 0.6), (0.16, 0.42))):
        base = np.array((86, 92, 120), np.float32) * (0.5 + tone) * light
        x = -int(rng.integers(0, 60))
        while x < width:
            wide = int(width * rng.uniform(0.05, 0.12))
            tall = int(shore * tallest * rng.uniform(0.45, 1.0))
            _building(rng, pixels, (x, shore - tall, x + wide, shore), base * rng.uniform(0.75, 1.2), layer, time)
            x += wide + int(rng.integers(0, 7))
    below = height - shore
    water = cv2.resize(pixels[:shore][::-1], (width, max(below * 2, 1)), interpolation=cv2.INTER_LINEAR)[:below]
    shift = (noise(rng, below, width, (4, 60), 2) - 0.5) * 13
    columns = np.clip(np.arange(width)[None, :] + shift, 0, width - 1).astype(np.float32)
    rows = np.repeat(np.arange(below, dtype=np.float32)[:, None], width, axis=1)
    water = cv2.remap(water, columns, rows, cv2.INTER_LINEAR) * 0.62 + np.array((6, 12, 22), np.float32)
    pixels = np.concatenate([pixels[:shore], water])
    caption = f"A drawn city skyline {time}: rows of tall buildings with windows, mirrored in a river."
    return Picture(name, finished(rng, pixels), caption, ("drawing", "skyline"), origin=_origin("skyline"))


def _origin(function: str) -> Origin:
    return Origin(path=f"{_ORIGIN}:{function}")


def _inside(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x, y, width, height of a box cut to the picture."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(size[0]), box[2]), min(float(size[1]), box[3])
    return round(left, 1), round(top, 1), round(right - left, 1), round(bottom - top, 1)


def _sky(rng: np.random.Generator, width: int, height: int, time: str) -> Floats:
    pixels = gradient(height, width, *_SKIES[time], _SKIES[time][-1])
    clouds = np.clip(noise(rng, height, width, (height / 5, width / 2.5), 6) * 2.4 - 1.15, 0, 1)
    if time == "at night":
        stars = np.zeros((height, width), np.uint8)
        for x, y, size in zip(
            rng.integers(0, width, 160), rng.integers(0, height, 160), rng.integers(0, 2, 160), strict=True
        ):
            cv2.circle(stars, (int(x), int(y)), int(size), 255, -1, cv2.LINE_AA)
        pixels = mix(pixels, (235, 236, 250), stars.astype(np.float32) / 255)
        clouds *= 0.2
    tint: Colour = {"at sunset": (250, 170, 140), "under a stormy sky": (70, 76, 86)}.get(time, (250, 250, 250))
    pixels = mix(pixels, tint, clouds * 0.8)
    if time in {"on a clear day", "at sunset", "at night"}:
        pixels = _disc(rng, pixels, time)
    return pixels


def _disc(rng: np.random.Generator, pixels: Floats, time: str) -> Floats:
    """The sun or the moon."""
    height, width = pixels.shape[:2]
    x, y = width * rng.uniform(0.15, 0.85), height * rng.uniform(0.1, 0.3)
    radius = height * 0.045
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    far = np.hypot(columns - x, rows - y)
    colour: Colour = (244, 242, 226) if time == "at night" else (255, 244, 206)
    glow = np.exp(-((far / (radius * 3.2)) ** 2)).astype(np.float32)
    return mix(mix(pixels, colour, glow * 0.5), colour, np.clip(radius - far + 0.5, 0, 1))


def _ridge(rng: np.random.Generator, width: int, low: float, high: float, spots: float) -> Floats:
    line = noise(rng, 4, width, (4, spots), 1)[1] * 0.6 + noise(rng, 64, width, (64, spots / 2), 6)[32] * 0.4
    line = (line - line.min()) / max(float(line.max() - line.min()), 1e-6)
    ridge: Floats = (low + (high - low) * line).astype(np.float32)
    return ridge


def _mountains(rng: np.random.Generator, pixels: Floats, horizon: int, time: str) -> Floats:
    height, width = pixels.shape[:2]
    light = _LIGHT.get(time, 1.0)
    haze = np.array(_SKIES[time][-1], np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    for layer in range(3):
        near = (layer + 1) / 3
        ridge = _ridge(rng, width, horizon * (0.98), horizon * (0.3 + 0.2 * layer), width / 4)
        share = np.clip(rows - ridge[None, :], 0, 1)
        rock = noise(rng, height, width, (height / 10, width / 14), 5)
        lit = 0.55 + 0.75 * rock
        base = np.array(((104, 108, 126), (84, 98, 98), (70, 92, 66))[layer], np.float32) * light
        surface = base[None, None, :] * lit[..., None]
        if layer == 0:
            depth = (rows - ridge[None, :]) / (horizon * 0.3)
            snow = np.clip(1.2 - depth * 2.4 + (rock - 0.5) * 2.2, 0, 1)
            surface = mix(surface, (236 * light, 240 * light, 246 * light), snow.astype(np.float32))  # type: ignore[arg-type]
        surface = surface * near + haze * (1 - near) if layer < 2 else surface
        pixels = mix(pixels, surface, share)
    return pixels


def _hill(rng: np.random.Generator, pixels: Floats, horizon: int, colour: Floats, tall: float) -> Floats:
    height, width = pixels.shape[:2]
    ridge = _ridge(rng, width, horizon * 0.97, horizon * (1 - tall * 2), width / 3)
    rows = np.arange(height, dtype=np.float32)[:, None]
    wood = noise(rng, height, width, (13, 13), 3)
    return mix(pixels, colour * (0.45 + 0.9 * wood[..., None]), np.clip(rows - ridge[None, :], 0, 1))


def _meadow(rng: np.random.Generator, pixels: Floats, horizon: int, light: float) -> Floats:
    height, width = pixels.shape[:2]
    below = height - horizon
    greens = gradient(below, width, (112, 138, 76), (70, 112, 44), (44, 82, 28)) * light
    blades = noise(rng, below, width, (9, 3), 2) * 0.7 + noise(rng, below, width, (30, 120), 3) * 0.7
    meadow = greens * (0.5 + 0.75 * blades[..., None])
    return np.concatenate([pixels[:horizon], meadow]).astype(np.float32)


def _spots(rng: np.random.Generator, count: int, width: int, horizon: int, height: int) -> list[tuple[float, float]]:
    """Feet of things (x, y), one in each of `count` columns, so that none hides another."""
    edges = np.linspace(0.06, 0.94, count + 1) * width
    below = height - horizon
    return [
        (float(rng.uniform(left + 0.35 * (right - left), right - 0.35 * (right - left))),
         float(horizon + below * rng.uniform(0.12, 0.9)))
        for left, right in pairwise(edges)
    ]  # fmt: skip


def _tone(colour: Colour, light: float) -> Colour:
    red, green, blue = colour
    return int(red * light), int(green * light), int(blue * light)


def _tree(rng: np.random.Generator, pixels: Floats, x: float, y: float, tall: float, light: float) -> Box:
    top, wide = max(1.0, y - tall), tall * rng.uniform(0.2, 0.27)
    trunk = [(x - wide * 0.14, y), (x - wide * 0.1, y - tall * 0.3), (x + wide * 0.1, y - tall * 0.3)]
    paint(pixels, [*trunk, (x + wide * 0.14, y)], _tone((84, 58, 38), light))
    leaves = 0.5 + 0.9 * noise(rng, 64, 64, (8, 8), 3)
    tone = np.array((40, 92, 44), np.float32) * light * rng.uniform(0.75, 1.15)
    half = 0.0
    for tier in range(4):
        upper = top + tall * 0.2 * tier
        lower, half = upper + tall * 0.34, wide * (0.42 + 0.19 * tier)
        branch = [(x, upper), (x + half, lower), (x, lower - tall * 0.03), (x - half, lower)]
        paint(pixels, branch, tone * (0.85 + 0.08 * tier), leaves)
    return x - half, top, x + half, y


def _house(rng: np.random.Generator, pixels: Floats, x: float, y: float, tall: float, light: float) -> Box:
    half, eaves, top = tall * 0.62, y - tall * 0.58, max(1.0, y - tall)
    walls = _WALLS[int(rng.integers(len(_WALLS)))]
    roof = _ROOFS[int(rng.integers(len(_ROOFS)))]
    plaster = 0.86 + 0.2 * noise(rng, 64, 64, (10, 10), 3)
    paint(pixels, rectangle(x - half, eaves, half * 2, y - eaves), _tone(walls, light), plaster)
    tiles = 0.75 + 0.4 * noise(rng, 64, 64, (4, 9), 2)
    gable = [(x - half * 1.14, eaves), (x - half * 0.62, top), (x + half * 0.62, top), (x + half * 1.14, eaves)]
    paint(pixels, gable, _tone(roof, light), tiles)
    pane: Colour = (250, 214, 128) if light < 0.6 else (86, 108, 128)
    for offset in (-0.6, 0.6):
        left, upper = x + half * offset - half * 0.17, eaves + tall * 0.12
        frame = rectangle(left - 2, upper - 2, half * 0.34 + 4, tall * 0.22 + 4)
        paint(pixels, frame, _tone((238, 234, 224), light))
        paint(pixels, rectangle(left, upper, half * 0.34, tall * 0.22), pane)
    paint(pixels, rectangle(x - half * 0.16, y - tall * 0.36, half * 0.32, tall * 0.36), _tone((78, 52, 36), light))
    return x - half * 1.14, top, x + half * 1.14, y


def _boat(
    rng: np.random.Generator, pixels: Floats, x: float, y: float, tall: float, light: float, colour: Colour
) -> Box:
    half, deck, top = tall * 0.42, y - tall * 0.13, max(1.0, y - tall)
    side = 1 if rng.random() < 0.5 else -1
    shadow: Points = [(x - half * 0.9, y), (x + half * 0.9, y), (x + half * 0.5, y + 6), (x - half * 0.5, y + 6)]
    paint(pixels, shadow, _tone((20, 40, 52), light))
    foot = deck - tall * 0.05
    paint(pixels, [(x, top), (x + side * half * 0.95, foot), (x, foot)], _tone((226, 222, 210), light))
    paint(pixels, [(x - side * 2, top + tall * 0.1), (x - side * half * 0.7, foot), (x - side * 2, foot)],
          _tone(colour, light))  # fmt: skip
    paint(pixels, rectangle(x - 1, top, 2, deck - top), _tone((70, 54, 42), light))
    wood = 0.75 + 0.4 * noise(rng, 64, 64, (3, 30), 2)
    hull = [(x - half, deck), (x + half, deck), (x + half * 0.72, y), (x - half * 0.72, y)]
    paint(pixels, hull, _tone((128, 76, 46), light), wood)
    return x - half, top, x + half, y


def _building(
    rng: np.random.Generator, pixels: Floats, box: tuple[int, int, int, int], tone: Floats, layer: int, time: str
) -> None:
    """Draw one building in place."""
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(pixels.shape[1], box[2]), box[3]
    if right - left < 4 or bottom - top < 4:
        return
    face = Image.new("RGB", (right - left, bottom - top), tuple(int(min(255, c)) for c in tone))
    draw = ImageDraw.Draw(face)
    step, wide, tall = ((8, 3, 4), (11, 4, 6), (15, 6, 9))[layer]
    lit_share = 0.62 if time == "at night" else 0.4 if time == "at sunset" else 0.12
    for y in range(5, bottom - top - tall, step):
        for x in range(4, right - left - wide - 2, step):
            lit = rng.random() < lit_share
            shade: Colour = (
                (252, int(rng.integers(190, 232)), int(rng.integers(110, 170))) if lit else _tone((46, 54, 74), 1)
            )
            draw.rectangle((x, y, x + wide, y + tall), fill=shade)
    pixels[top:bottom, left:right] = np.asarray(face, np.float32)
