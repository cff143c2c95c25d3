"""Measure `clip_probe`: what a clip's header says, with one frame decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from pipeline.clips import DEFAULT_CLIP_LIMITS, ClipLimits, open_clip
from pipeline.operator import Column, Measure, Params, Record

MOST_SIDE = 65_536


class ClipParams(Params):
    """Which medium is the clip, and what is refused before it costs much (`pipeline.clips.ClipLimits`)."""

    role: str = "video"
    max_bytes: int = Field(default=DEFAULT_CLIP_LIMITS.max_bytes, ge=1)
    max_pixels: int = Field(default=DEFAULT_CLIP_LIMITS.max_pixels, ge=1, le=2**29)
    max_seconds: float = Field(default=DEFAULT_CLIP_LIMITS.max_seconds, gt=0)

    @property
    def limits(self) -> ClipLimits:
        """As the one place that opens clips takes them."""
        return ClipLimits(self.max_bytes, self.max_pixels, self.max_seconds)


class ClipProbe(Measure):
    """Container, codec, upright size, rate and stated duration of a clip, from its header and its first frame.

    Quarantines what no later step could decode: see `pipeline.clips.REASONS`.
    """

    name = "clip_probe"
    version = 1
    Params = ClipParams
    params: ClipParams
    packages: ClassVar[Mapping[str, str]] = {"av": "video"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column("container", pa.string(), "container found in the bytes, in FFmpeg's words: mov, matroska, avi ..."),
            Column("codec", pa.string(), "codec of the video stream: h264, hevc, vp9, av1, mpeg4 ..."),
            Column("pixel_format", pa.string(), "how frames are stored: yuv420p, yuv420p10le ..."),
            Column("width", pa.int64(), "width in square pixels of the upright frame", 1, MOST_SIDE),
            Column("height", pa.int64(), "height in square pixels of the upright frame", 1, MOST_SIDE),
            Column("short_side", pa.int64(), "the smaller of width and height", 1, MOST_SIDE, "higher"),
            Column("aspect", pa.float64(), "long side / short side", 1, MOST_SIDE, "lower"),
            Column("rotation", pa.int64(), "degrees counterclockwise that turn stored frames upright", 0, 270),
            Column("fps", pa.float64(), "frames per second on average; null when not stated", 0, None, "higher"),
            Column("duration_s", pa.float64(), "stated duration in seconds; null when not stated", 0, None),
            Column("frame_count", pa.int64(), "stated number of frames; null when not stated", 1, None),
            Column("has_audio", pa.bool_(), "holds an audio stream"),
            Column("file_bytes", pa.int64(), "size of the file", 1, self.params.max_bytes),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The columns of one clip; raises Quarantine."""
        with open_clip(record.reader, record.ref(self.params.role), self.params.limits) as clip:
            info = clip.info()
        short, long = sorted((info.width, info.height))
        return (
            info.container,
            info.codec,
            info.pixel_format,
            info.width,
            info.height,
            short,
            long / short,
            info.rotation,
            info.fps,
            info.seconds,
            info.frames,
            info.has_audio,
            info.file_bytes,
        )
