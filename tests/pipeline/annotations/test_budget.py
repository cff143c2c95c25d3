from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from catalog.storage import LocalFolder
from pipeline.annotations.budget import Budget, Spent

from .conftest import Place


class _Memory(LocalFolder):
    """Objects in memory, for tests of many steps."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name]

    def create(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) is data

    def list(self, prefix: str = "") -> object:  # type: ignore[override]
        return iter(sorted((name, len(data)) for name, data in self.objects.items() if name.startswith(prefix)))


def test_claims_end_where_the_budget_ends(place: Place) -> None:
    budget = Budget(place.storage, "n", 10, None)
    assert [budget.claim(4, 100) for _ in range(4)] == [4, 4, 2, 0]


def test_tokens_are_reserved_and_what_was_not_used_comes_back(place: Place) -> None:
    budget = Budget(place.storage, "n", None, 1000)
    assert budget.claim(30, 100) == 10
    assert budget.claim(1, 100) == 0
    budget.settle(0, -50 - 50)
    assert budget.claim(2, 100) == 1
    assert budget.spent == Spent(11, 1000)


def test_another_attempt_reserves_nothing_but_needs_something_left(place: Place) -> None:
    budget = Budget(place.storage, "n", None, 100)
    assert budget.claim(1, 99) == 1
    assert budget.claim(1, 0) == 1
    budget.settle(0, 1)
    assert budget.claim(1, 0) == 0


def test_a_new_run_counts_from_nothing_and_a_worker_joins_it(place: Place) -> None:
    Budget(place.storage, "n", 5, None).claim(5, 0)
    worker = Budget(place.storage, "n", 5, None)
    assert worker.claim(1, 0) == 0
    Budget(place.storage, "n", 5, None).begin_run()
    assert worker.claim(9, 0) == 5
    assert Budget(place.storage, "other", 5, None).spent == Spent()


@given(
    st.integers(1, 40),
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 12)), max_size=40),
)
def test_no_order_of_claims_by_any_workers_breaks_the_budget(
    requests: int, tokens: int, steps: list[tuple[int, int, int]]
) -> None:
    storage = _Memory()
    workers = [Budget(storage, "n", requests, tokens) for _ in range(4)]
    sent = used = 0
    for worker, wanted, actual in steps:
        granted = workers[worker].claim(wanted, 10)
        assert granted == min(wanted, requests - sent, max(0, (tokens - used) // 10))
        sent += granted
        used += granted * min(actual, 10)
        if granted:
            workers[worker].settle(0, granted * (min(actual, 10) - 10))
    assert workers[0].spent == Spent(sent, used)
    assert sent <= requests
    assert used <= tokens


class _Overtaken(LocalFolder):
    """A folder in which another worker acts just after one has looked for the newest sums."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.meanwhile: Callable[[], object] = lambda: None

    def read(self, name: str) -> bytes:
        try:
            return super().read(name)
        except FileNotFoundError:
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()
            raise


def test_whoever_is_overtaken_counts_again(tmp_path: Path) -> None:
    storage = _Overtaken(str(tmp_path))
    slow, quick = Budget(storage, "n", 10, None), Budget(LocalFolder(str(tmp_path)), "n", 10, None)
    slow.claim(1, 0)
    storage.meanwhile = lambda: quick.claim(7, 0)
    assert slow.claim(5, 0) == 2
    storage.meanwhile = lambda: quick.settle(-4, 0)
    slow.settle(0, 8)
    assert slow.spent == quick.spent == Spent(6, 8)
    storage.meanwhile = lambda: quick.claim(3, 0)
    slow.begin_run()
    assert quick.spent == Spent()


def _claim_all(store: str, ready: Any, queue: Any) -> None:
    budget = Budget(LocalFolder(store), "n", 60, None)
    ready.wait(60)
    total = 0
    while granted := budget.claim(1, 0):
        total += granted
    queue.put(total)


def test_processes_that_race_spend_exactly_the_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue, ready = context.Queue(), context.Barrier(2)
    running = [context.Process(target=_claim_all, args=(str(tmp_path), ready, queue)) for _ in range(2)]
    for process in running:
        process.start()
    totals = [queue.get(timeout=120) for _ in running]
    for process in running:
        process.join()
    assert sum(totals) == 60
