"""Local folders of runs: gone with them, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from catalog.scratch import scratch

HOLD = """
import time
from catalog.scratch import scratch
with scratch() as folder:
    (folder / "spill").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_is_gone_after_use() -> None:
    with scratch() as folder:
        (folder / "spill").write_bytes(b"rows")
    assert not folder.exists()


def test_folders_of_killed_processes_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "unifactory-of-somebody-else").mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        with scratch():
            assert (theirs / "spill").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (theirs / "spill").exists()
        with scratch() as mine:
            assert not theirs.exists()
            assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / "unifactory-of-somebody-else"])
