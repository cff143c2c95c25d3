"""Expander `frames`: two to six frames of a clip, one every few seconds, all of one shot.

The paper takes one frame every 5 s of clips of 10 to 30 s, which gives 2 to 6 (arXiv 2604.20796, section 3). A shot
ends at any jump that `clip_scan` saw, so no two frames of a clip have a cut between them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.clip_decord import installed, read_frames, shows_the_same
from pipeline.clips import open_clip, upright_rgb
from pipeline.measures.clip_probe import ClipParams
from pipeline.media import MediaRef, keep_media, kept_ref
from pipeline.operator import Child, Expander, Quarantine, Record

QUALITY = 95
"""JPEG quality of stored frames; colour is stored at half resolution, as in the clips."""

_HAIR = 1e-9


class FramesParams(ClipParams):
    """One frame every `every` seconds, at least `least` and at most `most`.

    `decoder: decord` lets decord decode the clips of which it gives the same frames (pipeline.clip_decord), where it is
    installed; nothing that is stored depends on it.
    """

    decoder: Literal["decord", "pyav"] = Field(default="decord", exclude=True)
    every: float = Field(default=5.0, gt=0)
    least: int = Field(default=2, ge=1)
    most: int = Field(default=6, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is more than most {self.most}")
        return self


class Taken(NamedTuple):
    """A chosen frame: when it is shown, and uint8 [height, width, 3], upright."""

    time: float
    rgb: NDArray[np.uint8]


class Frames(Expander):
    """Frames of a clip's longest shot as pictures in the store, each a record with the role `frame`.

    Each has the fields of its clip and `clip` (the clip's key), `frame` (from 0), `frames` (how many there are),
    `time_s` and `shot` (first and last second of the shot); its medium has the role `image`, so that every measure of
    pictures takes it. Reads `shot_start_s` and `shot_end_s` of `clip_scan`. Quarantines `shot too short`.
    """

    name = "frames"
    version = 1
    Params = FramesParams
    params: FramesParams
    packages: ClassVar[Mapping[str, str]] = {"av": "video"}
    time_limit: ClassVar[float] = 600.0

    @property
    def reads(self) -> tuple[str, ...]:
        """Where the longest shot lies."""
        return ("shot_start_s", "shot_end_s")

    def expand(self, record: Record) -> Iterable[Child]:
        """The frames in order of time; raises Quarantine."""
        start, end = record.values["shot_start_s"], record.values["shot_end_s"]
        if start is None or end is None:
            raise Quarantine("no shot", "shot_start_s and shot_end_s are null; is the clip scanned?")
        params = self.params
        wanted = sample_times(start, end, params.every, params.least, params.most)
        if not wanted:
            short = f"the longest shot lasts {end - start:.2f} s, {params.least} frames one every {params.every:g} s"
            raise Quarantine("shot too short", f"{short} need {(params.least - 1) * params.every:g} s")
        stored = [(taken.time, self._store(record, taken.rgb)) for taken in self._taken(record, wanted, end)]
        if len(stored) < params.least:
            raise Quarantine("shot too short", f"{len(stored)} frames where {len(wanted)} were wanted")
        for number, (time, ref) in enumerate(stored):
            own = {"clip": record.key, "frame": number, "frames": len(stored), "time_s": time, "shot": [start, end]}
            yield Child("frame", {**record.fields, **own}, (ref,))

    def _taken(self, record: Record, wanted: Sequence[float], end: float) -> Iterator[Taken]:
        """The first frame at or after each wanted time, none beyond the shot and none twice."""
        by_decord = self._taken_by_decord(record, wanted, end) if self.params.decoder == "decord" else None
        if by_decord is not None:
            yield from by_decord
            return
        with open_clip(record.reader, record.ref(self.params.role), self.params.limits) as clip:
            due = 0
            for shown in clip.frames():
                if shown.time > end or due == len(wanted):
                    return
                if shown.time >= wanted[due] - _HAIR:
                    due += 1
                    yield Taken(shown.time, upright_rgb(shown.frame, clip.square_pixels))

    def _taken_by_decord(self, record: Record, wanted: Sequence[float], end: float) -> Iterator[Taken] | None:
        ref = record.ref(self.params.role)
        if ref.container != "file" or not installed():
            return None
        with open_clip(record.reader, ref, self.params.limits) as clip:
            if not shows_the_same(clip):
                return None
        with open_clip(record.reader, ref, self.params.limits) as clip:
            times = clip.frame_times()
        if times is None:
            return None
        places = chosen(times, wanted, end)
        frames = read_frames(os.path.join(record.reader.root, ref.path), len(times), places)
        return None if frames is None else (Taken(times[at], rgb) for at, rgb in zip(places, frames, strict=True))

    def _store(self, record: Record, rgb: NDArray[np.uint8]) -> MediaRef:
        """The frame as a JPEG of the store, named by its digest, so that writing it twice is writing it once."""
        import simplejpeg

        data: bytes = simplejpeg.encode_jpeg(rgb, quality=QUALITY, colorspace="RGB", colorsubsampling="420")
        digest = keep_media(record.reader.storage(), data)
        return kept_ref("image", digest, len(data))


def chosen(times: Sequence[float], wanted: Sequence[float], end: float) -> list[int]:
    """Places of the first frame at or after each wanted time, none beyond `end` and none twice."""
    places: list[int] = []
    for place, time in enumerate(times):
        if time > end or len(places) == len(wanted):
            break
        if time >= wanted[len(places)] - _HAIR:
            places.append(place)
    return places


def sample_times(start: float, end: float, every: float = 5.0, least: int = 2, most: int = 6) -> list[float]:
    """Times of frames `every` seconds apart within a shot, in seconds; empty where fewer than `least` fit.

    As many as fit, at most `most`, in the middle of the shot: what is left over lies half before and half behind, away
    from the cuts. `start` and `end` are the times of the shot's first and last frame.
    """
    count = min(most, int((end - start + _HAIR) // every) + 1)
    if count < least:
        return []
    first = start + max(0.0, end - start - (count - 1) * every) / 2
    return [min(end, first + number * every) for number in range(count)]
