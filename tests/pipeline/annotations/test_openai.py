from __future__ import annotations

import base64
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pydantic import ValidationError

from catalog.errors import UserError
from catalog.keys import canonical, key_of
from pipeline.annotations import openai as module
from pipeline.annotations.answers import Answer, keep, stored
from pipeline.annotations.client import Client, told_revision
from pipeline.annotations.openai import OpenAI
from pipeline.annotations.prompt import SHIPPED, load_prompt
from pipeline.annotations.sent import sent_jpeg
from pipeline.media import MediaRef
from pipeline.operator import Column, Quarantine, Record
from pipeline.plan import plan_operator, resolve
from pipeline.recipe import INGEST, Recipe

from .conftest import Place, jpeg
from .stub import Reply, Request, Server, describe, said

JSON_PROMPT = {
    "name": "judge",
    "version": 2,
    "user": ["Judge it."],
    "schema": {"type": "object", "required": ["caption"], "properties": {"caption": {"type": "string"}}},
}


def params(server: Server, **changes: Any) -> dict[str, Any]:
    return {
        "base_url": server.url,
        "model": "tiny",
        "revision": "r1",
        "prompt": "caption_short/v1",
        "concurrency": 4,
        "timeout": 5,
        "backoff": 0.01,
        **changes,
    }


def build(server: Server, **changes: Any) -> OpenAI:
    operator = OpenAI.build(params(server, **changes))
    assert isinstance(operator, OpenAI)
    return operator


@pytest.fixture
def ready(server: Server) -> Iterator[Any]:
    """Operators that are set up, and closed afterwards."""
    made: list[OpenAI] = []

    def make(**changes: Any) -> OpenAI:
        operator = build(server, **changes)
        operator.setup()
        made.append(operator)
        return operator

    yield make
    for operator in made:
        operator.close()


# -- what comes of a record --------------------------------------------------------------------------------------------


def test_every_record_gets_the_answer_about_its_own_picture_in_order(place: Place, server: Server) -> None:
    def slowest_first(request: Request) -> Reply:
        reply = describe(request)
        reply.delay = max(0.0, 0.2 - 0.01 * len(server.requests))
        return reply

    server.behave = slowest_first
    records = place.pictures(20)
    rows = place.run("openai", params(server), records)
    assert [row["status"] for row in rows] == ["ok"] * 20
    assert len({row["caption"] for row in rows}) == 20
    assert 1 < server.most_in_flight <= 4
    # The stub's text holds a digest of the request, so each can be checked against the picture that was asked about.
    expected = {request.jpeg: describe(request).body["choices"][0]["message"]["content"] for request in server.requests}  # type: ignore[index]
    for i, row in enumerate(rows):
        assert row["caption"] == expected[sent_jpeg(jpeg(i), 1024, 90)]


def test_an_answer_is_stored_with_who_gave_it_to_what_and_how(place: Place, server: Server) -> None:
    server.behave = lambda request: Reply(body=said(" a cake \n", system_fingerprint="fp1"))
    (record,) = place.pictures(1, title="A birthday")
    settings = params(server, inputs={"text": "title"}, temperature=0.5, seed=7, max_tokens=99, extra={"top_k": 3})
    (row,) = place.run("openai", {**settings, "into": "words"}, [record])
    assert row["words"] == "a cake"
    assert row["words_by"] == "openai:tiny@r1"
    assert row["words_prompt"].startswith("caption_short/v1#")
    assert (row["words_finish"], row["words_tokens"]) == ("stop", 5)
    ((asked, answer),) = stored(place.storage)
    assert answer == Answer(" a cake \n", "stop", 10, 5, "tiny", "fp1")
    assert asked["prompt"] == row["words_prompt"]
    assert (asked["provider"], asked["model"], asked["revision"]) == ("openai", "tiny", "r1")
    assert asked["sampling"] == {"temperature": 0.5, "top_p": 1.0, "seed": 7, "max_tokens": 99, "extra": {"top_k": 3}}
    assert asked["media"] == [record.media[0].digest]


