"""The Ray engine: core tasks, and actors for operators that load a model. The driver is the only committer."""

from __future__ import annotations

import time
import uuid
from functools import partial
from itertools import cycle
from typing import Any

from catalog.errors import UserError
from pipeline.clock import TIME_LIMIT_EXIT, clock
from pipeline.engine import Death
from pipeline.worker import Task, Unit, UnitResult, run_unit

_START = "began-"


def inside_ray_job() -> bool:
    """Whether this process was started by `ray job submit`, or Ray is connected already."""
    import os
    import sys

    ray = sys.modules.get("ray")
    # Ray takes its own job id out of the environment of an entry point and leaves the job's configuration.
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or bool(ray is not None and ray.is_initialized())


class RayEngine:
    """Units as Ray tasks without Ray's own retries: a record that kills its worker must be found, not run for ever."""

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        try:
            import ray
            from ray.exceptions import (
                ActorDiedError,
                ActorUnavailableError,
                LocalRayletDiedError,
                NodeDiedError,
                OutOfMemoryError,
                RayTaskError,
                WorkerCrashedError,
            )
        except ImportError:
            raise UserError("--engine ray needs Ray; install it with: pip install 'unifactory[ray]'") from None
        self._ray: Any = ray
        self._deaths = (
            WorkerCrashedError,
            ActorDiedError,
            ActorUnavailableError,
            NodeDiedError,
            LocalRayletDiedError,
            OutOfMemoryError,
        )
        self._task_error = RayTaskError
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, workers, address)
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._run = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._actors: list[Any] = []
        self._actor_task: Task | None = None
        self._turn: Any = iter(())
        self._running: dict[Any, tuple[Unit, float, Any, str]] = {}

    def submit(self, task: Task, unit: Unit) -> None:
        """Start a unit as a task, or on one of the actors of an operator that loads a model."""
        actor = None
        ticket = f"unifactory-too-slow-{uuid.uuid4().hex}"
        if task.loads_model:
            actor = self._actor(task)
            ref = actor.run.remote(task, unit, ticket)
        else:
            ref = self._run.remote(task, unit, ticket)
        self._running[ref] = (unit, time.monotonic(), actor, ticket)

    def _actor(self, task: Task) -> Any:
        if self._actor_task != task:
            self._drop_actors()
            self._actors = [self._new_actor(task) for _ in range(self._actor_count(task))]
            self._actor_task = task
            self._turn = cycle(range(len(self._actors)))
        return self._actors[next(self._turn)]

    def _actor_count(self, task: Task) -> int:
        """As many as can live at once; units of one more would wait for ever."""
        if not task.gpus:
            return self.workers
        there = float(self._ray.cluster_resources().get("GPU", 0))
        if there < task.gpus:
            raise UserError(
                f"node {task.node}: its model wants a GPU, and Ray has {there:g}; set `device: cpu` or another cluster"
            )
        return min(self.workers, int(there / task.gpus))

    def _new_actor(self, task: Task) -> Any:
        made = self._ray.remote(num_cpus=1, num_gpus=task.gpus, max_restarts=0, max_task_retries=0)(_Actor)
        return made.remote()

    def _drop_actors(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._actor_task = None

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        """What finished; blocks at most so long."""
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        # Whatever else is ready by now comes along.
        rest = [ref for ref in self._running if ref not in done]
        if done and rest:
            done += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        found: list[tuple[Unit, UnitResult | Death]] = []
        for ref in done:
            unit, submitted, actor, ticket = self._running.pop(ref)
            try:
                found.append((unit, self._ray.get(ref)))
                _has_begun(ticket)
            except self._task_error as error:
                # The unit's own exception, without the remote traceback that Ray puts in front of its message.
                raise error.cause from None
            except self._deaths:
                seconds = time.monotonic() - submitted
                found.append((unit, Death(_exit_code(ticket), seconds, _has_begun(ticket))))
                if actor in self._actors:
                    assert self._actor_task is not None
                    self._actors[self._actors.index(actor)] = self._new_actor(self._actor_task)
        return found

    def close(self) -> None:
        """End the actors, and Ray if this engine started it."""
        self._drop_actors()
        if self._started:
            self._ray.shutdown()


class _Actor:
    """Keeps a worker process, and with it the operator it has loaded."""

    def run(self, task: Task, unit: Unit, ticket: str) -> UnitResult:
        return _run(task, unit, ticket)


def _run(task: Task, unit: Unit, ticket: str) -> UnitResult:
    """Run a unit in a Ray worker. Ray does not tell the driver how a worker ended, so one that is too slow says so."""
    clock().last_words = partial(_note, ticket)
    return run_unit(task, unit, partial(_note, _START + ticket))


def _note(ticket: str) -> None:
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(ticket, b"1")


def _has_begun(ticket: str) -> bool:
    """Whether a worker said that it had begun; its note of that goes."""
    from ray.experimental.internal_kv import _internal_kv_del

    return bool(_internal_kv_del(_START + ticket))


def _exit_code(ticket: str) -> int | None:
    """That of the time limit if the worker said so before it ended; None where nobody can tell."""
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

    if _internal_kv_get(ticket) is None:
        return None
    _internal_kv_del(ticket)
    return TIME_LIMIT_EXIT


def _connect(ray: Any, workers: int | None, address: str | None) -> None:
    import os
    import sys

    address = address or os.environ.get("RAY_ADDRESS")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": {"PYTHONPATH": path, **threads}},
    }
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or "a local Ray"
        raise UserError(f"--ray {where}: cannot be reached: {str(error).splitlines()[0]}") from None
