"""Scheduling: units, bisection, commits, budgets; with an engine of plain functions, then with real processes."""

from __future__ import annotations

import os
import pickle
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.engine
from catalog.datafile import DataFile
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.storage import LocalFolder
from pipeline.clock import TIME_LIMIT_EXIT
from pipeline.engine import LARGEST_UNIT, UNIT_SECONDS, Death, Engine, NodeTiming, UnitCutter, run_node
from pipeline.local import LocalEngine
from pipeline.operator import load_operator
from pipeline.worker import GROUP, Task, Unit, UnitResult, outcome_schema, pack_rows, run_unit, unpack_rows
from tests.pipeline.test_worker import OK, outcome, said, task_of

HEX = "0123456789abcdef"


def table_of(dos: Sequence[str | None], groups: Sequence[str] | None = None) -> pa.Table:
    """Records 0 to n - 1, sorted by key or by group and key."""
    rows = pa.table(
        {
            "record_key": pa.array([key_of(b"%d" % n) for n in range(len(dos))], pa.string()),
            "fields": pa.array([b'{"id":"%d"}' % n for n in range(len(dos))], pa.binary()),
            "id": pa.array([str(n) for n in range(len(dos))], pa.string()),
            "do": pa.array(dos, pa.string()),
        }
    )
    if groups is None:
        return rows.sort_by("record_key")
    rows = rows.append_column(GROUP, pa.array([key_of(group.encode()) for group in groups], pa.string()))
    return rows.sort_by([(GROUP, "ascending"), ("record_key", "ascending")])


def buckets_of(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    by = GROUP if GROUP in rows.schema.names else "record_key"
    frame = pl.DataFrame(pl.from_arrow(rows))
    for bucket in HEX:
        part = frame.filter(pl.col(by).str.starts_with(bucket))
        if part.height:
            yield bucket, part.to_arrow(compat_level=pl.CompatLevel.oldest())


@dataclass
class Ran:
    """What came of a node."""

    rows: dict[str, dict[str, Any]]
    timing: NodeTiming
    commits: list[tuple[list[DataFile], NodeTiming]] = field(default_factory=list)

    def of(self, n: int) -> dict[str, Any]:
        return self.rows[key_of(b"%d" % n)]


def run(
    engine: Engine, task: Task, rows: pa.Table, fixed: int | None = None, budget: float = 1.0, cutter: Any = None
) -> Ran:
    """Run a node and check what holds for every one: each record has one outcome, committed once."""
    commits: list[tuple[list[DataFile], NodeTiming]] = []
    advanced = Counter[str]()
    cutter = cutter or UnitCutter(fixed)
    timing = run_node(
        engine,
        task,
        outcome_schema(load_operator(task.op).build({})),
        cutter.units(buckets_of(rows)),
        cutter,
        lambda files, since: commits.append((list(files), since)),
        lambda count: advanced.update(n=count),
        budget,
    )
    found = outcome(task)
    by = GROUP if GROUP in rows.schema.names else "record_key"
    keys = sorted(set(rows.column(by).to_pylist()))
    assert [row["record_key"] for row in found] == keys
    files = [file for some, _ in commits for file in some]
    assert len({file.path for file in files}) == len(files)
    assert sum(file.rows for file in files) == len(keys) == timing.calls
    assert sum(since.calls for _, since in commits) == timing.calls
    assert sum((since.quarantined for _, since in commits), Counter()) == timing.quarantined
    if by == "record_key":
        assert advanced["n"] == len(keys)
    return Ran({row["record_key"]: row for row in found}, timing, commits)


# -- units ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.none() | st.integers(1, 40), st.lists(st.floats(0.0001, 0.1), max_size=9))
@settings(max_examples=50)
def test_units_cover_every_record_once_in_order_and_stay_in_their_bucket(
    count: int, fixed: int | None, paces: list[float]
) -> None:
    rows = table_of([None] * count)
    cutter = UnitCutter(fixed)
    seen: list[str] = []
    for i, unit in enumerate(cutter.units(buckets_of(rows))):
        keys = unpack_rows(unit.rows).column("record_key").to_pylist()
        assert 0 < len(keys) == unit.count <= (fixed or LARGEST_UNIT)
        assert {key[0] for key in keys} == {unit.bucket}
        seen += keys
        if paces:
            cutter.learn(10, 10 * paces[i % len(paces)])
    assert seen == rows.column("record_key").to_pylist()


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60), st.integers(1, 9))
@settings(max_examples=50)
def test_no_unit_cuts_a_group(groups: list[str], fixed: int) -> None:
    rows = table_of([None] * len(groups), groups)
    seen: list[str] = []
    for unit in UnitCutter(fixed).units(buckets_of(rows)):
        seen += dict.fromkeys(unpack_rows(unit.rows).column(GROUP).to_pylist())
    assert len(seen) == len(set(seen)) == len(set(groups))


