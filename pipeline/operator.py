"""The step of a recipe that looks at one record: an operator.

Subclass `Measure`, declare `columns`, implement `process`. Failures, time limits, caching, batching and statistics are
the engine's. An operator must be a pure function of the record and its parameters, so that running it again is safe.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import orjson
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from catalog.columns import Column
from catalog.errors import UserError
from catalog.storage import Storage
from pipeline.media import MediaReader, MediaRef

__all__ = [
    "BatchMeasure",
    "Child",
    "Column",
    "Expander",
    "Measure",
    "Merger",
    "Operator",
    "Params",
    "Quarantine",
    "Record",
    "check_row",
    "load_operator",
    "operator_names",
]


class Params(BaseModel):
    """Parameters of an operator as a recipe writes them; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Params = Params  # the class variable of Operator has the same name


class Quarantine(Exception):  # noqa: N818 - it is a verdict on the record, not a fault of the program
    """The record cannot be processed; `reason` is a short phrase that groups, the message gives the particulars."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Record:
    """One input row as an operator sees it.

    `key` is the record key, `values` the upstream columns the operator asked for in `reads`.
    """

    key: str
    media: tuple[MediaRef, ...]
    fields_json: bytes
    values: dict[str, Any]
    reader: MediaReader

    @property
    def fields(self) -> dict[str, Any]:
        """The mapped fields of the source row (text, licence, ...), as canonical JSON values."""
        loaded: dict[str, Any] = orjson.loads(self.fields_json)
        return loaded

    def ref(self, role: str = "image") -> MediaRef:
        """The first medium with that role; a record without one is quarantined."""
        for ref in self.media:
            if ref.role == role:
                return ref
        raise Quarantine(f"no {role}", f"the record has no medium with the role {role!r}")

    def read(self, role: str = "image") -> bytes:
        """All bytes of the first medium with that role."""
        return self.reader.read(self.ref(role))

    def head(self, size: int, role: str = "image") -> bytes:
        """The first `size` bytes of the first medium with that role."""
        return self.reader.read(self.ref(role), limit=size)


def text_field(fields: Mapping[str, Any], name: str) -> str | None:
    """The text of a field, None where there is none; raises Quarantine when it holds something else."""
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value or None
    raise Quarantine("text is not a string", f"field {name!r} holds {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Child:
    """A record born from others. `fields` must be JSON values; media lie below the media root or in the store."""

    role: str
    fields: dict[str, Any] = field(default_factory=dict)
    media: tuple[MediaRef, ...] = ()


class Operator(ABC):
    """What every step has: a name, a version to raise when its results change, typed parameters."""

    name: ClassVar[str]
    version: ClassVar[int]
    Params: ClassVar[type[_Params]] = _Params
    loads_model: ClassVar[bool] = False
    """True for operators that load something heavy: the Ray engine gives them actors."""
    gpus: ClassVar[float] = 0.0
    """Share of a GPU that one worker of it needs, as Ray counts them."""
    time_limit: ClassVar[float] = 60.0
    """Seconds one record may take before it is quarantined as `time limit`; a node may override it."""
    packages: ClassVar[Mapping[str, str]] = {}
    """Modules beyond the factory's core that it imports, and the extra of `unifactory` that brings each."""

    def __init__(self, params: _Params) -> None:
        self.params = params

    @classmethod
    def build(cls, params: dict[str, Any]) -> Operator:
        """Validate raw parameters and make the operator; raises pydantic.ValidationError."""
        return cls(cls.Params.model_validate(params))

    @property
    def reads(self) -> tuple[str, ...]:
        """Upstream columns this operator needs in `Record.values`."""
        return ()

    def fingerprint_parts(self) -> dict[str, Any]:
        """What beyond name, version and parameters decides the result: model revisions, file digests."""
        return {}

    @property
    def missing(self) -> str | None:
        """Why this operator cannot run here (no checkpoint, say); None when it can. Rules may then name `else`."""
        return None

    @property
    def stands_in(self) -> str | None:
        """What it does instead where what `requires` names is not given, in words; None when nothing: it cannot run."""
        return None

    @property
    def embedded(self) -> tuple[str, ...]:
        """Names of parts that stand in for the real model, said wherever results are shown."""
        return ()

    @property
    def needs_network(self) -> bool:
        """Whether it talks to other machines: then its node must say `network: true`."""
        return False

    def check_packages(self) -> None:
        """Raise UserError for a module of `packages` that is not installed."""
        for module, extra in self.packages.items():
            if importlib.util.find_spec(module) is None:
                raise UserError(f"{self.name} needs {module}; install it with: pip install 'unifactory[{extra}]'")

    def check(self) -> None:
        """Check, before a run's first record and in `plan`, what this operator must find here; raises UserError."""
        self.check_packages()

    def preflight(self, storage: Storage) -> None:  # noqa: B027 - most operators have nothing to check
        """Check on the driver, before any record, what only the world can tell; raises UserError."""

    def refuse(self, records: int) -> str | None:
        """Why so many records would be too many (a budget of requests, say); None when they are not."""
        return None

    def setup(self) -> None:  # noqa: B027 - most operators have nothing to load
        """Load what `process` needs; called once per worker process, before the first record."""


class Measure(Operator):
    """Looks and writes columns; never drops.

    An operator that is quicker over several records at once sets `batch` above 1 and implements `process_batch`; when a
    batch raises, its records are processed one by one, so `process` must give the same values.
    """

    batch: ClassVar[int] = 1

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The columns written, in the order in which `process` returns them."""

    @abstractmethod
    def process(self, record: Record) -> Sequence[Any]:
        """The values of `columns` for one record; None is null. Raise `Quarantine` to set the record aside."""

    def process_batch(self, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The rows of at most `batch` records, or for a record why it is set aside."""
        return [self.process(record) for record in records]


