"""The index of benchmark items that training data must not hold: hashes and key points, no text and no picture.

    index = build_index(Path("benchmarks"))
    save_index(index, Path("benchmarks.arrow"))

A folder of benchmarks has `questions.jsonl` (lines with `id`, `benchmark`, `question` and, where there are any,
`answer` and `options`), or `manifest.jsonl` whose lines of `kind: file` name a picture in `file`, or both. Of a text
the index holds 64-bit hashes of its runs of 13 words (of all of it where it is shorter); of an answer the hash of it
joined to the question, since a bare hash of "4" could be looked up; of a picture its sha256, perceptual hashes of it,
of its mirror image and of many crops, and its ORB key points, from which the picture cannot be drawn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from catalog.errors import UserError
from catalog.keys import key_of
from pipeline.measures.ngrams import joined_hash, normal_words, run_hashes, weight
from pipeline.measures.phash import hash_grey
from pipeline.measures.same_picture import describe
from pipeline.operator import Quarantine
from pipeline.pictures import decode_scaled

VERSION = 1
RUN = 13
"""Words of a run. Runs of scripts without blanks have twice as many characters."""
PICTURE_SIDE = 512
"""Pixels of the shorter side from which pictures are hashed and described, where they have so many."""

_ANSWERS = pa.list_(
    pa.struct([pa.field("words", pa.int32()), pa.field("weight", pa.int32()), pa.field("hash", pa.int64())])
)
SCHEMA = pa.schema(
    [
        pa.field("item", pa.string()),  # hash of benchmark and id
        pa.field("benchmark", pa.string()),  # its name
        pa.field("run", pa.int32()),  # words of a run; 0 without a text
        pa.field("weight", pa.int32()),  # what the question counts, in words
        pa.field("runs", pa.list_(pa.int64())),  # hashes of its runs, sorted
        pa.field("answer", _ANSWERS),  # none or one: its length in words, weight, hash joined to the question's
        pa.field("options", _ANSWERS),  # alike
        pa.field("digest", pa.string()),  # sha256 of the picture's file
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("hashes", pa.list_(pa.int64())),  # of the picture, its mirror image, without two bands, of crops
        pa.field("points", pa.list_(pa.float32())),  # x, y of key points, in turn, as shares
        pa.field("codes", pa.binary()),  # 32 bytes a key point
    ]
)

# Share of each side that a crop keeps, and places of it along a side: no crop in between is further off than 2 % of it.
_CROPS = ((0.95, 3), (0.9, 5), (0.85, 6), (0.8, 7))
_PICTURE_MARK = re.compile(r"<image(?: ?\d+)?>")


@dataclass(frozen=True)
class Index:
    """Rows of SCHEMA, sorted by item; the fingerprint is of all they hold."""

    rows: pa.Table
    fingerprint: str


def build_index(folder: Path) -> Index:
    """The index of a folder of benchmarks; raises UserError for a folder or a line that is none."""
    rows = []
    for place, line in _lines(folder):
        try:
            rows.append(_row(folder, line))
        except (KeyError, TypeError, ValueError, OSError, Quarantine) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"{place}: cannot be indexed as a benchmark item: {what}") from error
    if not rows:
        raise UserError(f"{folder}: holds no benchmark items; questions.jsonl or manifest.jsonl must name some")
    rows.sort(key=lambda row: (row["item"], row["digest"] or "", row["runs"]))
    return _index(pa.Table.from_pylist(rows, SCHEMA))


def save_index(index: Index, path: Path) -> None:
    """Write an index as one Arrow file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    named = index.rows.replace_schema_metadata({"benchmark index": str(VERSION), "fingerprint": index.fingerprint})
    with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, named.schema) as writer:
        writer.write_table(named)
    unfinished.replace(path)