def test_units_grow_to_half_a_second_of_work() -> None:
    cutter = UnitCutter()
    for _ in range(20):
        cutter.learn(cutter.size, cutter.size * 0.001)
    assert cutter.size == pytest.approx(UNIT_SECONDS / 0.001, abs=2)
    for _ in range(20):
        cutter.learn(1, 10.0)
    assert cutter.size == 1
    for _ in range(60):
        cutter.learn(1000, 1e-9)
    assert cutter.size == LARGEST_UNIT
    assert UnitCutter(7).size == 7


# -- an engine without processes --------------------------------------------------------------------------------------


class PlainEngine:
    """Runs units in this process. A unit with a record that asks for `die` dies, and with `together` all in flight."""

    def __init__(self, workers: int, seed: int, together: bool = False) -> None:
        self.workers = workers
        self.submitted: list[Unit] = []
        self._random = random.Random(seed)
        self._together = together
        self._flying: list[tuple[Task, Unit]] = []

    def submit(self, task: Task, unit: Unit) -> None:
        self._flying.append((task, unit))
        self.submitted.append(unit)
        assert len(self._flying) <= 2 * self.workers

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        self._random.shuffle(self._flying)
        deadly = [unit for _, unit in self._flying if self._dies(unit)]
        if deadly and self._together:
            lost = [(unit, Death(9, 0.1)) for _, unit in self._flying]
            self._flying.clear()
            return lost  # type: ignore[return-value]
        task, unit = self._flying.pop()
        return [(unit, Death(9, 0.1) if self._dies(unit) else run_unit(task, unit))]

    def _dies(self, unit: Unit) -> bool:
        return "die" in unpack_rows(unit.rows).column("do").to_pylist()

    def close(self) -> None:
        """Nothing to end."""


class SlowToStart(PlainEngine):
    """Its workers die `deaths` times in a row before they begin."""

    def __init__(self, deaths: int) -> None:
        super().__init__(1, 0)
        self._deaths = deaths

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        if self._deaths:
            self._deaths -= 1
            return [(self._flying.pop()[1], Death(9, 0.1, began=False))]
        return super().wait(seconds)


def test_a_worker_that_dies_before_it_begins_is_nobodys_fault(tmp_path: Path) -> None:
    ran = run(SlowToStart(10), task_of(tmp_path, "Score"), table_of([None] * 3), 1)
    assert [said(ran.of(n)) for n in range(3)] == [OK] * 3
    assert {ran.of(n)["attempt"] for n in range(3)} == {1}


@pytest.mark.parametrize(("deaths", "blamed"), [(4, False), (5, True)])
def test_a_worker_killed_from_outside_is_blamed_on_its_record_only_after_many_times(
    tmp_path: Path, deaths: int, blamed: bool
) -> None:
    class Storm(SlowToStart):
        def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
            return [
                (unit, replace(one, exit_code=-9, began=True) if isinstance(one, Death) else one)
                for unit, one in super().wait(seconds)
            ]

    ran = run(Storm(deaths), task_of(tmp_path, "Score"), table_of([None]), 1)
    told = "the worker process died (exit code -9), alone with this record, 4 times"
    assert said(ran.of(0)) == (("quarantined", "killed its worker", told) if blamed else OK)


