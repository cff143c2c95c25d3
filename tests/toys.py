"""Toy operators for tests of the engine: each does one thing wrong, or counts what is done.

Workers import them as `tests.toys:Name`. What they do is told by the mapped field `do` of a record, so that one unit
can hold good and bad records side by side.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.operator import Child, Column, Expander, Measure, Merger, Params, Quarantine, Record

CALLS = "UNIFACTORY_TEST_CALLS"
"""Environment variable: a file to which every call of a toy appends a line `operator key`."""


def note_call(operator: str, key: str) -> None:
    """Append one line in one write, which is atomic, so that calls survive whatever kills the worker."""
    path = os.environ.get(CALLS)
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{operator} {key}\n".encode())
        os.close(descriptor)


def calls_noted(path: Path) -> list[tuple[str, str]]:
    """(operator, key) of every call so far."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        operator, _, key = line.partition(" ")
        found.append((operator, key))
    return found


def segfault() -> None:
    """Read address zero."""
    import ctypes

    ctypes.string_at(0)


def _do(what: str | None) -> Any:
    """Do what a record asks for; the score it comes to otherwise."""
    match (what or "").split():
        case ["raise"]:
            raise ValueError("no good\nand a second line")
        case ["quarantine"]:
            raise Quarantine("too odd", "the particulars")
        case ["surrogate"]:
            raise OSError("cannot read \udcff.jpg")
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["spin", seconds]:
            # Native code that never gives the interpreter back is imitated by a long regular expression.
            _hold_interpreter(float(seconds))
        case ["exit", code]:
            os._exit(int(code))
        case ["sys.exit", code]:
            raise SystemExit(int(code))
        case ["segfault"]:
            segfault()
        case ["memory"]:
            raise MemoryError
        case ["nan"]:
            return math.nan
        case ["np.nan"]:
            return np.float32("nan")
        case ["inf"]:
            return math.inf
        case ["negative"]:
            return -0.5
        case ["large"]:
            return 1.5
        case ["text"]:
            return "0.5"
        case ["null"]:
            return None
    return 0.5


def _hold_interpreter(seconds: float) -> None:
    import ctypes

    # PyDLL keeps the interpreter's lock while the C function sleeps.
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


class ScoreParams(Params):
    """`shift` is there to give fingerprints something to differ by."""

    shift: float = 0.0


