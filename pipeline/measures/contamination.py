"""Measure `contamination`: is a record, its text or its picture, an item of a benchmark?

**Text.** A long question counts by the share of its runs of 13 words that the record holds, wherever they stand. A
question of fewer than 8 words says little by itself: it counts, as 1, where a text of the record is that question and
nothing else, or where the record also holds its answer strings (all options, or the answer), in any order.

**Picture.** A perceptual hash proposes (of the picture, mirrored, cropped to as little as 80 %, or a crop's whole), ORB
key points decide: so many must agree on one way to lay the pictures over each other. A picture without key points is
found by its bytes alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.benchmarks import PICTURE_SIDE, Index, bench_words, load_index
from pipeline.measures.boxes import texts_of
from pipeline.measures.ngrams import hashes_of_runs, joined_hash, word_hashes
from pipeline.measures.phash import CENTRE_WINDOWS, hash_grey
from pipeline.measures.same_picture import Descriptors, agreeing, describe, sketch
from pipeline.operator import Column, Measure, Params, Record
from pipeline.pictures import DEFAULT_LIMITS, PILLOW_LIMIT, Limits, decode_scaled

Words = NDArray[np.uint64]

# Bits within which hashes are next to equal: half of the key points will do.
_NEARLY = 4

LEAST_WORDS = 8
"""Words from which a question is told by its runs alone."""
LEAST_ALONE = 5
"""Words from which a shorter question is one when a text of the record is that and nothing else."""
LEAST_TOGETHER = 6
"""Words that such a question and its answer strings must have together, found in one record."""


class ContaminationParams(Params):
    """Parameters of `contamination`.

    `benchmarks`: a folder of benchmarks or a saved index (pipeline/benchmarks.py), null when there is none. `fields`
    are mapped fields with texts or lists of texts, `columns` those of nodes above; `role` is that of the pictures,
    null to look at texts alone. `overlap`: share of an item's runs from which a text is one. `distance`: bits of 64
    within which pictures are compared; `inliers`: key points that must agree, half of them where at most 4 bits differ.
    """

    benchmarks: str | None = None
    fields: tuple[str, ...] = ("text", "question", "answer", "options")
    columns: tuple[str, ...] = ()
    role: str | None = "image"
    overlap: float = Field(default=0.5, gt=0, le=1)
    distance: int = Field(default=10, ge=0, le=20)
    inliers: int = Field(default=40, ge=6, le=500)
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1, le=PILLOW_LIMIT)


@dataclass(frozen=True)
class FoundText:
    """The item that a record holds the most of, as a place in the index, and the share."""

    overlap: float = 0.0
    item: int | None = None


@dataclass(frozen=True)
class FoundPicture:
    """The item whose picture the record shows, as a place in the index."""

    item: int | None = None
    distance: int | None = None
    inliers: int | None = None


class Contamination(Measure):
    """Benchmark items in the record's texts and picture, by hashes alone; nothing is dropped here."""

    name = "contamination"
    version = 1
    Params = ContaminationParams
    params: ContaminationParams
    time_limit: ClassVar[float] = 60.0

    def __init__(self, params: ContaminationParams) -> None:
        super().__init__(params)
        self._index: Index | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column("contaminated", pa.bool_(), "the text or the picture is an item of a benchmark"),
            Column("text_overlap", pa.float64(), "share of an item's text that the record holds", 0, 1, "lower"),
            Column("text_item", pa.string(), "that item: hash of its benchmark and id; null at an overlap of 0"),
            Column("picture_item", pa.string(), "the item whose picture is the record's, or a copy; null for none"),
            Column(
                "picture_distance", pa.int64(), "bits between the hashes of the two; null where no hash is near", 0, 64
            ),
            Column(
                "picture_inliers",
                pa.int64(),
                "key points that agree with the nearest item's picture; null where no hash is near",
                0,
                500,
                "lower",
            ),
            Column("benchmark", pa.string(), "name of the benchmark, the text's before the picture's, if contaminated"),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Texts that nodes above wrote."""
        return self.params.columns

    @property
    def missing(self) -> str | None:
        """A reason when no benchmarks are named."""
        return None if self.params.benchmarks else "no benchmarks are given"

    def fingerprint_parts(self) -> dict[str, Any]:
        """All that the index holds; raises UserError when it cannot be made."""
        return {} if self.params.benchmarks is None else {"index": load_index(Path(self.params.benchmarks)).fingerprint}

    def setup(self) -> None:
        """Make or read the index; raises UserError."""
        if self.params.benchmarks is not None:
            self._index = load_index(Path(self.params.benchmarks))
            self._texts, self._pictures = TextIndex(self._index), PictureIndex(self._index)

    def process(self, record: Record) -> Sequence[Any]:
        """The columns; raises Quarantine for a picture that cannot be decoded."""
        if self._index is None:
            self.setup()
        assert self._index is not None, "a node without benchmarks does not run"
        fields = record.fields
        values = [fields.get(name) for name in self.params.fields]
        values += [record.values[name] for name in self.params.columns]
        text = self._texts.find([text for value in values for text in texts_of(value)])
        picture = self._picture(record)
        is_text = text.overlap >= self.params.overlap
        names, benchmarks = self._index.rows["item"], self._index.rows["benchmark"]
        told = text.item if is_text else picture.item
        return (
            told is not None,
            text.overlap,
            None if text.item is None else names[text.item].as_py(),
            None if picture.item is None else names[picture.item].as_py(),
            picture.distance,
            picture.inliers,
            None if told is None else benchmarks[told].as_py(),
        )

    def _picture(self, record: Record) -> FoundPicture:
        """What the pictures of the role show: the first that is an item's, else the one nearest to one."""
        nearest = FoundPicture()
        for ref in record.media if len(self._pictures) else ():
            if ref.role != self.params.role:
                continue
            picture = decode_scaled(record.reader.read(ref), PICTURE_SIDE, Limits(self.params.max_pixels))
            found = self._pictures.find(picture, ref.digest, self.params.distance, self.params.inliers)
            if found.item is not None:
                return found
            if found.distance is not None and (nearest.distance is None or found.distance < nearest.distance):
                nearest = found
        return nearest