def test_the_request_says_what_the_recipe_says(place: Place, server: Server) -> None:
    (record,) = place.pictures(1, title="A birthday")
    place.run("openai", params(server, inputs={"text": "title"}, seed=7, extra={"top_k": 3}, max_side=24), [record])
    body = server.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert 'The source says of it: "A birthday"' in server.requests[0].text
    assert (body["model"], body["seed"], body["temperature"], body["top_p"]) == ("tiny", 7, 0.0, 1.0)
    assert (body["max_tokens"], body["top_k"]) == (512, 3)
    assert "response_format" not in body
    place.run(
        "openai",
        params(server, prompt=JSON_PROMPT, role=None, seed=None, token_limit_name="max_completion_tokens"),
        [record],
    )
    body = server.requests[1].body
    assert "seed" not in body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 512
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Judge it."}]}]
    assert body["response_format"]["json_schema"]["schema"] == JSON_PROMPT["schema"]


def test_a_picture_is_sent_upright_and_no_larger_than_said() -> None:
    import io

    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.fromarray(np.zeros((64, 128, 3), np.uint8)).save(out, "PNG", exif=exif)
    sizes = {side: Image.open(io.BytesIO(sent_jpeg(out.getvalue(), side, 90))).size for side in (32, 100, 1024)}
    assert sizes == {32: (16, 32), 100: (50, 100), 1024: (64, 128)}
    assert sent_jpeg(out.getvalue(), 50, 90) == sent_jpeg(out.getvalue(), 50, 90)
    thin = io.BytesIO()
    Image.fromarray(np.zeros((1, 3000, 3), np.uint8)).save(thin, "PNG")
    assert Image.open(io.BytesIO(sent_jpeg(thin.getvalue(), 1024, 90))).size == (1024, 1)


def test_one_bad_record_costs_its_neighbours_nothing(place: Place, server: Server) -> None:
    bad = sent_jpeg(jpeg(3), 1024, 90)
    server.behave = lambda request: (
        Reply(400, {"error": {"type": "BadRequestError"}}) if request.jpeg == bad else describe(request)
    )
    records = place.pictures(8)
    (place.root / "5.jpg").unlink()
    (place.root / "6.jpg").write_bytes(b"another file")
    records.append(place.record("broken", (place.picture("broken.jpg", b"\xff\xd8\xff no"),)))
    records.append(place.record("none", ()))
    rows = place.run("openai", params(server), records)
    assert {i: (row["reason"], row["message"]) for i, row in enumerate(rows) if row["status"] != "ok"} == {
        3: ("refused by the server", "400 Bad Request (BadRequestError)"),
        5: ("unreadable medium", "No such file or directory"),
        6: ("changed since ingest", "the picture is not the one whose digest the catalog holds"),
        8: (rows[8]["reason"], rows[8]["message"]),
        9: ("no image", "the record has no medium with the role 'image'"),
    }
    assert rows[8]["reason"] in {"broken image", "truncated image"}
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"caption": "a ca', "not JSON at character"),
        ('```json\n{"caption": "a"}\n```', "not JSON at character"),
        ('{"caption": "a\nb"}', "not JSON at character"),
        ('{"caption": NaN}', "not JSON at character"),
        ('["caption"]', "not a JSON object"),
        ('{"text": "a"}', "'caption' is missing"),
        ('{"caption": 7}', "'caption' is not a text"),
        ('{"caption": " "}', "'caption' is not a text"),
    ],
)
def test_an_answer_that_is_not_the_json_asked_for_is_data(
    place: Place, server: Server, text: str, message: str
) -> None:
    server.behave = lambda request: Reply(body=said(text))
    (record,) = place.pictures(1)
    settings = params(server, prompt={**JSON_PROMPT, "take": "caption"})
    (row,) = place.run("openai", settings, [record])
    assert (row["status"], row["reason"]) == ("quarantined", "unparseable answer")
    assert message in row["message"]
    place.run("openai", settings, [record])
    assert len(server.requests) == 1, "a bad answer is an answer: it is kept and not asked for again"


def test_json_answers_become_canonical_text_or_the_name_that_is_taken(place: Place, server: Server) -> None:
    server.behave = lambda request: Reply(body=said(' {"z": 1, "caption": "a cake "}\n'))
    (record,) = place.pictures(1)
    (whole,) = place.run("openai", params(server, prompt=JSON_PROMPT), [record])
    (taken,) = place.run("openai", params(server, prompt={**JSON_PROMPT, "take": "caption"}), [record])
    assert whole["caption"] == '{"caption":"a cake ","z":1}'
    assert taken["caption"] == "a cake"


