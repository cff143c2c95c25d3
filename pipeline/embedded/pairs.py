"""Edits with known truth: drawn scenes before and after, what was done to them, and what was asked for.

Sources are stored as JPEG, targets as another JPEG of lower quality and often another size, as editing models leave
them. Everything follows from the pair's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from pipeline.embedded.item import encoded
from pipeline.embedded.picture import COLOURS, Floats, Picture, Points, noise, paint, rectangle, seeded
from pipeline.embedded.scenes import TIMES, harbour, landscape, skyline

Kind = Literal["added", "removed", "recoloured", "moved", "restyled", "unchanged", "unrelated", "swapped"]
KINDS: tuple[Kind, ...] = (
    "added",
    "removed",
    "recoloured",
    "moved",
    "restyled",
    "unchanged",
    "unrelated",
    "swapped",
)
"""What was done: `unchanged` asks for a thing that never came, `unrelated` shows another scene, `swapped` has source
and target the wrong way round. The first five are good pairs."""
STYLES = ("a pencil sketch", "an oil painting", "a warm sepia print", "a night scene", "a poster of few colours")

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the frame."""

_THINGS = ("balloon", "kite", "sign")
_NAMES = ("red", "orange", "yellow", "blue", "purple", "pink")


@dataclass(frozen=True)
class EditPair:
    """A source and a target as files, the instruction, and the truth.

    `box`: where something was edited; None where nothing or everything was.
    """

    name: str
    kind: Kind
    instruction: str
    source: bytes
    target: bytes
    box: Box | None = None

    def line(self) -> dict[str, Any]:
        """The line of a manifest in the layout of the sample corpora."""
        return {
            "pair_id": self.name,
            "inputs": [f"files/{self.name}__input.jpg"],
            "output": f"files/{self.name}__output.jpg",
            "instruction": self.instruction,
            "tags": ["drawn", self.kind],
            "origin_repo": "(generated)",
            "licence": "CC0-1.0",
        }


@dataclass(frozen=True)
class _Thing:
    """Something to paint into a scene: what, in which colour, its middle and half size in pixels."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def words(self) -> str:
        return f"{self.colour} {self.kind}"


def pairs(count: int = 5) -> Iterator[EditPair]:
    """`count` pairs of every kind, in the order of KINDS."""
    for kind in KINDS:
        for number in range(count):
            yield edit_pair(kind, number)


def edit_pair(kind: Kind, number: int) -> EditPair:
    """The pair of a kind and a number."""
    name = f"{kind}_{number:02d}"
    rng = seeded(name)
    scene = np.asarray(_scene(name, rng, number).image.convert("RGB"), np.float32)
    thing = _thing(rng, scene)
    with_thing = _painted(rng, scene, thing)
    box = _box(thing, scene)
    article = "an" if thing.colour == "orange" else "a"
    add, remove = f"Add {article} {thing.words}.", f"Remove the {thing.words}."
    asked, before, after = add, scene, with_thing
    edited: Box | None = box
    match kind:
        case "removed":
            asked, before, after = remove, with_thing, scene
        case "swapped" if number % 2:
            asked, before, after = add, with_thing, scene
        case "swapped":
            asked = remove
        case "recoloured":
            other = str(rng.choice([each for each in _NAMES if each != thing.colour]))
            asked, before = f"Change the colour of the {thing.words} to {other}.", with_thing
            after = _painted(rng, scene, replace(thing, colour=other))
        case "moved":
            step = thing.radius * 3 * (1 if thing.x < scene.shape[1] / 2 else -1)
            there = replace(thing, x=thing.x + step)
            asked, before = f"Move the {thing.words} to the {'right' if step > 0 else 'left'}.", with_thing
            after, edited = _painted(rng, scene, there), _joined(box, _box(there, scene))
        case "restyled":
            style = STYLES[number % len(STYLES)]
            asked, after, edited = f"Turn the picture into {style}.", restyled(scene, style), None
        case "unchanged":
            after, edited = _slightly_toned(rng, scene), None
        case "unrelated":
            # Another scene of the same kind and size: what a shuffled manifest would bring.
            stranger = _scene(f"{name} elsewhere", rng, number)
            after, edited = np.asarray(stranger.image.convert("RGB"), np.float32), None
        case _:
            pass
    return _made(EditPair(name, kind, asked, b"", b"", edited), rng, before, after)


def drawn_thing(name: str, words: str, side: int = 320) -> Floats:
    """A thing such as `red kite` alone on paper [side, side, 3] of 0-255, as a reference shows it."""
    rng = seeded(f"{name} alone")
    colour, kind = words.split()
    paper = np.full((side, side, 3), 226, np.float32) * (0.9 + 0.2 * noise(rng, side, side, (9, 9), 4)[..., None])
    return _painted(rng, paper, _Thing(kind, colour, side * 0.5, side * 0.42, side * 0.28))


def restyled(pixels: Floats, style: str) -> Floats:
    """The whole picture [height, width, 3] of 0-255 in one of STYLES."""
    flat = np.clip(pixels, 0, 255).astype(np.uint8)
    grey = cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY)
    if style == "a pencil sketch":
        soft = cv2.GaussianBlur(255 - grey, (0, 0), 6).astype(np.float32)
        drawn = np.minimum(255, grey.astype(np.float32) * 255 / np.maximum(1, 255 - soft))
        return np.repeat(drawn[..., None], 3, axis=2)
    if style == "an oil painting":
        smeared = cv2.medianBlur(cv2.medianBlur(flat, 13), 9).astype(np.float32)
        return np.asarray(smeared + 1.6 * (smeared - smeared.mean(axis=(0, 1))) * 0.3 + (12, 4, -10), np.float32)
    if style == "a warm sepia print":
        tint = np.array((1.12, 0.92, 0.66), np.float32)
        return np.asarray(grey.astype(np.float32)[..., None] * tint + 12, np.float32)
    if style == "a night scene":
        return np.asarray(np.clip(pixels, 0, 255) ** 1.3 / 255**0.3 * (0.28, 0.34, 0.62), np.float32)
    return np.asarray(cv2.medianBlur(flat, 7) // 64 * 64 + 32, np.float32)


def write_pairs(folder: Path, made: Iterable[EditPair]) -> list[EditPair]:
    """Write pairs into a folder as files/ and pairs.jsonl; what was written."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    written = []
    for pair in made:
        (files / f"{pair.name}__input.jpg").write_bytes(pair.source)
        (files / f"{pair.name}__output.jpg").write_bytes(pair.target)
        written.append(pair)
    lines = "".join(json.dumps(pair.line()) + "\n" for pair in written)
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    return written


