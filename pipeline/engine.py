"""Scheduling one node: a bounded window of units, one committer, bisection of units that kill their worker.

An engine only runs units (`LocalEngine`, `RayEngine`); what makes a run survive is here, once for both.
"""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa

from catalog.datafile import DataFile
from catalog.errors import UserError
from pipeline.clock import NATIVE_GRACE_SECONDS, TIME_LIMIT_EXIT
from pipeline.worker import GROUP, Task, Unit, UnitResult, pack_rows, quarantine_unit, unpack_rows

COMMIT_SECONDS = 1.0
"""How often finished files become visible. With UNIT_SECONDS it bounds what a kill can cost: 2 s of work a worker."""
UNIT_SECONDS = 0.5
FIRST_UNIT, LARGEST_UNIT = 32, 4096
ALONE_ATTEMPTS = 2
"""So often a record must kill a worker with nothing beside it: whatever else kills workers does so now and then."""
KILLED_ATTEMPTS = 4
"""The same where the worker was killed from outside, by the system for its memory or by somebody."""
_KILLED = -signal.SIGKILL
STARTS = 10
"""So many workers in a row may die before they begin; then it is no accident."""
BUDGET_FROM = 100
"""The error budget is judged once so many records of a node have been through."""


@dataclass(frozen=True)
class Death:
    """A worker died over a unit; `exit_code` is None where the engine cannot tell.

    `began` is False when it died before its operator was loaded, which cannot be the fault of a record.
    """

    exit_code: int | None
    seconds: float
    began: bool = True


class Engine(Protocol):
    """Runs units on workers."""

    workers: int

    def submit(self, task: Task, unit: Unit) -> None:
        """Start a unit, or queue it."""

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        """What finished; blocks at most so long. An exception of the unit itself is raised."""

    def close(self) -> None:
        """End the workers."""


@dataclass
class NodeTiming:
    """What one node cost in one run."""

    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)


class UnitCutter:
    """Cuts rows of one bucket into units of about UNIT_SECONDS of work, learning the pace as results come in.

    `least` is the number of records an operator wants at once, however slow they are.
    """

    def __init__(self, fixed: int | None = None, least: int = 1) -> None:
        self._fixed = fixed
        self._least = least
        self._pace: float | None = None

    def learn(self, calls: int, seconds: float) -> None:
        """A unit of `calls` records took so long."""
        if calls and seconds > 0:
            pace = seconds / calls
            self._pace = pace if self._pace is None else 0.5 * (self._pace + pace)

    @property
    def size(self) -> int:
        """How many records the next unit should have."""
        if self._fixed is not None:
            return self._fixed
        if self._pace is None:
            return max(self._least, FIRST_UNIT)
        return max(self._least, min(LARGEST_UNIT, int(UNIT_SECONDS / self._pace)))

    def units(self, buckets: Iterator[tuple[str, pa.Table]]) -> Iterator[Unit]:
        """Units of every bucket, in key order. Rows of one `group` stay together."""
        for bucket, rows in buckets:
            start = 0
            while start < rows.num_rows:
                count = min(self.size, rows.num_rows - start)
                if GROUP in rows.schema.names:
                    count = _whole_groups(rows.column(GROUP), start, count)
                part = rows.slice(start, count)
                yield Unit(bucket, count, pack_rows(part))
                start += count


def _whole_groups(groups: pa.ChunkedArray, start: int, count: int) -> int:
    while start + count < len(groups) and groups[start + count - 1] == groups[start + count]:
        count += 1
    return count


