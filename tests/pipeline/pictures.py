"""Pictures made for tests, and records that hold them."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

import pipeline.measures  # noqa: F401 - it registers the short names
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Measure, Record, load_operator

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"


def scene(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A picture with structure at several scales: uint8 [height, width, 3]."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 120, np.float32)
    for cells, strength in ((3, 50), (9, 35), (27, 20), (81, 8)):
        rows, columns = (
            max(2, cells * height // max(width, height)),
            max(2, cells * width // max(width, height)),
        )
        coarse = rng.normal(0, strength, (rows, columns, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def encode(picture: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture in some format."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def flip_bytes(data: bytes, count: int, seed: int) -> bytes:
    rng = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(count):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def measure(operator: str, /, **params: Any) -> Measure:
    made = load_operator(operator).build(params)
    assert isinstance(made, Measure)
    made.setup()
    return made


def record(root: Path, data: bytes | None = None, **fields: Any) -> Record:
    """A record whose picture is written below a folder under a name that says nothing of its format."""
    media: tuple[MediaRef, ...] = ()
    if data is not None:
        root.joinpath("medium").write_bytes(data)
        media = (MediaRef("image", "file", "medium"),)
    return Record("0" * 32, media, orjson.dumps(fields), {}, MediaReader(str(root)))


def columns_of(made: Measure, given: Record) -> dict[str, Any]:
    """What a measure says of a record, by column."""
    return dict(zip((column.name for column in made.columns), made.process(given), strict=True))
