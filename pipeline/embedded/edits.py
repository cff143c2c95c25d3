"""The records of `editing`: drawn pairs of every kind with their truth, and pairs with a reason to be dropped."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.embedded.item import EDITING, EXACT, KEPT, End, Item, Row, described, dropped, encoded, quarantined, told
from pipeline.embedded.pairs import EditPair, drawn_thing, edit_pair
from pipeline.embedded.picture import Floats, Origin, Picture

INDEX = "pairs.jsonl"
_ORIGIN = Origin(path="pipeline/embedded/pairs.py")
_GOOD = {"added": 4, "removed": 3, "recoloured": 3, "moved": 3, "restyled": 5}
_BAD = {"unchanged": (2, "changed"), "unrelated": (2, "related")}


@dataclass(frozen=True)
class _Sides:
    """A pair as files: name, instruction, its end, and pictures by role; `output` may be missing or broken."""

    name: str
    instruction: str
    end: End
    pictures: Mapping[str, bytes]
    tags: tuple[str, ...]
    origin: Origin = _ORIGIN
    output: str | None = None
    """The output of another pair, to be named in place of an own one."""


def edits() -> Iterator[Item | Row]:
    """All of them: the files of a pair, then its line of the index."""
    for pair in _pairs():
        yield from _records(pair)


def _pairs() -> Iterator[_Sides]:
    for kind, count in _GOOD.items():
        for number in range(count):
            yield _plain(edit_pair(kind, number), KEPT)  # type: ignore[arg-type]
    yield from _maps()
    yield from _referenced()
    for kind, (count, rule) in _BAD.items():
        for number in range(count):
            yield _plain(edit_pair(kind, number), dropped(rule))  # type: ignore[arg-type]
    for number in range(2):
        yield _plain(edit_pair("swapped", number), dropped("direction"))
    yield from _spoiled()
    yield from _unusable()


def _plain(pair: EditPair, end: End, **changed: Any) -> _Sides:
    sides = {"input": pair.source, "output": pair.target}
    made = _Sides(pair.name, pair.instruction, end, sides, ("drawn", pair.kind))
    return replace(made, **changed)


def _maps() -> Iterator[_Sides]:
    """Maps of a picture and a thing cut out of it."""
    pair = edit_pair("added", 20)
    sides = {"input": pair.source, "output": _jpeg(edges(_pixels(pair.source)))}
    yield _Sides("edges_00", "Draw the Canny edges of this picture.", KEPT, sides, ("drawn", "map"))
    pair = edit_pair("added", 21)
    sides = {"input": pair.source, "output": _jpeg(regions(_pixels(pair.source)))}
    yield _Sides("regions_00", "Show a segmentation map of this picture.", KEPT, sides, ("drawn", "map"))
    for number in range(2):
        pair = edit_pair("removed", 10 + number)
        words = pair.instruction.removeprefix("Remove ").removesuffix(".")
        sides = {"input": pair.source, "output": _jpeg(_cut_out(pair))}
        yield _Sides(
            f"extracted_{number:02d}", f"Extract {words} onto a white ground.", KEPT, sides, ("drawn", "extract")
        )


def _referenced() -> Iterator[_Sides]:
    """Pairs with a second input that shows what to put into the first."""
    tags = ("drawn", "two-inputs")
    for number in range(2):
        pair = edit_pair("added", 30 + number)
        words = pair.instruction.removeprefix("Add ").removesuffix(".").partition(" ")[2]
        asked = f"Put the {words} of the second picture into the first one."
        sides = {"input": pair.source, "input1": _jpeg(drawn_thing(pair.name, words)), "output": pair.target}
        yield _Sides(f"placed_{number:02d}", asked, KEPT, sides, tags)
    pair = edit_pair("added", 33)
    sides = {"input": pair.source, "input1": _again(pair.target), "output": pair.target}
    yield _Sides("copied_00", "Put the thing of the second picture into the first one.", dropped("copied"), sides, tags)


def _spoiled() -> Iterator[_Sides]:
    """Pairs whose pictures do not do what was asked."""
    for number in range(2):
        pair = edit_pair("added", 40 + number)
        far = _pixels(pair.target) * (0.62, 0.7, 0.8) + (70, 40, 6)
        yield _plain(pair, dropped("consistency"), name=f"outside_{number:02d}",
                     pictures={"input": pair.source, "output": _jpeg(far)})  # fmt: skip
    pair = edit_pair("added", 42)
    yield _plain(pair, dropped("restyled"), name="style_00", instruction="Turn the picture into a watercolour.")
    map_of_another = _jpeg(edges(_pixels(edit_pair("added", 46).source)))
    pair = edit_pair("added", 43)
    yield _plain(pair, dropped("traced"), name="map_of_another", pictures={"input": pair.source,
                 "output": map_of_another}, instruction="Draw the Canny edges of this picture.")  # fmt: skip


def _unusable() -> Iterator[_Sides]:
    """Pairs with broken words, files or terms."""
    for number, words in enumerate(("Add a <object>.", "Add what is in https://pictures.example/kite.png")):
        yield _plain(edit_pair("added", 50 + number), dropped("leftovers"), name=f"gap_{number}", instruction=words)
    yield _plain(edit_pair("added", 52), dropped("instruction"), name="one_word", instruction="Add!")
    pair = edit_pair("added", 53)
    small = {name: _resized(data, 0.4) for name, data in (("input", pair.source), ("output", pair.target))}
    yield _plain(pair, dropped("side"), name="small_00", pictures=small)
    pair = edit_pair("removed", 54)
    squeezed = {"input": pair.source, "output": _resized(pair.target, 1, 0.75)}
    yield _plain(pair, dropped("proportions"), name="squeezed_00", pictures=squeezed)
    for number, licence in enumerate(("CC-BY-NC-4.0", None)):
        end = dropped("licence" if licence else "no licence")
        origin = replace(_ORIGIN, licence=licence, note="stated for the test")
        yield _plain(edit_pair("moved", 55 + number), end, name=f"terms_{number}", origin=origin)
    # One result under two wordings: the longer one stays.
    pair = edit_pair("added", 0)
    yield _plain(pair, EXACT, name="same_result", instruction="Add it here.", output=f"{pair.name}__output.jpg",
                 pictures={"input": pair.source})  # fmt: skip
    pair = edit_pair("added", 57)
    cut = {"input": pair.source, "output": pair.target[: len(pair.target) // 2]}
    yield _plain(pair, quarantined("truncated image"), name="cut_00", pictures=cut)
    pair = edit_pair("removed", 58)
    yield _plain(pair, quarantined("wrong type"), name="no_output", pictures={"input": pair.source})


def edges(pixels: Floats) -> Floats:
    """White lines on black where brightness changes, [height, width, 3] of 0-255."""
    grey = cv2.cvtColor(np.clip(pixels, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    lines = cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1.6), 40, 110)
    return np.repeat(lines[..., None], 3, axis=2).astype(np.float32)


def regions(pixels: Floats) -> Floats:
    """Areas of one flat colour each, [height, width, 3] of 0-255."""
    flat = cv2.pyrMeanShiftFiltering(np.clip(pixels, 0, 255).astype(np.uint8), 12, 30)
    return np.asarray(cv2.medianBlur(flat, 7) // 48 * 48 + 24, np.float32)


def _cut_out(pair: EditPair) -> Floats:
    """What lies in the pair's box, before white."""
    pixels = _pixels(pair.source)
    assert pair.box is not None
    height, width = pixels.shape[:2]
    left, top, right, bottom = (round(share * side) for share, side in zip(pair.box, (width, height) * 2, strict=True))
    shown = np.full_like(pixels, 250)
    shown[top:bottom, left:right] = pixels[top:bottom, left:right]
    return shown


