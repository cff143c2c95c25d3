"""What docs/corpora/understanding-grounding.md says, run."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.audit import audit
from catalog.view import open_view
from model.grammar import check
from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from tests.pipeline.annotations.stub import MODEL, Reply, Request, said, serve
from tests.pipeline.pictures import CORPORA
from tests.pipeline.runs import curate, final_states, outcome_of, store_of

PAGE = Path(__file__).parents[2] / "docs" / "corpora" / "understanding-grounding.md"
SHIPPED = Path(__file__).parents[2] / "jobs" / "recipes" / "understanding.yaml"
(ALONE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.S | re.M)


def alone() -> Plan:
    return resolve(Recipe.model_validate(yaml.safe_load(ALONE)), str(PAGE))


def shipped(**params: Any) -> Plan:
    """The recipe `understanding` over these pictures alone; `params` are set at the nodes that have them."""
    recipe: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    recipe["sources"] = {"grounding": recipe["sources"]["grounding"]}
    for node in recipe["nodes"].values():
        given = node.get("params", {})
        given |= {name: value for name, value in params.items() if name in given}
    return resolve(Recipe.model_validate(recipe), "R")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded pictures with boxes, in the layout of the sample corpora."""
    from pipeline.embedded.grounding import grounding

    root = tmp_path_factory.mktemp("drawn")
    (root / "grounding/files").mkdir(parents=True)
    lines = []
    for item in grounding():
        assert item.data is not None
        (root / "grounding/files" / item.file).write_bytes(item.data)
        lines.append(json.dumps(item.line("grounding")) + "\n")
    (root / "grounding/manifest.jsonl").write_text("".join(lines))
    return root


def born(store: Path, node: str) -> list[dict[str, Any]]:
    rows = store_of(store).records("grounding").read(["fields", "node"]).to_dicts()
    return [json.loads(row["fields"]) for row in rows if row["node"] == node]


def test_every_drawn_box_is_verified_and_every_count_is_right(drawn: Path, tmp_path: Path) -> None:
    plan = alone()
    curate(plan, drawn, tmp_path / "store")
    found = outcome_of(tmp_path / "store", plan, "boxes")
    assert found["boxes_verified"].sum() == found["boxes"].sum() - found["boxes_tiny"].sum()
    lines = [json.loads(line) for line in (drawn / "grounding/manifest.jsonl").read_text().splitlines()]
    counts = {line["id"]: line["counts"] for line in lines}
    asked = born(tmp_path / "store", "counting")
    assert len(asked) > 40
    for question in asked:
        assert question["answer"] == str(counts[question["id"].partition("#")[0]][question["label"]])
    for question in born(tmp_path / "store", "finding"):
        boxes = json.loads(question["answer"])
        assert len(boxes) == counts[question["id"].partition("#")[0]][question["label"]]
        assert {box["label"] for box in boxes} == {question["label"]}
    ends = Counter(state for state, _ in final_states(tmp_path / "store", "grounding").values())
    assert set(ends) <= {"kept", "expanded", "dropped"}


def lines_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "grounding/manifest.jsonl").read_text().splitlines()]


