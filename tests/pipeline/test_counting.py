from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from catalog.errors import UserError
from pipeline.boxes import Box
from pipeline.counting import Counting, countable, load_questions
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Child, Expander, Record, load_operator
from tests.pipeline.runs import curate, final_states, outcome_of, plan_of, store_of, write_manifest, write_picture

CORNERS = {"x0": 0.1, "y0": 0.1, "x1": 0.5, "y1": 0.5}


def boxes(**counts: int) -> list[dict[str, Any]]:
    return [{"label": label, **CORNERS} for label, count in counts.items() for _ in range(count)]


def born(key: str = "0" * 32, uncountable: tuple[str, ...] = (), op: str = "counting", **given: Any) -> list[Child]:
    params = given.pop("params", {})
    fields = {"id": "p1", "licence": "MIT", "objects": [1], "counts": given.pop("counts", None)}
    values = {"verified_boxes": boxes(**given), "uncountable": list(uncountable)}
    media = (MediaRef("image", "file", "p.jpg"),)
    made = load_operator(op).build(params)
    assert isinstance(made, Expander)
    return list(made.expand(Record(key, media, orjson.dumps(fields), values, MediaReader(""))))


def test_a_child_asks_for_one_label_and_answers_in_digits() -> None:
    (child,) = born(cat=3)
    assert child.fields.pop("question") in [
        question.replace("{things}", "cats") for question in load_questions("counting/v1").questions
    ]
    assert child.fields == {"id": "p1#counting-cat", "licence": "MIT", "counts": None, "answer": "3", "label": "cat"}
    assert [ref.path for ref in child.media] == ["p.jpg"]


def test_a_question_of_where_is_answered_by_all_boxes_of_the_label() -> None:
    (child,) = born(op="finding", cat=2)
    assert "all cats" in child.fields["question"] or "the cats" in child.fields["question"]
    assert child.fields["question"].endswith("Answer with JSON: a list of objects with bbox_2d and label.")
    one = '{"bbox_2d":[100,100,500,500],"label":"cat"}'
    assert (child.role, child.fields["id"], child.fields["answer"]) == ("finding", "p1#finding-cat", f"[{one},{one}]")
    assert born(op="finding", cat=11) == []


def test_labels_of_unsure_number_are_not_asked_for() -> None:
    assert [child.fields["label"] for child in born(cat=3, dog=2, uncountable=("cat",))] == ["dog"]
    assert born(cat=3, uncountable=("cat",)) == []
    assert countable(boxes(cat=2, dog=1), ["dog", "cow"]) == {"cat": [Box("cat", 0.1, 0.1, 0.5, 0.5)] * 2}


def test_a_number_other_than_the_sources_is_not_asked_for() -> None:
    given: dict[str, Any] = {"params": {"counts": "counts"}, "counts": {"cat": 3, "dog": 3}}
    assert [child.fields["label"] for child in born(cat=3, dog=2, **given)] == ["cat"]


def test_numbers_stay_in_range_and_questions_few() -> None:
    params = {"most": 2, "least_count": 2, "most_count": 4}
    found = born(a=1, b=2, c=3, d=4, e=5, params=params)
    assert len(found) == 2
    assert {child.fields["label"] for child in found} < {"b", "c", "d"}


def test_choice_and_wording_follow_from_the_key_alone() -> None:
    keys = [f"{number:032x}" for number in range(60)]
    first = [[child.fields for child in born(key, ape=1, bee=2, cow=3)] for key in keys]
    again = [[child.fields for child in born(key, cow=3, bee=2, ape=1)] for key in reversed(keys)]
    assert first == again[::-1]
    assert {fields[0]["label"] for fields in first} == {"ape", "bee", "cow"}
    assert len({fields[0]["question"] for fields in first}) == 12  # three labels, four wordings


