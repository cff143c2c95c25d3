from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Checkpoints:
    """Tiny checkpoints of a test session, each built once when it is first asked for."""

    root: Path
    built: dict[str, tuple[Path, Any]] = field(default_factory=dict)

    def __call__(self, name: str) -> tuple[Path, Any]:
        """The folder of a checkpoint and the network that was saved there."""
        from tests.pipeline.scorers import checkpoints

        if name not in self.built:
            make: Callable[[Path], Any] = getattr(checkpoints, name)
            self.built[name] = (self.root / name, make(self.root / name))
        return self.built[name]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))