def load_index(path: Path) -> Index:
    """The index of a folder, or the saved one; raises UserError. Once per process while nothing there changes."""
    try:
        state = tuple((str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in _files(path))
    except OSError as error:
        raise UserError(f"{path}: the benchmarks cannot be read: {error.strerror}") from error
    return _load(path, state)


@lru_cache(maxsize=4)
def _load(path: Path, _state: tuple[Any, ...]) -> Index:
    if path.is_dir():
        return build_index(path)
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: is no index of benchmarks: {error}") from error
    told = table.schema.metadata or {}
    if told.get(b"benchmark index") != str(VERSION).encode() or table.schema.names != SCHEMA.names:
        raise UserError(f"{path}: is no index of benchmarks of version {VERSION}; build it again")
    index = _index(table.cast(SCHEMA))
    if told.get(b"fingerprint") != index.fingerprint.encode():
        raise UserError(f"{path}: does not hold what was written into it; build it again")
    return index


def _files(path: Path) -> list[Path]:
    """All that decides an index."""
    if not path.is_dir():
        return [path]
    found = [path / name for name in ("questions.jsonl", "manifest.jsonl")]
    named = {str(line["file"]) for _, line in _lines(path) if line.get("file")}
    return [one for one in found if one.exists()] + [path / name for name in sorted(named)]


def _index(rows: pa.Table) -> Index:
    told = [orjson.dumps({**row, "codes": (row["codes"] or b"").hex()}) for row in rows.to_pylist()]
    return Index(rows, key_of(b"benchmark index", str(VERSION).encode(), *told))


def _lines(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of every item."""
    for name in ("questions.jsonl", "manifest.jsonl"):
        path = folder / name
        if not path.is_file():
            continue
        for number, text in enumerate(path.read_bytes().splitlines(), 1):
            if not text.strip():
                continue
            try:
                line = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(line, dict):
                raise UserError(f"{path}:{number}: not an object")
            if name == "questions.jsonl" or (line.get("kind") == "file" and line.get("media") == "image"):
                yield f"{path}:{number}", line


def _row(folder: Path, line: Mapping[str, Any]) -> dict[str, Any]:
    benchmark = str(line.get("benchmark") or "unnamed")
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row |= {"item": key_of(b"benchmark item", benchmark.encode(), str(line["id"]).encode()), "benchmark": benchmark}
    row |= {"run": 0, "weight": 0, "runs": [], "answer": [], "options": [], "hashes": [], "points": []}
    if isinstance(line.get("question"), str):
        row |= _text_part(line)
    if isinstance(file := line.get("file"), str):
        row |= _picture_part((folder / file).read_bytes())
    return row


def _answer(line: Mapping[str, Any], options: Sequence[str]) -> list[str]:
    """The answer as a text: a letter that is no option itself names one."""
    answer = line.get("answer")
    if answer is None:
        return []
    text = str(answer)
    place = ord(text) - ord("A") if re.fullmatch("[A-Z]", text) and text not in options else len(options)
    return [options[place] if place < len(options) else text]


def _text_part(line: Mapping[str, Any]) -> dict[str, Any]:
    words = bench_words(line["question"])
    if not words:
        return {}
    size = min(len(words), run_length(words))
    whole = int(run_hashes(words, len(words))[0])
    told = line.get("options")
    options = [str(option) for option in told] if isinstance(told, list) else []
    return {
        "run": size,
        "weight": weight(words),
        "runs": np.unique(run_hashes(words, size)).view(np.int64).tolist(),
        "answer": _joined(whole, _answer(line, options)),
        "options": _joined(whole, options),
    }


def _joined(question: int, answers: Sequence[str]) -> list[dict[str, int]]:
    found = []
    for words in filter(None, map(normal_words, answers)):
        joined = joined_hash(question, int(run_hashes(words, len(words))[0]))
        found.append({"words": len(words), "weight": weight(words), "hash": _signed(joined)})
    # Sorted by hash: the order of options says which they are.
    return sorted(found, key=lambda answer: answer["hash"])


def bench_words(text: str) -> list[str]:
    """Words of a text without the marks that say where a picture stands."""
    return normal_words(_PICTURE_MARK.sub(" ", text))


def run_length(words: Sequence[str]) -> int:
    """Words of a run: 13, in scripts without blanks 26 characters."""
    return 2 * RUN if weight(words) <= 0.75 * len(words) else RUN


def _picture_part(data: bytes) -> dict[str, Any]:
    import cv2

    picture = decode_scaled(data, PICTURE_SIDE)
    found = describe(picture)
    return {
        "digest": hashlib.sha256(data).hexdigest(),
        "height": found.height,
        "width": found.width,
        "hashes": crop_hashes(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)),
        "points": found.plain.points.astype(np.float32).ravel().tolist(),
        "codes": found.plain.codes.tobytes(),
    }


def crop_hashes(grey: NDArray[np.uint8]) -> list[int]:
    """Perceptual hashes of a grey picture [height, width], its mirror image and its crops; none of a uniform one."""
    whole = hash_grey(grey)
    if whole is None:
        return []
    height, width = grey.shape
    found = [whole.full, whole.mirror, *whole.windows[-2:]]
    for keep, places in _CROPS:
        starts = np.linspace(0, 1 - keep, places)
        for top in starts:
            for left in starts:
                part = grey[
                    round(top * height) : round((top + keep) * height),
                    round(left * width) : round((left + keep) * width),
                ]
                if part.size and (hashes := hash_grey(np.ascontiguousarray(part))) is not None:
                    found.append(hashes.full)
    return found


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
