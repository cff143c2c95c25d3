"""The recipe of docs/corpora/understanding-qa.md on drawn pictures: every row ends as it should, for that reason."""

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
from pipeline.embedded.item import encoded
from pipeline.embedded.objects import balls
from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from tests.pipeline.runs import curate, final_states, workers

PAGE = Path(__file__).parents[2] / "docs" / "corpora" / "understanding-qa.md"
(RECIPE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.S | re.M)
CORPUS = "understanding_qa"
KEPT = ("kept", None)
ASKED = {"question": "Which ball lies on the floor?", "options": "['a red ball', 'a blue ball', 'none']", "answer": "A"}
SAID = ["<image>\nWhat is this?", "A red ball on a floor.", "Is there another?", "No, it lies alone."]
BENCHMARK = "Which of the many balls that lie on the tiled floor was rolled there by the little grey cat?"

QUESTIONS: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "lettered": ({}, KEPT),
    "worded": ({"question": "Which ball is it?", "answer": "a red ball"}, KEPT),
    "placed": ({"question": "Which ball do you see?", "answer": 0}, KEPT),
    "open": ({"question": "How many balls are there?", "options": None, "answer": "1"}, KEPT),
    "several": ({"question": "Which ball is in both?", "files": ["files/0.jpg", "files/1.jpg"], "answer": "C"}, KEPT),
    "again": ({"question": "which ball  is in both?", "files": ["files/1.jpg", "files/0.jpg"], "answer": "C"}, KEPT),
    "silent": ({"question": ""}, ("dropped", "asked")),
    "unanswered": ({"answer": None}, ("dropped", "asked")),
    "unread": ({"options": "a red ball, a blue ball"}, ("dropped", "choices")),
    "same": ({"options": ["a red ball", "A red ball"]}, ("dropped", "differ")),
    "alone": ({"options": ["a red ball"]}, ("dropped", "differ")),
    "none of them": ({"answer": "a green ball"}, ("dropped", "answered")),
    "blind": ({"files": []}, ("quarantined", "no image")),
    "forbidden": ({"licence": "CC-BY-NC-4.0"}, ("dropped", "licence")),
    "known": ({"question": BENCHMARK, "options": None, "answer": "None."}, KEPT),
}
DIALOGUES: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "talk": ({}, KEPT),
    "pair": (
        {"said": ["<image>What is this?", "A ball.", "And <image>?", "Two."], "files": ["files/0.jpg", "files/1.jpg"]},
        KEPT,
    ),
    "one turn": ({"said": SAID[:2]}, KEPT),
    "cut": ({"said": SAID[:3]}, ("dropped", "turns")),
    "missing": ({"said": ["<image><image>\nWhat are these?", "Balls."]}, ("dropped", "turns")),
    "empty": ({"said": []}, ("dropped", "some")),
    "parrot": ({"said": [*SAID, *SAID[2:], *SAID[2:]]}, ("dropped", "repeated")),
}  # fmt: skip


def plan(*sets: str) -> Plan:
    recipe = yaml.safe_load(RECIPE)
    for one in sets:
        node, _, value = one.partition("=")
        recipe["nodes"][node]["params"]["benchmarks"] = value
    return resolve(Recipe.model_validate(recipe), str(PAGE))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn balls with questions and conversations about them."""
    root = tmp_path_factory.mktemp("qa")
    for folder in ("qa", "dialogues"):
        (root / folder / "files").mkdir(parents=True)
        for number in range(2):
            drawn = balls(f"{folder} {number}", (320, 240), ["red", "blue"][: number + 1])
            (root / folder / f"files/{number}.jpg").write_bytes(encoded(drawn.image))
    lines = [
        {"id": name, "files": "files/0.jpg", "licence": "MIT", **ASKED, **more} for name, (more, _) in QUESTIONS.items()
    ]
    lines.append({**lines[0], "id": "copy", "answer": "B"})
    (root / "qa/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = []
    for name, (more, _) in DIALOGUES.items():
        said = more.get("said", SAID)
        turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(said)]
        lines.append({"id": name, "files": more.get("files", "files/0.jpg"), "licence": "MIT", "conversations": turns})
    (root / "dialogues/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def store(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("qa store") / "store"
    curate(plan(), rows, made)
    return made


def test_every_row_ends_as_it_should(store: Path) -> None:
    ends = final_states(store, CORPUS)
    assert Counter([ends.pop("lettered"), ends.pop("copy")]) == Counter([KEPT, ("duplicate", "exact")])
    wanted = {name: end for name, (_, end) in {**QUESTIONS, **DIALOGUES}.items() if name != "lettered"}
    assert ends == wanted


def test_the_store_is_clean_and_samples_have_both_tasks(store: Path) -> None:
    view = open_view(str(store))
    assert audit(view, check).findings == []
    samples = view.samples(CORPUS).collect()
    assert Counter(samples["task"]) == {"understanding": 7, "conversation": 3}
    assert not [note for node in plan().nodes.values() for note in node.notes if "not range-checked" in note]


def test_an_answer_is_written_as_its_letter_below_all_options(store: Path) -> None:
    verdicts = {}
    from tests.pipeline.runs import keys_by_id, outcome_of

    keys = {key: name for name, key in keys_by_id(store, CORPUS).items()}
    for row in outcome_of(store, plan(), "choices").to_dicts():
        verdicts[keys[row["record_key"]]] = (row["prompt"], row["choice_answer"])
    options = "A. a red ball\nB. a blue ball\nC. none"
    assert verdicts["worded"] == (f"Which ball is it?\n{options}", "A")
    assert verdicts["placed"] == (f"Which ball do you see?\n{options}", "A")
    assert verdicts["open"] == ("How many balls are there?", "1")


def test_workers_and_benchmarks_change_only_what_they_should(rows: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    item = {"id": "b1", "benchmark": "Balls", "question": BENCHMARK, "answer": "none"}
    told = {
        "id": "b2",
        "benchmark": "Balls",
        "question": "And what about the second ball that is there?",
        "answer": "x",
    }
    (tmp_path / "b/questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (item, told)))
    given = plan(f"benchmarks_questions={tmp_path / 'b'}", f"benchmarks_dialogues={tmp_path / 'b'}")
    curate(given, rows, tmp_path / "store", workers(2))
    before, after = final_states(store, CORPUS), final_states(tmp_path / "store", CORPUS)
    assert {name: after[name] for name in after if after[name] != before[name]} == {"known": ("dropped", "benchmarks")}
