"""The shipped recipe of the editing corpus with a model that sees both pictures: what it drops and what it rewords."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.audit import audit
from catalog.view import open_view
from model.grammar import check
from model.text_tokenizer import TextTokenizer
from pipeline import worker
from pipeline.annotations.sent import sent_jpeg
from pipeline.embedded.pairs import EditPair, edit_pair, write_pairs
from pipeline.plan import Plan, resolve
from pipeline.recipe import load_recipe
from tests.pipeline.annotations.stub import Reply, Request, Server, said, serve
from tests.pipeline.runs import curate, final_states, live_tars

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "editing.yaml"
JUDGED = {"reason": "as asked", "instruction_followed": 5, "rest_unchanged": 5, "artefacts": 5, "no_change": False}
AS_IT_IS = {"mismatch": False, "instruction": ""}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve() as server:
        yield server
    for name in ("_operator", "_storage"):
        getattr(worker, name).cache_clear()


class Judge:
    """A model that knows pairs by their two pictures, in order, and finds nothing wrong unless told what."""

    def __init__(self, pairs: list[EditPair]) -> None:
        self._pairs = {(sent_jpeg(p.source, 1024, 90), sent_jpeg(p.target, 1024, 90)): p.name for p in pairs}
        self.finds: dict[str, Any] = {}
        self.mends: dict[str, Any] = {}

    def __call__(self, request: Request) -> Reply:
        name = self._pairs[request.jpegs[0], request.jpegs[1]]
        assert len(request.jpegs) == (3 if name.startswith("moved") else 2)
        asked = request.body["response_format"]["json_schema"]["name"]
        found = self.finds.get(name, {}) if asked == "edit_judge" else self.mends.get(name, {})
        if not isinstance(found, dict):
            return Reply(body=said(found))
        return Reply(body=said(json.dumps({**(JUDGED if asked == "edit_judge" else AS_IT_IS), **found})))


def planned(url: str | None) -> Plan:
    here = {"base_url": url, "model": "tiny", "revision": "r1", "backoff": 0.01}
    settings = {f"{node}.{name}": value for node in ("judge", "refine") for name, value in here.items()}
    return resolve(load_recipe(RECIPE, settings if url else {}), "editing")


def samples(store: Path) -> dict[str, tuple[str, str]]:
    """Per record id what the shards' text says, and who wrote the instruction."""
    rows = {row["record_key"]: json.loads(row["fields"])["id"] for row in _records(store)}
    tokenizer = TextTokenizer.embedded()
    found = {}
    for place in live_tars(store, "editing"):
        with tarfile.open(store / place) as tar:
            members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
        for name in [name for name in members if name.endswith(".json")]:
            meta = json.loads(members[name])
            ids = np.load(io.BytesIO(members[name.replace(".json", ".ids.npy")]))
            words = tokenizer.decode(int(number) for number in ids if number < tokenizer.size)
            provenance = meta["provenance"]
            found[rows[provenance["record_key"]]] = (words, provenance["instruction_by"])
    return found


def _records(store: Path) -> list[dict[str, Any]]:
    return open_view(str(store)).records("editing").collect().to_dicts()


def test_a_pair_the_judge_rejects_drops_and_another_is_encoded_as_reworded(tmp_path: Path, server: Server) -> None:
    made = write_pairs(tmp_path / "editing", [edit_pair("added", 0), edit_pair("added", 1), edit_pair("removed", 0)])
    judge = server.behave = Judge(made)
    judge.finds = {"added_00": {"reason": "nothing came", "instruction_followed": 2}}
    better = "Remove what floats before the houses."
    judge.mends = {"removed_00": {"mismatch": True, "instruction": better}}
    curate(planned(server.url), tmp_path, tmp_path / "store")
    assert final_states(tmp_path / "store", "editing") == {
        "added_00": ("dropped", "followed"),
        "added_01": ("kept", None),
        "removed_00": ("kept", None),
    }
    told = samples(tmp_path / "store")
    assert set(told) == {"added_01", "removed_00"}
    assert better in told["removed_00"][0]
    assert told["removed_00"][1] == "openai:tiny@r1"
    assert made[2].instruction not in told["removed_00"][0]
    assert made[1].instruction in told["added_01"][0]
    assert told["added_01"][1] == "source text"
    view = open_view(str(tmp_path / "store"))
    assert audit(view, check).findings == []
    (card,) = view.cards("editing").values()
    assert (card.embedded, card.branches) == (["embedded-bpe", "patch-vq"], {})
    # Every pair was worded, then judged by what is encoded; another run asks nothing.
    judged = [request.text for request in server.requests if "`artefacts`" in request.text]
    assert len(judged) == 3
    assert [better in text for text in judged].count(True) == 1
    curate(planned(server.url), tmp_path, tmp_path / "store")
    assert len(server.requests) == 6


