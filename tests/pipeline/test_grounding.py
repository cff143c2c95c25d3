"""What docs/corpora/understanding-grounding.md says, run."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from tests.pipeline.pictures import CORPORA
from tests.pipeline.runs import curate, final_states, outcome_of, store_of

PAGE = Path(__file__).parents[2] / "docs" / "corpora" / "understanding-grounding.md"
SHIPPED = Path(__file__).parents[2] / "jobs" / "recipes" / "understanding.yaml"
ALONE, JOINED = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.S | re.M)


def alone() -> Plan:
    return resolve(Recipe.model_validate(yaml.safe_load(ALONE)), str(PAGE))


def joined() -> Plan:
    """The shipped recipe with what the page adds to it."""
    recipe: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    given = yaml.safe_load(ALONE)["sources"]["grounding"]
    source = recipe["sources"]["grounding"]
    source["map"] |= {name: path for name, path in given["map"].items() if name not in ("id", "licence")}
    source["types"] |= given["types"]
    del recipe["nodes"]["split"]
    recipe["nodes"] |= yaml.safe_load(JOINED)
    recipe["nodes"]["pixels"]["needs"] = ["clean"]
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


def test_what_the_page_adds_to_the_shipped_recipe_resolves() -> None:
    plan = joined()
    assert not [note for node in plan.nodes.values() for note in node.notes if "not range-checked" in note]
    assert plan.nodes["counting"].reads.keys() == {"verified_boxes", "uncountable"}


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