def test_cut_and_empty_answers_say_so(place: Place, server: Server) -> None:
    def answer(text: str | None, finish: str) -> None:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        server.behave = lambda request: Reply(body=said("", choices=[choice], usage=None))

    (record,) = place.pictures(1)
    answer("a cake and", "length")
    (row,) = place.run("openai", params(server, seed=1), [record])
    assert (row["caption"], row["caption_finish"], row["caption_tokens"]) == ("a cake and", "length", None)
    answer(None, "content_filter")
    (row,) = place.run("openai", params(server, seed=2), [record])
    assert (row["reason"], row["message"]) == ("empty answer", "the model wrote nothing (finish: content_filter)")
    answer('{"caption": "a', "length")
    (row,) = place.run("openai", params(server, prompt=JSON_PROMPT), [record])
    assert row["message"].endswith("cut at max_tokens")


@pytest.mark.parametrize(
    "changes", [{"choices": []}, {"choices": None}, {"choices": [{"message": {"content": 7}}]}, {"usage": 3}]
)
def test_an_answer_of_another_shape_sets_the_record_aside(
    place: Place, server: Server, changes: dict[str, Any]
) -> None:
    server.behave = lambda request: Reply(body=said("x", **changes))
    (row,) = place.run("openai", params(server), place.pictures(1))
    assert (row["reason"], row["message"]) == ("no answer from the server", "its answer is not a chat completion")


def test_failures_that_pass_leave_no_trace_in_the_result(place: Place, server: Server) -> None:
    def flaky(request: Request) -> Reply:
        faults = [Reply(500), Reply(429, headers={"Retry-After": "0"}), Reply(body=b"{", hang_up=1)]
        return faults[request.nth - 1] if request.nth <= 3 else describe(request)

    records = place.pictures(6)
    calm = place.run("openai", params(server), records)
    first = dict(server.asked)
    for name, _ in list(place.storage.list("answers/")):
        place.storage.delete(name)
    server.asked.clear()
    server.behave = flaky
    assert place.run("openai", params(server, attempts=6), records) == calm
    assert server.asked == {question: 4 * count for question, count in first.items()}


# -- asked once --------------------------------------------------------------------------------------------------------


def test_what_was_answered_is_never_asked_again(place: Place, server: Server) -> None:
    records = place.pictures(10)
    first = place.run("openai", params(server), records[:6])
    # Neither another worker, nor other ways of asking, nor another column make it another question.
    other = params(server, concurrency=2, timeout=9, attempts=1, into="story", base_url=server.url + "/")
    again = place.run("openai", other, records)
    assert [row["story"] for row in again[:6]] == [row["caption"] for row in first]
    assert set(server.asked.values()) == {1}
    assert len(server.requests) == 10


def test_another_seed_is_another_question_and_the_same_seed_the_same(place: Place, server: Server) -> None:
    records = place.pictures(2)
    one, two, again = (place.run("openai", params(server, seed=seed), records) for seed in (1, 2, 1))
    assert one == again
    assert [row["caption"] for row in one] != [row["caption"] for row in two]
    assert len(server.requests) == 4


def test_records_with_the_same_picture_share_one_answer(place: Place, server: Server) -> None:
    ref = place.picture("a.jpg", jpeg(1))
    records = [place.record(f"r{i}", (ref,)) for i in range(12)]
    rows = place.run("openai", params(server), records)
    assert len({row["caption"] for row in rows}) == 1
    assert len(server.requests) == 1


def test_a_picture_without_a_digest_is_recognised_by_its_bytes(place: Place, server: Server) -> None:
    place.run("openai", params(server), place.pictures(1))
    place.run("openai", params(server), [place.record("x", (MediaRef("image", "file", "0.jpg"),))])
    assert len(server.requests) == 1


def test_of_two_workers_that_ask_at_once_both_use_what_was_stored_first(
    place: Place, server: Server, ready: Any
) -> None:
    operator = ready()
    (record,) = place.pictures(1)
    question = operator._prepare(record).question

    def overtaken(request: Request) -> Reply:
        keep(place.storage, question, Answer("the first one", "stop", 1, 1))
        return describe(request)

    server.behave = overtaken
    assert operator.process(record)[0] == "the first one"
    assert len(list(stored(place.storage))) == 1