@pytest.mark.parametrize(
    ("label", "plural"),
    [
        ("cat", "cats"),
        ("person", "people"),
        ("wine glass", "wine glasses"),
        ("bench", "benches"),
        ("cherry", "cherries"),
        ("toy", "toys"),
        ("sheep", "sheep"),
        ("hot dog", "hot dogs"),
        ("computer mouse", "computer mice"),
    ],
)
def test_labels_are_asked_for_in_the_plural(label: str, plural: str) -> None:
    assert load_questions("counting/v1").plural(label) == plural


def test_shipped_questions_never_change_under_their_version() -> None:
    assert load_questions("counting/v1").hash == "5daa753d2f8cf4a6e82fd5bccb293366"
    assert load_questions("finding/v1").hash == "086b2827a6513c36d5aea3c7116e9be9"


def test_the_wording_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("{name: own, version: 1, questions: ['How many {things}?']}")
    own = Counting.build({"questions": str(path)}).fingerprint_parts()
    assert own != Counting.build({}).fingerprint_parts()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("counting/v2", "shipped are counting/v1"),
        ("balls/v1", "cannot be read"),
        ("bad.yaml", "questions"),
        ("odd.yaml", "questions"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(
    name: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("{name: bad, version: 1, questions: ['How many?']}")
    Path("odd.yaml").write_text("{")
    with pytest.raises(UserError, match=complaint):
        load_questions(name)


NODES = """
boxes: {measure: boxes, params: {size: image}}
verified: {decide: rules, needs: [boxes], rules: {share: {keep: boxes_share >= 0.5, on_null: drop}}}
counting: {expand: counting, needs: [verified], params: {most: 1, counts: counts}}
finding: {expand: finding, needs: [verified], params: {most: 1, counts: counts}}
encode: {encode: understanding, needs: [verified], params: {prompt: question, answer: answer}}
encode_counting:
  encode: understanding
  needs: [counting]
  params: {prompt: question, answer: answer, variant: counting}
encode_finding:
  encode: understanding
  needs: [finding]
  params: {prompt: question, answer: answer, variant: finding}
shards: {pack: webdataset, needs: [encode, encode_counting, encode_finding]}
"""

LINES = {
    "kind": "jsonl",
    "manifest": "manifest.jsonl",
    "map": {"id": "id", "answer": "answer", "licence": "licence", "objects": "objects", "image": "image",
            "counts": "counts"},
    "const": {"question": "Describe this picture."},
    "types": {"answer": "str"},
    "media": {"image": "file"},
}  # fmt: skip


def test_a_run_keeps_the_picture_and_the_questions_born_of_it(tmp_path: Path) -> None:
    cat = {"label": "cat", "bbox_xywh": [20, 10, 60, 50]}
    given: list[tuple[str, Any, Any]] = [
        ("good", [cat, {**cat, "bbox_xywh": [100, 40, 60, 50]}], {"cat": 2}),
        ("broken", [{**cat, "bbox_xywh": [20, 10, -60, 50]}], {"cat": 1}),
        ("disputed", [cat], {"cat": 4}),
    ]
    for number, _ in enumerate(given):
        write_picture(tmp_path / f"root/{number}.jpg", number, 120)
    write_manifest(
        tmp_path / "root",
        [
            {"id": name, "file": f"{number}.jpg", "answer": "a cat", "licence": "MIT", "objects": objects,
             "image": {"width": 160, "height": 120}, "counts": counts}
            for number, (name, objects, counts) in enumerate(given)
        ],
    )  # fmt: skip
    plan = plan_of(NODES, LINES)
    curate(plan, tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store") == {
        "good": ("kept", None),
        "good#counting-cat": ("kept", None),
        "good#finding-cat": ("kept", None),
        "broken": ("dropped", "share"),
        "disputed": ("kept", None),
    }
    found = outcome_of(tmp_path / "store", plan, "boxes").sort("boxes_reversed")
    assert found["boxes_verified"].sum() == 3
    assert found["verified_boxes"].explode().drop_nulls().struct.fields == ["label", "x0", "y0", "x1", "y1"]
    edges = store_of(tmp_path / "store").lineage("tiny").read()
    assert sorted(edges["role"]) == ["counting", "finding"]