class Score(Measure):
    """One number from 0 to 1 a record, or trouble."""

    name = "toy_score"
    version = 1
    Params = ScoreParams
    params: ScoreParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """A score and the process that gave it."""
        return (
            Column("score", pa.float64(), "toy score", 0, 1, "higher"),
            Column("worker", pa.int64(), "process id"),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """What to do."""
        return ("do",)

    def process(self, record: Record) -> Sequence[Any]:
        """The score, after doing what the record asks for."""
        note_call(self.name, record.key)
        return (_do(record.values["do"]), os.getpid())


class HeavyScore(Score):
    """The same, said to load a model: on Ray it runs on actors."""

    name = "toy_heavy"
    loads_model = True


class BatchScore(Score):
    """The same, eight records at a time; one bad record spoils its batch."""

    name = "toy_batch"
    batch = 8

    def process_batch(self, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """All scores, or for a record that asks for `answer` why it is set aside."""
        rows: list[Sequence[Any] | Quarantine] = []
        for record in records:
            if record.values["do"] == "answer":
                rows.append(Quarantine("said so", "by the batch"))
            elif record.values["do"] == "short":
                return rows
            else:
                rows.append((_do(record.values["do"]), os.getpid()))
        return rows


class WrongCount(Score):
    """Returns fewer values than it declares."""

    name = "toy_count"

    def process(self, record: Record) -> Sequence[Any]:
        """One value of two."""
        return (0.5,)


class Words(Measure):
    """Columns of many types, whose values a record names."""

    name = "toy_words"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """Text, a whole number, a list."""
        return (
            Column("words", pa.string(), "text"),
            Column("count", pa.int64(), "a number", 0, 100),
            Column("parts", pa.list_(pa.float64()), "numbers"),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """What to return."""
        return ("do",)

    def process(self, record: Record) -> Sequence[Any]:
        """Values that fit, or one that does not."""
        bad: dict[str | None, Sequence[Any]] = {
            "surrogate": ("\ud800", 1, []),
            "number for text": (5, 1, []),
            "fraction": ("a", 2.5, []),
            "huge": ("a", 2**70, []),
            "nan in list": ("a", 1, [0.5, math.nan]),
            "text in list": ("a", 1, ["x"]),
            "object": (object(), 1, []),
        }
        return bad.get(record.values["do"], ("a", 1, [0.5]))


class BrokenSetup(Score):
    """Cannot be set up in any worker."""

    name = "toy_setup"

    def setup(self) -> None:
        """Fail."""
        raise RuntimeError("the model file is not there")


class DeadlySetup(Score):
    """Ends its process while it is set up, as a model does that does not fit into memory."""

    name = "toy_deadly"

    def setup(self) -> None:
        """End."""
        os._exit(11)


class MissingModel(Score):
    """Has no checkpoint."""

    name = "toy_missing"

    @property
    def columns(self) -> tuple[Column, ...]:
        """A score of its own."""
        return (Column("beauty", pa.float64(), "toy score", 0, 10, "higher"),)

    @property
    def missing(self) -> str | None:
        """Always."""
        return "no checkpoint"


class CheckpointParams(Params):
    """`checkpoint` is what a recipe may leave out."""

    checkpoint: str | None = None


class Beauty(Measure):
    """A score from 0 to 10 by a model that a recipe may be without."""

    name = "toy_beauty"
    version = 1
    Params = CheckpointParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """The score."""
        return (Column("beauty", pa.float64(), "toy score", 0, 10, "higher"),)

    def process(self, record: Record) -> Sequence[Any]:
        """A number that depends on the key alone."""
        note_call(self.name, record.key)
        return (int(record.key[:4], 16) / 65536 * 10,)


class Direction(Measure):
    """An embedding that points along one of four axes, as the record's `do` (`point 3`) says; null without."""

    name = "toy_direction"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """The embedding."""
        return (Column("embedding", pa.binary(), "half-precision numbers of a vector of length 1"),)

    def process(self, record: Record) -> Sequence[Any]:
        """The axis."""
        said = (record.fields.get("do") or "").split()
        return (np.eye(4)[int(said[1])].astype("<f2").tobytes() if said[:1] == ["point"] else None,)


class ExpandParams(Params):
    """`children` of each record; those whose `do` says so have other numbers."""

    children: int = 3


class ThreeParts(Expander):
    """One record into three that share its picture."""

    name = "toy_three"
    version = 1
    Params = ExpandParams
    params: ExpandParams
    batch: ClassVar[int] = 1

    @property
    def reads(self) -> tuple[str, ...]:
        """What to do."""
        return ("do",)

    def expand(self, record: Record) -> Iterable[Child]:
        """Parts numbered from 0, each with the fields of its parent and its number."""
        note_call(self.name, record.key)
        _do(record.values["do"])
        count = 0 if record.values["do"] == "childless" else self.params.children
        for part in range(count):
            fields = {**record.fields, "id": f"{record.fields['id']}.{part}", "part": str(part)}
            yield Child("part", fields, record.media)


class MergeParams(Params):
    """`by` names the column that groups."""

    by: str = "scene"


class Together(Merger):
    """A group of records into one that says who they were."""

    name = "toy_together"
    version = 1
    Params = MergeParams
    params: MergeParams

    @property
    def reads(self) -> tuple[str, ...]:
        """What to do, and who they were."""
        return ("do", "id")

    @property
    def group_by(self) -> str:
        """The column that groups."""
        return self.params.by

    def merge(self, records: Sequence[Record]) -> Child:
        """The ids of the parents, in order of their keys."""
        note_call(self.name, "+".join(record.key for record in records))
        for record in records:
            _do(record.values["do"])
        assert [record.key for record in records] == sorted(record.key for record in records)
        ids = sorted(str(record.values["id"]) for record in records)
        return Child("scene", {"id": "+".join(ids), "text": "a scene", "licence": "MIT"}, records[0].media)


class CountedHeader(Measure):
    """The width of a picture from its header, every call noted."""

    name = "toy_header"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """Width and height as stored."""
        return (
            Column("short_side", pa.int64(), "the smaller side in pixels", 1, None, "higher"),
            Column("long_side", pa.int64(), "the larger side in pixels", 1, None, "higher"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """Both sides, by Pillow."""
        import io

        from PIL import Image

        note_call(self.name, record.key)
        with Image.open(io.BytesIO(record.read())) as picture:
            return (min(picture.size), max(picture.size))


class SlowParams(Params):
    """`slow` is in seconds a record."""

    slow: float = 0.0


class Brightness(Measure):
    """The mean of a picture's samples, every call noted; `slow` seconds each, to give kills something to hit."""

    name = "toy_brightness"
    version = 1
    Params = SlowParams
    params: SlowParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """The mean."""
        return (Column("brightness", pa.float64(), "mean of all samples", 0, 255),)

    def process(self, record: Record) -> Sequence[Any]:
        """Decode and average."""
        import io

        from PIL import Image

        note_call(self.name, record.key)
        time.sleep(self.params.slow)
        with Image.open(io.BytesIO(record.read())) as picture:
            return (float(np.asarray(picture.convert("RGB")).mean()),)


class ReadsScore(Measure):
    """Reads the column of another node."""

    name = "toy_reads"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """Twice the score."""
        return (Column("double", pa.float64(), "twice the score", 0, 2),)

    @property
    def reads(self) -> tuple[str, ...]:
        """The score."""
        return ("score",)

    def process(self, record: Record) -> Sequence[Any]:
        """Twice the score."""
        note_call(self.name, record.key)
        return (2 * record.values["score"],)


class ReadsGroup(Measure):
    """Reads a field whose name an engine might use itself."""

    name = "toy_group"
    version = 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it read."""
        return (Column("seen", pa.string(), "the field"),)

    @property
    def reads(self) -> tuple[str, ...]:
        """The field."""
        return ("group",)

    def process(self, record: Record) -> Sequence[Any]:
        """What it read."""
        return (record.values["group"],)
