"""The Ray engine on a real Ray: the same trouble, the same ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from catalog.errors import UserError
from pipeline.ray_engine import RayEngine, inside_ray_job
from tests.pipeline.test_engine import run, table_of
from tests.pipeline.test_worker import OK, said, task_of

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]


@pytest.fixture
def engine(ray_runtime: Any) -> Iterator[RayEngine]:
    """Two workers of the Ray that all tests share."""
    engine = RayEngine(2)
    yield engine
    engine.close()
    assert ray_runtime.is_initialized()  # it was not ours to end


@pytest.mark.parametrize("op", ["Score", "HeavyScore"])
def test_records_that_kill_or_hang_are_found_among_others(tmp_path: Path, engine: RayEngine, op: str) -> None:
    dos: list[str | None] = [None] * 40
    kill = "exit 7" if op == "Score" else "segfault"
    for place, do in ((3, kill), (33, "sleep 60"), (25, "raise"), (26, "nan")):
        dos[place] = do
    task = task_of(tmp_path, op, time_limit=1.0, loads_model=op == "HeavyScore")
    ran = run(engine, task, table_of(dos), 2)
    killed = ("quarantined", "killed its worker", "the worker process died, alone with this record, 2 times")
    wanted: dict[str | None, Any] = {
        None: OK,
        kill: killed,
        "sleep 60": ("quarantined", "time limit", "took longer than 1 s"),
        "raise": ("quarantined", "ValueError", "no good"),
        "nan": ("quarantined", "non-finite value", "score is nan"),
    }
    assert [said(ran.of(n)) for n in range(40)] == [wanted[do] for do in dos]
    assert {ran.of(n)["score"] for n, do in enumerate(dos) if do is None} == {0.5}


def test_an_operator_that_loads_a_model_stays_on_its_actors(tmp_path: Path, engine: RayEngine) -> None:
    task = task_of(tmp_path, "HeavyScore", loads_model=True)
    workers = {row["worker"] for row in run(engine, task, table_of([None] * 60), 5).rows.values()}
    assert len(workers) == 2
    again = task_of(tmp_path / "again", "HeavyScore", loads_model=True, params='{"shift":1.0}')
    others = {row["worker"] for row in run(engine, again, table_of([None] * 20), 5).rows.values()}
    assert not workers & others  # another task, other actors


def test_a_model_on_a_gpu_has_as_many_actors_as_there_are_gpus(tmp_path: Path, engine: RayEngine) -> None:
    task = task_of(tmp_path, "HeavyScore", loads_model=True, gpus=1.0)
    assert len({row["worker"] for row in run(engine, task, table_of([None] * 20), 5).rows.values()}) == 1


def test_a_model_that_wants_more_gpus_than_there_are_is_refused(tmp_path: Path, engine: RayEngine) -> None:
    task = task_of(tmp_path, "HeavyScore", loads_model=True, gpus=2.0)
    with pytest.raises(UserError, match="node toy: its model wants a GPU, and Ray has 1; set `device: cpu` or another"):
        run(engine, task, table_of([None] * 4), 2)


def test_workers_killed_from_outside_cost_nothing_but_time(tmp_path: Path, engine: RayEngine) -> None:
    import threading

    stop, killed = threading.Event(), []

    def assassin() -> None:
        while len(killed) < 2 and not stop.wait(0.3):
            for process in psutil.process_iter(["cmdline"]):
                if (process.info["cmdline"] or [""])[0].startswith("ray::_run") and process.pid not in killed:
                    process.kill()
                    killed.append(process.pid)
                    break

    thread = threading.Thread(target=assassin)
    thread.start()
    try:
        ran = run(engine, task_of(tmp_path, "Score"), table_of(["sleep 0.02"] * 200), 20)
    finally:
        stop.set()
        thread.join()
    assert killed
    assert {said(row) for row in ran.rows.values()} == {OK}


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path, engine: RayEngine) -> None:
    with pytest.raises(RuntimeError, match="the model file is not there"):
        run(engine, task_of(tmp_path, "BrokenSetup"), table_of([None] * 4), 4)


def test_ray_is_chosen_where_it_is_connected(ray_runtime: Any) -> None:
    assert inside_ray_job()


def test_both_engines_write_the_same_files(tmp_path: Path, engine: RayEngine) -> None:
    from pipeline.local import LocalEngine

    dos = [None, "raise", None, "nan"] * 20
    on_ray = run(engine, task_of(tmp_path / "ray", "Words"), table_of(dos), 7)
    local = LocalEngine(1)
    try:
        here = run(local, task_of(tmp_path / "local", "Words"), table_of(dos), 7)
    finally:
        local.close()
    files = [sorted(file.path for some, _ in ran.commits for file in some) for ran in (on_ray, here)]
    assert files[0] == files[1]


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, ray_runtime: Any) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nand a page of advice")

    monkeypatch.setattr(ray_runtime, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_runtime, "init", refuse)
    with pytest.raises(UserError) as refused:
        RayEngine(2, "192.0.2.1:6379")
    assert str(refused.value) == "--ray 192.0.2.1:6379: cannot be reached: Could not find any running Ray instance."
