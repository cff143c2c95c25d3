"""The one place where a clip's bytes are opened and decoded: safely, in one pass, in memory that does not grow.

PyAV decodes; the container is found in the bytes and named to it, so that nothing is probed, and no file can make it
open another (playlists, references). Times are seconds from the first frame and strictly increase. What cannot be
opened ends in a `Quarantine` whose reason is one of `REASONS`; its message holds no path, so that it may be stored.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

REASONS = (
    "empty file",
    "file too large",
    "not a video",
    "no video stream",
    "unsupported codec",
    "no frames",
    "clip too long",
    "too many pixels",
    "truncated clip",
    "broken clip",
)

MISSING_SECONDS = 0.5
MISSING_SHARE = 0.05
"""A clip is truncated when more than both of these are missing of the duration that its header states."""

_DEFAULT_FPS = Fraction(25)
"""Used for the time of frames that carry none, in clips that state no rate."""


@dataclass(frozen=True, slots=True)
class ClipLimits:
    """What is refused before it costs much: by the header where it tells, otherwise while decoding.

    `max_pixels` is of one frame (8K by default); a frame of that size takes 53 MB decoded.
    """

    max_bytes: int = 2 * 2**30
    max_pixels: int = 8192 * 4320
    max_seconds: float = 1800.0
    max_fps: float = 240.0


DEFAULT_CLIP_LIMITS = ClipLimits()


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What the header and the first frame say.

    `width` and `height` are those of the upright picture in square pixels, `rotation` the degrees by which frames are
    turned counterclockwise to stand upright; `seconds` and `frames` are as stated, None where nothing is.
    """

    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    fps: float | None
    seconds: float | None
    frames: int | None
    has_audio: bool
    file_bytes: int


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One decoded frame: its place in the order of display, its time in seconds from the first, as decoded."""

    index: int
    time: float
    frame: VideoFrame
    is_corrupt: bool


class Clip:
    """An open clip. `frames` may be read once; `lost` then counts packets that did not decode."""

    def __init__(self, container: InputContainer, stream: VideoStream, file_bytes: int, limits: ClipLimits) -> None:
        self.lost = 0
        self._container = container
        self._stream = stream
        self._file_bytes = file_bytes
        self._limits = limits
        self._seconds = _stated_seconds(container, stream)
        if self._seconds is not None and self._seconds > limits.max_seconds:
            raise Quarantine("clip too long", f"{self._seconds:.1f} s, at most {limits.max_seconds:g} s are decoded")
        self._check_size(stream.codec_context.width, stream.codec_context.height)

    def info(self) -> ClipInfo:
        """What the header says, with one frame decoded for rotation and size. Reading `frames` is then over."""
        first = next(self.frames(), None)
        if first is None:
            raise Quarantine("no frames", "no frame could be decoded")
        frame, stream = first.frame, self._stream
        width, height = upright_size(frame, stream.sample_aspect_ratio)
        rate = stream.average_rate
        return ClipInfo(
            container=self._container.format.name.split(",", maxsplit=1)[0],
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            width=width,
            height=height,
            rotation=quarter_turns(frame) * 90,
            fps=float(rate) if rate else None,
            seconds=self._seconds,
            frames=stream.frames or None,
            has_audio=bool(self._container.streams.audio),
            file_bytes=self._file_bytes,
        )

    @property
    def square_pixels(self) -> Fraction | None:
        """Width of a stored pixel over its height; None when the clip does not say."""
        return self._stream.sample_aspect_ratio

    @property
    def video_streams(self) -> int:
        """How many there are; the first is read."""
        return len(self._container.streams.video)

    def frame_times(self) -> list[float] | None:
        """Seconds from the first frame of every frame, by the packets alone; None where they do not tell.

        Nothing is decoded. Reading `frames` is then over.
        """
        packets = [packet for packet in self._packets() if packet.size]
        stamps = {packet.pts for packet in packets}
        if self.lost or not packets or None in stamps or len(stamps) != len(packets):
            return None
        base = self._stream.time_base or Fraction(0)
        times = [float(stamp * base) for stamp in sorted(stamps)]
        return [time - times[0] for time in times]

    def frames(self) -> Iterator[ClipFrame]:
        """Every frame that decodes, in order of display. Raises Quarantine for limits passed on the way."""
        import av.error

        step = float(1 / (self._stream.average_rate or _DEFAULT_FPS))
        first: float | None = None
        time = -step
        most = int(self._limits.max_seconds * self._limits.max_fps)
        index = 0
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                self.lost += 1
                continue
            for frame in decoded:
                assert not isinstance(frame, av.AudioFrame)
                self._check_size(frame.width, frame.height)
                shown = frame.time
                if first is None:
                    first = shown
                since = None if shown is None or first is None else shown - first
                time = since if since is not None and since > time else time + step
                if time > self._limits.max_seconds or index >= most:
                    raise Quarantine(
                        "clip too long", f"more than {self._limits.max_seconds:g} s or {most} frames are not decoded"
                    )
                yield ClipFrame(index, time, frame, bool(frame.is_corrupt))
                index += 1

    def check_whole(self, end: float) -> None:
        """Raise Quarantine when frames end, at `end` seconds, well before what the header states."""
        if self._seconds is None:
            return
        missing = self._seconds - end
        if missing > MISSING_SECONDS and missing > MISSING_SHARE * self._seconds:
            raise Quarantine("truncated clip", f"frames end at {end:.2f} s of {self._seconds:.2f} s")

    def _packets(self) -> Iterator[Any]:
        import av.error

        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError:
            self.lost += 1  # the file ends or breaks here; what was decoded stays

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            most = self._limits.max_pixels
            raise Quarantine("too many pixels", f"{width}x{height} pixels a frame, at most {most} are decoded")


@contextmanager
def open_clip(reader: MediaReader, ref: MediaRef, limits: ClipLimits = DEFAULT_CLIP_LIMITS) -> Iterator[Clip]:
    """A clip of a record, open; one thread decodes it. Raises Quarantine, and OSError when the bytes are gone."""
    import av
    import av.error

    with open_medium(reader, ref) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if not size:
            raise Quarantine("empty file", "the file has no bytes")
        if size > limits.max_bytes:
            raise Quarantine("file too large", f"{size} bytes, at most {limits.max_bytes} are read")
        head = file.read(4096)
        kind = container_of(head)
        if kind is None:
            raise Quarantine("not a video", f"it begins with {head[:8].hex(' ')}")
        file.seek(0)
        try:
            options = {"protocol_whitelist": "none"}
            container = av.open(file, "r", format=kind, options=options, io_open=_refuse, metadata_errors="replace")
        except (av.error.FFmpegError, ValueError) as error:
            raise _unopened(error, kind, file, size) from error
        with container:
            if not container.streams.video:
                raise Quarantine("no video stream", f"{kind}: {len(container.streams)} streams, none of them video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise Quarantine("unsupported codec", f"{kind}: the video stream has no decoder here")
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            # A stream may be larger than its header says, and grow on the way. The decoder counts its margins too, so
            # that its limit, which stands before memory is taken, is only near ours, which is exact.
            stream.codec_context.options = {"max_pixels": str(4 * limits.max_pixels)}
            yield Clip(container, stream, size, limits)


def open_medium(reader: MediaReader, ref: MediaRef) -> BinaryIO:
    """The bytes of a medium as a file that can seek; only Parquet cells and remote objects are read into memory."""
    if ref.container in ("file", "tar"):
        path = os.path.join(reader.root, ref.path)
        if ref.container == "file":
            return open(path, "rb", buffering=0)
        return _buffered(_Part(path, ref.offset or 0, ref.length or 0))
    local = reader.storage().local_path(ref.path) if ref.container == "store" else None
    return open(local, "rb", buffering=0) if local is not None else io.BytesIO(reader.read(ref))


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of the container that the first bytes show; None for what is no video container."""
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _PICTURE_BRANDS else "mov"
    if head[4:8] in (b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return "mpegts"
    return next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)


