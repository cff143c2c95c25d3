from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.sources.source import Source, load_sources


def make(kind: str, **config: Any) -> Source:
    """A source as a recipe would write it."""
    return load_sources({"it": {"kind": kind, **config}})["it"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with one picture in it and one outside."""
    root = tmp_path / "root"
    (root / "images" / "files").mkdir(parents=True)
    (root / "images" / "files" / "a.jpg").write_bytes(b"a picture")
    (tmp_path / "outside.jpg").write_bytes(b"not ours")
    return root
