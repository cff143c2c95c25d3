"""A budget of requests and tokens that all workers of a run share.

A chain of small write-once objects: each holds the sums so far, and whoever creates the next number has moved them on.
That is a counter which many machines can raise without a server, and which a kill cannot leave locked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import orjson

from catalog.keys import canonical
from catalog.storage import Storage

PREFIX = "budgets/"


@dataclass(frozen=True)
class Spent:
    """Requests sent and tokens spent or reserved since the run began."""

    requests: int = 0
    tokens: int = 0


class Budget:
    """What may still be spent; `max_requests` and `max_tokens` are None where there is no limit.

    Tokens are reserved before a request and settled after it, so that the sum lies beyond the limit by no more than the
    prompts in flight. What a killed worker reserved stays reserved until the next run begins.
    """

    def __init__(self, storage: Storage, name: str, max_requests: int | None, max_tokens: int | None) -> None:
        self._storage = storage
        self._prefix = f"{PREFIX}{name}/"
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._number: int | None = None
        self._spent = Spent()

    def begin_run(self) -> None:
        """Count from nothing; the driver calls it, when no worker of an earlier run is left."""
        with self._lock:
            self._catch_up()
            while not self._append(Spent()):
                self._catch_up()

    def claim(self, requests: int, tokens_each: int) -> int:
        """How many of so many requests may be sent, each reserving `tokens_each`; they count as sent from now on."""
        with self._lock:
            while True:
                self._catch_up()
                granted = self._granted(requests, tokens_each)
                new = Spent(self._spent.requests + granted, self._spent.tokens + granted * tokens_each)
                if granted == 0 or self._append(new):
                    return granted

    def settle(self, requests: int, tokens: int) -> None:
        """Correct the sums: requests that were not sent after all, tokens that were more or fewer than reserved."""
        with self._lock:
            while True:
                self._catch_up()
                if self._append(Spent(self._spent.requests + requests, self._spent.tokens + tokens)):
                    return

    @property
    def spent(self) -> Spent:
        """The newest sums."""
        with self._lock:
            self._catch_up()
            return self._spent

    def _granted(self, requests: int, tokens_each: int) -> int:
        granted = requests
        if self._max_requests is not None:
            granted = min(granted, self._max_requests - self._spent.requests)
        if self._max_tokens is not None:
            left = self._max_tokens - self._spent.tokens
            granted = min(granted, left // tokens_each if tokens_each else granted if left > 0 else 0)
        return max(0, granted)

    def _place(self, number: int) -> str:
        return f"{self._prefix}{number:012d}.json"

    def _catch_up(self) -> None:
        if self._number is None:
            names = [name for name, _ in self._storage.list(self._prefix)]
            self._number = int(names[-1].removeprefix(self._prefix).removesuffix(".json")) if names else 0
            if names:
                self._spent = Spent(**orjson.loads(self._storage.read(names[-1])))
        while True:
            try:
                data = self._storage.read(self._place(self._number + 1))
            except FileNotFoundError:
                return
            self._number += 1
            self._spent = Spent(**orjson.loads(data))

    def _append(self, spent: Spent) -> bool:
        assert self._number is not None
        data = canonical({"requests": spent.requests, "tokens": spent.tokens})
        if not self._storage.create(self._place(self._number + 1), data):
            return False
        self._number += 1
        self._spent = spent
        return True