_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_SIGNATURES = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
)


def quarter_turns(frame: VideoFrame) -> int:
    """Quarter turns counterclockwise, 0 to 3, that make a frame stand upright."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a frame as it is shown: square pixels, upright."""
    width, height = _square_size(frame, pixel_aspect)
    return (height, width) if quarter_turns(frame) % 2 else (width, height)


def upright_rgb(frame: VideoFrame, pixel_aspect: Fraction | None) -> NDArray[np.uint8]:
    """A frame as it is shown: uint8 [height, width, 3], square pixels, upright."""
    width, height = _square_size(frame, pixel_aspect)
    rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1)
    return np.ascontiguousarray(np.rot90(pixels_of(rgb), quarter_turns(frame)))


def pixels_of(frame: VideoFrame) -> NDArray[np.uint8]:
    """The samples of a frame that is in rgb24 or bgr24: uint8 [height, width, 3]."""
    return np.asarray(frame.to_ndarray(), np.uint8)


def _square_size(frame: VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Pixels that are not square are enlarged along their longer side, within reason."""
    if not pixel_aspect or not Fraction(1, 4) <= pixel_aspect <= 4:
        return frame.width, frame.height
    if pixel_aspect >= 1:
        return round(frame.width * pixel_aspect), frame.height
    return frame.width, round(frame.height / pixel_aspect)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None


def _refuse(url: str, flags: int, options: dict[str, str]) -> object:
    """No clip may open another file."""
    raise OSError("a clip that refers to other files")


def _unopened(error: Exception, kind: str, file: BinaryIO, size: int) -> Quarantine:
    if kind == "mov" and (lacking := _lacking_of_mov(file, size)):
        return Quarantine("truncated clip", f"mov: {lacking}")
    words = getattr(error, "strerror", None) or str(error)
    return Quarantine("broken clip", f"{kind}: {words}")


def _lacking_of_mov(file: BinaryIO, size: int) -> str | None:
    """What a cut MP4 lacks: the end of a box, or the index. None when every box is there."""
    position = 0
    names: set[bytes] = set()
    while position + 8 <= size and len(names) < 64:
        file.seek(position)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8:
            return None
        names.add(name)
        if position + length > size:
            shown = name.decode("latin-1") if name.isalnum() else name.hex(" ")
            return f"box {shown!r} ends {position + length - size} bytes after the file"
        position += length
    return None if b"moov" in names or b"moof" in names else "the index (box 'moov') is missing"


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, path: str, offset: int, length: int) -> None:
        super().__init__()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this one
        self._offset, self._length, self._position = offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._length - self._position))
        self._file.seek(self._offset + self._position)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _buffered(part: _Part) -> BinaryIO:
    return io.BufferedReader(part)
