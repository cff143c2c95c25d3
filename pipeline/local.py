"""The local engine: worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from pebble import ProcessExpired, ProcessPool

from pipeline.clock import start_worker
from pipeline.engine import Death
from pipeline.worker import Task, Unit, UnitResult, run_unit


class LocalEngine:
    """Processes started by spawn: polars and video readers do not survive a fork."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        # Numeric libraries read these when a worker imports them; records are the parallelism here.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
            os.environ.setdefault(name, "1")
        self._pool = ProcessPool(
            workers,
            initializer=start_worker,
            initargs=(os.getpid(),),
            context=multiprocessing.get_context("spawn"),
        )
        self._running: dict[Future[Any], tuple[Unit, float]] = {}

    def submit(self, task: Task, unit: Unit) -> None:
        """Queue a unit."""
        self._running[self._pool.schedule(run_unit, args=(task, unit))] = (unit, time.monotonic())

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        """What finished; blocks at most so long."""
        done, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        found: list[tuple[Unit, UnitResult | Death]] = []
        for future in done:
            unit, submitted = self._running.pop(future)
            try:
                found.append((unit, future.result()))
            except ProcessExpired as death:
                found.append((unit, Death(death.exitcode, time.monotonic() - submitted)))
        return found

    def close(self) -> None:
        """End the workers; what they had in work is lost."""
        self._pool.stop()
        self._pool.join()