def _scene(name: str, rng: np.random.Generator, number: int) -> Picture:
    size = ((640, 480), (512, 512), (480, 640))[number % 3]
    time = TIMES[int(rng.integers(len(TIMES)))]
    if number % 3 == 0:
        return landscape(name, size, time, 2 + number % 3, 1 + number % 2)
    return harbour(name, size, time, 1 + number % 4) if number % 3 == 1 else skyline(name, size, time)


def _thing(rng: np.random.Generator, scene: Floats) -> _Thing:
    height, width = scene.shape[:2]
    radius = min(height, width) * rng.uniform(0.05, 0.13)
    x = rng.uniform(0.2, 0.8) * width
    kind = _THINGS[int(rng.integers(len(_THINGS)))]
    return _Thing(kind, str(rng.choice(_NAMES)), float(x), float(rng.uniform(0.25, 0.7) * height), float(radius))


def _painted(rng: np.random.Generator, scene: Floats, thing: _Thing) -> Floats:
    """The scene with the thing in it."""
    pixels = scene.copy()
    texture = 0.8 + 0.35 * noise(rng, 96, 96, (24, 24), 3)
    for points in _outlines(thing):
        paint(pixels, points, COLOURS[thing.colour], texture)
    # A rim, as drawn things have.
    pole = rectangle(thing.x - thing.radius * 0.06, thing.y + thing.radius, thing.radius * 0.12, thing.radius * 0.9)
    paint(pixels, pole, COLOURS["black"])
    return pixels


def _outlines(thing: _Thing) -> list[Points]:
    x, y, r = thing.x, thing.y, thing.radius
    if thing.kind == "balloon":
        turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return [[(x + r * 0.85 * float(np.cos(turn)), y + r * float(np.sin(turn))) for turn in turns]]
    if thing.kind == "kite":
        return [[(x, y - r), (x + r * 0.8, y - r * 0.2), (x, y + r), (x - r * 0.8, y - r * 0.2)]]
    return [rectangle(x - r, y - r, 2 * r, 1.4 * r), rectangle(x - r * 0.1, y, r * 0.2, r)]


def _box(thing: _Thing, scene: Floats) -> Box:
    height, width = scene.shape[:2]
    x, y, r = thing.x, thing.y, thing.radius
    return (max(0.0, (x - r) / width), max(0.0, (y - r) / height), min(1.0, (x + r) / width),
            min(1.0, (y + r * 1.9) / height))  # fmt: skip


def _joined(one: Box, two: Box) -> Box:
    return min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])


def _slightly_toned(rng: np.random.Generator, scene: Floats) -> Floats:
    """What an autoencoder does to a picture it should leave alone: a little tone, a little blur."""
    gain, offset = rng.uniform(0.96, 1.03), rng.uniform(-4, 4, 3)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 0.6) * gain + offset, np.float32)


def _made(pair: EditPair, rng: np.random.Generator, before: Floats, after: Floats) -> EditPair:
    """The pair with both sides as files: the target with its own noise, often at another size, compressed harder."""
    height, width = after.shape[:2]
    grainy = after + rng.standard_normal(after.shape).astype(np.float32) * 1.5
    scale = (1.0, 0.8, 1.25, 1.0)[int(rng.integers(4))]
    target = _image(grainy).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    quality = int(rng.integers(70, 90))
    return replace(pair, source=encoded(_image(before), quality=93), target=encoded(target, quality=quality))


def _image(pixels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
