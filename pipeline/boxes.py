"""Boxes of things in a picture: reading annotations, checking them, and the 0 to 1000 grid that models speak.

Inside the factory a box is four shares of the upright picture, 0-1, corners (x0, y0) above and left of (x1, y1). A
model reads and writes whole numbers of 0 to 1000 (LLaDA2.0-Uni, section 3.1 of its report; Qwen3-VL alike): the text
form is JSON with `bbox_2d` and `label`. A share becomes the grid line nearest to it, halves upwards, so that a box
read back lies within half a thousandth of the one written, and a box that came from the grid is written as it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import Field

from pipeline.measures.ngrams import normal_words
from pipeline.operator import Params

GRID = 1000
REASONS = ("frame", "malformed", "unlabelled", "reversed", "outside", "tiny", "whole", "area", "unsure", "unsaid",
           "duplicate")  # fmt: skip
"""Why a box is not verified, in the order of the checks; a box is charged with the first that fails."""

Layout = Literal["xywh", "xyxy"]
Units = Literal["pixels", "share", "grid"]

# The mask of a thing lies in its box; annotations are rounded to hundredths of a pixel.
_AREA_SLACK = 1.02
# A side below two grid lines could be written as none.
_LEAST_SIDE = 2 / GRID


class Box(NamedTuple):
    """One thing: its label and its corners as shares of width and height, 0-1, x0 < x1, y0 < y1."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        """Share of the picture."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


class Form(Params):
    """How a source writes its objects: the names of the keys, `layout` of the four numbers and their `units`."""

    box: str = "bbox_xywh"
    label: str = "label"
    area: str = "area"
    crowd: str = "iscrowd"
    score: str = "score"
    layout: Layout = "xywh"
    units: Units = "pixels"


class Limits(Params):
    """What a box must keep to.

    `tolerance`: share of a side by which it may stand out of the picture, where it is cut off. `least_area` and
    `most_area`: shares of the picture. `duplicate_iou`: intersection over union from which two boxes of one label are
    one. `least_score`: confidence of a detector, where a source tells it.
    """

    tolerance: float = Field(default=0.01, ge=0, le=0.5)
    least_area: float = Field(default=0.001, ge=0, le=1)
    most_area: float = Field(default=0.95, ge=0, le=1)
    duplicate_iou: float = Field(default=0.9, gt=0, le=1)
    least_score: float = Field(default=0.0, ge=0, le=1)


class Checked(NamedTuple):
    """What became of the objects of one picture.

    `verified` sorted by label and corners; `crowds` counts boxes around many things; `broken` counts per reason;
    `uncountable` are the labels of which something is a crowd or broken other than by being there twice, sorted.
    """

    given: int
    verified: list[Box]
    crowds: int
    broken: Counter[str]
    uncountable: list[str]


def check_boxes(
    objects: Sequence[Any],
    size: tuple[int, int],
    form: Form | None = None,
    limits: Limits | None = None,
    texts: Sequence[str] = (),
    stated_size: tuple[Any, Any] | None = None,
) -> Checked:
    """Check the objects of a picture of `size` (width, height, upright, in pixels).

    `texts` must name the label of every box, if there are any. `stated_size` is the size the annotator saw; where it
    is another, every box is charged with `frame`. The result does not depend on the order of the objects.
    """
    form, limits = form or Form(), limits or Limits()
    broken: Counter[str] = Counter()
    uncountable: set[str] = set()
    good: list[Box] = []
    crowds = 0
    said = [normal_words(text) for text in texts if text.strip()]
    for thing in objects:
        label = _label(thing, form)
        if isinstance(thing, Mapping) and thing.get(form.crowd):
            crowds += 1
            uncountable.add(label)
            continue
        if stated_size is not None and tuple(stated_size) != size:
            found: Box | str = "frame"
        else:
            found = _check_one(thing, label, size, form, limits, said)
        if isinstance(found, str):
            broken[found] += 1
            uncountable.add(label)
        else:
            good.append(found)
    verified: list[Box] = []
    for box in sorted(good):
        if any(other.label == box.label and iou(other, box) >= limits.duplicate_iou for other in verified):
            broken["duplicate"] += 1
        else:
            verified.append(box)
    return Checked(len(objects), verified, crowds, broken, sorted(uncountable - {""}))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    across = min(a.x1, b.x1) - max(a.x0, b.x0)
    down = min(a.y1, b.y1) - max(a.y0, b.y0)
    if across <= 0 or down <= 0:
        return 0.0
    common = across * down
    return common / (a.area + b.area - common)


