"""The parity table, and the rule that `--golden-must-run` fails when no golden test ran."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.model import parity

# Tiny products lose far more to threads that wait for a busy core than they win. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RAN: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-must-run", action="store_true", help="fail unless a golden test ran")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and "golden" in report.keywords and report.outcome != "skipped":
        RAN.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.getoption("golden_must_run", False) and not RAN and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if terminalreporter.config.getoption("golden_must_run", False):
        terminalreporter.section(f"{len(RAN)} golden tests ran; largest absolute differences")
        for name, error in parity.TABLE:
            terminalreporter.write_line(f"{name:<72} {error:.2e}")