_CHILD = """
import sys, orjson
from pathlib import Path
from tests.pipeline.annotations.conftest import Place
place = Place(Path(sys.argv[1]))
place.run("openai", orjson.loads(sys.argv[2]), place.pictures(int(sys.argv[3])))
"""


def test_a_killed_run_goes_on_without_asking_again(place: Place, server: Server) -> None:
    count, concurrency = 60, 4
    settings = params(server, concurrency=concurrency)
    calm = place.run("openai", settings, place.pictures(count))
    for name, _ in list(place.storage.list("answers/")):
        place.storage.delete(name)
    server.asked.clear()
    server.answered.clear()

    def slowly(request: Request) -> Reply:
        reply = describe(request)
        reply.delay = 0.03
        return reply

    server.behave = slowly
    kills = 0
    for enough in (5, 21, 40):
        command = [sys.executable, "-c", _CHILD, str(place.root.parent), orjson.dumps(settings).decode(), str(count)]
        child = subprocess.Popen(command, cwd=Path.cwd(), start_new_session=True)
        while server.answered.total() < enough:
            assert child.poll() is None
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
        while server.in_flight:
            time.sleep(0.01)
    kept = {answer.text for _, answer in stored(place.storage)}
    before = dict(server.asked)
    assert len(kept) >= 40 - kills * concurrency
    assert place.run("openai", settings, place.pictures(count)) == calm
    # Only what was on its way when a worker died could not be stored.
    assert server.asked.total() <= count + kills * concurrency
    for request in server.requests:
        if describe(request).body["choices"][0]["message"]["content"] in kept:  # type: ignore[index]
            assert server.asked[request.question] == before[request.question]


# -- configuration -----------------------------------------------------------------------------------------------------


def test_preflight_accepts_the_model_that_is_served(place: Place, server: Server) -> None:
    build(server).preflight(place.storage)
    assert server.requests == []


@pytest.mark.parametrize(
    ("changes", "models", "message"),
    [
        ({"model": "huge"}, None, "does not serve model 'huge'; it serves: tiny"),
        ({"revision": "r2"}, None, "serves tiny at revision 'r1', the recipe declares 'r2'"),
        ({}, {"data": []}, "does not serve model 'tiny'; it serves: none"),
        ({}, {"data": [{"id": "tiny", "revision": "abc"}]}, "at revision 'abc'"),
        ({}, {"data": [{"id": "tiny", "root": "/hub/models--o--t/snapshots/abc"}]}, "at revision 'abc'"),
    ],
)
def test_preflight_stops_a_run_against_another_model(
    place: Place, server: Server, changes: dict[str, Any], models: Any, message: str
) -> None:
    if models is not None:
        server.models = Reply(body=models)
    with pytest.raises(UserError, match=message):
        build(server, **changes).preflight(place.storage)
    assert server.requests == []


@pytest.mark.parametrize(
    ("entry", "revision"),
    [
        ({"revision": "abc"}, "abc"),
        ({"root": "org/model@abc"}, "abc"),
        ({"root": "/x/snapshots/abc/"}, "abc"),
        ({"root": "org/model"}, None),
        ({"root": "/data@home/model"}, None),
        ({"root": None, "revision": None}, None),
        ({}, None),
    ],
)
def test_the_revision_a_server_tells_is_found(entry: dict[str, Any], revision: str | None) -> None:
    assert told_revision(entry) == revision


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(401), "401 Unauthorized"),
        (Reply(404), "404 Not Found"),
        (Reply(body=said("x", model="tiny-2024")), "model 'tiny-2024' answered for 'tiny'"),
    ],
)
def test_a_wrong_configuration_stops_the_node_and_no_record_is_blamed(
    place: Place, server: Server, ready: Any, reply: Reply, message: str
) -> None:
    server.behave = lambda request: reply
    with pytest.raises(UserError, match=message):
        ready().process_batch(place.pictures(12))
    assert len(server.requests) <= 4
    assert list(stored(place.storage)) == []


