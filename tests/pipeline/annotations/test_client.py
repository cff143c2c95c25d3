from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from catalog.errors import UserError
from pipeline.annotations import client as module
from pipeline.annotations.client import Client, Patience, Stopped, is_loopback
from pipeline.operator import Quarantine

from .stub import Reply, Request, Server, said

BODY: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "private words"}]}],
}
KEY = "sk-very-secret-0123456789"


class Waits(list[float]):
    """The waits between attempts, without the waiting."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits()
    monkeypatch.setattr(Client, "_sleep", lambda self, seconds: waits.append(seconds))
    return waits


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server.url, KEY, "THE_KEY", Patience(timeout=0.3, attempts=4, backoff=1, max_wait=60), 4)
    yield client
    client.close()


def first(*replies: Reply) -> Any:
    """Answer with these in turn, then well."""
    left = list(replies)
    return lambda request: left.pop(0) if left else Reply(body=said("well"))


def ask(client: Client) -> str:
    text: str = client.complete(BODY, lambda: True)["choices"][0]["message"]["content"]
    return text


def test_an_answer_comes_with_one_request_that_carries_the_key(server: Server, client: Client) -> None:
    server.behave = first()
    assert ask(client) == "well"
    (request,) = server.requests
    assert request.body == BODY
    assert request.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again_with_doubled_waits(
    server: Server, client: Client, waits: Waits, status: int
) -> None:
    server.behave = first(*[Reply(status)] * 3)
    assert ask(client) == "well"
    assert waits == [1, 2, 4]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=said("cut"), hang_up=20),
        Reply(body=said("cut"), hang_up=0),
        Reply(body=b'{"choices": [{"message": {"content": "cut'),
        Reply(body=b"[]"),
        Reply(body=said("late"), delay=0.6),
        Reply(body=said("drips"), drip=0.02),
    ],
    ids=["reset in the body", "reset before it", "cut JSON", "no object", "late", "drips"],
)
def test_a_broken_or_late_answer_is_asked_for_again(server: Server, client: Client, waits: Waits, reply: Reply) -> None:
    server.behave = first(reply)
    assert ask(client) == "well"
    assert waits == [1]


def test_an_endless_answer_is_not_read_to_its_end(
    server: Server, client: Client, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES", 1000)
    server.behave = lambda request: Reply(body=b" " * 5000)
    with pytest.raises(Quarantine, match="more than 1000 bytes"):
        ask(client)


def test_the_wait_a_server_asks_for_is_kept(server: Server, client: Client, waits: Waits) -> None:
    dates = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}
    server.behave = first(
        Reply(429, headers={"Retry-After": "7"}), Reply(503, headers={"Retry-After": "0"}), Reply(429, headers=dates)
    )
    assert ask(client) == "well"
    assert waits == [7, 2, 30]


def test_waits_never_exceed_the_most(server: Server, waits: Waits) -> None:
    client = Client(server.url, None, None, Patience(timeout=1, attempts=6, backoff=10, max_wait=25), 1)
    server.behave = first(*[Reply(500)] * 5)
    assert ask(client) == "well"
    assert waits == [10, 20, 25, 25, 25]
    client.close()


@pytest.mark.parametrize("told", ["61", "1e9", "inf"])
def test_a_wait_longer_than_we_may_take_stops_the_run(server: Server, client: Client, waits: Waits, told: str) -> None:
    server.behave = first(Reply(429, headers={"Retry-After": told}))
    with pytest.raises(UserError, match=r"asks to wait .*longer than max_wait 60"):
        ask(client)


@pytest.mark.parametrize("told", ["soon", "nan", "-3", ""])
def test_a_wait_that_makes_no_sense_is_not_minded(server: Server, client: Client, waits: Waits, told: str) -> None:
    server.behave = first(Reply(429, headers={"Retry-After": told}))
    assert ask(client) == "well"
    assert waits == [1]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(500), "4 attempts, the last: 500 Internal Server Error"),
        (Reply(body=said("late"), delay=0.6), "4 attempts, the last: nothing within 0.3 s"),
        (Reply(hang_up=0, body=b"x"), "4 attempts, the last: "),
        (Reply(body=b"oops"), "4 attempts, the last: an answer that is not JSON"),
    ],
)
def test_a_record_is_set_aside_when_every_attempt_failed(
    server: Server, client: Client, waits: Waits, reply: Reply, message: str
) -> None:
    server.behave = lambda request: reply
    with pytest.raises(Quarantine) as caught:
        ask(client)
    assert caught.value.reason == "no answer from the server"
    assert str(caught.value).startswith(message)
    assert len(server.requests) == 4


def test_a_server_that_stays_busy_stops_the_run(server: Server, client: Client, waits: Waits) -> None:
    server.behave = lambda request: Reply(429)
    with pytest.raises(UserError, match=r"takes no more requests for now .* run again later"):
        ask(client)


def test_a_server_that_is_not_there_stops_the_run(waits: Waits) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}/v1", None, None, Patience(1, 3, 1, 60), 1)
    with pytest.raises(UserError, match=f"http://127.0.0.1:{port}/v1: cannot be reached in 3 attempts: ConnectError"):
        ask(client)
    assert waits == [1, 2]
    client.close()


def test_a_record_that_ends_the_server_is_set_aside_and_does_not_stop_the_run(
    server: Server, client: Client, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first attempt reaches the server, which dies of it; no later one does.
    server.behave = lambda request: Reply(hang_up=0, body=b"x")
    sound = client._attempt

    def attempt(*args: Any) -> dict[str, Any]:
        if server.requests:
            client.base_url = "http://127.0.0.1:1/v1"
        return sound(*args)

    monkeypatch.setattr(client, "_attempt", attempt)
    with pytest.raises(Quarantine, match="4 attempts, the last: ConnectError"):
        ask(client)


@pytest.mark.parametrize("status", [400, 406, 413, 415, 422])
def test_a_refused_record_is_set_aside_at_once_without_a_word_of_what_was_sent(
    server: Server, client: Client, status: int
) -> None:
    error = {
        "message": "cannot read 'private words' of data:image/jpeg;base64,AAAA",
        "type": "BadRequestError",
        "code": 400,
    }
    server.behave = lambda request: Reply(status, {"error": error})
    with pytest.raises(Quarantine) as caught:
        ask(client)
    assert caught.value.reason == "refused by the server"
    assert str(caught.value).startswith(f"{status} ")
    assert str(caught.value).endswith("(BadRequestError)")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "word", ["private words", f"bad-{KEY}", "x" * 41, "", None, 7, {"a": 1}], ids=lambda word: str(word)[:8]
)
def test_free_text_of_the_server_is_never_repeated(server: Server, client: Client, word: Any) -> None:
    server.behave = lambda request: Reply(400, {"error": {"type": word, "code": word}})
    with pytest.raises(Quarantine) as caught:
        ask(client)
    assert str(caught.value) == "400 Bad Request"


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "the key in THE_KEY does not open it"),
        (403, "the key in THE_KEY does not open it"),
        (402, "mend `base_url` or the account"),
        (404, "is `base_url` right .* and the model served"),
        (405, "mend `base_url`"),
        (307, "mend `base_url`"),
    ],
)
def test_a_wrong_configuration_stops_the_run_at_once(server: Server, client: Client, status: int, advice: str) -> None:
    server.behave = lambda request: Reply(status, headers={"Location": "http://127.0.0.1:1/"})
    with pytest.raises(UserError, match=f"{server.url}/chat/completions: {status} .*{advice}") as caught:
        ask(client)
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


def test_a_missing_key_is_told_from_a_wrong_one(server: Server) -> None:
    server.behave = lambda request: Reply(401)
    for name, advice in (("THE_KEY", "THE_KEY is not set"), (None, "name the environment variable")):
        client = Client(server.url, None, name, Patience(1, 1, 1, 60), 1)
        with pytest.raises(UserError, match=advice):
            ask(client)
        client.close()
    assert "Authorization" not in server.requests[0].headers


def test_another_attempt_needs_leave(server: Server, client: Client, waits: Waits) -> None:
    server.behave = lambda request: Reply(500)
    leave = iter([True, False])
    with pytest.raises(UserError, match="budget is used up"):
        client.complete(BODY, lambda: next(leave))
    assert len(server.requests) == 2


def test_whoever_waits_gives_up_when_the_run_ends(server: Server) -> None:
    client = Client(server.url, None, None, Patience(1, 2, 30, 60), 1)
    server.behave = lambda request: Reply(500)
    threading.Timer(0.2, client.stop).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        ask(client)
    with pytest.raises(Stopped):
        ask(client)
    assert time.monotonic() - started < 10
    assert len(server.requests) == 1
    client.resume()
    server.behave = lambda request: Reply(body=said("well"))
    assert ask(client) == "well"
    client.close()


def test_models_are_listed_or_the_address_is_doubted(server: Server, client: Client, waits: Waits) -> None:
    assert [entry["id"] for entry in client.models()] == ["tiny"]
    server.models = Reply(body={"models": []})
    with pytest.raises(UserError, match="no list of models"):
        client.models()
    server.models = Reply(404)
    with pytest.raises(UserError, match="is `base_url` right"):
        client.models()
    server.models = Reply(500)
    with pytest.raises(UserError, match="/models: 4 attempts, the last: 500"):
        client.models()


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://LOCALHOST/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://0.0.0.0/v1", False),
        ("https://localhost.example.org/v1", False),
        ("https://api.example.org/127.0.0.1/v1", False),
    ],
)
def test_only_this_machine_is_loopback(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    client = Client(server.url, None, None, Patience(1, 1, 1, 60), 1)
    server.behave = lambda request: Reply(body=said("well"))
    assert ask(client) == "well"
    client.close()


def test_many_threads_share_the_connections(server: Server, client: Client) -> None:
    def slow(request: Request) -> Reply:
        return Reply(body=said("well"), delay=0.05)

    server.behave = slow
    threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_in_flight == 4
