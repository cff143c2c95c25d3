"""Frames by decord, for clips of which it gives the very frames that PyAV gives; PyAV has all others.

decord 0.6 picks a stream by its own rule, turns frames, loses the timestamps of AVI, converts deep colour in its own
way and knows no AV1. So it is asked for upright 8-bit clips of one stream alone, after PyAV has looked at them, and
times are those of the packets: which of the two decoded a clip can then not be seen in what is stored.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.clips import Clip

_PLAIN = frozenset({"yuv420p"})
_WITH_TIMES = frozenset({"mov", "matroska"})


@cache
def installed() -> bool:
    """Whether decord is there; it comes for Linux on x86 alone."""
    return importlib.util.find_spec("decord") is not None


def shows_the_same(clip: Clip) -> bool:
    """Whether decord and PyAV show the same frames of a clip. Decodes its first, so `frames` is then over."""
    if clip.video_streams != 1 or clip.square_pixels not in (None, 0, 1):
        return False
    info = clip.info()
    return info.container in _WITH_TIMES and info.pixel_format in _PLAIN and info.rotation == 0


def read_frames(path: str, count: int, places: Sequence[int]) -> Iterator[NDArray[np.uint8]] | None:
    """The frames at rising `places`, uint8 [height, width, 3], decoded one after another.

    None where decord cannot read the file, or finds other than `count` frames in it.
    """
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        clip = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    except (decord.DECORDError, RuntimeError):
        return None
    return _frames(clip, places) if len(clip) == count else None


def _frames(clip: Any, places: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    at = 0
    for place in places:
        if place > at:
            clip.skip_frames(place - at)
        yield clip.next().asnumpy()
        at = place + 1
