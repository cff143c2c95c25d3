"""Measure `faces`: how many faces a picture shows and how much of it they cover; nobody is recognised.

The detector is YuNet (Wu, Peng, Yu 2023), by OpenCV's FaceDetectorYN with an ONNX file that the recipe names. Without
one the measure is missing, unless the recipe asks for a cascade of local binary patterns, whose file comes with
scikit-image: it finds frontal faces that fill much of a picture, and few others (docs/safety.md has figures).
OpenCV 5 has neither cascades nor files of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from catalog.errors import UserError
from pipeline.operator import Column, Measure, Params, Record
from pipeline.pictures import decode_scaled

CASCADE = "lbp-frontal cascade of scikit-image"
"""What the stand-in is called wherever results are shown."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_MOST_ASPECT = 4
# Boxes that overlap this much are one face (the detector's own default).
_OVERLAP = 0.3
# The cascade's windows: steps of size, least side as a share of the shorter side, agreeing windows.
_SCALE, _LEAST, _AGREEING = 1.1, 1 / 16, 8


class FacesParams(Params):
    """Parameters of `faces`.

    `checkpoint`: path of YuNet as an ONNX file. `cascade`: without one, look with scikit-image's cascade. `score`: the
    least score of a face that YuNet finds. `side`: shorter side in pixels of the picture that is looked at.
    """

    checkpoint: str | None = None
    cascade: bool = False
    score: float = Field(default=0.6, ge=0.05, le=1)
    side: int = Field(default=480, ge=64, le=2048)
    role: str = "image"


class Faces(Measure):
    """How many faces a picture shows, and the share of it that they cover."""

    name = "faces"
    version = 1
    loads_model = True
    Params = FacesParams
    params: FacesParams

    def __init__(self, params: FacesParams) -> None:
        super().__init__(params)
        self._detector: Any = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column("faces", pa.int64(), "faces found", 0),
            Column("face_share", pa.float64(), "share of the picture in the boxes of faces", 0, 1),
            Column("largest_face", pa.float64(), "share of the picture in the largest of them; 0 without", 0, 1),
            Column("face_detector", pa.string(), "what looked: `yunet` and its file's digest, or `lbp-frontal`"),
        )

    @property
    def missing(self) -> str | None:
        """A reason when there is no checkpoint and no cascade is asked for."""
        if self.params.checkpoint or self.params.cascade:
            return None
        return "no checkpoint of YuNet is given, and `cascade: true` is not said"

    @property
    def embedded(self) -> tuple[str, ...]:
        """The cascade, where it stands in for YuNet."""
        return () if self.params.checkpoint or not self.params.cascade else (CASCADE,)

    @property
    def packages(self) -> Mapping[str, str]:  # type: ignore[override]
        """The cascade comes with scikit-image."""
        return {"skimage": "faces"} if self.embedded else {}

    def fingerprint_parts(self) -> dict[str, Any]:
        """Which detector looks: its file's digest."""
        return {} if self.missing else {"detector": self._name()}

    def _name(self) -> str:
        if not self.params.checkpoint:
            return "lbp-frontal"
        try:
            stat = os.stat(self.params.checkpoint)
            return f"yunet {_digest(self.params.checkpoint, stat.st_size, stat.st_mtime_ns)[:12]}"
        except OSError as error:
            raise UserError(f"{self.params.checkpoint}: the checkpoint cannot be read: {error.strerror}") from error

    def setup(self) -> None:
        """Load the detector; raises UserError when the file is none of YuNet's form."""
        import cv2

        cv2.setNumThreads(1)
        if self.params.checkpoint:
            self._detector = _yunet(self.params.checkpoint, self.params.score)
        elif self.params.cascade:
            from skimage.data import lbp_frontal_face_cascade_filename
            from skimage.feature import Cascade

            self._detector = Cascade(lbp_frontal_face_cascade_filename())

    def process(self, record: Record) -> Sequence[Any]:
        """What is found; raises Quarantine for what is no picture."""
        if self._detector is None:
            self.setup()
        picture = sized(decode_scaled(record.read(self.params.role), self.params.side), self.params.side)
        boxes = _by_yunet(self._detector, picture) if self.params.checkpoint else _by_cascade(self._detector, picture)
        return (*covered(boxes, *picture.shape[:2]), self._name())


def sized(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture with its shorter side reduced to `side`, and no side longer than four times that."""
    import cv2

    height, width = rgb.shape[:2]
    factor = min(1.0, side / min(height, width), _MOST_ASPECT * side / max(height, width))
    if factor == 1.0:
        return rgb
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    reduced: NDArray[np.uint8] = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return reduced


def covered(boxes: Iterable[Box], height: int, width: int) -> tuple[int, float, float]:
    """How many boxes lie in the picture, the share of it in any of them, and in the largest."""
    inside = np.zeros((height, width), np.bool_)
    count, largest = 0, 0
    for left, top, right, bottom in boxes:
        rows = slice(max(0, round(top)), max(0, min(height, round(bottom))))
        columns = slice(max(0, round(left)), max(0, min(width, round(right))))
        area = max(0, rows.stop - rows.start) * max(0, columns.stop - columns.start)
        if area:
            count, largest = count + 1, max(largest, area)
            inside[rows, columns] = True
    return count, float(inside.mean()), largest / (height * width)


def _yunet(path: str, score: float) -> Any:
    import cv2

    try:
        detector = cv2.FaceDetectorYN.create(path, "", (64, 64), score, _OVERLAP)
        # A graph of another form shows only when it runs.
        detector.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: OpenCV cannot run it as YuNet: {said}") from error
    return detector


def _by_yunet(detector: Any, rgb: NDArray[np.uint8]) -> list[Box]:
    import cv2

    detector.setInputSize((rgb.shape[1], rgb.shape[0]))
    _, found = detector.detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    rows = [] if found is None else found[:, :4].astype(float).tolist()
    return [(left, top, left + width, top + height) for left, top, width, height in rows]


def _by_cascade(cascade: Any, rgb: NDArray[np.uint8]) -> list[Box]:
    least = max(24, round(min(rgb.shape[:2]) * _LEAST))
    found = cascade.detect_multi_scale(
        img=rgb,
        scale_factor=_SCALE,
        step_ratio=1,
        min_size=(least, least),
        max_size=rgb.shape[:2],
        min_neighbor_number=_AGREEING,
    )
    return [(one["c"], one["r"], one["c"] + one["width"], one["r"] + one["height"]) for one in found]


@cache
def _digest(path: str, _size: int, _mtime_ns: int) -> str:
    """The sha256 of a file, once for every state of it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
