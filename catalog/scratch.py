"""Folders for what a run needs only while it lives; those of killed runs are removed by the next."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "unifactory-"
_LOCK = "in-use"


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder on the local disk (`TMPDIR` says which), removed at the end.

    A lock that dies with the process tells the folders of live runs from those that a kill has left behind.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        new = folder / "new"
        with new.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # It gets its name once it is held, so nobody finds it free.
            new.rename(folder / _LOCK)
            yield folder


def _remove_abandoned(parent: Path) -> None:
    for lock in sorted(parent.glob(f"{_PREFIX}*/{_LOCK}")):
        # Somebody else's folder, or one that is just being removed, is no concern of this run.
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
