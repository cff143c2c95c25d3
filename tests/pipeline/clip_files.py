"""Clips made on the spot, with known cuts, motion and faults."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Record

Picture = NDArray[np.uint8]
FPS = 24
WIDTH, HEIGHT = 160, 96


def texture(seed: int, width: int = 3 * WIDTH, height: int = HEIGHT) -> Picture:
    """A picture of soft blobs in the colours of its seed, with fine grain: uint8 [height, width, 3]."""
    import cv2

    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (max(2, height // 16), max(2, width // 16), 3)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture += random.normal(0, 12, (height, width, 1)).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def pan(seed: int, seconds: float, speed: float = 20.0, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Picture]:
    """A camera that moves over a texture to and fro at `speed` pixels a second."""
    picture = texture(seed, 3 * width, height)
    for number in range(round(seconds * FPS)):
        way = round(number * speed / FPS) % (4 * width)
        left = min(way, 4 * width - way)
        yield picture[:, left : left + width]


def still(seed: int, seconds: float) -> Iterator[Picture]:
    """One picture all the time."""
    picture = texture(seed, WIDTH)
    for _ in range(round(seconds * FPS)):
        yield picture


def plain(grey: int, seconds: float) -> Iterator[Picture]:
    """One grey value all the time; 0 is black."""
    for _ in range(round(seconds * FPS)):
        yield np.full((HEIGHT, WIDTH, 3), grey, np.uint8)


def clip_bytes(
    frames: Iterable[Picture],
    fps: float | Fraction = FPS,
    container: str = "mp4",
    codec: str = "libx264",
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    seconds_of_frames: Iterable[float] | None = None,
) -> bytes:
    """A clip of these frames; `seconds_of_frames` gives each its own time, for a rate that varies."""
    made = io.BytesIO()
    pictures = iter(frames)
    first = next(pictures)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(made, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000) if seconds_of_frames is not None else 1 / rate
        if codec == "libx264":
            stream.options = {"crf": "16", "preset": "veryfast"}
        if rotation:
            stream.set_display_rotation(rotation)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        times = iter(seconds_of_frames) if seconds_of_frames is not None else None
        for number, picture in enumerate([first, *pictures]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number if times is None else round(next(times) * 1000)
            frame.time_base = stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return made.getvalue()


def sound_bytes() -> bytes:
    """An MP4 with sound alone."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=44100)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return made.getvalue()


def record_of(path: Path, values: dict[str, object] | None = None, store: str | None = None) -> Record:
    """A record whose medium `video` is this file."""
    ref = MediaRef("video", "file", path.name)
    return Record("0" * 32, (ref,), b'{"id":"a","licence":"MIT"}', values or {}, MediaReader(str(path.parent), store))
