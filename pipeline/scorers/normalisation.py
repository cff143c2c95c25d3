"""How pictures become the numbers that a network was trained on, and where a release says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalog.errors import UserError
from pipeline.scorers.checkpoint import read_json

if TYPE_CHECKING:
    from PIL.Image import Image

BICUBIC = 3
"""Pillow's number for it, which releases write into `preprocessor_config.json`."""


@dataclass(frozen=True)
class Normalisation:
    """`side` of the square in pixels; mean and deviation per channel of values from 0 to 1."""

    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def squeezed(picture: Image, how: Normalisation) -> NDArray[np.float32]:
    """An RGB picture squeezed into the square, bicubic, as numbers [3, side, side] with mean 0 and deviation 1."""
    from PIL.Image import Resampling

    small = picture.resize((how.side, how.side), Resampling.BICUBIC)
    shares = np.asarray(small, np.float32) / np.float32(255)
    values = (shares - np.asarray(how.mean, np.float32)) / np.asarray(how.deviation, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def read_normalisation(folder: Path, side: int) -> Normalisation:
    """What a release's `preprocessor_config.json` says; raises UserError where that is no bicubic square of `side`."""

    path = folder / "preprocessor_config.json"
    data = read_json(path)
    for name in ("size", "crop_size"):
        given = data.get(name)
        sides = set(given.values()) if isinstance(given, dict) else {given}
        if sides != {side}:
            raise UserError(f"{path}: {name} is {given}, the model sees {side}")
    if data.get("resample") != BICUBIC:
        raise UserError(f"{path}: resample is {data.get('resample')}, must be {BICUBIC} (bicubic)")
    return Normalisation(side, *(_three(path, name, data.get(name)) for name in ("image_mean", "image_std")))


def _three(path: Path, name: str, given: object) -> tuple[float, ...]:
    if not (isinstance(given, list) and len(given) == 3 and all(isinstance(value, (int, float)) for value in given)):
        raise UserError(f"{path}: {name} is {given}, must be three numbers")
    return tuple(float(value) for value in given)
