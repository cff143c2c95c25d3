"""What a node does that has no server, and what it keeps of the source's text with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from catalog.errors import UserError
from catalog.report import gather
from catalog.report_text import render_text
from catalog.storage import open_storage
from catalog.view import open_view
from jobs.progress import show_status
from pipeline.annotations.openai import SOURCE_TEXT, OpenAI
from pipeline.plan import Plan
from tests.pipeline.runs import curate, entry, final_states, outcome_of, plan_of, write_manifest, write_picture

from .conftest import Place
from .stub import Reply, Request, Server, said
from .test_openai import params

NOBODY: dict[str, Any] = {"base_url": None, "model": None, "revision": None, "prompt": "caption_long/v1"}
GIVEN = "base_url: null, model: null, revision: null"

NODES = """
say: {annotate: openai, requires: base_url, params: {prompt: caption_short/v1, SERVER, otherwise: text}}
judge: {annotate: openai, needs: [say], requires: base_url,
        params: {into: verdict, prompt: query_check/v1, inputs: {question: text}, SERVER}}
judged: {measure: judgement, needs: [judge], requires: answer, params: {answer: verdict, flags: {vague: vague}}}
keep: {decide: rules, needs: [judged], rules: {clear: {keep: NOT vague, else: skip}}}
split: {decide: split, needs: [keep]}
encode: {encode: text_to_image, needs: [split], params: {prompt: caption, resolution: 128, provenance: [caption_by]}}
shards: {pack: webdataset, needs: [encode]}
"""


def planned(server: str = GIVEN, nodes: str = NODES) -> Plan:
    return plan_of(nodes.replace("SERVER", server))


def some_pictures(root: Path, count: int) -> None:
    for number in range(count):
        write_picture(root / f"files/{number:03d}.jpg", number, 160)
    write_manifest(root, [entry(number) for number in range(count)])


def test_the_text_is_copied_as_it_stands_and_labelled(place: Place) -> None:
    records = [place.record("a", title="  A cake,\nwith candles "), place.record("b", title=None)]
    one, none = place.run("openai", {**NOBODY, "into": "words", "otherwise": "title"}, records)
    names = ("words", "words_by", "words_prompt", "words_finish", "words_tokens")
    assert [one[name] for name in names] == ["  A cake,\nwith candles ", SOURCE_TEXT, None, "stop", None]
    assert (none["status"], none["reason"], none["message"]) == (
        "quarantined", "nothing to say", "title has no text to copy",
    )  # fmt: skip


def test_a_stand_in_asks_for_nothing(tmp_path: Path) -> None:
    operator = OpenAI.build({**NOBODY, "otherwise": "title", "max_requests": 1, "inputs": {"text": "other"}})
    assert (operator.missing, operator.needs_network, operator.refuse(10**6)) == (None, False, None)
    assert operator.reads == ("title",)
    assert operator.embedded == (SOURCE_TEXT,)
    assert operator.stands_in == "no base_url given: the text is that of 'title'"
    operator.preflight(open_storage(str(tmp_path / "store")))
    operator.setup()


def test_with_a_server_nothing_stands_in(place: Place, server: Server) -> None:
    operator = OpenAI.build(params(server, otherwise="title"))
    assert (operator.stands_in, operator.embedded, operator.reads) == (None, (), ())
    server.behave = lambda request: Reply(400)
    (row,) = place.run("openai", params(server, otherwise="title"), place.pictures(1, title="A cake"))
    assert (row["status"], row["reason"]) == ("quarantined", "refused by the server")


def test_a_key_that_is_not_there_is_missed_and_not_stood_in_for(server: Server) -> None:
    operator = OpenAI.build(params(server, otherwise="title", api_key_env="MY_KEY"))
    assert operator.missing == "the environment variable MY_KEY is not set (api_key_env)"
    assert operator.stands_in is None


def test_plan_says_what_will_not_run_what_stands_in_and_which_rules_are_skipped() -> None:
    nodes = planned().nodes
    assert nodes["say"].missing is None
    assert nodes["say"].notes == ("nodes.say: no base_url given: the text is that of 'text'",)
    assert nodes["judge"].missing == "no base_url given"
    assert nodes["judged"].missing == "'verdict' of judge is missing (no base_url given)"
    assert [rule.branch for rule in nodes["keep"].rules] == ["skip"]
    with_server = planned("base_url: http://127.0.0.1:1/v1, model: tiny, revision: r1").nodes
    assert [node.name for node in with_server.values() if node.missing or node.notes] == []
    assert {name for name in nodes if nodes[name].fingerprint != with_server[name].fingerprint} >= {"say", "encode"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            "a: {annotate: openai, params: {prompt: caption_short/v1}}",
            "R: nodes.a: openai cannot run: no base_url given; write `requires:` if rules have an `else`",
        ),
        (
            "a: {annotate: openai, requires: base_url, params: {prompt: caption_short/v1}}\n"
            "b: {encode: text_to_image, needs: [a], params: {prompt: caption, resolution: 128}}",
            "R: nodes.b: reads 'caption' of a, which cannot run: no base_url given",
        ),
        (
            "a: {annotate: openai, requires: base_url, params: {prompt: query_check/v1}}\n"
            "b: {measure: judgement, needs: [a], params: {answer: caption, flags: {vague: vague}}}",
            "R: nodes.b: reads 'caption' of a, which cannot run: no base_url given",
        ),
        (
            "a: {annotate: openai, requires: base_url, params: {prompt: query_check/v1}}\n"
            "b: {measure: judgement, needs: [a], requires: flags, params: {answer: caption, flags: {vague: vague}}}",
            "R: nodes.b: reads 'caption' of a, which cannot run: no base_url given",
        ),
        (
            "a: {annotate: openai, params: {prompt: caption_short/v1, otherwise: nothing}}",
            "R: nodes.a: openai reads 'nothing', which no node above writes",
        ),
        (
            "a: {annotate: openai, params: {prompt: caption_short/v1, base_url: 'http://127.0.0.1:1/v1'}}",
            "R: nodes.a.params: a server is asked for a model by name: write `model` and `revision` beside `base_url`",
        ),
    ],
)
def test_what_cannot_be_right_without_a_server_is_refused(nodes: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(nodes)
    assert str(caught.value) == message


def test_catalog_card_status_and_report_say_what_stood_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some_pictures(tmp_path / "root", 4)
    finished = curate(planned(), tmp_path / "root", tmp_path / "store")
    assert finished.embedded == ("embedded-bpe", "patch-vq", SOURCE_TEXT)
    assert {state for state, _ in final_states(tmp_path / "store").values()} == {"kept"}
    view = open_view(str(tmp_path / "store"))
    card = next(iter(view.cards("tiny").values()))
    assert card.embedded == ["embedded-bpe", "patch-vq", SOURCE_TEXT]
    told = render_text(gather(view, "tiny"), "store").splitlines()
    assert "stand-ins, not the real model: embedded-bpe, patch-vq, source text" in told
    assert "annotations by: source text" in told
    assert "node say: no base_url given: the text is that of 'text'" in told
    assert "node judge did not run: no base_url given" in told
    capsys.readouterr()
    show_status(str(tmp_path / "store"))
    assert "say: no base_url given: the text is that of 'text'" in capsys.readouterr().out


# -- only where the model says so --------------------------------------------------------------------------------------

CHECKED = {"prompt": "query_check/v1", "role": None, "inputs": {"question": "question"}, "otherwise": "question"}
REWRITTEN = {**CHECKED, "into": "asked", "take": "rewritten", "only_if": "ambiguous"}


def checks(request: Request) -> Reply:
    """A model that finds `it` ambiguous, cannot make up its mind of `they`, and writes nothing for `she`."""
    question = request.text.partition('The question: "')[2].partition('"')[0]
    told = {"vague": False, "ambiguous": "it" in question, "rewritten": "What is the red thing?"}
    if question == "they":
        told["ambiguous"] = "perhaps"
    if question == "she":
        told |= {"ambiguous": True, "rewritten": " "}
    return Reply(body=said(json.dumps(told)))


def test_the_source_text_stays_as_it_stands_where_the_model_would_not_change_it(place: Place, server: Server) -> None:
    server.behave = checks
    records = [place.record(text, question=text) for text in ("it", "Is A\n  or B true?", "they", "she")]
    changed, same, unsure, empty = place.run("openai", params(server, **REWRITTEN), records)
    label = changed["asked_prompt"]
    assert label.startswith("query_check/v1#")
    assert (changed["asked"], changed["asked_by"]) == ("What is the red thing?", "openai:tiny@r1")
    assert (same["asked"], same["asked_by"]) == ("Is A\n  or B true?", SOURCE_TEXT)
    assert (same["asked_prompt"], same["asked_finish"], same["asked_tokens"]) == (label, "stop", 5)
    assert (unsure["reason"], unsure["message"]) == ("unparseable answer", "'ambiguous' is neither true nor false")
    assert (empty["reason"], empty["message"]) == ("unparseable answer", "'rewritten' is not a text")


def test_two_nodes_that_take_other_parts_of_one_answer_ask_once(place: Place, server: Server) -> None:
    server.behave = checks
    record = place.record("r", question="it")
    (whole,) = place.run("openai", params(server, **CHECKED), [record])
    (part,) = place.run("openai", params(server, **REWRITTEN), [record])
    assert orjson.loads(whole["caption"])["rewritten"] == part["asked"]
    assert len(server.requests) == 1


def test_a_question_is_dropped_for_being_vague_or_encoded_as_rewritten(server: Server, tmp_path: Path) -> None:
    def judge(request: Request) -> Reply:
        told = {"vague": '"1"' in request.text, "ambiguous": '"2"' in request.text, "rewritten": "Which?"}
        return Reply(body=said(json.dumps(told)))

    server.behave = judge
    some_pictures(tmp_path / "root", 3)
    given = f"base_url: {server.url}, model: tiny, revision: r1, backoff: 0.01, role: null"
    say = "params: {prompt: caption_short/v1, SERVER, otherwise: text}"
    better = (
        "params: {into: caption, prompt: query_check/v1, inputs: {question: text}, take: rewritten, "
        "only_if: ambiguous, otherwise: text, SERVER}"
    )
    plan = planned(given, NODES.replace(say, better))
    curate(plan, tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store") == {
        "p000": ("kept", None), "p001": ("dropped", "clear"), "p002": ("kept", None),
    }  # fmt: skip
    said_by = outcome_of(tmp_path / "store", plan, "say").sort("caption").select("caption", "caption_by").rows()
    assert ("Which?", "openai:tiny@r1") in said_by
    assert [by for _, by in said_by].count(SOURCE_TEXT) == 2
    assert len(server.requests) == 3