def to_grid(share: float) -> int:
    """The grid line, 0-1000, nearest to a share of 0-1; halves upwards."""
    return min(GRID, max(0, math.floor(share * GRID + 0.5)))


def grid_text(boxes: Iterable[Box]) -> str:
    """Boxes as a model writes them: `[{"bbox_2d":[x0,y0,x1,y1],"label":"cat"}]`, in the given order."""
    return orjson.dumps([{"bbox_2d": [*map(to_grid, box[1:])], "label": box.label} for box in boxes]).decode()


def read_grid_text(text: str) -> list[Box]:
    """The boxes a model wrote, as shares; raises ValueError for anything that is not the form of `grid_text`."""
    try:
        rows = orjson.loads(text)
        found = [Box(str(row["label"]), *(_grid_line(line) for line in row["bbox_2d"])) for row in rows]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"not a list of boxes: {text[:60]!r}") from error
    for box in found:
        if not (box.x0 < box.x1 and box.y0 < box.y1):
            raise ValueError(f"corners of {box.label!r} are out of order in {text[:60]!r}")
    return found


def _grid_line(line: Any) -> float:
    if type(line) is not int or not 0 <= line <= GRID:
        raise ValueError(f"{line!r} is no line of the grid, which has 0 to {GRID}")
    return line / GRID


def _check_one(
    thing: Any, label: str, size: tuple[int, int], form: Form, limits: Limits, said: list[list[str]]
) -> Box | str:
    """The box, cut off at the picture's rim, or the reason why it is none."""
    corners = _corners(thing, size, form)
    if corners is None:
        return "malformed"
    x0, y0, x1, y1 = corners
    box = Box(label, *(min(1.0, max(0.0, share)) for share in corners))
    full = (x1 - x0) * size[0] * (y1 - y0) * size[1]
    area, score = thing.get(form.area), thing.get(form.score)
    checks = (
        ("unlabelled", not label),
        ("reversed", not (x0 < x1 and y0 < y1)),
        ("outside", min(x0, y0) < -limits.tolerance or max(x1, y1) > 1 + limits.tolerance),
        ("tiny", box.area < limits.least_area or min(box.x1 - box.x0, box.y1 - box.y0) < _LEAST_SIDE),
        ("whole", box.area > limits.most_area),
        ("area", _is_number(area) and form.units == "pixels" and not 0 < area <= full * _AREA_SLACK + 1),
        ("unsure", _is_number(score) and score < limits.least_score),
        ("unsaid", bool(said) and not any(names(words, label) for words in said)),
    )
    return next((reason for reason, fails in checks if fails), box)


def _label(thing: Any, form: Form) -> str:
    label = thing.get(form.label) if isinstance(thing, Mapping) else None
    return " ".join(label.split()) if isinstance(label, str) else ""


def _corners(thing: Any, size: tuple[int, int], form: Form) -> tuple[float, float, float, float] | None:
    """Four shares, or None where there are not four finite numbers."""
    numbers = thing.get(form.box) if isinstance(thing, Mapping) else None
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(map(_is_number, numbers)):
        return None
    x0, y0, x1, y1 = map(float, numbers)
    if form.layout == "xywh":
        x1, y1 = x0 + x1, y0 + y1
    width, height = {"pixels": size, "share": (1, 1), "grid": (GRID, GRID)}[form.units]
    return x0 / width, y0 / height, x1 / width, y1 / height


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def names(words: Sequence[str], label: str) -> bool:
    """Whether a text, as `normal_words`, holds a label, in the singular or a regular plural."""
    wanted = normal_words(label)
    if not wanted:
        return False
    *head, last = wanted
    forms = {last, f"{last}s", f"{last}es"} | ({f"{last[:-1]}ies"} if last.endswith("y") else set())
    size = len(wanted)
    return any(
        words[start + size - 1] in forms and list(words[start : start + size - 1]) == head
        for start in range(len(words) - size + 1)
    )
