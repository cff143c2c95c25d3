"""The embedded corpus: some three hundred records in the layout of the sample corpora, with the answer to each.

Every manifest line has `expected`: per corpus the final state and reason of the record under the shipped recipe.
Among exact copies it is the recipe that picks the one to keep; there the states of a `near_dup_group` hold as a set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.embedded.damage import hostile
from pipeline.embedded.grounding import grounding
from pipeline.embedded.images import images
from pipeline.embedded.item import Item
from pipeline.embedded.reading import reading
from pipeline.embedded.scenes import TIMES, harbour

STAMP = "embedded.json"
"""Says what wrote the folder and what it holds, so that an unchanged corpus is not drawn again."""


@dataclass(frozen=True)
class Corpus:
    """What lies in a corpus folder. `records` are manifest lines per folder, `bytes` those of all files."""

    folder: Path
    records: dict[str, int]
    bytes: int


def write_corpus(folder: Path) -> Corpus:
    """Write the embedded corpus into a folder; what is there already and the same is left alone.

    Raises UserError when scikit-image, which ships the photographs, is not installed.
    """
    maker = _maker()
    stamp = folder / STAMP
    if (known := _known(stamp, maker)) is not None:
        return known
    records = {}
    sizes: dict[str, int] = {}
    for name, make in _FOLDERS.items():
        items = list(make())
        files = folder / name / "files"
        files.mkdir(parents=True, exist_ok=True)
        for item in items:
            if item.data is not None:
                _write(files / item.file, item.data)
                sizes[f"{name}/files/{item.file}"] = len(item.data)
        lines = "".join(json.dumps(item.line(name), ensure_ascii=False) + "\n" for item in items).encode()
        _write(folder / name / "manifest.jsonl", lines)
        sizes[f"{name}/manifest.jsonl"] = len(lines)
        records[name] = len(items)
    _write(stamp, json.dumps({"maker": maker, "records": records, "files": sizes}, indent=1).encode())
    return Corpus(folder, records, sum(sizes.values()))


def _hostile() -> Iterable[Item]:
    return hostile([harbour(f"victim_{index}", (512, 400), TIMES[index % 5], 1 + index) for index in range(6)])


_FOLDERS: dict[str, Callable[[], Iterable[Item]]] = {
    "images": images,
    "ocr": reading,
    "grounding": grounding,
    "hostile": _hostile,
}


def _maker() -> str:
    """A digest of all that decides the bytes: the code here and the libraries that draw and encode."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for package in ("numpy", "opencv-python-headless", "pillow", "scikit-image"):
        digest.update(f"{package} {_version(package)}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _known(stamp: Path, maker: str) -> Corpus | None:
    """What the folder holds, if the same maker wrote it and every file still has its size."""
    try:
        stated = json.loads(stamp.read_bytes())
        sizes: dict[str, int] = stated["files"]
        if stated["maker"] != maker:
            return None
        if any((stamp.parent / name).stat().st_size != size for name, size in sizes.items()):
            return None
        return Corpus(stamp.parent, dict(stated["records"]), sum(sizes.values()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; an equal one keeps its time, so that its digest need not be taken again."""
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)
