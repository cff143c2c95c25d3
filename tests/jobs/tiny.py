"""A corpus of a dozen pictures and a recipe that uses every kind of node, for tests of the command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import simplejpeg

RECIPE = """version: 1
corpus: tiny
sources:
  pictures:
    kind: jsonl
    manifest: pictures/manifest.jsonl
    map: {id: id, text: caption, licence: licence}
    media: {image: file}
nodes:
  header: {measure: header}
  shape:
    decide: rules
    needs: [header]
    rules: {side: short_side >= 200}
  pixels: {measure: pixels, needs: [shape]}
  duplicates:
    decide: duplicates
    needs: [pixels]
    order: [pixels desc]
    near: {column: phash, distance: 4}
  split: {decide: split, needs: [duplicates]}
  encode:
    encode: text_to_image
    needs: [split]
    params: {prompt: text, resolution: 256}
  shards: {pack: webdataset, needs: [encode], shard_samples: 4}
"""


@dataclass(frozen=True)
class Tiny:
    """Where things are."""

    root: Path
    recipe: Path
    store: Path

    @property
    def manifest(self) -> Path:
        return self.root / "pictures" / "manifest.jsonl"

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own."""
        return unifactory(*arguments, **environment)

    @property
    def arguments(self) -> tuple[str, ...]:
        """`curate` of the recipe into the store, with one worker."""
        return ("curate", str(self.recipe), "--root", str(self.root), "--store", str(self.store), "--workers", "1")

    def curate(self, *more: str) -> subprocess.CompletedProcess[str]:
        """The command of `arguments`, in a process of its own."""
        return unifactory(*self.arguments, *more)


def unifactory(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; nothing of the caller's object store settings reaches it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**clean, **environment},
    )


def here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: for what ends before any worker starts."""
    from jobs.cli import main

    out, err = io.StringIO(), io.StringIO()
    with mock.patch("sys.argv", ["unifactory", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def write_tiny(folder: Path, count: int = 12) -> Tiny:
    """`count` distinct pictures, the last two of them too small."""
    root = folder / "root"
    files = root / "pictures" / "files"
    files.mkdir(parents=True)
    rng = np.random.default_rng(11)
    lines = []
    for number in range(count):
        side = 120 if number >= count - 2 else 256
        coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        picture = np.kron(coarse, np.ones((side // 8, side // 8, 1), np.uint8))
        name = f"files/{number:02d}.jpg"
        (root / "pictures" / name).write_bytes(simplejpeg.encode_jpeg(picture, 90, "RGB", "420"))
        line = {"id": f"p{number}", "file": name, "caption": f"Squares number {number}.", "licence": "CC0-1.0"}
        lines.append(json.dumps(line))
    (root / "pictures" / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    return Tiny(root, recipe, folder / "store")