class BatchMeasure(Measure):
    """A measure that looks at several records at once by nature; one record is a batch of one."""

    def process(self, record: Record) -> Sequence[Any]:
        """The values of one record; raises Quarantine."""
        (row,) = self.process_batch([record])
        if isinstance(row, Quarantine):
            raise row
        return row

    @abstractmethod
    def process_batch(self, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The rows of at most `batch` records, or for a record why it is set aside."""


class Expander(Operator):
    """Turns one record into several; the parent's final state is `expanded`."""

    @abstractmethod
    def expand(self, record: Record) -> Iterable[Child]:
        """The children of one record, in order."""


class Merger(Operator):
    """Turns a group of records into one; the parents' final state is `merged`."""

    @property
    @abstractmethod
    def group_by(self) -> str:
        """The upstream column or field whose equal values form a group."""

    @abstractmethod
    def merge(self, records: Sequence[Record]) -> Child:
        """The one child of a group whose records come sorted by key."""


_BUILT_IN: dict[str, str] = {
    "header": "pipeline.measures.header:Header",
    "pixels": "pipeline.measures.pixels:Pixels",
    "phash": "pipeline.measures.phash:PHash",
    "text": "pipeline.measures.text:Text",
    "prose": "pipeline.measures.prose:Prose",
    "chain": "pipeline.measures.chain:Chain",
    "choices": "pipeline.measures.choices:Choices",
    "turns": "pipeline.measures.turns:Turns",
    "minhash": "pipeline.measures.minhash:MinHash",
    "personal": "pipeline.measures.personal:Personal",
    "faces": "pipeline.measures.faces:Faces",
    "embedding": "pipeline.measures.embedding:Embedding",
    "alignment": "pipeline.measures.alignment:Alignment",
    "aesthetics": "pipeline.measures.aesthetics:Aesthetics",
    "classifier": "pipeline.measures.classifier:Classifier",
    "scores": "pipeline.measures.scores:Scores",
    "artimuse": "pipeline.measures.artimuse:ArtiMuse",
    "deqa": "pipeline.measures.deqa:DeQA",
    "clip_probe": "pipeline.measures.clip_probe:ClipProbe",
    "clip_scan": "pipeline.measures.clip_scan:ClipScan",
    "frames": "pipeline.frames:Frames",
    "frame_sequence": "pipeline.frame_sequence:FrameSequence",
    "boxes": "pipeline.measures.boxes:Boxes",
    "contamination": "pipeline.measures.contamination:Contamination",
    "opinion": "pipeline.measures.opinion:Opinion",
    "judgement": "pipeline.measures.judgement:Judgement",
    "ocr": "pipeline.measures.ocr:Ocr",
    "ocr_match": "pipeline.measures.ocr:OcrMatch",
    "counting": "pipeline.counting:Counting",
    "finding": "pipeline.counting:Finding",
    "same_picture": "pipeline.measures.comparison:SamePicture",
    "pair": "pipeline.measures.pair:Pair",
    "instruction": "pipeline.measures.instruction:Instruction",
    "related": "pipeline.related:Related",
    "views": "pipeline.views:Views",
    "subject": "pipeline.measures.subject:Subject",
    "metadata": "pipeline.annotations.metadata:Metadata",
    "openai": "pipeline.annotations.openai:OpenAI",
    "encode": "pipeline.encode:Encode",
}
"""Short names recipes may use, and the class behind each; nothing is imported until it is used."""


def operator_names() -> list[str]:
    """Short names recipes may use, sorted."""
    return sorted(_BUILT_IN)


def load_operator(op: str) -> type[Operator]:
    """The class behind a short name or a `package.module:Class` path; raises UserError naming what is known."""
    place = _BUILT_IN.get(op, op)
    module, _, attribute = place.partition(":")
    if not attribute:
        known = ", ".join(operator_names())
        raise UserError(f"unknown operator {op!r}; known: {known}, or package.module:Class")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"operator {op!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Operator)):
        raise UserError(f"operator {op!r} is not a pipeline.operator.Operator")
    return found


def check_row(columns: Sequence[Column], values: Sequence[Any]) -> None:
    """Refuse NaN, infinity and values outside the declared range: they would pass rules by accident."""
    for column, value in zip(columns, values, strict=True):
        kind = type(value)
        if kind is float or kind is int:
            _check_number(column, value)
        elif isinstance(value, (list, tuple)):
            for number in value:
                if _is_number(number):
                    _check_number(column, number)
        elif value is not None and kind is not str and _is_number(value):
            _check_number(column, value)
        # Anything else is of the wrong type, which shows when the column is made.


def _is_number(value: object) -> bool:
    """Numbers of any library; truth values are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_number(column: Column, number: Any) -> None:
    if not isinstance(number, int):
        if not math.isfinite(number):
            raise Quarantine("non-finite value", f"{column.name} is {number}")
        if number % 1 and pa.types.is_integer(column.type):
            # Arrow would cut the fraction off in silence.
            raise Quarantine("wrong type", f"{column.name} is {number}, not {column.type}")
    if (column.low is not None and number < column.low) or (column.high is not None and number > column.high):
        raise Quarantine("value out of range", f"{column.name} is {number}, declared {column.range_text}")
