"""How goldens are compared, and the table of what was compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model.goldens import GOLDEN, ROOT

__all__ = ["ROOT", "TABLE", "close", "golden_folder", "numbers", "same", "tensors"]

FLOAT_TOLERANCE = 1e-4

TABLE: list[tuple[str, float]] = []


def golden_folder(part: str) -> Path:
    """Folder of one part of the goldens; the test is skipped without it."""
    folder = GOLDEN / part
    if not folder.is_dir():
        pytest.skip(f"no goldens at {folder}; set UNIFACTORY_GOLDEN")
    return folder


def tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def numbers(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def close(name: str, actual: Any, expected: Any) -> None:
    """Floats agree within 1e-4 absolute; the largest difference goes into the table."""
    a, b = (np.asarray(getattr(x, "detach", lambda x=x: x)(), dtype=np.float64) for x in (actual, expected))
    assert a.shape == b.shape, f"{name}: shape {a.shape}, golden {b.shape}"
    error = float(np.abs(a - b).max()) if a.size else 0.0
    TABLE.append((name, error))
    assert error <= FLOAT_TOLERANCE, f"{name}: off by {error:.3g}"


def same(name: str, actual: Any, expected: Any) -> None:
    """Integers and booleans agree exactly."""
    a, b = np.asarray(actual), np.asarray(expected)
    assert a.shape == b.shape, f"{name}: shape {a.shape}, golden {b.shape}"
    TABLE.append((name, float((a != b).sum())))
    assert (a == b).all(), f"{name}: {int((a != b).sum())} of {a.size} differ"
