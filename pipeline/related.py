"""Expander `related`: pairs for the first stage of training, made from one picture alone.

A map of the picture and the way back from it (controllable generation), a hole to fill, a frame to widen, a grey
picture to colour, a style to give, a subject to put into a picture. Nothing here needs a model, so the depth is one of
haze alone, and there is no pose.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.boxes import Box
from pipeline.measures.same_picture import settle
from pipeline.media import MediaRef, keep_media, kept_ref
from pipeline.operator import Child, Expander, Params, Quarantine, Record
from pipeline.pictures import DEFAULT_LIMITS, decode_noted

Picture = NDArray[np.uint8]
Task = Literal[
    "edges", "from_edges", "regions", "from_regions", "depth", "from_depth",
    "inpaint", "outpaint", "colourise", "pencil", "watercolour", "subject",
]  # fmt: skip

_REGIONS, _REGION_SIDE = 8, 96
# Share of each side that a hole takes, and that is kept where the frame is widened.
_HOLE, _KEPT = (0.25, 0.5), (0.6, 0.8)
_GREY = 128
_QUALITY = 92
_LARGEST = 1024
"""Longer side at which the other side of a pair is drawn at most: stages see 512, and pencils take their time."""
_HAZE_SIDE, _HAZE_WINDOW = 320, 15
# Share of the picture that a subject fills, and what stays around it, as a share of its own sides.
_SUBJECT, _MARGIN = (0.04, 0.6), 0.05


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a task is made: what the other side shows, whether that is the source, and what is asked.

    `asked` may hold `{caption}`, the picture's caption.
    """

    draw: Callable[[Picture, np.random.Generator], Picture]
    is_source: bool
    asked: str
    lossless: bool = False


class RelatedParams(Params):
    """Which tasks, from the medium of which role, and the column or field with a caption (null: none is told).

    Pictures with a shorter side below `least_side` are quarantined as `too small`. The task `subject` needs `boxes`, a
    column of verified boxes (`measure: boxes`); a picture without a box of fitting size has no such pair.
    """

    tasks: tuple[Task, ...] = Field(
        default=("edges", "from_edges", "regions", "from_regions", "inpaint", "outpaint", "colourise"), min_length=1
    )
    role: str = "image"
    caption: str | None = None
    boxes: str | None = None
    least_side: int = Field(default=64, ge=16)

    @model_validator(mode="after")
    def _boxes_for_subjects(self) -> RelatedParams:
        if "subject" in self.tasks and self.boxes is None:
            raise ValueError("tasks: `subject` needs `boxes`, a column of verified boxes")
        return self


class Related(Expander):
    """One pair a task, each a record with the media `source` and `target` and the role of its task.

    Fields are those of the picture, with `text` the instruction and `task` the task's name. One side is the picture
    itself, as it lies; the other is written to the store under its digest.
    """

    name = "related"
    version = 2
    Params = RelatedParams
    params: RelatedParams

    @property
    def reads(self) -> tuple[str, ...]:
        """Where the caption and the boxes come from."""
        return tuple(name for name in (self.params.caption, self.params.boxes) if name is not None)

    def expand(self, record: Record) -> Iterable[Child]:
        """The pairs in the order of `tasks`; raises Quarantine."""
        ref = record.ref(self.params.role)
        picture = decode_noted(record.read(self.params.role), None, DEFAULT_LIMITS).rgb
        if min(picture.shape[:2]) < self.params.least_side:
            raise Quarantine("too small", f"{picture.shape[1]} x {picture.shape[0]} pixels")
        return list(self._children(record, ref, _within(picture)))

    def _children(self, record: Record, ref: MediaRef, picture: Picture) -> Iterator[Child]:
        caption = record.values.get(self.params.caption) if self.params.caption else None
        # The way there and the way back share a map, which no chance decides.
        maps: dict[Callable[[Picture, np.random.Generator], Picture], MediaRef] = {}
        for task in self.params.tasks:
            recipe = self._recipe(task, record, ref)
            if recipe is None:
                continue
            made = maps.get(recipe.draw)
            if made is None:
                drawn = recipe.draw(picture, _chance(ref.digest or record.key, task))
                made = _store(record, drawn, recipe.lossless)
            if recipe.lossless:
                maps[recipe.draw] = made
            sides = ("source", "target") if recipe.is_source else ("target", "source")
            media = {sides[0]: replace(made, role=sides[0]), sides[1]: replace(ref, role=sides[1])}
            text = recipe.asked + (f" It shows: {caption}" if caption and recipe.is_source else "")
            fields: dict[str, Any] = {**record.fields, "text": text, "task": task}
            yield Child(task, fields, (media["source"], media["target"]))

    def _recipe(self, task: Task, record: Record, ref: MediaRef) -> _Recipe | None:
        """How a task is made of this picture; None where it has no subject to cut out."""
        if task != "subject":
            return TASKS[task]
        box = _chosen(record.values[str(self.params.boxes)] or [], _chance(ref.digest or record.key, "box"))
        if box is None:
            return None
        return _Recipe(lambda picture, _: cropped(picture, box), True, f"Draw a picture with this {box.label}.")