def some(drawn: Path, root: Path, lines: list[dict[str, Any]]) -> Path:
    """A root with these lines and their pictures."""
    root.joinpath("grounding/files").mkdir(parents=True)
    for line in lines:
        root.joinpath("grounding", line["file"]).write_bytes((drawn / "grounding" / line["file"]).read_bytes())
    root.joinpath("grounding/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_the_shipped_recipe_asks_of_what_it_keeps_and_keeps_what_has_no_boxes(drawn: Path, tmp_path: Path) -> None:
    lines = lines_of(drawn)[:6]
    lines[0]["objects"] = []
    lines[1]["image"] = {"width": 20, "height": 10}
    lines[2]["objects"] = lines[2]["objects"][:-1]
    plan = shipped()
    assert not [note for node in plan.nodes.values() for note in node.notes if "not range-checked" in note]
    curate(plan, some(drawn, tmp_path / "root", lines), tmp_path / "store")
    ends = final_states(tmp_path / "store", "understanding")
    assert {ends[line["id"]] for line in lines} == {("kept", None)}
    asked = [name.partition("#") for name in ends if "#" in name]
    assert {name for name, _, _ in asked} == {line["id"] for line in lines[2:]}
    missing = {thing["label"] for thing in lines_of(drawn)[2]["objects"][-1:]}
    labels = {rest.partition("-")[2] for name, _, rest in asked if name == lines[2]["id"]}
    assert labels.isdisjoint(missing)
    view = open_view(str(tmp_path / "store"))
    assert audit(view, check).findings == []
    splits: dict[str, set[str]] = {}
    names = {
        row["record_key"]: json.loads(row["fields"])["id"] for row in view.records("understanding").collect().to_dicts()
    }
    for row in view.samples("understanding").collect().to_dicts():
        splits.setdefault(names[row["record_key"]].partition("#")[0], set()).add(row["split"])
    assert {len(found) for found in splits.values()} == {1}


def test_the_shipped_recipe_drops_what_a_benchmark_holds_and_says_so_without_one(drawn: Path, tmp_path: Path) -> None:
    lines = lines_of(drawn)[:6]
    bench = tmp_path / "b"
    bench.mkdir()
    bench.joinpath("questions.jsonl").write_text("")
    bench.joinpath("p.jpg").write_bytes((drawn / "grounding" / lines[3]["file"]).read_bytes())
    item = {"id": "p", "kind": "file", "media": "image", "file": "p.jpg", "benchmark": "Drawn"}
    bench.joinpath("manifest.jsonl").write_text(json.dumps(item) + "\n")
    curate(shipped(benchmarks=str(bench)), some(drawn, tmp_path / "root", lines), tmp_path / "store")
    ends = final_states(tmp_path / "store", "understanding")
    assert [name for name, end in ends.items() if end == ("dropped", "benchmarks")] == [lines[3]["id"]]
    assert not [name for name in ends if name.startswith(f"{lines[3]['id']}#")]
    (note,) = shipped().nodes["clean"].notes
    assert note.startswith("nodes.clean.rules.benchmarks: skipped")


def test_with_a_server_captions_are_the_models_and_answers_that_do_not_agree_go(drawn: Path, tmp_path: Path) -> None:
    def behave(request: Request) -> Reply:
        if "The answer:" not in request.text:
            return Reply(body=said(f"A new sentence, {request.question[:8]}."))
        wrong = int(request.question[:2], 16) < 96
        mark = {"reason": "as told", "agrees": 2 if wrong else 5, "complete": 5, "biased": False}
        judged.append(mark["agrees"] == 5)
        return Reply(body=said(json.dumps(mark)))

    judged: list[bool] = []
    with serve() as server:
        server.behave = behave
        plan = shipped(base_url=server.url, model=MODEL, revision="r1")
        assert [node.name for node in plan.nodes.values() if node.missing] == ["benchmarks", "reading"]
        curate(plan, some(drawn, tmp_path / "root", lines_of(drawn)[:6]), tmp_path / "store")
    ends = final_states(tmp_path / "store", "understanding")
    photos = {name: end for name, end in ends.items() if "#" not in name}
    assert len(judged) == 6
    captions = outcome_of(tmp_path / "store", plan, "caption")
    assert all(text.startswith("A new sentence") for text in captions["caption"])
    # It may still be asked of where and how many.
    assert list(photos.values()).count(("dropped", "agrees")) == judged.count(False)
    kept = sum(end == ("kept", None) for end in photos.values())
    assert len(ends) > 2 * len(photos)
    verdicts = outcome_of(tmp_path / "store", plan, "agreed")
    assert 0 < judged.count(False) == (verdicts["agrees"] < 4).sum()
    samples = open_view(str(tmp_path / "store")).samples("understanding").collect()
    assert kept == judged.count(True) == (samples["variant"] == "main").sum()


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
def test_the_real_pictures_give_as_many_questions_as_the_page_says(tmp_path: Path) -> None:
    plan = alone()
    curate(plan, CORPORA, tmp_path / "store")
    answers = Counter(question["answer"] for question in born(tmp_path / "store", "counting"))
    assert answers == {"1": 61, "2": 11, "3": 7, "5": 2, "12": 2, "9": 1, "10": 1}
    assert len(born(tmp_path / "store", "finding")) == 84
    ends = Counter(final_states(tmp_path / "store", "grounding").values())
    assert ends == {("kept", None): 24 + 30 + 84, ("expanded", None): 52, ("dropped", "quota 1"): 31}
