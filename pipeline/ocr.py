"""Text in pictures: RapidOCR (PP-OCRv6 detector and recogniser) behind one call.

The paper's pseudo-labels come from PaddleOCR; RapidOCR runs its networks with onnxruntime, and their weights are in its
wheel, so nothing is downloaded. docs/corpora/understanding-ocr.md has the figures it was chosen by.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Quad = NDArray[np.float64]
"""Corners of a line, float64 [4, (x, y)] in pixels: those of its first letter on top, then around with the clock."""

MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
"""Files in RapidOCR's wheel: detector, classifier of lines that stand on their head, recogniser."""


class Line(NamedTuple):
    """A line of text: the box around it in shares of the picture 0-1, what it says, and how sure the engine is, 0-1.

    `tilt`: radians by which it falls to the right, in pixels; 0 for one that runs up or down.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    text: str
    confidence: float
    tilt: float = 0.0

    @property
    def height(self) -> float:
        """Share of the picture's height."""
        return self.y1 - self.y0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one pass saw.

    `tall`, `flipped`: shares of the letters in lines that run up or down, or that stand on their head, 0-1.
    """

    lines: tuple[Line, ...]
    tall: float
    flipped: float


class Engine:
    """The networks, loaded once per process and run on one thread, so that the same picture gives the same text."""

    def __init__(self) -> None:
        import cv2
        from rapidocr import RapidOCR

        cv2.setNumThreads(1)
        cv2.setRNGSeed(0)
        folder = model_folder()
        self._rapid: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                # Its own scaling is switched off: the caller says at which size a picture is read.
                "Global.use_preprocess_img": False,
                "Global.use_vertical_padding": False,
                "Det.limit_side_len": 1,
                "Det.limit_type": "min",
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                **{f"{part}.model_path": str(folder / name) for part, name in MODELS.items()},
            }
        )

    def read(self, rgb: Rgb) -> Seen:
        """One pass over an upright picture, uint8 [height, width, 3], as it is."""
        height, width = rgb.shape[:2]
        crops, quads = self._find(rgb)
        if not crops:
            return Seen((), 0.0, 0.0)
        tall = [_is_tall(quad) for quad in quads]
        told = self._rapid.cls_and_rotate(list(crops))[1].cls_res
        flipped = [label == "180" and sure >= _SURELY_FLIPPED for label, sure in told]
        # The classifier is wrong about long lines on its own; most of the page is right.
        lengths = np.array([max(crop.shape[:2]) for crop in crops])
        if lengths[flipped].sum() > lengths.sum() / 2:
            crops = [np.ascontiguousarray(crop[::-1, ::-1]) for crop in crops]
        found = self._rapid.recognize_txt(crops)
        lines, sums = [], np.zeros(3)
        for quad, text, sure, is_tall, is_flipped in zip(quads, found.txts, found.scores, tall, flipped, strict=True):
            if text := cleaned(text):
                sums += len(text) * np.array((1, is_tall, is_flipped))
                (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
                corners = _share(x0 / width), _share(y0 / height), _share(x1 / width), _share(y1 / height)
                lines.append(Line(*corners, text, _share(sure), 0.0 if is_tall else _tilt(quad)))
        return Seen(tuple(lines), float(sums[1] / max(1, sums[0])), float(sums[2] / max(1, sums[0])))

    def _find(self, rgb: Rgb) -> tuple[list[Rgb], list[Quad]]:
        from rapidocr.main import RapidOCRError

        if min(rgb.shape[:2]) < _LEAST_SIDE:
            return [], []
        try:
            crops, found = self._rapid.detect_and_crop(np.ascontiguousarray(rgb[..., ::-1]), {})
        except RapidOCRError:  # its way of saying that there is no text
            return [], []
        return crops, [np.asarray(quad, np.float64) for quad in found.boxes]


_SURELY_FLIPPED = 0.9
"""Least confidence from which a line counts as standing on its head, as RapidOCR has it."""

_LEAST_SIDE = 8
"""Pixels of a shorter side below which there is nothing to read, and the detector fails."""


def model_folder() -> Path:
    """Where RapidOCR's wheel keeps its networks."""
    import rapidocr

    return Path(rapidocr.__file__).parent / "models"


@cache
def engine_identity() -> dict[str, str]:
    """Versions of what computes, and the digests of the networks: what decides a reading beyond its parameters."""
    versions = {package: version(package) for package in ("rapidocr", "onnxruntime")}
    digests = {}
    for name in MODELS.values():
        with (model_folder() / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return versions | digests


def cleaned(text: str) -> str:
    """A reading in NFC on one line, without control characters."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in unicodedata.normalize("NFC", text))
    return " ".join(kept.split())


def straightened(lines: Sequence[Line], aspect: float) -> list[Line]:
    """The lines as they would stand on a page that does not lie askew: as high as their letters, no box over its
    neighbour's. `aspect`: width / height of the page; all of it is turned by the median tilt of the lines.
    """
    tilt = median(line.tilt for line in lines) if lines else 0.0
    if not tilt:
        return list(lines)
    cos, sin = math.cos(tilt), math.sin(tilt)
    found = []
    for line in lines:
        x, y = (line.x0 + line.x1) / 2 * aspect, (line.y0 + line.y1) / 2
        x, y = x * cos + y * sin, y * cos - x * sin
        wide, high = (line.x1 - line.x0) * aspect, line.height
        # A box of a x b turned by t has a box around it of a cos t + b sin t by a sin t + b cos t: solved for a, b.
        across = (wide * cos - high * abs(sin)) / (cos**2 - sin**2)
        down = (high * cos - wide * abs(sin)) / (cos**2 - sin**2)
        across, down = max(across, wide / 2), max(down, high / 4)
        box = (x - across / 2) / aspect, y - down / 2, (x + across / 2) / aspect, y + down / 2
        found.append(Line(*box, *line[4:]))
    return found


def _tilt(quad: Quad) -> float:
    """How far a line falls to the right, in radians; 0 where a corner is out of place."""
    (along, down) = quad[1] - quad[0] + quad[2] - quad[3]
    tilt = math.atan2(down, along)
    return tilt if abs(tilt) <= _MOST_TILT else 0.0


_MOST_TILT = 0.35
"""Radians, 20 degrees: what is turned by more is no page that lies a little askew."""


def _share(value: float) -> float:
    return min(1.0, max(0.0, float(value)))


def _is_tall(quad: Quad) -> bool:
    """Whether RapidOCR takes it for a line that runs up or down."""
    across = max(np.hypot(*(quad[1] - quad[0])), np.hypot(*(quad[2] - quad[3])))
    down = max(np.hypot(*(quad[3] - quad[0])), np.hypot(*(quad[2] - quad[1])))
    return bool(down >= 1.5 * across)
