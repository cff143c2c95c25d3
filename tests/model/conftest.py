"""The `golden` marker, its parity table, and the rule that `-m golden` fails when none ran."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.model import parity

# Tiny products lose far more to threads that wait for a busy core than they win. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden: compares with the reference implementation's outputs")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.option.markexpr == "golden" and not parity.TABLE and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if parity.TABLE:
        terminalreporter.section("parity with the reference implementation (largest absolute difference)")
        for name, error in parity.TABLE:
            terminalreporter.write_line(f"{name:<60} {error:.2e}")
