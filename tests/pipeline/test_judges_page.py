"""The nodes of docs/corpora/understanding-judges.md: every finding ends a record as the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.audit import audit
from catalog.view import open_view
from model.grammar import check
from pipeline import worker
from pipeline.plan import Plan
from tests.pipeline.annotations.stub import Reply, Request, Server, said, serve
from tests.pipeline.runs import curate, final_states, outcome_of, plan_of, write_manifest, write_picture

PAGE = Path(__file__).parents[2] / "docs" / "corpora" / "understanding-judges.md"
SOURCE: dict[str, Any] = {
    "kind": "jsonl",
    "manifest": "manifest.jsonl",
    "map": {"id": "id", "question": "question", "answer": "answer", "licence": "licence"},
    "media": {"image": "file"},
}
AROUND = """
header: {{measure: header}}
{nodes}
encode: {{encode: understanding, needs: [turns], params: {{prompt: asked, answer: answer, provenance: [asked_by]}}}}
shards: {{pack: webdataset, needs: [encode]}}
"""
FINE: dict[str, dict[str, Any]] = {
    "query_check": {"vague": False, "ambiguous": False, "rewritten": ""},
    "response_check": {"reason": "right", "agrees": 5, "complete": 5, "biased": False},
    "turn_quality": {"relevance": 5, "visual_dependency": 5, "image_correspondence": 5, "formatting": 5},
}
PLANTED: dict[str, tuple[str, Any, tuple[str, str | None]]] = {
    "fine": ("turn_quality", {"visual_dependency": 2}, ("kept", None)),
    "vague": ("query_check", {"vague": True}, ("dropped", "vague")),
    "ambiguous": ("query_check", {"ambiguous": True, "rewritten": "Which hat is red?"}, ("kept", None)),
    "unwritten": ("query_check", {"ambiguous": True}, ("quarantined", "unparseable answer")),
    "unsure": ("query_check", {"vague": "perhaps"}, ("quarantined", "judgement does not fit")),
    "wrong": ("response_check", {"agrees": 3}, ("dropped", "agrees")),
    "half": ("response_check", {"complete": 2}, ("dropped", "complete")),
    "biased": ("response_check", {"biased": True}, ("dropped", "unbiased")),
    "six": ("response_check", {"agrees": 6}, ("quarantined", "judgement does not fit")),
    "chatter": ("response_check", "Looks good!", ("quarantined", "unparseable answer")),
    "blind": ("turn_quality", {"visual_dependency": 1}, ("dropped", "visual_dependency")),
    "off": ("turn_quality", {"relevance": 2}, ("dropped", "relevance")),
    "elsewhere": ("turn_quality", {"image_correspondence": 1}, ("dropped", "image_correspondence")),
    "broken": ("turn_quality", {"formatting": 1}, ("dropped", "formatting")),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve() as server:
        yield server
    for name in ("_operator", "_storage"):
        getattr(worker, name).cache_clear()


def planned(url: str | None) -> Plan:
    (nodes,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    nodes = re.sub(r"^  ", "", nodes, flags=re.M).replace("ABOVE", "header")
    if url is not None:
        nodes = nodes.replace("base_url: null", f"base_url: {url}\n    backoff: 0.01")
        nodes = nodes.replace("model: null", "model: tiny").replace("revision: null", "revision: r1")
    return plan_of(AROUND.format(nodes=nodes), SOURCE)


def write(root: Path, names: list[str]) -> None:
    write_picture(root / "0.jpg", 5, 120)
    lines = [
        {"id": name, "question": f"What of {name}?\n(a) x\n(b) y", "answer": "It is red.", "licence": "MIT"}
        for name in names
    ]
    write_manifest(root, [{**line, "file": "0.jpg"} for line in lines])


def judge(request: Request) -> Reply:
    """Finds in each record what is planted there, and nothing else."""
    asked = request.body["response_format"]["json_schema"]["name"]
    name = request.text.partition("What of ")[2].partition("?")[0]
    prompt, found, _ = PLANTED.get(name, ("", {}, ("", None)))
    found = found if prompt == asked else {}
    return Reply(body=said(found if isinstance(found, str) else json.dumps({**FINE[asked], **found})))


def test_every_finding_ends_a_record_as_the_page_says(tmp_path: Path, server: Server) -> None:
    server.behave = judge
    write(tmp_path / "root", [*PLANTED])
    plan = planned(server.url)
    curate(plan, tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store") == {name: end for name, (_, _, end) in PLANTED.items()}
    asked = outcome_of(tmp_path / "store", plan, "asked").filter(status="ok").select("asked", "asked_by").rows()
    assert ("Which hat is red?", "openai:tiny@r1") in asked
    assert ("What of fine?\n(a) x\n(b) y", "source text") in asked
    assert audit(open_view(str(tmp_path / "store")), check).findings == []
    # The wording is taken from the answer to the first question; a judge reads the question that is encoded.
    kinds = [request.body["response_format"]["json_schema"]["name"] for request in server.requests]
    assert kinds.count("query_check") == len(PLANTED)
    assert any("Which hat is red?" in request.text for request in server.requests)
    assert all(len(request.jpegs) == 1 for request in server.requests)


def test_an_answer_that_breaks_a_rule_is_not_judged(tmp_path: Path, server: Server) -> None:
    server.behave = judge
    write(tmp_path / "root", ["fine"])
    line = json.loads((tmp_path / "root/manifest.jsonl").read_text())
    again = {**line, "id": "again", "question": "What of it?", "answer": "so it is " * 60}
    write_manifest(tmp_path / "root", [line, again])
    curate(planned(server.url), tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store") == {"fine": ("kept", None), "again": ("dropped", "answer_repetition")}
    judged = [request for request in server.requests if "The answer:" in request.text]
    assert len(judged) == 2
    assert not [request for request in judged if "so it is" in request.text]


def test_without_a_server_nothing_is_asked_and_the_question_stays(tmp_path: Path) -> None:
    write(tmp_path / "root", ["vague"])
    plan = planned(None)
    assert {rule.branch for name in ("queries", "responses", "turns") for rule in plan.nodes[name].rules} == {"skip"}
    finished = curate(plan, tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store") == {"vague": ("kept", None)}
    assert finished.embedded == ("embedded-bpe", "patch-vq", "source text")
    found = outcome_of(tmp_path / "store", plan, "asked").select("asked", "asked_by").rows()
    assert found == [("What of vague?\n(a) x\n(b) y", "source text")]
