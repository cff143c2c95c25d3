"""The embedded corpus: some five hundred records in the layout of the sample corpora, with the answer to each.

Every record has `expected`: per corpus its final state and reason under the shipped recipe. It stands in the manifest,
for pairs in their index.
Among exact copies it is the recipe that picks the one to keep; there the states of a `near_dup_group` hold as a set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.embedded.chains import reasoning
from pipeline.embedded.clips import clips
from pipeline.embedded.damage import hostile
from pipeline.embedded.documents import documents
from pipeline.embedded.edits import edits
from pipeline.embedded.grounding import grounding
from pipeline.embedded.images import images
from pipeline.embedded.item import Item, Row
from pipeline.embedded.reading import reading
from pipeline.embedded.scenes import TIMES, harbour

STAMP = "embedded.json"
"""Says what wrote the folder and what it holds, so that an unchanged corpus is not drawn again."""


@dataclass(frozen=True)
class Corpus:
    """What lies in a corpus folder: `records` that recipes read, per folder, and the `bytes` of all files."""

    folder: Path
    records: dict[str, int]
    bytes: int


def write_corpus(folder: Path) -> Corpus:
    """Write the embedded corpus into a folder; what is there already and the same is left alone.

    Raises UserError when scikit-image, which ships the photographs, or PyAV, which writes the clips, is not installed.
    """
    maker = _maker()
    stamp = folder / STAMP
    if (known := _known(stamp, maker)) is not None:
        return known
    records = {}
    sizes: dict[str, int] = {}
    for name, make in _FOLDERS.items():
        made = list(make())
        lines, indices = _laid_out(name, made)
        stored = {f"files/{one.file}": one.data for one in made if isinstance(one, Item) and one.data is not None}
        stored |= indices
        stored["manifest.jsonl"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        for file, data in stored.items():
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            _write(folder / name / file, data)
            sizes[f"{name}/{file}"] = len(data)
        records[name] = sum(bool(one.expected) for one in made)
    _write(stamp, json.dumps({"maker": maker, "records": records, "files": sizes}, indent=1).encode())
    return Corpus(folder, records, sum(sizes.values()))


def _laid_out(folder: str, made: Iterable[Item | Row]) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """The manifest lines of a folder, and its index files by name."""
    lines: list[dict[str, Any]] = []
    rows: dict[str, list[bytes]] = {}
    for one in made:
        if isinstance(one, Item):
            lines.append(one.line(folder))
            continue
        before = rows.setdefault(one.index, [])
        if one.listed:
            lines.append(one.line(folder, len(before)))
        before.append(one.data)
    indices = {name: b"".join(each) for name, each in rows.items()}
    for name, data in indices.items():
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "what": "one record a line"}
        lines.append({"id": f"{folder}/_index/{name}", "kind": "index", "file": name, **facts})
    return lines, indices


def _hostile() -> Iterable[Item]:
    return hostile([harbour(f"victim_{index}", (512, 400), TIMES[index % 5], 1 + index) for index in range(6)])


_FOLDERS: dict[str, Callable[[], Iterable[Item | Row]]] = {
    "images": images,
    "ocr": reading,
    "grounding": grounding,
    "hostile": _hostile,
    "editing": edits,
    "video": clips,
    "reasoning": reasoning,
    "text": documents,
}


def _maker() -> str:
    """A digest of all that decides the bytes: the code here and the libraries that draw and encode."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for package in ("av", "numpy", "opencv-python-headless", "pillow", "scikit-image"):
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
