"""The page on the model says what is so: its Python runs, its command exists, its files are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from jobs.verbs.inspect import inspect
from tests.model.goldens import ROOT

PAGE = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)


def test_the_pages_python_works(tmp_path: Path) -> None:
    code = "\n".join(blocks("python"))
    assert len(code.splitlines()) > 20
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_command_works() -> None:
    app = typer.Typer()
    app.command()(inspect)
    for command in "".join(blocks("sh")).splitlines():
        program, verb, *arguments = command.split()
        assert (program, verb) == ("unifactory", "inspect")
        assert CliRunner().invoke(app, arguments).exit_code == 0


def test_the_page_names_files_that_exist() -> None:
    for name in re.findall(r"`(\w+\.py)`", PAGE):
        assert (ROOT / "model" / name).is_file(), name
