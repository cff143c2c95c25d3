"""Getting one URL politely: few requests at once per host, patience, limits, and ears for "no"."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType

import anyio
import httpcore
import httpx
import tenacity

from pipeline.sources.addresses import AddressRule, CheckedNetwork, parse_url
from pipeline.sources.base import BadRow
from pipeline.sources.fields import show, show_place
from pipeline.sources.limits import Limits

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# Directives of X-Robots-Tag that carry a value after a colon, where others have the name of a robot before
# it.
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


@dataclass(frozen=True, slots=True)
class Download:
    """The body of an answer, and the numeric addresses it and the redirects to it came from."""

    data: bytes
    addresses: tuple[str, ...]

    def digest(self) -> str:
        """The sha256 of the bytes, 64 hex characters."""
        return sha256(self.data).hexdigest()


class _TryAgain(BadRow):
    """A failure that may pass; `after` is how many seconds the server asked for."""

    def __init__(self, reason: str, message: str, after: float | None = None) -> None:
        super().__init__(reason, message)
        self.after = after


class _Host:
    """One host: how many requests it has at once, how many wait, and until when it wants none."""

    def __init__(self, at_once: int) -> None:
        self.slots = anyio.Semaphore(at_once)
        self.users = 0
        self._quiet_until = 0.0

    @property
    def quiet_for(self) -> float:
        """Seconds it still wants to be left alone."""
        return max(0.0, self._quiet_until - anyio.current_time())

    def leave_alone(self, seconds: float) -> None:
        """Ask nothing for that long."""
        self._quiet_until = max(self._quiet_until, anyio.current_time() + seconds)


class Downloader:
    """An HTTP client for many hosts. Proxies and cookies are not used: both would go past the checks."""

    def __init__(self, limits: Limits, rule: AddressRule) -> None:
        self._limits = limits
        self._slots = anyio.Semaphore(limits.concurrency)
        self._hosts: dict[str, _Host] = {}
        self._pools = _PoolPerHost(rule)
        self._client = httpx.AsyncClient(
            transport=self._pools,
            headers={"User-Agent": limits.user_agent, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(limits.read_s, connect=limits.connect_s, pool=None),
            trust_env=False,
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))

    async def __aenter__(self) -> Downloader:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def get(self, url: httpx.URL) -> Download:
        """The bytes behind a URL, after redirects and repeated attempts; raises BadRow."""
        # Made anew for each URL: a tenacity object keeps the state of the call it serves.
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgain),
            stop=tenacity.stop_after_attempt(self._limits.attempts),
            wait=self._wait,
            sleep=anyio.sleep,
            reraise=True,
        )
        try:
            return await retrying(self._follow, url)
        except BadRow:
            raise
        except Exception as error:
            # One odd server must not end the run for the others; the class of the error says what to look
            # for.
            detail = show_place(f"{type(error).__name__}: {error}")
            raise BadRow("unexpected failure", f"{url.host}: {detail}") from error

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _TryAgain) and error.after is not None:
            return error.after
        limits = self._limits
        return tenacity.wait_exponential(multiplier=limits.first_wait_s, max=limits.longest_wait_s)(state)

    async def _follow(self, url: httpx.URL) -> Download:
        addresses: list[str] = []
        for _ in range(self._limits.max_redirects + 1):
            answer = await self._ask(url, addresses)
            if isinstance(answer, bytes):
                return Download(answer, tuple(addresses))
            url = answer
        raise BadRow("too many redirects", f"more than {self._limits.max_redirects} redirects")

    async def _ask(self, url: httpx.URL, addresses: list[str]) -> bytes | httpx.URL:
        """One request: the body, or where a redirect leads."""
        async with self._turn(url.host) as host, self._named_failures(url.host):
            with anyio.fail_after(self._limits.total_s):
                async with self._client.stream("GET", url) as response:
                    addresses.append(_peer(response))
                    return await self._take(response, url.host, host)

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[_Host]:
        """Wait until the host and the whole client have room for one more request."""
        host = self._hosts.setdefault(name, _Host(self._limits.per_host))
        host.users += 1
        try:
            async with host.slots:
                while host.quiet_for:
                    await anyio.sleep(host.quiet_for)
                async with self._slots:
                    yield host
        finally:
            host.users -= 1
            if not host.users:
                if not host.quiet_for:
                    del self._hosts[name]
                with anyio.CancelScope(shield=True):
                    await self._pools.leave(name)

    async def _take(self, response: httpx.Response, name: str, host: _Host) -> bytes | httpx.URL:
        status = response.status_code
        if said := opt_out(response.headers, self._limits.user_agent):
            raise BadRow("opted out", f"{name} says {said}")
        if response.next_request is not None:
            return parse_url(str(response.next_request.url))
        answered = f"{name} answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        if status in _RETRIED:
            after = _retry_after(response.headers)
            if after is not None:
                after = min(after, self._limits.longest_wait_s)
                host.leave_alone(after)
            raise _TryAgain(f"http {status}", answered, after)
        if status != 200:
            raise BadRow(f"http {status}", answered)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            # Unpacking could blow a small body up; it was asked to come as it is.
            raise BadRow("encoded body", f"{name} packed the body as {show(encoding)} though asked not to")
        return await self._body(response, name)

    async def _body(self, response: httpx.Response, name: str) -> bytes:
        most = self._limits.max_bytes
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise BadRow("too large", f"{name} announced {int(announced):,} bytes, more than {most:,}")
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > most:
                raise BadRow("too large", f"{name} sent more than {most:,} bytes")
        if not data:
            raise BadRow("empty body", f"{name} sent no bytes")
        return bytes(data)

    @asynccontextmanager
    async def _named_failures(self, name: str) -> AsyncIterator[None]:
        """Time limits and broken connections as failures that may pass."""
        limits = self._limits
        try:
            yield
        except httpx.ConnectTimeout:
            raise _TryAgain("timeout", f"{name}: no connection within {limits.connect_s:g} s") from None
        except httpx.TimeoutException:
            raise _TryAgain("timeout", f"{name} sent nothing for {limits.read_s:g} s") from None
        except TimeoutError:
            raise _TryAgain("timeout", f"{name} was not done within {limits.total_s:g} s") from None
        except httpx.TransportError as error:
            detail = show_place(str(error)) or type(error).__name__
            raise _TryAgain("connection failed", f"{name}: {detail}") from None


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, over connections that are checked."""

    def __init__(self, network: CheckedNetwork, context: ssl.SSLContext) -> None:
        super().__init__(verify=context, trust_env=False)
        # httpx has no argument for the network backend; its pool takes one.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=None, keepalive_expiry=5.0, network_backend=network
        )