def run_node(
    engine: Engine,
    task: Task,
    schema: pa.Schema,
    units: Iterator[Unit],
    cutter: UnitCutter,
    commit: Callable[[Sequence[DataFile], NodeTiming], None],
    advance: Callable[[int], None],
    error_budget: float,
    earlier: NodeTiming | None = None,
) -> NodeTiming:
    """Run every unit; returns what it cost. `commit` gets finished files and their cost about once a second.

    A unit whose worker dies is cut in halves until one record is left, which then runs with nothing beside it; there
    it is quarantined when it kills its worker twice, or takes too long once more.
    A worker that dies while it loads the operator counts against no record.
    Raises UserError once more than `error_budget` of the node's records are quarantined, those of `earlier` runs
    included: starting again and again must not wear a corpus away; and when workers keep dying before they begin.
    """
    total = NodeTiming()
    since = NodeTiming()
    finished: list[DataFile] = []
    again: deque[Unit] = deque()
    suspects: deque[Unit] = deque()
    in_flight = unbegun = 0
    last_commit = time.monotonic()

    def flush() -> None:
        nonlocal last_commit, since
        if finished:
            commit(finished, since)
            finished.clear()
            since = NodeTiming()
        last_commit = time.monotonic()

    def next_unit() -> Unit | None:
        if again:
            return again.popleft()
        unit = next(units, None)
        # A suspect runs when nothing else does, so that it cannot take an innocent with it, nor be one.
        return suspects.popleft() if unit is None and suspects and not in_flight else unit

    def take(unit: Unit, result: UnitResult) -> None:
        finished.append(result.file)
        for timing in (total, since):
            timing.calls += result.calls
            timing.seconds += result.seconds
            timing.bytes += result.file.size
            timing.quarantined += result.quarantined
        cutter.learn(result.calls, result.seconds)
        advance(unit.count)

    _check_budget(task, total, earlier or NodeTiming(), error_budget)
    try:
        while True:
            while in_flight < 2 * engine.workers and (unit := next_unit()) is not None:
                engine.submit(task, unit)
                in_flight += 1
            if not in_flight:
                break
            for unit, outcome in engine.wait(max(0.05, last_commit + COMMIT_SECONDS - time.monotonic())):
                in_flight -= 1
                if isinstance(outcome, UnitResult):
                    unbegun = 0
                    take(unit, outcome)
                elif not outcome.began:
                    unbegun += 1
                    if unbegun > STARTS:
                        raise UserError(
                            f"node {task.node}: {unbegun} workers in a row died while they loaded its operator"
                            f"{_code(outcome)}; is there memory for it?"
                        )
                    again.append(unit)
                elif unit.count > 1:
                    again.extend(_halves(unit))
                elif unit.attempt <= _attempts(task, outcome):
                    suspects.append(replace(unit, attempt=unit.attempt + 1))
                else:
                    take(unit, quarantine_unit(task, unit, schema, *_cause(task, outcome)))
            if time.monotonic() - last_commit >= COMMIT_SECONDS:
                flush()
            _check_budget(task, total, earlier or NodeTiming(), error_budget)
    finally:
        flush()
    return total


def _halves(unit: Unit) -> list[Unit]:
    rows = unpack_rows(unit.rows)
    middle = unit.count // 2
    if GROUP in rows.schema.names:
        groups = rows.column(GROUP)
        edges = [i for i in range(1, rows.num_rows) if groups[i] != groups[i - 1]]
        if not edges:
            # One group cannot be cut; its members are judged together.
            return [replace(unit, count=1)]
        middle = min(edges, key=lambda edge: abs(edge - middle))
    return [
        replace(unit, count=part.num_rows, rows=pack_rows(part)) for part in (rows.slice(0, middle), rows.slice(middle))
    ]


def _too_slow(task: Task, death: Death) -> bool:
    stuck = death.exit_code in (None, 1) and death.seconds >= task.time_limit + NATIVE_GRACE_SECONDS
    return stuck or death.exit_code == TIME_LIMIT_EXIT


def _attempts(task: Task, death: Death) -> int:
    if _too_slow(task, death):
        return 1
    return KILLED_ATTEMPTS if death.exit_code == _KILLED else ALONE_ATTEMPTS


def _cause(task: Task, death: Death) -> tuple[str, str]:
    if _too_slow(task, death):
        return "time limit", f"took longer than {task.time_limit:g} s"
    times = _attempts(task, death)
    message = f"the worker process died{_code(death)}, alone with this record, {times} times"
    return "killed its worker", message


def _code(death: Death) -> str:
    return "" if death.exit_code is None else f" (exit code {death.exit_code})"


def _check_budget(task: Task, total: NodeTiming, earlier: NodeTiming, error_budget: float) -> None:
    quarantined = total.quarantined + earlier.quarantined
    calls = total.calls + earlier.calls
    bad = quarantined.total()
    if calls >= BUDGET_FROM and bad > error_budget * calls:
        reason, count = quarantined.most_common(1)[0]
        raise UserError(
            f"node {task.node}: {bad} of {calls} records quarantined, more than error_budget {error_budget:g} "
            f"allows; {count} times: {reason}. What was done is kept; mend the cause or raise error_budget"
        )
