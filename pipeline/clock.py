"""Ends a worker process whose record takes too long, or whose driver is gone."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import lru_cache

TIME_LIMIT_EXIT = 124
"""Exit code of a worker that ended itself because a record took too long."""

_REARM_SECONDS = 5.0
NATIVE_GRACE_SECONDS = 2 * _REARM_SECONDS
"""So much longer than its limit native code may run that never lets go of the interpreter."""


class Clock:
    """A watch over the record in work."""

    def __init__(self) -> None:
        self.parent: int | None = None
        self.last_words: Callable[[], None] | None = None
        """Called before the process ends for a record that takes too long, where no exit code reaches the driver."""
        self._deadline = float("inf")
        self._armed = 0.0
        self._traceback = open(os.devnull, "w")  # noqa: SIM115 - lives as long as the process
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self, limit: float) -> None:
        """A record begins; it may take `limit` seconds."""
        now = time.monotonic()
        self._deadline = now + limit
        if now - self._armed > _REARM_SECONDS:
            # Native code that never lets go of the interpreter starves the thread below; this timer needs none.
            faulthandler.dump_traceback_later(limit + NATIVE_GRACE_SECONDS, exit=True, file=self._traceback)
            self._armed = now

    def stop(self) -> None:
        """No record is in work."""
        self._deadline = float("inf")
        if self._armed:
            faulthandler.cancel_dump_traceback_later()
            self._armed = 0.0

    def _watch(self) -> None:
        while True:
            time.sleep(0.1)
            if time.monotonic() > self._deadline:
                if self.last_words is not None:
                    speaker = threading.Thread(target=self.last_words, daemon=True)
                    speaker.start()
                    speaker.join(timeout=_REARM_SECONDS)
                os._exit(TIME_LIMIT_EXIT)
            if self.parent is not None and os.getppid() != self.parent:
                os._exit(0)


@lru_cache(maxsize=1)
def clock() -> Clock:
    """The watch of this process."""
    return Clock()


def start_worker(parent: int) -> None:
    """Prepare a process of the local engine: interrupts are the driver's, and so is its life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    clock().parent = parent
