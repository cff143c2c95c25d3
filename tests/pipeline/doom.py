"""Crashes inside one process: from a chosen write on, nothing reaches the store any more."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.storage import LocalFolder
from catalog.tables import Table


class Crash(BaseException):
    """The process is gone: nothing it still tries to write gets through."""


class Doom:
    """Counts writes and transactions, and lets everything from the chosen one on fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 10**9
        self.before = True
        self.count = 0
        self._dead = False
        for owner, name in ((LocalFolder, "write"), (LocalFolder, "adopt"), (Table, "_commit")):
            monkeypatch.setattr(owner, name, self._guarded(getattr(owner, name)))

    def _guarded(self, act: Any) -> Any:
        def guarded(*given: Any) -> Any:
            if self._dead:
                raise Crash
            self.count += 1
            if self.count == self.at and self.before:
                self._dead = True
                raise Crash
            done = act(*given)
            if self.count >= self.at:
                # Killed after the write and before anything that follows.
                self._dead = True
                raise Crash
            return done

        return guarded

    def live(self) -> None:
        """A new process."""
        self.at, self.count, self._dead = 10**9, 0, False
