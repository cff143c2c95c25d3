"""Measure `header`: what a picture's header says, without decoding a pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.operator import Column, Measure, Params, Quarantine, Record
from pipeline.pictures import DEFAULT_LIMITS, PILLOW_LIMIT, Limits, PictureInfo, header_first, read_info

HEAD_BYTES = 65536
"""Covers nearly every JPEG with an EXIF preview; where it does not reach, the whole file is read."""


class HeaderParams(Params):
    """Parameters of `header`. `max_pixels` and `max_bytes` set a picture aside before anything is decoded."""

    role: str = "image"
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1, le=PILLOW_LIMIT)
    max_bytes: int = Field(default=256 * 2**20, ge=1)


class Header(Measure):
    """Format, mode, upright size, frames and so on, from the first 64 KiB where they suffice.

    The format comes from the bytes, never from the name. Quarantines what no later step could decode: see
    `pipeline.pictures.REASONS`, and `file too large`.
    """

    name = "header"
    version = 1
    Params = HeaderParams
    params: HeaderParams

    def __init__(self, params: HeaderParams) -> None:
        super().__init__(params)
        self._limits = Limits(params.max_pixels)

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        most = self.params.max_pixels
        return (
            Column(
                "format",
                pa.string(),
                "format found in the bytes: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, PPM, MPO",
            ),
            Column(
                "mode",
                pa.string(),
                "how samples are stored, in Pillow's words: RGB, L, CMYK, P, I;16 and so on",
            ),
            Column("width", pa.int64(), "width in pixels of the upright picture", 1, most),
            Column("height", pa.int64(), "height in pixels of the upright picture", 1, most),
            Column("short_side", pa.int64(), "the smaller of width and height", 1, most, "higher"),
            Column("long_side", pa.int64(), "the larger of width and height", 1, most, "higher"),
            Column("aspect", pa.float64(), "long side / short side", 1, most, "lower"),
            Column("pixels", pa.int64(), "width x height", 1, most, "higher"),
            Column("file_bytes", pa.int64(), "size of the file", 1, self.params.max_bytes),
            Column(
                "bytes_per_pixel",
                pa.float64(),
                "file_bytes / pixels: very little means hard compression",
                0,
                None,
            ),
            Column("frames", pa.int64(), "frames of an animation, pages of a TIFF or MPO", 1, None, "lower"),
            Column("animated", pa.bool_(), "more than one frame, in a format that plays them"),
            Column("orientation", pa.int64(), "EXIF orientation, 1 when there is none", 1, 8),
            Column("has_alpha", pa.bool_(), "stores transparency"),
            Column("has_icc", pa.bool_(), "holds an ICC profile; it is not applied"),
            Column("bit_depth", pa.int64(), "bits of one sample or palette index; null for AVIF", 1, 64),
            Column("handled", pa.string(), "what decoding will change, in words; empty when nothing"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The header's columns; raises Quarantine."""
        head = record.head(HEAD_BYTES, self.params.role)
        is_whole = len(head) < HEAD_BYTES
        size = len(head) if is_whole else self._size(record)
        if size > self.params.max_bytes:
            raise Quarantine("file too large", f"{size} bytes, at most {self.params.max_bytes} are read")
        info = read_header(record, self.params.role, head, is_whole or size == HEAD_BYTES, self._limits)
        width, height = info.width, info.height
        short, long = (width, height) if width < height else (height, width)
        pixels = width * height
        return (
            info.format,
            info.mode,
            width,
            height,
            short,
            long,
            long / short,
            pixels,
            size,
            size / pixels,
            info.frames,
            info.frames > 1 and info.format not in {"TIFF", "MPO"},
            info.orientation,
            info.has_alpha,
            info.has_icc,
            info.bit_depth,
            "; ".join(info.notes),
        )

    def _size(self, record: Record) -> int:
        """Bytes of the medium, without reading it where something else knows."""
        ref = record.ref(self.params.role)
        if ref.length is not None:
            return ref.length
        if ref.container == "file":
            return os.stat(os.path.join(record.reader.root, ref.path)).st_size
        return len(record.read(self.params.role))


def read_header(record: Record, role: str, head: bytes, is_whole: bool, limits: Limits = DEFAULT_LIMITS) -> PictureInfo:
    """What a header says, from the beginning of a file where that suffices, else from all; raises Quarantine."""
    if is_whole:
        return read_info(head, limits)
    if header_first(head):
        with suppress(Quarantine):
            return read_info(head, limits)
    return read_info(record.read(role), limits)
