"""Questions about several pictures: which are sent, in which order, and under which key the answer is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from catalog.keys import media_digest
from pipeline.annotations.answers import stored
from pipeline.annotations.openai import OpenAI
from pipeline.annotations.sent import sent_jpeg
from pipeline.media import MediaRef
from pipeline.operator import Quarantine, Record
from pipeline.plan import plan_operator

from .conftest import Place, jpeg
from .stub import Reply, Request, Server, describe
from .test_openai import params

PAIR: dict[str, Any] = {"roles": ["source", "target"], "optional_roles": ["reference"]}


def pair(place: Place, name: str, roles: list[tuple[str, int]]) -> Record:
    """A record with one picture a role, each told by its number."""
    refs = [place.picture(f"{number}.jpg", jpeg(number), role) for role, number in roles]
    return place.record(name, tuple(refs))


def shown(request: Request, numbers: int = 12) -> list[int]:
    """Which pictures a request shows, by their numbers."""
    known = {sent_jpeg(jpeg(number), 1024, 90): number for number in range(numbers)}
    return [known[data] for data in request.jpegs]


@pytest.fixture
def ready(server: Server) -> Iterator[Any]:
    """An operator that is set up, and closed afterwards."""
    made: list[OpenAI] = []

    def make(**changes: Any) -> OpenAI:
        operator = OpenAI.build(params(server, **changes))
        assert isinstance(operator, OpenAI)
        operator.setup()
        made.append(operator)
        return operator

    yield make
    for operator in made:
        operator.close()


def test_the_pictures_of_each_role_are_sent_in_the_order_of_the_roles(place: Place, server: Server) -> None:
    records = [
        pair(place, "plain", [("target", 1), ("source", 0)]),
        pair(place, "two", [("reference", 4), ("source", 2), ("target", 3), ("reference", 5), ("mask", 6)]),
    ]
    place.run("openai", params(server, **PAIR, concurrency=1), records)
    assert [shown(request) for request in server.requests] == [[0, 1], [2, 3, 4, 5]]
    kinds = [part["type"] for part in server.requests[1].body["messages"][-1]["content"]]
    assert kinds == ["image_url"] * 4 + ["text"]
    media = sorted(([*asked["media"]] for asked, _ in stored(place.storage)), key=len)
    assert media == [[media_digest(jpeg(n)) for n in numbers] for numbers in ([0, 1], [2, 3, 4, 5])]


def test_several_pictures_of_one_role_are_all_sent(place: Place, server: Server) -> None:
    record = pair(place, "pages", [("image", 0), ("image", 1), ("image", 2)])
    place.run("openai", params(server, roles=["image"]), [record])
    place.run("openai", params(server), [record])
    assert [shown(request) for request in server.requests] == [[0, 1, 2], [0]]


def test_an_optional_picture_is_sent_where_there_is_one(place: Place, server: Server) -> None:
    records = [pair(place, "seen", [("image", 3)]), place.record("read")]
    rows = place.run("openai", params(server, optional_roles=["image"], concurrency=1), records)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [shown(request) for request in server.requests] == [[3], []]


def test_a_record_without_one_of_the_roles_is_set_aside_unasked(place: Place, server: Server) -> None:
    (row,) = place.run("openai", params(server, **PAIR), [pair(place, "half", [("source", 0), ("reference", 1)])])
    assert (row["reason"], row["message"]) == ("no target", "the record has no medium with the role 'target'")
    assert server.requests == []


def test_another_order_is_another_question_and_equal_pictures_are_one(place: Place, server: Server) -> None:
    records = [
        pair(place, "there", [("source", 0), ("target", 1)]),
        pair(place, "back", [("source", 1), ("target", 0)]),
        pair(place, "again", [("target", 1), ("source", 0)]),
    ]
    there, back, again = place.run("openai", params(server, **PAIR), records)
    assert there["caption"] == again["caption"] != back["caption"]
    assert sorted(shown(request) for request in server.requests) == [[0, 1], [1, 0]]


def test_one_picture_has_the_key_it_always_had(place: Place, server: Server) -> None:
    """Both keys were taken before there were roles: an answer that was paid for stays found."""
    ref = MediaRef("image", "file", "a.jpg", digest="ab" * 32)
    record = Record("0" * 32, (ref,), b"{}", {"title": "A cake"}, place.reader)
    expected = {"image": "0a832e9f30bdbab06aa5e83899801837", None: "52c629fcbf0ce175965f46732a65271d"}
    for role, key in expected.items():
        ways: list[dict[str, Any]] = [{"role": role}, {"roles": [role]} if role else {"optional_roles": ["mask"]}]
        for way in ways if role else [ways[0], {"role": None, **ways[1]}]:
            operator = OpenAI.build(params(server, inputs={"text": "title"}, **way))
            assert isinstance(operator, OpenAI)
            work = operator._prepare(record)
            assert not isinstance(work, Quarantine)
            assert work.question.key == key, way


def test_a_node_of_one_picture_has_the_fingerprint_it_always_had(server: Server) -> None:
    planned, _ = plan_operator("cap", "openai", params(server), {}, {})
    assert planned.fingerprint == "4b0df1c7ffa2e09515743572652d3f28"


def test_a_picture_that_changed_or_went_costs_its_record_alone(place: Place, server: Server) -> None:
    records = [pair(place, f"r{n}", [("source", 2 * n), ("target", 2 * n + 1)]) for n in range(3)]
    (place.root / "1.jpg").write_bytes(jpeg(9))
    (place.root / "3.jpg").unlink()
    rows = place.run("openai", params(server, **PAIR), records)
    assert [row["reason"] for row in rows] == ["changed since ingest", "unreadable medium", None]
    assert [shown(request) for request in server.requests] == [[4, 5]]


_CHILD = """
import sys, orjson
from pathlib import Path
from tests.pipeline.annotations.conftest import Place
from tests.pipeline.annotations.test_several_pictures import pairs
place = Place(Path(sys.argv[1]))
place.run("openai", orjson.loads(sys.argv[2]), pairs(place, int(sys.argv[3])))
"""


def pairs(place: Place, count: int) -> list[Record]:
    """Pairs that share their pictures with their neighbours: n with n + 1."""
    return [pair(place, f"r{n}", [("source", n), ("target", n + 1)]) for n in range(count)]


def test_a_killed_run_asks_about_no_pair_again(place: Place, server: Server) -> None:
    count, concurrency = 24, 3
    settings = params(server, **PAIR, concurrency=concurrency)

    def slowly(request: Request) -> Reply:
        reply = describe(request)
        reply.delay = 0.03
        return reply

    server.behave = slowly
    command = [sys.executable, "-c", _CHILD, str(place.root.parent), orjson.dumps(settings).decode(), str(count)]
    child = subprocess.Popen(command, cwd=Path.cwd(), start_new_session=True)
    while server.answered.total() < count // 2:
        assert child.poll() is None
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    while server.in_flight:
        time.sleep(0.01)
    kept = {answer.text for _, answer in stored(place.storage)}
    before = dict(server.asked)
    assert len(kept) >= count // 2 - concurrency
    rows = place.run("openai", settings, pairs(place, count))
    assert [row["status"] for row in rows] == ["ok"] * count
    assert len({row["caption"] for row in rows}) == count
    assert server.asked.total() <= count + concurrency
    for request in server.requests:
        if describe(request).body["choices"][0]["message"]["content"] in kept:  # type: ignore[index]
            assert server.asked[request.question] == before[request.question]