def _within(picture: Picture) -> Picture:
    """The picture, reduced where it is larger than what is drawn."""
    import cv2

    height, width = picture.shape[:2]
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def edge_map(picture: Picture, chance: np.random.Generator) -> Picture:
    """White Canny edges on black, uint8 [height, width, 3]; thresholds follow from the median (0.67 and 1.33 of it)."""
    import cv2

    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1.4)
    middle = float(np.clip(np.median(grey), 60, 180))
    return np.repeat(cv2.Canny(grey, 0.67 * middle, 1.33 * middle)[..., None], 3, axis=2)


def region_map(picture: Picture, chance: np.random.Generator) -> Picture:
    """Areas of one mean colour each, of at most 8 colours: where things are, not what they are."""
    import cv2

    settle()
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (_REGION_SIDE, _REGION_SIDE), interpolation=cv2.INTER_AREA)
    samples = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    start = np.zeros((len(samples), 1), np.int32)
    _, _, centres = cv2.kmeans(samples, _REGIONS, start, stop, 1, cv2.KMEANS_PP_CENTERS)
    soft = cv2.GaussianBlur(picture, (0, 0), max(1.0, min(height, width) / 160))
    lab = cv2.cvtColor(soft, cv2.COLOR_RGB2LAB).astype(np.float32)
    far = np.stack([((lab - centre) ** 2).sum(axis=2) for centre in centres], axis=2)
    nearest = cv2.medianBlur(far.argmin(axis=2).astype(np.uint8), 5)
    colours = cv2.cvtColor(np.clip(centres, 0, 255).astype(np.uint8)[None], cv2.COLOR_LAB2RGB)[0]
    regions: Picture = colours[nearest]
    return regions


def holed(picture: Picture, chance: np.random.Generator) -> Picture:
    """The picture with a grey rectangle somewhere inside."""
    height, width = picture.shape[:2]
    high, wide = (round(side * chance.uniform(*_HOLE)) for side in (height, width))
    top, left = int(chance.integers(0, height - high + 1)), int(chance.integers(0, width - wide + 1))
    open_one = picture.copy()
    open_one[top : top + high, left : left + wide] = _GREY
    return open_one


def framed(picture: Picture, chance: np.random.Generator) -> Picture:
    """Only a window of the picture, grey around it."""
    height, width = picture.shape[:2]
    share = chance.uniform(*_KEPT)
    high, wide = round(height * share), round(width * share)
    top, left = int(chance.integers(0, height - high + 1)), int(chance.integers(0, width - wide + 1))
    window = np.full_like(picture, _GREY)
    window[top : top + high, left : left + wide] = picture[top : top + high, left : left + wide]
    return window


