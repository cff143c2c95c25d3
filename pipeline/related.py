"""Expander `related`: pairs for the first stage of training, made from one picture alone.

A map of the picture and the way back from it (controllable generation), a hole to fill, a frame to widen, a grey
picture to colour. Nothing here needs a model, so there is no depth and no pose among them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.measures.same_picture import settle
from pipeline.media import MediaRef, keep_media, kept_ref
from pipeline.operator import Child, Expander, Params, Quarantine, Record
from pipeline.pictures import DEFAULT_LIMITS, decode_noted

Picture = NDArray[np.uint8]
Task = Literal["edges", "from_edges", "regions", "from_regions", "inpaint", "outpaint", "colourise"]

_REGIONS, _REGION_SIDE = 8, 96
# Share of each side that a hole takes, and that is kept where the frame is widened.
_HOLE, _KEPT = (0.25, 0.5), (0.6, 0.8)
_GREY = 128
_QUALITY = 92


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

    Pictures with a shorter side below `least_side` are quarantined as `too small`.
    """

    tasks: tuple[Task, ...] = Field(
        default=("edges", "from_edges", "regions", "from_regions", "inpaint", "outpaint", "colourise"), min_length=1
    )
    role: str = "image"
    caption: str | None = None
    least_side: int = Field(default=64, ge=16)


class Related(Expander):
    """One pair a task, each a record with the media `source` and `target` and the role of its task.

    Fields are those of the picture, with `text` the instruction and `task` the task's name. One side is the picture
    itself, as it lies; the other is written to the store under its digest.
    """

    name = "related"
    version = 1
    Params = RelatedParams
    params: RelatedParams

    @property
    def reads(self) -> tuple[str, ...]:
        """Where the caption comes from."""
        return () if self.params.caption is None else (self.params.caption,)

    def expand(self, record: Record) -> Iterable[Child]:
        """The pairs in the order of `tasks`; raises Quarantine."""
        ref = record.ref(self.params.role)
        picture = decode_noted(record.read(self.params.role), None, DEFAULT_LIMITS).rgb
        if min(picture.shape[:2]) < self.params.least_side:
            raise Quarantine("too small", f"{picture.shape[1]} x {picture.shape[0]} pixels")
        return list(self._children(record, ref, picture))

    def _children(self, record: Record, ref: MediaRef, picture: Picture) -> Iterator[Child]:
        caption = record.values.get(self.params.caption) if self.params.caption else None
        for task in self.params.tasks:
            recipe = TASKS[task]
            drawn = recipe.draw(picture, _chance(ref.digest or record.key, task))
            made = _store(record, drawn, recipe.lossless)
            sides = ("source", "target") if recipe.is_source else ("target", "source")
            media = {sides[0]: replace(made, role=sides[0]), sides[1]: replace(ref, role=sides[1])}
            text = recipe.asked + (f" It shows: {caption}" if caption and recipe.is_source else "")
            fields: dict[str, Any] = {**record.fields, "text": text, "task": task}
            yield Child(task, fields, (media["source"], media["target"]))


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


TASKS: dict[Task, _Recipe] = {
    "edges": _Recipe(edge_map, False, "Generate a Canny edge map of this picture.", lossless=True),
    "from_edges": _Recipe(edge_map, True, "Draw a picture that follows these edges.", lossless=True),
    "regions": _Recipe(region_map, False, "Generate a segmentation map of this picture by colour.", lossless=True),
    "from_regions": _Recipe(region_map, True, "Draw a picture that follows this map of colours.", lossless=True),
    "inpaint": _Recipe(holed, True, "Fill in the grey rectangle."),
    "outpaint": _Recipe(framed, True, "Widen the picture into the grey frame."),
    "colourise": _Recipe(greyed, True, "Colour this grey picture."),
}
"""Every task and how its other side is made."""


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
