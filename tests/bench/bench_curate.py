"""A whole curation over JPEGs against a plain script, an unchanged run, and Ray against local processes."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.figure import Figure, apart, figure

PICTURES = 2_000
UNCHANGED = 100_000
RECIPE = """version: 1
corpus: bench
sources:
  pictures: {kind: jsonl, manifest: manifest.jsonl, map: {id: id, text: text, licence: licence}, media: {image: file}}
nodes:
  header: {measure: header}
  shape:
    decide: rules
    needs: [header]
    rules: {side: short_side >= 384, aspect: aspect <= 3, weight: bytes_per_pixel >= 0.01}
"""
PIXELS = """  pixels: {measure: pixels, needs: [shape]}
  quality:
    decide: rules
    needs: [pixels]
    rules: {sharpness: sharpness >= 5, contrast: contrast >= 0.02, flat: flat_share <= 0.95}
  duplicates:
    decide: duplicates
    needs: [quality]
    order: [pixels desc]
    near: {column: phash, distance: 4}
"""


def write_pictures(root: Path, count: int) -> None:
    """JPEGs of 512 to 2048 px: crops of a few scenes, with near copies, small and truncated ones among them."""
    import cv2
    import simplejpeg

    from tests.bench.bench_measures import make_picture

    rng = np.random.default_rng(3)
    scenes = [make_picture(2560, 1920, seed) for seed in range(12)]
    (root / "files").mkdir(parents=True)
    lines = []
    previous = b""
    for number in range(count):
        kind = rng.choice(["plain", "copy", "small", "truncated"], p=[0.86, 0.06, 0.05, 0.03])
        side = int(rng.integers(512, 2049)) if kind != "small" else int(rng.integers(64, 380))
        if kind == "copy" and previous:
            picture = simplejpeg.decode_jpeg(previous, "RGB")
            data = simplejpeg.encode_jpeg(picture, 70, "RGB", "420")
        else:
            scene = scenes[int(rng.integers(len(scenes)))]
            width = int(rng.integers(700, 2500))
            height = int(width * rng.uniform(0.6, 0.75))
            left, top = int(rng.integers(0, 2561 - width)), int(rng.integers(0, 1921 - height))
            crop = cv2.resize(scene[top : top + height, left : left + width], (side, int(side * height / width)))
            data = simplejpeg.encode_jpeg(np.ascontiguousarray(crop), 88, "RGB", "420")
            previous = data
        if kind == "truncated":
            data = data[: len(data) // 2]
        name = f"files/{number:05d}.jpg"
        (root / name).write_bytes(data)
        lines.append(json.dumps({"id": str(number), "text": f"picture {number}", "licence": "MIT", "file": name}))
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")


def curate(root: str, engine: str, pixels: bool = True) -> dict[str, Any]:
    """Run the recipe over a folder; `walls` are the seconds of each operator node."""
    import pipeline.curate
    from jobs.run import EngineChoice, load_plan, run

    walls: dict[str, float] = {}
    operate = pipeline.curate.Run.operate

    def timed(self: Any, name: str, *arguments: Any) -> None:
        start = time.perf_counter()
        operate(self, name, *arguments)
        walls[name] = time.perf_counter() - start

    pipeline.curate.Run.operate = timed  # type: ignore[method-assign,assignment]
    recipe = Path(root) / "recipe.yaml"
    recipe.write_text(RECIPE + (PIXELS if pixels else ""))
    start = time.perf_counter()
    finished = run(load_plan(str(recipe), []), Path(root), f"{root}/store-{engine}", EngineChoice(engine, 2))
    calls = sum(timing.calls for timing in finished.timings.values())
    return {"seconds": time.perf_counter() - start, "walls": walls, "calls": calls, "final": finished.final}


def naive(root: str) -> dict[str, Any]:
    """The script people write: a pool of two, Pillow, imagehash, webdataset."""
    import multiprocessing

    import webdataset

    lines = [json.loads(line) for line in (Path(root) / "manifest.jsonl").read_text().splitlines()]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(_naive_picture, [(root, line["file"]) for line in lines], chunksize=32)
    kept: list[tuple[int, dict[str, Any]]] = []
    hashes: list[int] = []
    for line, facts in zip(lines, found, strict=True):
        if facts is None or facts["short"] < 384 or facts["aspect"] > 3 or facts["weight"] < 0.01:
            continue
        if facts["sharpness"] < 5 or facts["contrast"] < 0.02:
            continue
        if hashes and min(bin(facts["hash"] ^ other).count("1") for other in hashes) <= 4:
            continue
        hashes.append(facts["hash"])
        kept.append((facts["hash"], {**line, **facts}))
    with webdataset.TarWriter(f"{root}/naive.tar") as sink:
        for number, (_, facts) in enumerate(kept):
            sink.write({"__key__": f"{number:06d}", "json": facts})
    return {"kept": len(kept)}


def _naive_picture(root: str, name: str) -> dict[str, Any] | None:
    import hashlib

    import cv2
    import imagehash
    from PIL import Image

    data = (Path(root) / name).read_bytes()
    try:
        picture = Image.open(Path(root) / name).convert("RGB")
    except OSError:
        return None
    grey = np.asarray(picture.convert("L"))
    width, height = picture.size
    return {
        "digest": hashlib.sha256(data).hexdigest(),
        "short": min(width, height),
        "aspect": max(width, height) / min(width, height),
        "weight": len(data) / (width * height),
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std() / 127.5),
        "entropy": float(picture.entropy()),
        "hash": int(str(imagehash.phash(picture)), 16),
    }


def write_many(root: Path, count: int) -> None:
    """So many records over hard links of a few small pictures."""
    import simplejpeg

    rng = np.random.default_rng(5)
    (root / "files").mkdir(parents=True)
    for number in range(8):
        picture = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
        (root / f"seed{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, 60, "RGB", "420"))
    lines = []
    for number in range(count):
        name = f"files/{number:06d}.jpg"
        os.link(root / f"seed{number % 8}.jpg", root / name)
        lines.append(json.dumps({"id": str(number), "text": f"picture {number}", "licence": "MIT", "file": name}))
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")


def run(pictures: int = PICTURES, records: int = UNCHANGED, repeats: int = 3) -> list[Figure]:
    """All three figures."""
    import shutil

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pictures"
        write_pictures(root, pictures)
        ratios, ray = [], []
        for _ in range(repeats):
            ours = apart("tests.bench.bench_curate", "curate", str(root), "local")
            theirs = apart("tests.bench.bench_curate", "naive", str(root))
            ratios.append(theirs["cpu_s"] / ours["cpu_s"])
            on_ray = apart("tests.bench.bench_curate", "curate", str(root), "ray")
            # The header node starts the workers of either engine; the pixel node is what is compared.
            ray.append(ours["walls"]["pixels"] / on_ray["walls"]["pixels"])
            for engine in ("local", "ray"):
                shutil.rmtree(root / f"store-{engine}")
        baseline = "two processes with Pillow, imagehash and webdataset"
        figures.append(figure("curate_vs_naive", ratios, "x", 1.5, pictures, baseline))
        figures.append(figure("ray_vs_local", ray, "x", 0.7, pictures, "the local engine, same recipe, after start-up"))
        many = Path(folder) / "many"
        write_many(many, records)
        apart("tests.bench.bench_curate", "curate", str(many), "local", False)
        again = [apart("tests.bench.bench_curate", "curate", str(many), "local", False) for _ in range(repeats)]
        calls = sum(one["calls"] for one in again)
        seconds = [one["seconds"] for one in again]
        figures.append(figure("unchanged_run_s", seconds, "s", 5, records, "none", True, 2, operator_calls=calls))
        figures[-1]["holds"] &= calls == 0
    return figures