def test_workers_that_never_begin_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError) as ended:
        run(SlowToStart(100), task_of(tmp_path, "Score"), table_of([None] * 3), 1)
    assert str(ended.value) == (
        "node toy: 11 workers in a row died while they loaded its operator (exit code 9); is there memory for it?"
    )


def test_an_operator_that_kills_its_worker_while_it_loads_blames_no_record(tmp_path: Path) -> None:
    engine = LocalEngine(1)
    try:
        with pytest.raises(UserError, match=r"died while they loaded its operator \(exit code 11\)"):
            run(engine, task_of(tmp_path, "DeadlySetup"), table_of([None] * 4), 2)
    finally:
        engine.close()


@given(
    st.lists(st.sampled_from([None, None, None, None, "die", "raise"]), min_size=1, max_size=70),
    st.integers(1, 40),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 999),
)
@settings(max_examples=60)
def test_bisection_finds_exactly_the_records_that_kill(
    tmp_path_factory: Any, dos: list[str | None], fixed: int, workers: int, together: bool, seed: int
) -> None:
    engine = PlainEngine(workers, seed, together)
    ran = run(engine, task_of(tmp_path_factory.mktemp("node"), "Score"), table_of(dos), fixed)
    death = (
        "quarantined",
        "killed its worker",
        "the worker process died (exit code 9), alone with this record, 2 times",
    )
    wanted = {None: OK, "die": death, "raise": ("quarantined", "ValueError", "no good")}
    assert [said(ran.of(n)) for n in range(len(dos))] == [wanted[do] for do in dos]
    assert {ran.of(n)["attempt"] for n, do in enumerate(dos) if do == "die"} <= {3}
    if not together:
        # Halving: two tries at the end, two halves on each level above.
        levels = fixed.bit_length()
        assert len(engine.submitted) <= len(dos) + dos.count("die") * (2 * levels + 3)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, None, None, "die"])), min_size=1, max_size=40
    ),
    st.integers(1, 40),
    st.integers(0, 999),
)
@settings(max_examples=60)
def test_bisection_finds_exactly_the_groups_that_kill(
    tmp_path_factory: Any, some: list[tuple[str, str | None]], fixed: int, seed: int
) -> None:
    rows = table_of([do for _, do in some], [group for group, _ in some])
    ran = run(PlainEngine(2, seed), task_of(tmp_path_factory.mktemp("node"), "Together"), rows, fixed)
    deadly = {key_of(group.encode()) for group, do in some if do == "die"}
    assert {key for key, row in ran.rows.items() if row["status"] == "quarantined"} == deadly


def test_a_suspect_runs_when_nobody_else_does(tmp_path: Path) -> None:
    engine = PlainEngine(2, 0)
    alone: list[int] = []
    submit = engine.submit

    def watched(task: Task, unit: Unit) -> None:
        submit(task, unit)
        if unit.attempt == 2:
            alone.append(len(engine._flying))

    engine.submit = watched  # type: ignore[method-assign]
    run(engine, task_of(tmp_path, "Score"), table_of([None] * 20 + ["die"] + [None] * 20), 4)
    assert alone == [1]


# -- commits and budgets ----------------------------------------------------------------------------------------------


