"""Drawn things to find and count: balls on a floor, cut-out paper shapes, clocks. Their boxes are exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

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
    seeded,
)

_PATH = "pipeline/embedded/objects.py"
Circle = tuple[float, float, float]
"""x, y, radius in pixels."""


def balls(name: str, size: tuple[int, int], colours: Sequence[str]) -> Picture:
    """Shiny balls, one of each named colour, on a tiled, wooden or sandy floor."""
    rng = seeded(name)
    width, height = size
    horizon = int(height * rng.uniform(0.22, 0.4))
    pixels, floor = _room(rng, width, height, horizon)
    placed = _apart(rng, len(colours), (width, height), horizon)
    things = []
    for (x, y, radius), colour in zip(placed, colours, strict=True):
        _ball(pixels, (x, y, radius), COLOURS[colour])
        box = (round(x - radius, 1), round(y - radius, 1), round(2 * radius, 1), round(2 * radius, 1))
        things.append(Thing(f"{colour} ball", box))
    caption = f"A drawing of {counted(len(colours), 'ball')} on a {floor}: {listed(colours)}."
    if len(colours) == 1:
        caption = f"A drawing of {counted(1, f'{colours[0]} ball')} on a {floor}."
    return Picture(name, finished(rng, pixels), caption, ("drawing", "balls"), None, tuple(things), _origin("balls"))


def shapes(name: str, size: tuple[int, int], wanted: Sequence[tuple[str, str, int]]) -> Picture:
    """Paper shapes on a sheet of paper. `wanted` holds (colour, kind, count); kinds are those of OUTLINES."""
    rng = seeded(name)
    width, height = size
    paper = _PAPERS[int(rng.integers(len(_PAPERS)))]
    fibre = noise(rng, height, width, (5, 5), 2) * 0.1 + noise(rng, height, width, (90, 120), 3) * 0.12
    pixels = np.asarray(paper, np.float32) * (0.88 + fibre[..., None])
    each = [(colour, kind) for colour, kind, count in wanted for _ in range(count)]
    things = []
    for (x, y, radius), (colour, kind) in zip(_apart(rng, len(each), size, 0, 0.09), each, strict=True):
        points = _outline(kind, x, y, radius, rng.uniform(0, 0.5))
        paint(pixels, [(px + radius * 0.06, py + radius * 0.1) for px, py in points], np.asarray(paper) * 0.55)
        paint(pixels, points, COLOURS[colour], 0.86 + 0.22 * noise(rng, 64, 64, (6, 6), 3))
        xs, ys = zip(*points, strict=True)
        box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        things.append(
            Thing(f"{colour} {kind}", (round(box[0], 1), round(box[1], 1), round(box[2], 1), round(box[3], 1)))
        )
    parts = [counted(count, f"{colour} {kind}") for colour, kind, count in wanted]
    caption = f"Paper shapes on a sheet of paper: {listed(parts)}."
    return Picture(name, finished(rng, pixels), caption, ("drawing", "shapes"), None, tuple(things), _origin("shapes"))


def clock(name: str, side: int, hour: int, minute: int) -> Picture:
    """A wall clock that shows a known time."""
    rng = seeded(name)
    wall = gradient(side, side, *_WALLS[int(rng.integers(len(_WALLS)))])
    stripes = 0.9 + 0.1 * np.sign(np.sin(np.arange(side) * math.tau / rng.uniform(18, 40)))[None, :]
    pixels = wall * (stripes * (0.88 + 0.2 * noise(rng, side, side, (10, 10), 4)))[..., None].astype(np.float32)
    centre = side / 2 + rng.uniform(-0.04, 0.04) * side
    radius = side * rng.uniform(0.36, 0.42)
    rim = COLOURS[("blue", "red", "black", "green")[int(rng.integers(4))]]
    _ball(pixels, (centre, centre, radius), rim)
    paint(pixels, _circle(centre, centre, radius * 0.86), (246, 242, 230), 0.94 + 0.1 * noise(rng, 64, 64, (9, 9), 3))
    for tick in range(60):
        long = 0.12 if tick % 5 == 0 else 0.05
        _hand(pixels, centre, math.tau * tick / 60, radius * (0.8 - long), radius * 0.8, 1.8 if tick % 5 == 0 else 0.7)
    _hand(pixels, centre, math.tau * ((hour % 12) + minute / 60) / 12, -radius * 0.1, radius * 0.45, side / 90)
    _hand(pixels, centre, math.tau * minute / 60, -radius * 0.12, radius * 0.68, side / 140)
    paint(pixels, _circle(centre, centre, side / 60), (190, 40, 36))
    box = (round(centre - radius, 1), round(centre - radius, 1), round(2 * radius, 1), round(2 * radius, 1))
    caption = f"A drawn wall clock with two hands that shows {hour}:{minute:02d}."
    return Picture(
        name, finished(rng, pixels), caption, ("drawing", "clock"), None, (Thing("clock", box),), _origin("clock")
    )


OUTLINES = ("circle", "square", "triangle", "star", "hexagon")
_PAPERS: tuple[Colour, ...] = ((236, 228, 208), (206, 218, 226), (222, 212, 198), (214, 226, 208))
_WALLS: tuple[tuple[Colour, Colour], ...] = (
    ((196, 178, 146), (164, 142, 112)),
    ((148, 172, 178), (112, 138, 148)),
    ((186, 150, 142), (150, 116, 110)),
)


def _origin(function: str) -> Origin:
    return Origin(path=f"{_PATH}:{function}")


def _apart(
    rng: np.random.Generator, count: int, size: tuple[int, int], horizon: int, largest: float = 0.14
) -> list[Circle]:
    """Circles that do not touch, the farther (higher) ones smaller where there is a horizon; farthest first."""
    width, height = size
    found: list[Circle] = []
    for attempt in range(4000):
        if len(found) == count:
            break
        shrink = 1 - attempt / 8000
        y = rng.uniform(max(0.12, horizon / height + 0.04), 0.88) * height
        near = (y - horizon) / (height - horizon) if horizon else rng.uniform(0.6, 1)
        radius = float(min(width, height) * largest * (0.45 + 0.75 * near) * shrink)
        x = rng.uniform(radius + 4, width - radius - 4)
        y = float(np.clip(y, radius + 4, height - radius - 6))
        if all(math.hypot(x - ox, y - oy) > (radius + other) * 1.12 for ox, oy, other in found):
            found.append((float(x), y, radius))
    if len(found) < count:
        raise ValueError(f"{count} things do not fit into {width} x {height} pixels")
    return sorted(found, key=lambda circle: circle[1])


def _room(rng: np.random.Generator, width: int, height: int, horizon: int) -> tuple[Floats, str]:
    """A wall and a floor in perspective, and what the floor is called."""
    wall = gradient(horizon, width, *_WALLS[int(rng.integers(len(_WALLS)))]) * (
        0.86 + 0.2 * noise(rng, horizon, width, (12, 12), 4)[..., None]
    )
    below = height - horizon
    depth = (1 / np.linspace(0.12, 1, below, dtype=np.float32))[:, None]
    across = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / width * depth
    turn = rng.uniform(0, math.pi / 2)
    u = across * math.cos(turn) + depth * 0.9 * math.sin(turn)
    v = depth * 0.9 * math.cos(turn) - across * math.sin(turn)
    scale = rng.uniform(3.5, 7)
    kind = ("tiled floor", "wooden floor", "sandy floor")[int(rng.integers(3))]
    rough = noise(rng, below, width, (6, 10), 4)
    if kind == "tiled floor":
        tiles = ((np.floor(u * scale) + np.floor(v * scale)) % 2)[..., None]
        light, dark = _TILES[int(rng.integers(len(_TILES)))]
        floor = np.asarray(dark, np.float32) * tiles + np.asarray(light, np.float32) * (1 - tiles)
        floor = floor * (0.86 + 0.22 * rough[..., None])
    elif kind == "wooden floor":
        plank = np.floor(u * scale * 1.6)
        tone = 0.72 + 0.3 * ((plank * 0.618) % 1)
        vein = 0.5 + 0.5 * np.sin(v * 34 + 9 * np.sin(plank * 7) + rough * 9)
        edge = (np.abs(u * scale * 1.6 - plank - 0.5) < 0.47) * 0.4 + 0.6
        floor = np.array((172, 116, 70), np.float32) * (tone * (0.82 + 0.2 * vein) * edge)[..., None]
    else:
        dunes = noise(rng, below, width, (14, 130), 4)
        floor = np.array((216, 188, 138), np.float32) * (0.6 + 0.3 * dunes + 0.24 * rough)[..., None]
    return np.concatenate([wall, floor * np.linspace(0.75, 1.05, below)[:, None, None]]).astype(np.float32), kind


_TILES: tuple[tuple[Colour, Colour], ...] = (
    ((226, 218, 204), (96, 74, 66)),
    ((206, 220, 224), (60, 84, 104)),
    ((232, 222, 180), (92, 118, 88)),
)


def _ball(pixels: Floats, circle: Circle, colour: Colour) -> None:
    """A shaded ball with a highlight and a soft shadow, in place."""
    x, y, radius = circle
    height, width = pixels.shape[:2]
    top, bottom = max(0, int(y - radius * 1.6)), min(height, int(y + radius * 2.2))
    left, right = max(0, int(x - radius * 2.6)), min(width, int(x + radius * 3.2))
    spot = pixels[top:bottom, left:right]
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    dx, dy = (columns - x) / radius, (rows - y) / radius
    shadow = np.exp(-(((dx - 0.3) / 1.1) ** 2) - ((dy - 0.86) / 0.34) ** 2)
    spot *= (1 - 0.6 * shadow)[..., None]
    far = np.hypot(dx, dy)
    dz = np.sqrt(np.clip(1 - far**2, 0, 1))
    shade = np.clip(-0.45 * dx - 0.62 * dy + 0.64 * dz, 0, 1)
    surface = np.asarray(colour, np.float32) * (0.28 + 0.85 * shade)[..., None]
    surface += 205 * (np.clip(-0.36 * dx - 0.5 * dy + 0.79 * dz, 0, 1) ** 36)[..., None]
    spot[:] = mix(spot, surface, np.clip((1 - far) * radius + 0.5, 0, 1))


def _circle(x: float, y: float, radius: float) -> Points:
    turns = np.linspace(0, math.tau, 72, endpoint=False)
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]


def _outline(kind: str, x: float, y: float, radius: float, turn: float) -> Points:
    if kind == "circle":
        return _circle(x, y, radius)
    corners = {"square": 4, "triangle": 3, "star": 10, "hexagon": 6}[kind]
    points = []
    for corner in range(corners):
        reach = radius * (0.45 if kind == "star" and corner % 2 else 1.0)
        angle = turn + math.tau * corner / corners - math.pi / 2
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return points


def _hand(pixels: Floats, centre: float, angle: float, start: float, end: float, half: float) -> None:
    sin, cos = math.sin(angle), math.cos(angle)
    paint(
        pixels,
        [
            (centre + sin * along - cos * side, centre - cos * along - sin * side)
            for along, side in ((start, half), (end, half * 0.6), (end, -half * 0.6), (start, -half))
        ],
        (38, 36, 40),
    )
