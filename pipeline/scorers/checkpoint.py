"""What measures have in common that ask a network: a checkpoint on disk, its digest, a device, a batch."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from catalog.errors import UserError
from pipeline.operator import BatchMeasure, Params, Quarantine, Record

WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".onnx"})
"""Endings of files that hold weights."""


class CheckpointParams(Params):
    """Parameters of every measure that asks a network.

    `checkpoint`: folder or file on this machine, null where there is none. `role`: the medium it looks at. `device`:
    `cpu` or `cuda`; scores of another device may differ in their last digits, the stored value is the truth.
    """

    checkpoint: str | None = None
    role: str = "image"
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda)$", exclude=True)


class CheckpointMeasure(BatchMeasure):
    """A measure whose values a network computes. Subclasses implement `load` and `score`."""

    Params: ClassVar[type[CheckpointParams]] = CheckpointParams
    params: CheckpointParams
    loads_model = True
    batch: ClassVar[int] = 8

    def __init__(self, params: CheckpointParams) -> None:
        super().__init__(params)
        self._network: Any = None

    @property
    def missing(self) -> str | None:
        """A reason when no checkpoint is named."""
        return None if self.params.checkpoint else f"no checkpoint is given for {self.name!r}"

    @property
    def gpus(self) -> float:  # type: ignore[override]
        """A whole one where the network runs on a GPU."""
        return 1.0 if self.params.device == "cuda" else 0.0

    def fingerprint_parts(self) -> dict[str, Any]:
        """The digest of the checkpoint's files; raises UserError when it cannot be read."""
        return {"checkpoint": checkpoint_digest(self.params.checkpoint)} if self.params.checkpoint else {}

    def check(self) -> None:
        """Packages and checkpoint, on the driver and its CPU; raises UserError."""
        super().check()
        if self.params.checkpoint is not None:
            _inspect_once(type(self), self.params.model_dump_json(), str(self.fingerprint_parts()))

    def inspect(self, checkpoint: Path) -> None:
        """Raise UserError where `load` would; asked on the driver, in `plan` and before a run's first record."""

    def setup(self) -> None:
        """Load the network; raises UserError where the checkpoint does not fit."""
        assert self.params.checkpoint is not None
        self._network = self.load(Path(self.params.checkpoint))

    def process_batch(self, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The rows of some records, seen by the network together."""
        if self._network is None:
            self.setup()
        return self.score(self._network, records)

    @abstractmethod
    def load(self, checkpoint: Path) -> Any:
        """The network, in evaluation mode on the device. Raises UserError naming the file and what is wrong."""

    @abstractmethod
    def score(self, network: Any, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The values of `columns` for each record, or why it is set aside; the same values in any batch."""


@cache
def _inspect_once(measure: type[CheckpointMeasure], params: str, _files: str) -> None:
    """Inspect a checkpoint once per process for every state of its files: a plan with a probe asks thrice."""
    on_cpu = measure.Params.model_validate({**json.loads(params), "device": "cpu"})
    assert isinstance(on_cpu, CheckpointParams)
    assert on_cpu.checkpoint is not None
    measure(on_cpu).inspect(Path(on_cpu.checkpoint))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint; raises UserError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a release has one") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object")
    return found


def checkpoint_digest(checkpoint: str) -> str:
    """SHA-256 over names and bytes of a checkpoint's files (a folder's own files, or one file).

    Each state of a file is read once per process. Raises UserError when there is nothing to read.
    """
    path = Path(checkpoint)
    try:
        files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
        if not any(file.suffix in WEIGHTS for file in files):
            raise UserError(f"{checkpoint}: holds no weights ({', '.join(sorted(WEIGHTS))})")
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name} {file_digest(file)}\n".encode())
    except OSError as error:
        raise UserError(f"{checkpoint}: the checkpoint cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file, taken once per process for every state of it; raises OSError."""
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


@cache
def _digest(path: str, _size: int, _mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
