"""What the measures cost, as ratios to a bare loop over the same files in the same run.

    .venv/bin/python -m tests.bench.bench_measures

Every figure is the median over `REPEATS` passes, in each of which the two sides alternate file by file, so
that a busy machine slows both. Times are CPU seconds of this process (one thread).
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.measures.phash import hash_picture
from pipeline.measures.pixels import DECODE_SIDE, analysis_grey, figures
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Measure, Record, load_operator
from tests.bench.figure import Figure
from tests.bench.figure import figure as table_line

SIZES = (512, 640, 768, 1024, 1280, 1536, 1792, 2048)
"""Longer sides in pixels of the mixed set, each as often as the others."""

REPEATS = 7


def make_picture(width: int, height: int, seed: int) -> np.ndarray:
    """A picture with structure at all scales and sensor-like noise: uint8 [height, width, 3]."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.float32)
    for cells, strength in ((4, 40), (16, 35), (64, 20), (160, 10)):
        rows, columns = (
            max(2, cells * height // max(height, width)),
            max(2, cells * width // max(height, width)),
        )
        coarse = rng.normal(0, strength, (rows, columns, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.circle(picture, centre, int(rng.integers(8, max(9, height // 8))), colour, -1, cv2.LINE_AA)
    picture += rng.normal(0, 3, (height, width, 1)).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_jpegs(folder: Path, sizes: Sequence[int], copies: int, seed: int = 0) -> list[str]:
    """JPEGs of quality 90 with the given longer sides, three in four of them 4 : 3; returns their names."""
    import simplejpeg

    names = []
    for number, size in enumerate(size for size in sizes for _ in range(copies)):
        height = size if number % 4 == 0 else size * 3 // 4
        picture = make_picture(size, height, seed + number)
        name = f"{number:04d}.jpg"
        folder.joinpath(name).write_bytes(simplejpeg.encode_jpeg(picture, 90, "RGB", "420"))
        names.append(name)
    return names


def alternate(
    ours: Callable[[str], object],
    baseline: Callable[[str], object],
    names: Sequence[str],
    repeats: int = REPEATS,
) -> list[tuple[float, float]]:
    """CPU seconds of both sides per pass, after one pass that is thrown away."""
    passes = []
    for number in range(repeats + 1):
        spent = [0.0, 0.0]
        for position, name in enumerate(names):
            order = (0, 1) if (position + number) % 2 == 0 else (1, 0)
            for side in order:
                run = (ours, baseline)[side]
                start = time.process_time()
                run(name)
                spent[side] += time.process_time() - start
        passes.append((spent[0], spent[1]))
    return passes[1:]


def figure(name: str, target: float, passes: Sequence[tuple[float, float]], n: int, baseline: str) -> Figure:
    """One line of the figures table: how many times our throughput is the baseline's."""
    per_picture = [round(statistics.median(side) / n * 1e6, 1) for side in zip(*passes, strict=True)]
    ratios = [theirs / ours for ours, theirs in passes]
    return table_line(name, ratios, "x", target, n, baseline, us_per_picture=per_picture)


def _processor(name: str, folder: Path) -> Callable[[str], object]:
    measure = load_operator(name).build({})
    assert isinstance(measure, Measure)
    measure.setup()
    reader = MediaReader(str(folder))

    def process(file: str) -> object:
        ref = MediaRef("image", "file", file)
        return measure.process(Record("0" * 32, (ref,), b"{}", {}, reader))

    return process


def bench_header(folder: Path, names: Sequence[str]) -> list[Figure]:
    """The header measure against opening the same files with Pillow."""
    from PIL import Image

    def bare(file: str) -> object:
        with Image.open(folder / file) as image:
            return image.size

    passes = alternate(_processor("header", folder), bare, names, repeats=4 * REPEATS)
    return [figure("header_ratio", 0.6, passes, len(names), "PIL.Image.open(path).size")]


def bench_pixels(folder: Path, names: Sequence[str], small: Sequence[str]) -> list[Figure]:
    """All pixel measures and hashes against reading and decoding the same files at the same scale."""
    import simplejpeg

    def bare(file: str) -> object:
        data = (folder / file).read_bytes()
        return simplejpeg.decode_jpeg(data, "RGB", min_height=DECODE_SIDE, min_width=DECODE_SIDE)

    ours = _processor("pixels", folder)
    baseline = f"simplejpeg.decode_jpeg(min side {DECODE_SIDE})"
    return [
        figure("pixels_ratio", 0.5, alternate(ours, bare, names), len(names), baseline),
        figure("pixels_ratio_512", 0.35, alternate(ours, bare, small), len(small), baseline),
    ]


def bench_libraries(folder: Path, names: Sequence[str]) -> list[Figure]:
    """Hashes, and all measures, against a full Pillow decode and the usual hash library."""
    import imagehash
    from PIL import Image

    def full(file: str) -> Image.Image:
        return Image.open(io.BytesIO((folder / file).read_bytes())).convert("RGB")

    def library_hash(file: str) -> object:
        return imagehash.phash(full(file))

    def library_measures(file: str) -> object:
        picture = full(file)
        rgb = np.asarray(picture)
        return figures(rgb, analysis_grey(rgb)), imagehash.phash(picture)

    def our_hash(file: str) -> object:
        return hash_picture((folder / file).read_bytes())

    return [
        figure(
            "phash_vs_library",
            3.0,
            alternate(our_hash, library_hash, names),
            len(names),
            "Pillow decode + imagehash.phash",
        ),
        figure(
            "measures_vs_library",
            2.0,
            alternate(_processor("pixels", folder), library_measures, names),
            len(names),
            "the same measures on a full Pillow decode + imagehash.phash",
        ),
    ]


def run(copies: int = 4) -> list[Figure]:
    """All figures, on pictures made for it in a temporary folder."""
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = write_jpegs(folder, SIZES, copies)
        small_folder = folder / "small"
        small_folder.mkdir()
        small = [f"small/{name}" for name in write_jpegs(small_folder, [512], 4 * copies, seed=1000)]
        return [
            *bench_header(folder, names),
            *bench_pixels(folder, names, small),
            *bench_libraries(folder, names),
        ]


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