def test_answers_that_were_on_their_way_when_a_run_stops_are_kept(place: Place, server: Server, ready: Any) -> None:
    def behave(request: Request) -> Reply:
        if len(server.requests) == 4:
            return Reply(404)
        reply = describe(request)
        reply.delay = 0.3
        return reply

    server.behave = behave
    with pytest.raises(UserError, match="404"):
        ready(concurrency=4).process_batch(place.pictures(12))
    assert len(list(stored(place.storage))) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "write an address like"),
        ({"base_url": "http://user:pass@host/v1"}, "an address holds no user"),
        ({"base_url": "http://host/v1?api_key=x"}, "an address holds no user"),
        ({"api_key_env": "sk-abcdef"}, "the key itself belongs there"),
        ({"extra": {"model": "x"}}, "'model' is set by the factory"),
        ({"extra": {"stream": True}}, "'stream' is set by the factory"),
        ({"inputs": {"txt": "text"}}, "has no gap 'txt'; there are: text"),
        ({"prompt": "nope/v1"}, "there is no prompt 'nope/v1'"),
        ({"prompt": {"name": "x", "version": 1, "user": ["{text}"]}}, "would be asked nothing"),
        ({"revision": ""}, "at least 1 character"),
        ({"temperature": float("nan")}, "less than or equal to 2"),
        ({"tempurature": 1}, "Extra inputs"),
        ({"model": None}, "write `model` and `revision` beside `base_url`"),
        ({"roles": ["a"], "role": "b"}, "write `role` or `roles`, not both"),
        ({"roles": ["a", "b"], "optional_roles": ["a"]}, "a role stands twice"),
        ({"take": "caption"}, "take: prompt caption_short asks for no 'caption'; there are: none"),
        ({"prompt": JSON_PROMPT, "only_if": "sure"}, "only_if: prompt judge asks for no 'sure'; there are: caption"),
        ({"prompt": JSON_PROMPT, "only_if": "caption"}, "only_if: write `otherwise`"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused(server: Server, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build(server, **changes)


def test_a_key_in_the_wrong_place_is_not_repeated(server: Server) -> None:
    with pytest.raises(UserError) as caught:
        plan_operator("cap", "openai", params(server, api_key_env="sk-secret"), {}, {})
    assert "sk-secret" not in str(caught.value)
    assert "nodes.cap.params.api_key_env" in str(caught.value)


def test_only_what_decides_an_answer_is_in_the_fingerprint(server: Server, tmp_path: Path) -> None:
    def of(**changes: Any) -> str:
        visible = {"title": (INGEST, Column("title", pa.string(), "a title"))}
        return plan_operator("cap", "openai", params(server, **changes), {}, visible)[0].fingerprint

    copy = tmp_path / "copy.yaml"
    copy.write_text((SHIPPED / "caption_short.yaml").read_text().replace("about: ", "about: Copied. "))
    same: list[dict[str, Any]] = [
        {"base_url": "http://127.0.0.1:1/v1"},
        {"concurrency": 9},
        {"timeout": 1},
        {"attempts": 1},
        {"backoff": 3},
        {"max_wait": 3},
        {"api_key_env": None},
        {"max_requests": 5},
        {"max_total_tokens": 5},
        {"token_limit_name": "max_completion_tokens"},
        {"otherwise": "title"},
        {"prompt": str(copy)},
        {"prompt": load_prompt(str(copy)).model_dump(by_alias=True)},
    ]
    other: list[dict[str, Any]] = [
        {"into": "x"},
        {"model": "m"},
        {"revision": "x"},
        {"prompt": "caption_long/v1"},
        {"role": None},
        {"max_side": 64},
        {"quality": 1},
        {"temperature": 1},
        {"top_p": 0.5},
        {"seed": 1},
        {"max_tokens": 1},
        {"extra": {"top_k": 1}},
        {"roles": ["image"]},
        {"optional_roles": ["more"]},
        {"prompt": JSON_PROMPT},
        {"prompt": JSON_PROMPT, "take": "caption"},
        {"prompt": JSON_PROMPT, "only_if": "caption", "otherwise": "title"},
        {"base_url": None, "otherwise": "title"},
    ]
    assert {of(**change) for change in same} == {of()}
    assert len({of(), *(of(**change) for change in other)}) == 1 + len(other)
    names = {name for change in [*same, *other] for name in change} | {"inputs"}
    assert names == set(module.OpenAIParams.model_fields), "every parameter is on one of the two sides"


def test_the_columns_that_fill_the_gaps_are_read(server: Server) -> None:
    assert build(server, inputs={"text": "title"}).reads == ("title",)
    assert build(server).reads == ()


def test_a_server_beyond_this_machine_needs_the_network(server: Server) -> None:
    assert not build(server).needs_network
    assert build(server, base_url="https://api.example.org/v1").needs_network


def test_plan_wants_the_network_allowed_for_such_a_server(server: Server) -> None:
    def plan(**node: Any) -> Any:
        settings = params(server, base_url="https://api.example.org/v1", api_key_env=None)
        source = {"kind": "jsonl", "manifest": "m.jsonl", "map": {"id": "id"}, "media": {"image": "file"}}
        nodes = {"cap": {"annotate": "openai", "params": settings, **node}}
        recipe = {"version": 1, "corpus": "c", "sources": {"s": source}, "nodes": nodes}
        return resolve(Recipe.model_validate(recipe), "r.yaml")

    with pytest.raises(UserError, match=r"nodes.cap: openai uses the network; write `network: true`"):
        plan()
    assert plan(network=True).nodes["cap"].missing is None


def test_a_promised_key_that_is_not_there_is_missed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    away = "https://api.example.org/v1"
    assert build(server).missing is None
    assert build(server, base_url=away, api_key_env=None).missing is None
    assert build(server, base_url=away).missing == "the environment variable OPENAI_API_KEY is not set (api_key_env)"
    assert build(server, api_key_env="MY_KEY").missing is not None
    with pytest.raises(UserError, match="MY_KEY is not set"):
        build(server, api_key_env="MY_KEY").setup()
    monkeypatch.setenv("MY_KEY", "  ")
    assert build(server, api_key_env="MY_KEY").missing is not None
    monkeypatch.setenv("MY_KEY", "k")
    assert build(server, api_key_env="MY_KEY").missing is None
    monkeypatch.setenv("MY_KEY", "kä")
    with pytest.raises(UserError, match="MY_KEY holds no key: it has odd characters"):
        build(server, api_key_env="MY_KEY").setup()


# -- the budget --------------------------------------------------------------------------------------------------------


def test_too_many_records_are_refused_before_anything_is_asked(server: Server) -> None:
    operator = build(server, max_requests=10, max_total_tokens=2048, max_tokens=256)
    assert operator.refuse(8) is None
    assert operator.refuse(9) == ("9 records of up to max_tokens 256 need up to 2304 tokens, max_total_tokens is 2048")
    assert operator.refuse(11) == "11 records need 11 requests, max_requests is 10"
    assert build(server).refuse(10**9) is None


def test_a_budget_of_exactly_the_records_lets_them_all_through(place: Place, server: Server) -> None:
    settings = params(server, max_requests=20, max_total_tokens=20 * 512 + 20 * 10)
    records = place.pictures(20)
    build(server, **settings).preflight(place.storage)
    rows = place.run("openai", settings, records[:9]) + place.run("openai", settings, records[9:])
    assert {row["status"] for row in rows} == {"ok"}
    operator = build(server, **settings)
    budget = operator._budget(place.storage)
    assert budget is not None
    assert (budget.spent.requests, budget.spent.tokens) == (20, 20 * 15)


def test_a_worker_stops_when_other_workers_used_the_budget_up(place: Place, server: Server, ready: Any) -> None:
    settings = {"max_requests": 10, "concurrency": 2}
    records = place.pictures(14)
    one, two = ready(**settings), ready(**settings)
    one.preflight(place.storage)
    one.process_batch(records[:7])
    with pytest.raises(UserError, match=r"budget of this run is used up \(max_requests 10"):
        two.process_batch(records[7:])
    assert len(server.requests) == 10
    assert len(list(stored(place.storage))) == 10
    # Another run has a budget of its own, and asks what is left.
    one.preflight(place.storage)
    assert len(two.process_batch(records)) == 14
    assert set(server.asked.values()) == {1}


def test_further_attempts_count(place: Place, server: Server, ready: Any) -> None:
    server.behave = lambda request: Reply(500)
    with pytest.raises(UserError, match="budget is used up"):
        ready(max_requests=3, attempts=9, concurrency=1).process_batch(place.pictures(1))
    assert len(server.requests) == 3


def test_what_is_stored_or_never_sent_costs_nothing(place: Place, server: Server, ready: Any) -> None:
    operator = ready(max_requests=2, max_total_tokens=10_000)
    operator.preflight(place.storage)
    (good,) = place.pictures(1)
    broken = place.record("broken", (place.picture("broken.jpg", b"\xff\xd8\xff no"),))
    for _ in range(3):
        rows = operator.process_batch([good, broken])
        assert isinstance(rows[1], Quarantine)
    spent = operator._budget(place.storage).spent
    assert (spent.requests, spent.tokens) == (1, 15)


# -- the secret --------------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_file_no_log_and_no_message(
    place: Place,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = "sk-Th1s-Is-A-Secret"
    monkeypatch.setenv("MY_KEY", secret)
    caplog.set_level(logging.DEBUG)

    def repeat(request: Request) -> Reply:
        assert request.headers["Authorization"] == f"Bearer {secret}"
        error = {"error": {"message": f"key {secret} said {request.text}", "type": secret, "code": secret}}
        number = len(server.requests)
        return [
            describe(request),
            Reply(400, error),
            Reply(422, error),
            Reply(500, error),
            Reply(body=b"{" + secret.encode()),
        ][number % 5]

    server.behave = repeat
    settings = params(server, api_key_env="MY_KEY", attempts=2, max_requests=500)
    build(server, **settings).preflight(place.storage)
    rows = place.run("openai", settings, place.pictures(20))
    assert {row["status"] for row in rows} == {"ok", "quarantined"}
    messages = []
    for status in (401, 403, 404, 429):
        server.behave = lambda request, status=status: Reply(status, {"error": {"message": secret, "code": secret}})  # type: ignore[misc]
        operator = build(server, **{**settings, "seed": status})
        operator.setup()
        with pytest.raises(UserError) as caught:
            operator.process_batch(place.pictures(1))
        messages.append(str(caught.value))
        operator.close()
    planned, _ = plan_operator("cap", "openai", settings, {}, {})
    output = capfd.readouterr()
    told = [*messages, caplog.text, output.out, output.err, str(rows), repr(planned), repr(operator.params)]
    assert caplog.text, "the HTTP library does log at this level"
    assert not [text for text in told if secret in text]
    files = [path for path in place.store.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    # Parquet pages may be compressed; what they hold was looked at as rows.
    assert base64.b64encode(secret.encode()) not in b"".join(path.read_bytes() for path in files)


# -- the contract with the worker --------------------------------------------------------------------------------------


def test_alone_or_in_a_batch_a_record_has_the_same_values(place: Place, server: Server, ready: Any) -> None:
    operator = ready()
    records = place.pictures(5)
    alone = [operator.process(record) for record in records]
    assert operator.process_batch(records) == alone
    with pytest.raises(Quarantine, match="no medium"):
        operator.process(place.record("none", ()))
    assert operator.process_batch([]) == []


def test_a_batch_has_the_time_its_slowest_questions_may_take(server: Server) -> None:
    operator = build(server, concurrency=3, timeout=10, attempts=2, max_wait=5)
    assert operator.batch == 12
    assert operator.time_limit >= 4 * 2 * (10 + 5)


def test_records_are_read_from_any_json_value(place: Place, server: Server) -> None:
    record = Record(key_of(b"x"), place.pictures(1)[0].media, canonical({}), {"width": 640.0}, place.reader)
    prompt = {"name": "p", "version": 1, "user": ["Look.", "It is {w} wide."]}
    operator = build(server, prompt=prompt, inputs={"w": "width"})
    work = operator._prepare(record)
    assert not isinstance(work, Quarantine)
    assert work.text == "Look.\n\nIt is 640 wide."


def test_nothing_heavy_is_imported_before_a_server_is_asked() -> None:
    code = (
        "import sys, pipeline.annotations.openai; print([m for m in ('httpx', 'tenacity', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_client_is_opened_only_by_setup(server: Server) -> None:
    operator = build(server)
    assert operator._client is None
    operator.setup()
    assert isinstance(operator._client, Client)
    operator.close()
    assert operator._client is None