def _records(pair: _Sides) -> Iterator[Item | Row]:
    files = {role: f"{pair.name}__{role}.jpg" for role in pair.pictures}
    for role, data in pair.pictures.items():
        yield _file(pair, files[role], role, data)
    inputs = [f"files/{file}" for role, file in files.items() if role != "output"]
    output = pair.output or files.get("output")
    line: dict[str, Any] = {"pair_id": pair.name, "inputs": inputs}
    if output is not None:
        line["output"] = f"files/{output}"
    line |= {"instruction": pair.instruction, "instruction_source": "written with the pair", "tags": list(pair.tags)}
    line["origin_repo"] = pair.origin.repo
    if pair.origin.licence is not None:
        line["licence"] = pair.origin.licence
    ends = {EDITING: pair.end}
    yield Row(INDEX, pair.name, {**line, "expected": told(ends)}, ends, pair.origin, listed=False)


def _file(pair: _Sides, file: str, role: str, data: bytes) -> Item:
    facts: dict[str, Any] = {"purpose": ["image editing pair"], "media": "image", "tags": list(pair.tags)}
    if pair.end.reason != "truncated image" or role != "output":
        picture = Picture(file, Image.new("L", (1, 1)), tags=pair.tags)
        facts = described(picture, data, ("image editing pair",))
    facts |= {
        "role": "output" if role == "output" else "input",
        "pair_id": pair.name,
        "instruction": pair.instruction,
        "instruction_source": "written with the pair",
        "derived": "drawn",
    }
    return Item(file, data, {}, pair.origin, facts)


def _pixels(data: bytes) -> Floats:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.float32)


def _jpeg(pixels: Floats) -> bytes:
    return encoded(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), quality=90)


def _again(data: bytes) -> bytes:
    """The picture stored once more."""
    return _jpeg(_pixels(data))


def _resized(data: bytes, across: float, down: float | None = None) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        size = round(image.width * across), round(image.height * (across if down is None else down))
        return encoded(image.resize(size, Image.Resampling.LANCZOS), quality=90)
