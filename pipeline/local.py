"""The local engine: worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
import traceback
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Empty, SimpleQueue

from catalog.errors import UserError
from pipeline.clock import start_worker
from pipeline.engine import STARTS, Death
from pipeline.worker import Task, Unit, UnitResult, run_unit

_SPAWN = multiprocessing.get_context("spawn")

Outcome = UnitResult | Death | Exception


class LocalEngine:
    """Processes started by spawn: polars and video readers do not survive a fork.

    Each has a pipe of its own and a thread that feeds it, so that whatever kills one of them, at whatever moment, is
    nothing to the others: pools of the usual libraries share a pipe and its lock, and break with whoever holds it.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        # Numeric libraries read these when a worker imports them; records are the parallelism here.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
            os.environ.setdefault(name, "1")
        self._waiting: SimpleQueue[tuple[Task, Unit] | None] = SimpleQueue()
        self._finished: SimpleQueue[tuple[Unit, Outcome]] = SimpleQueue()
        self._workers = [_Worker(self._waiting, self._finished) for _ in range(workers)]

    def submit(self, task: Task, unit: Unit) -> None:
        """Queue a unit."""
        self._waiting.put((task, unit))

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        """What finished; blocks at most so long."""
        found: list[tuple[Unit, UnitResult | Death]] = []
        try:
            finished = self._finished.get(timeout=seconds)
            while True:
                unit, outcome = finished
                if isinstance(outcome, Exception):
                    if not found:
                        raise outcome
                    # What is done counts first.
                    self._finished.put(finished)
                    return found
                found.append((unit, outcome))
                finished = self._finished.get_nowait()
        except Empty:
            return found

    def close(self) -> None:
        """End the workers; what they had in work is lost."""
        for worker in self._workers:
            worker.end()
        for _ in self._workers:
            self._waiting.put(None)
        for worker in self._workers:
            worker.join()


class _Worker:
    """A process and the thread that feeds it; the process is replaced when it dies."""

    def __init__(
        self, waiting: SimpleQueue[tuple[Task, Unit] | None], finished: SimpleQueue[tuple[Unit, Outcome]]
    ) -> None:
        self._waiting = waiting
        self._finished = finished
        self._ended = threading.Event()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Kill the process; the thread follows."""
        self._ended.set()
        process = self._process
        if process is not None and process.pid is not None:
            process.kill()

    def join(self) -> None:
        """Wait until thread and process are gone."""
        while self._thread.is_alive():
            # A process that was being started when the end came is here by now.
            self.end()
            self._thread.join(timeout=0.1)
        self._bury()

    def _feed(self) -> None:
        while not self._ended.is_set() and (given := self._waiting.get()) is not None:
            task, unit = given
            started = time.monotonic()
            began = False
            try:
                pipe = self._ready()
                started = time.monotonic()
                pipe.send((task, unit))
                said: Outcome | None = pipe.recv()
                began = said is None
                outcome: Outcome = said if said is not None else pipe.recv()
            except (EOFError, OSError):
                outcome = Death(self._bury(), time.monotonic() - started, began)
            except Exception as error:
                # Whatever else goes wrong here must reach the driver, which would wait for ever.
                outcome = error
            self._finished.put((unit, outcome))

    def _ready(self) -> Connection:
        """The pipe of a process that waits for work; raises UserError when none can be started."""
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self._bury()
        code: int | None = None
        for _ in range(STARTS):
            self._pipe, theirs = _SPAWN.Pipe()
            self._process = _SPAWN.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
            self._process.start()
            theirs.close()
            try:
                self._pipe.recv()
                return self._pipe
            except (EOFError, OSError):
                code = self._bury()
            if self._ended.is_set():
                raise EOFError
        raise UserError(f"worker processes die while they are started (exit code {code}); is there memory for them?")

    def _bury(self) -> int | None:
        """Wait for the process to end, forget it, and return its exit code."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        process.join(timeout=5)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode


def _serve(pipe: Connection, parent: int) -> None:
    """What a worker process does: one unit after another, until the driver is gone."""
    start_worker(parent)
    pipe.send(None)
    while True:
        try:
            task, unit = pipe.recv()
        except EOFError:
            return
        outcome: Outcome
        try:
            outcome = run_unit(task, unit, partial(pipe.send, None))
        except Exception as error:
            outcome = _portable(error)
        pipe.send(outcome)


def _portable(error: Exception) -> Exception:
    """An error that can be sent to the driver, with the lines where it happened."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