class _PoolPerHost(httpx.AsyncBaseTransport):
    """Connections are kept per host: a common pool looks at every idle one for every request."""

    def __init__(self, rule: AddressRule) -> None:
        self._network = CheckedNetwork(rule)
        self._context = httpx.create_ssl_context(trust_env=False)
        self._hosts: dict[str, _CheckedTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the pool of its host."""
        transport = self._hosts.get(request.url.host)
        if transport is None:
            transport = self._hosts[request.url.host] = _CheckedTransport(self._network, self._context)
        return await transport.handle_async_request(request)

    async def leave(self, host: str) -> None:
        """Close the connections to a host that nobody uses now."""
        if (transport := self._hosts.pop(host, None)) is not None:
            await transport.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for host in list(self._hosts):
            await self.leave(host)


def opt_out(headers: httpx.Headers, user_agent: str) -> str | None:
    """What an answer's headers say against use in a data set, as `NAME: VALUE`; None when they say nothing.

    Counted are `X-Robots-Tag` with noai, noimageai, noindex, noimageindex or none, for all robots or for
    ours, and `tdm-reservation: 1` (TDM Reservation Protocol).
    """
    robot = user_agent.partition("/")[0].strip().lower()
    for value in headers.get_list("x-robots-tag"):
        addressee = ""
        for directive in value.lower().split(","):
            name, colon, rest = (part.strip() for part in directive.partition(":"))
            if colon and name not in _VALUED:
                addressee, name = name, rest
            if name in _OPT_OUTS and addressee in ("", "*", robot):
                return f"X-Robots-Tag: {name}"
    if headers.get("tdm-reservation", "").strip() == "1":
        return "tdm-reservation: 1"
    return None


def _peer(response: httpx.Response) -> str:
    stream: httpcore.AsyncNetworkStream = response.extensions["network_stream"]
    address = stream.get_extra_info("server_addr")
    if address is None:
        raise httpx.ReadError("the connection was cut")
    return str(address[0])


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait, from a number or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
