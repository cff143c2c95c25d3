"""The right to write to an object store: a lease object that its holder keeps renewing.

The object appears by a conditional put (only if absent). Whoever finds one whose text did not change during a whole
lease takes it over by deleting and creating it again, so no clocks are compared between machines.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import orjson

from catalog.errors import UserError


@contextmanager
def hold_lease(store: Any, name: str, holder: str, lease: timedelta, place: str) -> Iterator[None]:
    """Hold the lease `name` in an obstore store while the body runs; raises UserError when another holder is alive."""
    from obstore.exceptions import AlreadyExistsError

    token = uuid.uuid4().hex
    beat = 0

    def text() -> bytes:
        return orjson.dumps({"holder": holder, "token": token, "beat": beat})

    try:
        store.put(name, text(), mode="create")
    except AlreadyExistsError:
        _wait_until_stale(store, name, lease, place)
        store.delete(name)
        try:
            store.put(name, text(), mode="create")
        except AlreadyExistsError:
            raise UserError(f"{place}: another run took the store first; try again") from None

    stop = threading.Event()

    def renew() -> None:
        nonlocal beat
        while not stop.wait(lease.total_seconds() / 4):
            beat += 1
            store.put(name, text())

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        store.delete(name)


def _wait_until_stale(store: Any, name: str, lease: timedelta, place: str) -> None:
    """Return once the lease's text stayed the same for a whole lease; raise as soon as it is renewed."""
    try:
        first = bytes(store.get(name).bytes())
    except FileNotFoundError:
        return
    deadline = time.monotonic() + lease.total_seconds() / 2
    while time.monotonic() < deadline:
        time.sleep(min(1.0, lease.total_seconds() / 20))
        try:
            now = bytes(store.get(name).bytes())
        except FileNotFoundError:
            return
        if now != first:
            holder = orjson.loads(now).get("holder", "another process")
            raise UserError(f"{place}: in use by {holder}; wait for it or stop it")
