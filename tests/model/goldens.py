"""Where the goldens lie. Tests that read them carry the `golden` marker and are skipped without them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / os.environ.get("UNIFACTORY_GOLDEN", "../shared/golden")


def golden(path: str) -> Path:
    """One golden file; the test is skipped without it."""
    file = GOLDEN / path
    if not file.is_file():
        pytest.skip(f"no golden at {file}; set UNIFACTORY_GOLDEN")
    return file


def golden_json(path: str) -> Any:
    return json.loads(golden(path).read_text("utf-8"))
