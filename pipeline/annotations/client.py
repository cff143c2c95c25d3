"""Asking an OpenAI-compatible server over HTTP: patient with what passes, quick to tell what does not.

Whose fault a failure is decides what happens: the record's (it was refused) sets the record aside, the server's is
tried again and then sets the record aside, the configuration's (key, model, address) stops the run with a UserError.
No message holds the key, the request or free text of the server, which may repeat either.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from catalog.errors import UserError
from pipeline.operator import Quarantine

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

ANSWER_BYTES = 4 * 2**20
CONNECT_SECONDS = 10.0

_CONFIGURATION = frozenset({401, 402, 403, 404, 405, 407})
_PASSING = frozenset({408, 409, 425, 429})
_IDENTIFIER = re.compile(r"^[A-Za-z0-9_.-]{1,40}$")


@dataclass(frozen=True)
class Patience:
    """How a server is asked. Seconds: `timeout` of one attempt, `backoff` the first wait, doubled each time.

    `max_wait` bounds every wait; a server that asks for a longer one stops the run.
    """

    timeout: float
    attempts: int
    backoff: float
    max_wait: float

    @property
    def longest(self) -> float:
        """Seconds after which one question has had its answer, or never gets one."""
        return self.attempts * (CONNECT_SECONDS + 2 * self.timeout + self.max_wait)


class _Passing(Exception):  # noqa: N818 - not an error yet: it is tried again
    """One attempt came to nothing. `wait` is what the server asked for, `reached` whether there was a connection."""

    def __init__(self, what: str, wait: float | None = None, reached: bool = True, status: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.wait = wait
        self.reached = reached
        self.status = status


class Stopped(Exception):  # noqa: N818 - a sign, not a fault
    """Somebody found a reason to stop while this question was waiting."""


def is_loopback(url: str) -> bool:
    """Whether an address lies on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """One server, asked by many threads. `key` goes into the Authorization header and nowhere else."""

    def __init__(self, base_url: str, key: str | None, key_name: str | None, patience: Patience, most: int) -> None:
        import httpx

        self.base_url = base_url.rstrip("/")
        self._key = key
        self._key_name = key_name
        self._patience = patience
        self._stop = threading.Event()
        timeout = httpx.Timeout(patience.timeout, connect=CONNECT_SECONDS, pool=None)
        headers = {"Accept-Encoding": "identity", "User-Agent": "unifactory"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx.Client(
            headers=headers,
            timeout=timeout,
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            # A proxy of the environment has no business between this machine and itself.
            trust_env=not is_loopback(base_url),
        )

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def stop(self) -> None:
        """Make whoever waits give up: the run is about to end."""
        self._stop.set()

    def resume(self) -> None:
        """Take questions again after `stop`."""
        self._stop.clear()

    def models(self) -> list[dict[str, Any]]:
        """What the server says it serves; raises UserError."""
        try:
            told = self._ask("GET", "/models", None, lambda: True)
        except Quarantine as verdict:
            raise UserError(f"{self.base_url}/models: {verdict}") from None
        entries = told.get("data")
        if not isinstance(entries, list):
            raise UserError(f"{self.base_url}/models: no list of models; is this an OpenAI-compatible server?")
        return [entry for entry in entries if isinstance(entry, dict)]

    def complete(self, body: dict[str, Any], may_retry: Callable[[], bool]) -> dict[str, Any]:
        """The server's JSON for one chat completion.

        `may_retry` is asked before every further attempt. Raises Quarantine where it is the record's fault or the
        server failed every time, UserError where it is the configuration's, Stopped after `stop`.
        """
        return self._ask("POST", "/chat/completions", orjson.dumps(body), may_retry)

    def _ask(self, method: str, path: str, body: bytes | None, may_retry: Callable[[], bool]) -> dict[str, Any]:
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        reached = False

        def attempt() -> dict[str, Any]:
            nonlocal reached
            try:
                return self._attempt(method, path, body)
            except _Passing as passing:
                reached = reached or passing.reached
                raise

        def before_sleep(_: RetryCallState) -> None:
            if not may_retry():
                raise UserError("the budget is used up: no request is left for another attempt")

        retrying = Retrying(
            stop=stop_after_attempt(self._patience.attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_Passing),
            sleep=self._sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _Passing as last:
            attempts = self._patience.attempts
            if not reached:
                raise UserError(f"{self.base_url}: cannot be reached in {attempts} attempts: {last.what}") from None
            if last.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise UserError(
                    f"{self.base_url}: takes no more requests for now (429, {attempts} attempts); "
                    "lower `concurrency`, or run again later: answers so far are kept"
                ) from None
            raise Quarantine("no answer from the server", f"{attempts} attempts, the last: {last.what}") from None

    def _attempt(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        import httpx

        if self._stop.is_set():
            raise Stopped
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            with self._http.stream(method, self.base_url + path, content=body, headers=headers) as response:
                data = self._read(response)
                return self._judge(response, data)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Passing(type(error).__name__, reached=False) from None
        except httpx.TimeoutException:
            raise _Passing(f"nothing within {self._patience.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise _Passing(type(error).__name__) from None

    def _read(self, response: httpx.Response) -> bytes:
        """The body; a server that drips it slowly or without end is no better than one that hangs."""
        end = time.monotonic() + self._patience.timeout
        data = bytearray()
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > ANSWER_BYTES:
                raise _Passing(f"an answer of more than {ANSWER_BYTES} bytes")
            if time.monotonic() > end:
                raise _Passing(f"no whole answer within {self._patience.timeout:g} s")
        return bytes(data)

    def _judge(self, response: httpx.Response, data: bytes) -> dict[str, Any]:
        status = response.status_code
        if status == HTTPStatus.OK:
            try:
                told = orjson.loads(data)
            except orjson.JSONDecodeError:
                raise _Passing("an answer that is not JSON") from None
            if not isinstance(told, dict):
                raise _Passing("an answer that is no JSON object")
            return told
        what = f"{status} {response.reason_phrase}".strip()
        if word := self._error_word(data):
            what = f"{what} ({word})"
        if status in _PASSING or status >= 500:
            raise _Passing(what, self._asked_wait(response), status=status)
        if status in _CONFIGURATION or status < 400:
            raise UserError(f"{response.request.url}: {what}; {self._advice(status)}")
        raise Quarantine("refused by the server", what)

    def _advice(self, status: int) -> str:
        if status in {401, 403}:
            if self._key_name is None:
                return "name the environment variable that holds the key in `api_key_env`"
            held = "does not open it" if self._key is not None else "is not set"
            return f"the key in {self._key_name} {held}"
        if status == HTTPStatus.NOT_FOUND:
            return "is `base_url` right (it often ends in /v1), and the model served?"
        return "mend `base_url` or the account"

    def _error_word(self, data: bytes) -> str:
        """The server's name for an error, if it is a plain identifier: free text may repeat what was sent."""
        try:
            told = orjson.loads(data)
        except orjson.JSONDecodeError:
            return ""
        error = told.get("error", told) if isinstance(told, dict) else None
        for name in ("code", "type"):
            word = error.get(name) if isinstance(error, dict) else None
            if isinstance(word, str) and _IDENTIFIER.match(word) and not (self._key and self._key in word):
                return word
        return ""

    def _asked_wait(self, response: httpx.Response) -> float | None:
        """Seconds of a Retry-After header; a date counts from the server's own Date."""
        told = response.headers.get("retry-after", "").strip()
        if not told:
            return None
        try:
            wait = float(told)
        except ValueError:
            try:
                until = parsedate_to_datetime(told)
                wait = (until - parsedate_to_datetime(response.headers["date"])).total_seconds()
            except (ValueError, TypeError, KeyError):
                return None
        if not wait > 0:
            return 0.0 if wait <= 0 else None
        if wait > self._patience.max_wait:
            raise UserError(
                f"{self.base_url}: asks to wait {wait:g} s, longer than max_wait {self._patience.max_wait:g}; "
                "run again later: answers so far are kept"
            )
        return wait

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: doubled each time, no chance in it, at least what the server asked for."""
        backoff = min(self._patience.max_wait, self._patience.backoff * 2.0 ** (state.attempt_number - 1))
        failure = state.outcome.exception() if state.outcome is not None else None
        asked = failure.wait if isinstance(failure, _Passing) else None
        return backoff if asked is None else max(backoff, asked)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def told_revision(entry: dict[str, Any]) -> str | None:
    """The revision in a server's entry for a model, if it tells one.

    A `revision` field, or a `root` such as `org/model@REVISION` or a hub cache's `.../snapshots/REVISION`.
    """
    revision = entry.get("revision")
    if isinstance(revision, str) and revision:
        return revision
    root = entry.get("root")
    if not isinstance(root, str):
        return None
    _, at, after = root.rpartition("@")
    if at and after and "/" not in after:
        return after
    match = re.search(r"/snapshots/([^/]+)/?$", root)
    return match[1] if match else None
