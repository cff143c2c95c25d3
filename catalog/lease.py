"""The right to write to an object store: a lease object that its holder keeps renewing.

Every change of the object is a conditional put: only if absent, or only if it still is what was read. Whoever finds one
that did not change during a whole lease takes it over, so no clocks are compared between machines; of two who do, one
succeeds. A holder that could not renew for most of a lease stops its work before another can have begun.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from catalog.errors import UserError


@contextmanager
def hold_lease(store: Any, name: str, holder: str, lease: timedelta, place: str) -> Iterator[None]:
    """Hold the lease `name` in an obstore store while the body runs, which must be on the main thread.

    Raises UserError when another holder is alive, and in place of the body's own end when the lease was lost.
    """
    mine = _Lease(store, name, holder, lease.total_seconds())
    if not mine.create():
        found = _watch(store, name, lease.total_seconds(), place)
        if not (mine.create() if found is None else mine.replace(found)):
            raise UserError(f"{place}: another run took the store first; try again")
    thread = threading.Thread(target=mine.renew, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if mine.lost is None:
            raise
    finally:
        mine.stop.set()
        thread.join()
        if mine.lost is None:
            mine.give_back()
    if mine.lost is not None:
        raise UserError(f"{place}: the lock was lost to {mine.lost}; run again once they are done")


@dataclass
class _Lease:
    """What a holder knows of its lease. `etag` names the object as it was last put."""

    store: Any
    name: str
    holder: str | None
    seconds: float
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    beat: int = 0
    etag: str = ""
    lost: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def create(self) -> bool:
        """Put the lease if there is none; says whether it did."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._put("create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, etag: str) -> bool:
        """Put the lease if it still is the object of that tag; says whether it did."""
        from obstore.exceptions import NotFoundError, PreconditionError

        try:
            self._put({"e_tag": etag})
        except (PreconditionError, NotFoundError, FileNotFoundError):
            return False
        return True

    def _put(self, mode: Any) -> None:
        text = orjson.dumps({"holder": self.holder, "token": self.token, "beat": self.beat})
        self.etag = self.store.put(self.name, text, mode=mode)["e_tag"]

    def _still_mine(self) -> bool:
        """Whether the lease was renewed by a put of ours whose answer was lost on the way."""
        try:
            found = self.store.get(self.name)
        except FileNotFoundError:
            return False
        self.etag = str(found.meta["e_tag"])
        return _content(bytes(found.bytes())).get("token") == self.token

    def renew(self) -> None:
        """Renew eight times a lease until stopped; interrupts the main thread when the lease is lost.

        A call of the store may take an eighth of the lease too, so whoever cannot renew knows after three quarters.
        """
        from obstore.exceptions import BaseError

        renewed = time.monotonic()
        while not self.stop.wait(self.seconds / 8):
            self.beat += 1
            began = time.monotonic()
            try:
                kept = self.replace(self.etag) or self._still_mine()
            except (BaseError, OSError):
                # The store cannot be reached. Nobody else takes the lease before it has been still for all its length.
                kept = time.monotonic() - renewed < self.seconds / 2
            else:
                renewed = began
            if not kept:
                self.lost = _holder(self.store, self.name)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def give_back(self) -> None:
        """Leave the lease to whoever comes next, unless somebody else has it by now."""
        self.holder = None
        self.replace(self.etag)


def _watch(store: Any, name: str, seconds: float, place: str) -> str | None:
    """The tag of a lease nobody holds, once that is certain, None if it is gone; raises UserError if it is renewed."""
    first: str | None = None
    started = time.monotonic()
    while True:
        try:
            found = store.get(name)
        except FileNotFoundError:
            return None
        etag = str(found.meta["e_tag"])
        holder = _name(bytes(found.bytes()))
        if holder is None:
            return etag
        if first is not None and etag != first:
            raise UserError(f"{place}: in use by {holder}; wait for it or stop it")
        first = etag
        if time.monotonic() - started > seconds:
            return etag
        time.sleep(min(1.0, seconds / 20))


def _holder(store: Any, name: str) -> str:
    try:
        return _name(bytes(store.get(name).bytes())) or "another run"
    except Exception:  # the reason why the lease was lost may keep us from reading it
        return "another run, or the store cannot be reached"


def is_held(store: Any, name: str) -> bool:
    """Whether somebody has the lease; one who died with it counts until another takes it over."""
    try:
        return _name(bytes(store.get(name).bytes())) is not None
    except FileNotFoundError:
        return False


def _name(text: bytes) -> str | None:
    """Who holds a lease by its text; None when it was given back."""
    holder = _content(text).get("holder", "another run")
    return None if holder is None else str(holder)


def _content(text: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
