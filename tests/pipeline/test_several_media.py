"""Sources with lists of pictures, from the manifest to the shards: one sample with all of them, in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from catalog.audit import audit
from catalog.view import open_view
from model.grammar import check
from tests.pipeline.runs import curate, final_states, plan_of, write_manifest, write_picture

SOURCE: dict[str, Any] = {
    "kind": "jsonl",
    "manifest": "manifest.jsonl",
    "map": {"id": "id", "question": "question", "answer": "answer", "licence": "licence"},
    "on_bad_row": "quarantine",
    "media": {"image": "images"},
}
NODES = """
unique: {decide: duplicates}
split: {decide: split, needs: [unique]}
encode: {encode: understanding, needs: [split], params: {prompt: question, answer: answer}}
shards: {pack: webdataset, needs: [encode]}
"""
LINES: dict[str, tuple[list[int] | int, tuple[str, str | None]]] = {
    "one": (0, ("kept", None)),
    "two": ([0, 1], ("kept", None)),
    "other second": ([0, 2], ("kept", None)),
    "other order": ([1, 0], ("kept", None)),
    "three": ([2, 1, 0], ("kept", None)),
    "none": ([], ("quarantined", "no image")),
}


def files(numbers: list[int] | int) -> list[str] | str:
    return [f"{n}.jpg" for n in numbers] if isinstance(numbers, list) else f"{numbers}.jpg"


def test_all_pictures_of_a_record_decide_whether_it_is_a_copy_and_stand_in_its_sample(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / f"{number}.jpg", number, 96)
    lines = [
        {"id": name, "images": files(numbers), "question": f"What is in {name}?", "answer": "Blobs.", "licence": "MIT"}
        for name, (numbers, _) in LINES.items()
    ]
    write_manifest(tmp_path, lines)
    curate(plan_of(NODES, SOURCE), tmp_path, tmp_path / "store")
    assert final_states(tmp_path / "store") == {name: end for name, (_, end) in LINES.items()}
    write_manifest(tmp_path, [*lines, {**lines[1], "id": "copy", "answer": "Two blobs."}])
    curate(plan_of(NODES, SOURCE), tmp_path, tmp_path / "store")
    ends = final_states(tmp_path / "store")
    assert {ends["two"], ends["copy"]} == {("kept", None), ("duplicate", "exact")}
    view = open_view(str(tmp_path / "store"))
    assert audit(view, check).findings == []
    names = {row["record_key"]: orjson.loads(row["fields"])["id"] for row in view.records("tiny").collect().to_dicts()}
    tokens = {names[row["record_key"]]: row["image_tokens"] for row in view.samples("tiny").collect().to_dicts()}
    assert tokens["one"] * 3 == tokens["three"] == tokens["other order"] * 3 // 2