class SteppedEngine(PlainEngine):
    """Every unit takes so many seconds of a clock that tests turn."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1, 0)
        self.now = 1000.0
        self._seconds = seconds

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        self.now += self._seconds
        return super().wait(seconds)


@pytest.mark.parametrize(("seconds", "longest"), [(0.1, 1.1), (0.3, 1.3), (2.5, 2.5)])
def test_finished_files_become_visible_about_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, longest: float
) -> None:
    engine = SteppedEngine(seconds)
    monkeypatch.setattr(pipeline.engine.time, "monotonic", lambda: engine.now)
    times: list[float] = [engine.now]
    ran: list[Ran] = []
    cutter = UnitCutter(1)
    task = task_of(tmp_path, "Score")
    run_node(
        engine,
        task,
        outcome_schema(load_operator(task.op).build({})),
        cutter.units(buckets_of(table_of([None] * 60))),
        cutter,
        lambda files, since: times.append(engine.now),
        lambda count: None,
        1.0,
    )
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) <= longest + 1e-9
    assert min(gaps[:-1]) >= 1.0 - 1e-9
    assert not ran


def test_an_error_of_the_program_ends_the_run_but_keeps_what_was_done(tmp_path: Path) -> None:
    engine = PlainEngine(1, 0)
    plain = engine.wait
    finished: list[UnitResult] = []

    def failing(seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        if len(finished) == 3:
            raise RuntimeError("the disk is gone")
        found = plain(seconds)
        finished.extend(result for _, result in found if isinstance(result, UnitResult))
        return found

    engine.wait = failing  # type: ignore[method-assign]
    committed: list[DataFile] = []
    cutter = UnitCutter(2)
    task = task_of(tmp_path, "Score")
    with pytest.raises(RuntimeError, match="the disk is gone"):
        run_node(
            engine,
            task,
            outcome_schema(load_operator(task.op).build({})),
            cutter.units(buckets_of(table_of([None] * 40))),
            cutter,
            lambda files, since: committed.extend(files),
            lambda count: None,
            1.0,
        )
    assert committed == [result.file for result in finished]


def test_a_run_that_goes_wrong_is_stopped_by_its_budget(tmp_path: Path) -> None:
    dos = ["raise" if n % 3 == 0 else "quarantine" if n % 10 == 1 else None for n in range(600)]
    with pytest.raises(UserError) as stopped:
        run(PlainEngine(1, 0), task_of(tmp_path, "Score", node="sharpness"), table_of(dos), 20, budget=0.25)
    bad, calls, most = map(int, re.findall(r"(\d+) (?:of|records|times)", str(stopped.value)))
    assert 100 <= calls < 160
    assert bad > 0.25 * calls
    assert str(stopped.value) == (
        f"node sharpness: {bad} of {calls} records quarantined, more than error_budget 0.25 allows; "
        f"{most} times: ValueError. What was done is kept; mend the cause or raise error_budget"
    )


def test_a_handful_of_records_has_no_budget(tmp_path: Path) -> None:
    ran = run(PlainEngine(1, 0), task_of(tmp_path, "Score"), table_of(["raise"] * 90), 20, budget=0.0)
    assert ran.timing.quarantined == {"ValueError": 90}


# -- real processes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEngine]:
    """Two worker processes for all tests of this file."""
    engine = LocalEngine(2)
    yield engine
    engine.close()


KILLS = [
    ("exit 7", "killed its worker", "the worker process died (exit code 7), alone with this record, 2 times"),
    ("segfault", "killed its worker", "the worker process died (exit code -11), alone with this record, 2 times"),
    ("sleep 30", "time limit", "took longer than 1 s"),
]


def test_records_that_kill_or_hang_are_found_among_others(tmp_path: Path, local: LocalEngine) -> None:
    dos: list[str | None] = [None] * 90
    for place, do in ((3, "exit 7"), (40, "segfault"), (77, "sleep 30"), (50, "raise"), (51, "nan")):
        dos[place] = do
    ran = run(local, task_of(tmp_path, "Score", time_limit=1.0), table_of(dos), 4)
    wanted: dict[str | None, Any] = {do: ("quarantined", reason, message) for do, reason, message in KILLS}
    wanted |= {None: OK, "raise": ("quarantined", "ValueError", "no good")}
    wanted["nan"] = ("quarantined", "non-finite value", "score is nan")
    assert [said(ran.of(n)) for n in range(90)] == [wanted[do] for do in dos]
    assert {ran.of(n)["score"] for n, do in enumerate(dos) if do is None} == {0.5}
    assert ran.timing.quarantined == {"killed its worker": 2, "time limit": 1, "ValueError": 1, "non-finite value": 1}


def test_one_slow_record_does_not_use_up_the_time_of_its_batch(tmp_path: Path, local: LocalEngine) -> None:
    ran = run(local, task_of(tmp_path, "BatchScore", time_limit=1.0), table_of(["sleep 0.3"] * 8), 8)
    assert {said(row) for row in ran.rows.values()} == {OK}
    assert {row["attempt"] for row in ran.rows.values()} == {1}


def test_both_workers_work_and_keep_their_operator(tmp_path: Path, local: LocalEngine) -> None:
    ran = run(local, task_of(tmp_path, "Score"), table_of(["sleep 0.02"] * 60), 4)
    workers = {row["worker"] for row in ran.rows.values()}
    assert len(workers) == 2
    assert os.getpid() not in workers


def test_workers_killed_from_outside_cost_nothing_but_time(tmp_path: Path, local: LocalEngine) -> None:
    stop = threading.Event()
    killed: list[int] = []

    def assassin() -> None:
        while len(killed) < 4 and not stop.wait(0.7):
            # This process may be the parent of a Ray too, which belongs to other tests.
            workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            if workers:
                victim = min(workers, key=lambda child: child.pid)
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)

    thread = threading.Thread(target=assassin)
    thread.start()
    try:
        ran = run(local, task_of(tmp_path, "Score"), table_of(["sleep 0.02"] * 200), 20)
    finally:
        stop.set()
        thread.join()
    assert len(killed) >= 2
    assert {said(row) for row in ran.rows.values()} == {OK}


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    engine = LocalEngine(1)
    try:
        with pytest.raises(RuntimeError, match="the model file is not there") as ended:
            run(engine, task_of(tmp_path, "BrokenSetup"), table_of([None] * 4), 2)
        assert "in setup" in "".join(ended.value.__notes__)
    finally:
        engine.close()


def test_whatever_goes_wrong_between_driver_and_worker_reaches_the_driver(tmp_path: Path) -> None:
    """Else the driver would wait for ever for a unit that never left."""
    unportable = replace(task_of(tmp_path, "Score"), params=lambda: None)  # type: ignore[arg-type]
    engine = LocalEngine(1)
    try:
        with pytest.raises((AttributeError, pickle.PicklingError)):
            run(engine, unportable, table_of([None] * 4), 2)
    finally:
        engine.close()


def test_closing_an_engine_ends_a_record_that_would_take_for_ever(tmp_path: Path) -> None:
    engine = LocalEngine(2)
    began = time.monotonic()
    for bucket, rows in buckets_of(table_of(["sleep 60"] * 4)):
        engine.submit(task_of(tmp_path, "Score"), Unit(bucket, rows.num_rows, pack_rows(rows)))
    time.sleep(0.5)
    engine.close()
    assert time.monotonic() - began < 30


def test_closing_an_engine_leaves_no_process(tmp_path: Path) -> None:
    engine = LocalEngine(1)
    run(engine, task_of(tmp_path, "Score"), table_of([None] * 4), 2)
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    workers = {row["worker"] for row in outcome(task_of(tmp_path, "Score"))}
    assert workers <= mine
    engine.close()
    deadline = time.monotonic() + 5
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))


@pytest.mark.faults
def test_native_code_that_never_lets_go_is_ended_too(tmp_path: Path, local: LocalEngine) -> None:
    ran = run(local, task_of(tmp_path, "Score", time_limit=1.0), table_of([None, "spin 120", None]), 1)
    assert said(ran.of(1)) == ("quarantined", "time limit", "took longer than 1 s")
    assert said(ran.of(0)) == said(ran.of(2)) == OK


def test_the_exit_code_of_the_time_limit_is_one_that_programs_use_for_it() -> None:
    assert TIME_LIMIT_EXIT == 124


def test_files_of_a_node_lie_in_the_store_of_its_task(tmp_path: Path, local: LocalEngine) -> None:
    task = task_of(tmp_path, "Score")
    ran = run(local, task, table_of([None] * 40), 10)
    stored = {name.removeprefix(f"tables/{task.table}/") for name, _ in LocalFolder(str(tmp_path)).list("tables/")}
    assert stored == {file.path for files, _ in ran.commits for file in files}
