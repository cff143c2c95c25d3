"""Fetching the URLs of a list into a store: many at once, each once, results in the order of the list."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from weakref import WeakValueDictionary

import anyio
from anyio.from_thread import start_blocking_portal
from anyio.to_thread import run_sync

from catalog.storage import Storage
from pipeline.media import kept_ref
from pipeline.sources.addresses import AddressRule, parse_url
from pipeline.sources.base import BadRow, SourceRow
from pipeline.sources.download import Downloader
from pipeline.sources.outcomes import Kept, Outcomes
from pipeline.sources.urls import UrlList

_AHEAD = 16
"""Rows in flight per connection: one slow host must not keep the others waiting."""


def fetch(rows: Iterable[SourceRow], storage: Storage, config: UrlList) -> Iterator[SourceRow]:
    """The rows of `UrlList.rows` with their media, which lie in the store as `media/ab/DIGEST`; same order.

    A row whose URL cannot be had carries the reason as its problem: failures never stop a run. Outcomes, good
    and bad, are kept in the store, and a URL with one is not asked again. Raises UserError unless the
    configuration allows the network, and OSError when the store cannot be written.
    """
    config.require_network()
    return _in_order(rows, storage, config)


def forget_failure(url: str, storage: Storage, config: UrlList) -> None:
    """Drop the stored failure of a URL, so that the next run asks again."""
    try:
        Outcomes(storage, config.limits, _rule(config)).forget(str(parse_url(url)))
    except BadRow:
        return


def _rule(config: UrlList) -> AddressRule:
    if isinstance(config.allow_private, bool):
        return AddressRule(all_private=config.allow_private)
    return AddressRule(networks=config.allow_private)


def _in_order(rows: Iterable[SourceRow], storage: Storage, config: UrlList) -> Iterator[SourceRow]:
    window = _AHEAD * config.limits.concurrency
    started: deque[Future[SourceRow]] = deque()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_Fetcher(storage, config)) as fetcher,
    ):
        try:
            for row in rows:
                started.append(portal.start_task_soon(fetcher.complete, row))
                if len(started) >= window:
                    yield started.popleft().result()
            while started:
                yield started.popleft().result()
        finally:
            for future in started:
                future.cancel()


class _Fetcher:
    """Completes rows; what is on its way already is waited for, not fetched or stored twice."""

    def __init__(self, storage: Storage, config: UrlList) -> None:
        rule = _rule(config)
        self._role = config.role
        self._outcomes = Outcomes(storage, config.limits, rule)
        self._downloader = Downloader(config.limits, rule)
        self._locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()

    async def __aenter__(self) -> _Fetcher:
        await self._downloader.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._downloader.__aexit__(kind, error, trace)

    async def complete(self, row: SourceRow) -> SourceRow:
        """The row with its medium or its problem."""
        if row.problem is not None:
            return row
        try:
            kept = await self._kept(row.fields["url"])
        except BadRow as bad:
            return SourceRow(row.place, row.fields, (), (bad.reason, str(bad)))
        return SourceRow(row.place, row.fields, (kept_ref(self._role, kept.digest, kept.size),))

    async def _kept(self, text: str) -> Kept:
        url = parse_url(text)
        name = str(url)
        lock = self._lock(name)
        async with lock.held:
            kept = await run_sync(self._outcomes.find, name)
            if kept is not None:
                return kept
            try:
                download = await self._downloader.get(url)
            except BadRow as bad:
                await run_sync(self._outcomes.refuse, name, bad)
                raise
            digest = await run_sync(download.digest)
            same_bytes = self._lock(digest)
            async with same_bytes.held:
                return await run_sync(self._outcomes.keep, name, digest, download)

    def _lock(self, name: str) -> _Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = _Lock()
        return lock


class _Lock:
    """A lock that lives while someone has it in hand: it must stay in a variable as long as it is held."""

    def __init__(self) -> None:
        self.held = anyio.Lock()
