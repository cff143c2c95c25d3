"""What scanning a clip costs against decoding it, and whether memory grows with its length.

    .venv/bin/python -m tests.bench.bench_clips

Times are CPU seconds of this process (one thread); the two sides alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.measures.clip_scan import ClipScan
from pipeline.operator import load_operator
from tests.bench.bench_measures import alternate
from tests.bench.figure import Figure, apart
from tests.bench.figure import figure as table_line
from tests.pipeline.clip_files import FPS, clip_bytes, pan, record_of

SIZES = {"": (1280, 720), "_360": (640, 360)}
"""Width and height of the clips; 720 lines is what Koala-36M has most."""

SECONDS = 6
"""Length of a clip, with a cut in its middle."""

LENGTHS = (10, 60)
"""Seconds of the short and of the long clip whose memory is compared."""

REPEATS = 5


def write_clip(path: Path, seconds: float, width: int, height: int, seed: int = 1) -> None:
    """An H.264 clip of two shots that pan over a grainy texture, a tenth of the width a second."""
    half = seconds / 2
    shots = (pan(seed + number, half, width / 10, width, height) for number in range(2))
    path.write_bytes(clip_bytes(itertools.chain.from_iterable(shots)))


def _decode(path: str, rgb: bool) -> int:
    """The bare side: every frame of a clip decoded by one thread, turned to RGB where asked for."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    count = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            count += 1
            if rgb:
                np.asarray(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    return count


def _scanner() -> ClipScan:
    measure = load_operator("clip_scan").build({})
    assert isinstance(measure, ClipScan)
    measure.setup()
    return measure


def bench_scan(folder: Path) -> list[Figure]:
    """Frames per second of the scan over those of a bare sequential decode, per size, with and without RGB."""
    measure = _scanner()
    figures = []
    for suffix, (width, height) in SIZES.items():
        names = []
        for seed in (1, 3):
            path = folder / f"{height}-{seed}.mp4"
            write_clip(path, SECONDS, width, height, seed)
            names.append(str(path))
        frames = round(SECONDS * FPS) * len(names)
        for rgb in (False, True) if suffix == "" else (True,):
            passes = alternate(
                lambda name: measure.process(record_of(Path(name))),
                lambda name, rgb=rgb: _decode(name, rgb),  # type: ignore[misc]
                names,
                REPEATS,
            )
            ratios = [bare / ours for ours, bare in passes]
            baseline = f"PyAV decode of {width}x{height} H.264, one thread" + (", to RGB" if rgb else "")
            name = f"clip_scan_ratio{suffix}{'_rgb' if rgb and suffix == '' else ''}"
            rate = frames / float(np.median([ours for ours, _ in passes]))
            figures.append(table_line(name, ratios, "x", 0.6, frames, baseline, frames_per_cpu_s=round(rate)))
    return figures


def scan_apart(path: str) -> dict[str, Any]:
    """What a process of its own calls."""
    return {"frames": _scanner().process(record_of(Path(path)))[0]}


def bench_memory(folder: Path, repeats: int = 3) -> list[Figure]:
    """Peak memory of a process that scans a long clip over that of one that scans a short one."""
    paths = []
    for seconds in LENGTHS:
        paths.append(folder / f"{seconds}s.mp4")
        write_clip(paths[-1], seconds, 320, 180)
    growth = []
    for _ in range(repeats):
        short, long = (apart("tests.bench.bench_clips", "scan_apart", str(path))["own_peak_mb"] for path in paths)
        growth.append(long / short)
    baseline = f"peak memory of a clip of {LENGTHS[0]} s; this one has {LENGTHS[1]} s"
    return [table_line("clip_memory_growth", growth, "x", 1.2, LENGTHS[1] * FPS, baseline, at_most=True)]


def run() -> list[Figure]:
    """All figures, on clips made for it in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        return [*bench_scan(Path(temporary)), *bench_memory(Path(temporary))]


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