def test_each_finding_ends_a_pair_by_its_own_reason(tmp_path: Path, server: Server) -> None:
    numbers = iter(range(20))
    finds = {
        "fine": {"instruction_followed": 3, "rest_unchanged": 3, "artefacts": 3},
        "failed": {"instruction_followed": 1},
        "elsewhere": {"rest_unchanged": 2},
        "spoilt": {"artefacts": 2},
        "same": {"no_change": True},
        "off the scale": {"artefacts": 9},
        "half an answer": {"no_change": None},
        "chatter": "It looks good to me!",
    }
    mends = {
        "turned round": {"mismatch": True, "instruction": "Remove the kite."},
        "a gap": {"mismatch": True, "instruction": "Add a <object>."},
        "one word": {"mismatch": True, "instruction": "Balloon"},
        "nothing written": {"mismatch": True, "instruction": ""},
    }
    made = {name: edit_pair("added", next(numbers)) for name in (*finds, *mends)}
    write_pairs(tmp_path / "editing", made.values())
    lines = [{**pair.line(), "pair_id": name} for name, pair in made.items()]
    (tmp_path / "editing" / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = server.behave = Judge(list(made.values()))
    judge.finds = {made[name].name: found for name, found in finds.items()}
    judge.mends = {made[name].name: found for name, found in mends.items()}
    curate(planned(server.url), tmp_path, tmp_path / "store")
    assert len(server.requests) == len(made) + len(finds)
    assert final_states(tmp_path / "store", "editing") == {
        "fine": ("kept", None),
        "failed": ("dropped", "followed"),
        "elsewhere": ("dropped", "untouched"),
        "spoilt": ("dropped", "artefacts"),
        "same": ("dropped", "unlike"),
        "off the scale": ("quarantined", "judgement does not fit"),
        "half an answer": ("quarantined", "judgement does not fit"),
        "chatter": ("quarantined", "unparseable answer"),
        "turned round": ("dropped", "rewritten_direction"),
        "a gap": ("dropped", "rewritten_leftovers"),
        "one word": ("dropped", "rewritten"),
        "nothing written": ("quarantined", "unparseable answer"),
    }


def test_references_are_shown_to_the_judge_after_source_and_target(tmp_path: Path, server: Server) -> None:
    pair, other = edit_pair("moved", 0), edit_pair("added", 3)
    write_pairs(tmp_path / "editing", [pair, other])
    line = pair.line()
    line["inputs"] = [*line["inputs"], other.line()["inputs"][0]]
    line["tags"] = ["drawn", "two-inputs"]
    (tmp_path / "editing" / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    server.behave = Judge([pair])
    curate(planned(server.url), tmp_path, tmp_path / "store")
    assert final_states(tmp_path / "store", "editing") == {"moved_00": ("kept", None)}
    assert {request.jpegs[2] for request in server.requests} == {sent_jpeg(other.source, 1024, 90)}


def test_without_a_server_the_judge_is_left_out_and_the_instruction_stays(tmp_path: Path) -> None:
    (pair,) = write_pairs(tmp_path / "editing", [edit_pair("added", 0)])
    plan = planned(None)
    assert {name for name, node in plan.nodes.items() if node.missing} == {"judge", "judged"}
    assert {rule.branch for rule in plan.nodes["verdict"].rules} == {"skip"}
    finished = curate(plan, tmp_path, tmp_path / "store")
    assert finished.embedded == ("embedded-bpe", "patch-vq", "source text")
    told = samples(tmp_path / "store")
    assert pair.instruction in told["added_00"][0]
    assert told["added_00"][1] == "source text"
    (card,) = open_view(str(tmp_path / "store")).cards("editing").values()
    assert card.branches == {f"verdict.{rule}": "skip" for rule in ("followed", "untouched", "artefacts", "unlike")}