class TextIndex:
    """The texts of an index, arranged for looking up."""

    def __init__(self, index: Index) -> None:
        columns = ("run", "weight", "runs", "answer", "options")
        self._rows = index.rows.select(columns).to_pylist()
        pairs: dict[int, list[tuple[Words, Words]]] = defaultdict(list)
        for place, row in enumerate(self._rows):
            runs = np.array(row["runs"], np.int64).view(np.uint64)
            if len(runs):
                pairs[row["run"]].append((runs, np.full(len(runs), place)))
        self._by_size: list[tuple[int, Words, NDArray[np.int64]]] = []
        for size, found in sorted(pairs.items()):
            hashes, owners = (np.concatenate(part) for part in zip(*found, strict=True))
            order = np.lexsort((owners, hashes))
            self._by_size.append((size, hashes[order], owners[order]))

    def find(self, texts: Sequence[str]) -> FoundText:
        """The item of which the texts of one record hold the greatest share; ties by item."""
        held = [word_hashes(words) for text in texts if (words := bench_words(text))]
        best = FoundText()
        for place, count in sorted(self._counts(held).items()):
            row = self._rows[place]
            if row["weight"] >= LEAST_WORDS:
                share = count / len(row["runs"])
            else:
                share = float(self._is_told(row, held))
            if share > best.overlap:
                best = FoundText(share, place)
        return best

    def _counts(self, held: Sequence[Words]) -> dict[int, int]:
        """How many runs of each item the texts hold."""
        counts: dict[int, int] = defaultdict(int)
        for size, hashes, owners in self._by_size:
            runs = _runs(held, size)
            first, last = np.searchsorted(hashes, runs, "left"), np.searchsorted(hashes, runs, "right")
            for start, end in zip(first[last > first], last[last > first], strict=True):
                for owner in owners[start:end]:
                    counts[int(owner)] += 1
        return counts

    @staticmethod
    def _is_told(row: dict[str, Any], held: Sequence[Words]) -> bool:
        """Whether the texts hold a short question beyond chance; that they hold its words is known."""
        whole, size = _unsigned(row["runs"][0]), row["run"]
        if row["weight"] >= LEAST_ALONE:
            alone = [words for words in held if len(words) == size]
            if any(int(hashes_of_runs(words, size)[0]) == whole for words in alone):
                return True
        return any(_beside(row["weight"], whole, row[name], held) for name in ("options", "answer"))


