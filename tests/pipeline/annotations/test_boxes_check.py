"""A second opinion on boxes, from the question to the records born of what was agreed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.pipeline.runs import curate, final_states, outcome_of, plan_of, store_of, write_manifest, write_picture

from .stub import Reply, Request, Server, said

NODES = """
boxes: {measure: boxes}
opinion:
  annotate: openai
  needs: [boxes]
  network: true
  params: {into: boxes_opinion, prompt: boxes_check/v1, inputs: {boxes: boxes_grid}, base_url: URL, model: tiny,
           revision: r1, backoff: 0.01, attempts: 1}
agreed: {measure: opinion, needs: [opinion]}
counting: {expand: counting, needs: [agreed], params: {boxes: agreed_boxes, uncountable: agreed_uncountable}}
encode: {encode: understanding, needs: [counting], params: {prompt: question, answer: answer}}
shards: {pack: webdataset, needs: [encode]}
"""

LINES: dict[str, Any] = {
    "kind": "jsonl",
    "manifest": "manifest.jsonl",
    "map": {"id": "id", "licence": "licence", "objects": "objects"},
    "const": {"question": "", "answer": ""},
    "types": {"objects": "list"},
    "media": {"image": "file"},
}


def doubt_dogs(request: Request) -> Reply:
    """The answer of a model that believes in cats alone, and loses count of cows."""
    boxes = json.loads(request.text.partition("The boxes: ")[2])
    holds = [box["label"] == "cat" for box in boxes if box["label"] != "cow"]
    return Reply(body=said(json.dumps({"holds": holds})))


def test_what_the_second_opinion_doubts_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    server.behave = doubt_dogs

    def thing(label: str, left: int) -> dict[str, Any]:
        return {"label": label, "bbox_xywh": [left, 10, 40, 50]}

    given = {"both": [thing("cat", 5), thing("dog", 60), thing("cat", 110)], "cow": [thing("cow", 5), thing("cat", 60)]}
    for number, _ in enumerate(given):
        write_picture(tmp_path / f"root/{number}.jpg", number, 120)
    lines = [
        {"id": name, "file": f"{number}.jpg", "licence": "MIT", "objects": objects}
        for number, (name, objects) in enumerate(given.items())
    ]
    write_manifest(tmp_path / "root", lines)
    plan = plan_of(NODES.replace("URL", server.url), LINES)
    curate(plan, tmp_path / "root", tmp_path / "store")
    assert Counter(final_states(tmp_path / "store").items()) == {
        ("both", ("expanded", None)): 1,
        ("both#counting-cat", ("kept", None)): 1,
        ("cow", ("quarantined", "opinion does not fit")): 1,
    }
    found = outcome_of(tmp_path / "store", plan, "agreed").filter(status="ok")
    assert found["opinion_share"].to_list() == [2 / 3]
    rows = store_of(tmp_path / "store").records("tiny").read(["fields", "node"]).filter(node="counting").to_dicts()
    assert [json.loads(row["fields"])["answer"] for row in rows] == ["2"]
    asked = server.requests[0].body
    assert asked["response_format"]["json_schema"]["schema"]["required"] == ["holds"]