def greyed(picture: Picture, chance: np.random.Generator) -> Picture:
    """The picture without colour."""
    import cv2

    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def haze(picture: Picture, chance: np.random.Generator) -> Picture:
    """Depth-like: white is near, black is far, by how little haze lies before it.

    The dark channel of He, Sun and Tang, "Single image haze removal using dark channel prior" (CVPR 2009), stretched
    and smoothed along edges. It tells far from near outdoors, and elsewhere little more than dark from bright.
    """
    import cv2

    settle()
    height, width = picture.shape[:2]
    scale = min(1.0, _HAZE_SIDE / min(height, width))
    small = cv2.resize(
        picture, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    dark = cv2.erode(small.min(axis=2), np.ones((_HAZE_WINDOW, _HAZE_WINDOW), np.uint8))
    low, high = np.percentile(dark, (1, 99))
    near = 255 * (1 - np.clip((dark - low) / max(1.0, high - low), 0, 1))
    smooth = cv2.bilateralFilter(near.astype(np.float32), 9, 40, 9)
    grey = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def pencilled(picture: Picture, chance: np.random.Generator) -> Picture:
    """A pencil drawing of the picture (OpenCV's `pencilSketch`)."""
    import cv2

    settle()
    grey, _ = cv2.pencilSketch(np.ascontiguousarray(picture[..., ::-1]), sigma_s=40, sigma_r=0.08, shade_factor=0.04)
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def washed(picture: Picture, chance: np.random.Generator) -> Picture:
    """The picture in ink and watercolour (OpenCV's `stylization`)."""
    import cv2

    settle()
    painted = cv2.stylization(np.ascontiguousarray(picture[..., ::-1]), sigma_s=60, sigma_r=0.45)
    return np.ascontiguousarray(np.asarray(painted, np.uint8)[..., ::-1])


def cropped(picture: Picture, box: Box) -> Picture:
    """What lies in a box (0-1), with a small margin."""
    height, width = picture.shape[:2]
    across, down = _MARGIN * (box.x1 - box.x0), _MARGIN * (box.y1 - box.y0)
    left, right = (round(width * min(max(side, 0.0), 1.0)) for side in (box.x0 - across, box.x1 + across))
    top, bottom = (round(height * min(max(side, 0.0), 1.0)) for side in (box.y0 - down, box.y1 + down))
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _chosen(boxes: Sequence[dict[str, Any]], chance: np.random.Generator) -> Box | None:
    """One of the boxes of fitting size."""
    found = [Box(**box) for box in boxes]
    found = [box for box in found if _SUBJECT[0] <= box.area <= _SUBJECT[1]]
    return found[int(chance.integers(len(found)))] if found else None


TASKS: dict[Task, _Recipe] = {
    "edges": _Recipe(edge_map, False, "Generate a Canny edge map of this picture.", lossless=True),
    "from_edges": _Recipe(edge_map, True, "Draw a picture that follows these edges.", lossless=True),
    "regions": _Recipe(region_map, False, "Generate a segmentation map of this picture by colour.", lossless=True),
    "from_regions": _Recipe(region_map, True, "Draw a picture that follows this map of colours.", lossless=True),
    "depth": _Recipe(haze, False, "Generate a rough depth map of this picture: near is bright.", lossless=True),
    "from_depth": _Recipe(
        haze, True, "Draw a picture that follows this rough depth map: near is bright.", lossless=True
    ),
    "inpaint": _Recipe(holed, True, "Fill in the grey rectangle."),
    "outpaint": _Recipe(framed, True, "Widen the picture into the grey frame."),
    "colourise": _Recipe(greyed, True, "Colour this grey picture."),
    "pencil": _Recipe(pencilled, False, "Turn this picture into a pencil drawing."),
    "watercolour": _Recipe(washed, False, "Turn this picture into a drawing in ink and watercolour."),
}
"""Every task and how its other side is made; `subject` needs a box of the record."""


def _chance(seed: str, task: str) -> np.random.Generator:
    """Depends on the picture and the task alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{task} {seed}".encode()).digest()[:8], "big"))


def _store(record: Record, picture: Picture, lossless: bool) -> MediaRef:
    """The picture as an object of the store, named by its digest, so that writing it twice is writing it once."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(picture)
    if lossless:
        image.save(file, "PNG", compress_level=6)
    else:
        image.save(file, "JPEG", quality=_QUALITY)
    data = file.getvalue()
    digest = keep_media(record.reader.storage(), data)
    return kept_ref("image", digest, len(data))