def _beside(weight: int, question: int, answers: Sequence[dict[str, int]], held: Sequence[Words]) -> bool:
    """Whether the texts hold all answer strings of a question, and these are enough with it."""
    if not answers or weight + sum(answer["weight"] for answer in answers) < LEAST_TOGETHER:
        return False
    known = {joined_hash(question, int(run)) for size in {one["words"] for one in answers} for run in _runs(held, size)}
    return all(_unsigned(answer["hash"]) in known for answer in answers)


def _unsigned(value: int) -> int:
    return value & 0xFFFF_FFFF_FFFF_FFFF


def _runs(held: Sequence[Words], size: int) -> Words:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *(hashes_of_runs(words, size) for words in held)]))


class PictureIndex:
    """The pictures of an index, arranged for looking up: some 1 kB of hashes and 20 kB of key points each."""

    def __init__(self, index: Index) -> None:
        columns = ("digest", "height", "width", "hashes", "points", "codes")
        rows = [(place, row) for place, row in enumerate(index.rows.select(columns).to_pylist()) if row["digest"]]
        self._digests = {row["digest"]: place for place, row in reversed(rows)}
        self._sketches: dict[int, Descriptors] = {}
        hashes: list[int] = []
        owners: list[int] = []
        ranks: list[int] = []
        for place, row in rows:
            points = np.array(row["points"], np.float64).reshape(-1, 2)
            codes = np.frombuffer(row["codes"], np.uint8).reshape(-1, 32)
            self._sketches[place] = sketch(row["height"], row["width"], points, codes)
            hashes += row["hashes"]
            owners += [place] * len(row["hashes"])
            ranks += range(len(row["hashes"]))
        self._hashes = np.array(hashes, np.int64)
        self._owners = np.array(owners, np.int64)
        # The picture and its mirror image, of which a record's picture may show more; and what is left of both
        # without a band.
        rank = np.array(ranks, np.int64)
        self._comparable = [rank < 2] * len(CENTRE_WINDOWS) + [(rank < 2) | (rank == place) for place in (2, 3)]

    def __len__(self) -> int:
        return len(self._sketches)

    def find(self, picture: NDArray[np.uint8], digest: str | None, distance: int, inliers: int) -> FoundPicture:
        """The item that shows what an upright RGB picture [height, width, 3] shows, or the nearest that does not."""
        if digest in self._digests:
            return FoundPicture(self._digests[digest], 0, None)
        near = self._near(picture, distance)
        if not near:
            return FoundPicture()
        described = describe(picture)
        # Most key points first, then the nearest hash, then the order of the index.
        agreed, bits, place = min(
            (-agreeing(self._sketches[place], described)[0], near[place], place) for place in near
        )
        needed = inliers if bits > _NEARLY else inliers // 2
        return FoundPicture(place if -agreed >= needed else None, bits, -agreed)

    def _near(self, picture: NDArray[np.uint8], distance: int) -> dict[int, int]:
        """Bits to every item within a distance."""
        import cv2

        found = hash_grey(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
        if found is None or not len(self._hashes):
            return {}
        whole = [_bits(self._hashes, value) for value in (found.full, found.mirror)]
        windows = zip(self._comparable, found.windows, strict=True)
        parts = [np.where(comparable, _bits(self._hashes, value), 64) for comparable, value in windows]
        least = np.minimum.reduce([*whole, *parts])
        near: dict[int, int] = {}
        for rank in np.flatnonzero(least <= distance):
            place = int(self._owners[rank])
            near[place] = min(near.get(place, 64), int(least[rank]))
        return near


def _bits(hashes: NDArray[np.int64], value: int) -> NDArray[np.uint8]:
    """How many bits differ."""
    differing: NDArray[np.uint8] = np.bitwise_count((hashes ^ np.int64(value)).view(np.uint64))
    return differing
