from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from catalog.errors import UserError
from pipeline.benchmarks import SCHEMA, build_index, crop_hashes, load_index, save_index
from tests.pipeline.pictures import encode, scene

QUESTION = "Which of the four jars on the upper shelf of the pantry holds more than two litres of honey?"
ITEMS: list[dict[str, Any]] = [
    {"id": "q1", "benchmark": "Pantry", "question": QUESTION, "options": ["the blue", "the green", "none"],
     "answer": "B"},
    {"id": "q2", "benchmark": "Pantry", "question": "Where is Tibbles?", "answer": "under the oak table"},
    {"id": "q6", "benchmark": "Birds", "question": "Which bird sings loudest?",
     "options": ["a wren", "a crane", "an owl"], "answer": "A"},
    {"id": "q3", "benchmark": "Prompts", "question": "a photo of a purple otter", "spec": {"tag": "colors"}},
    {"id": "q4", "benchmark": "Long", "question": " ".join(f"word{number}" for number in range(40))},
    {"id": "q5", "benchmark": "Han", "question": "图中左边的篮子里一共有多少个红色的苹果呢"},
]  # fmt: skip


def write_benchmarks(folder: Path, items: list[dict[str, Any]] = ITEMS, pictures: int = 3) -> Path:
    """A folder of benchmarks: questions, and drawn pictures."""
    (folder / "files").mkdir(parents=True)
    (folder / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lines: list[dict[str, Any]] = [{"kind": "index", "file": "questions.jsonl"}]
    for number in range(pictures):
        name = f"files/p{number}.png"
        (folder / name).write_bytes(encode(scene(480, 360, 100 + number)))
        lines.append({"id": f"p{number}", "kind": "file", "media": "image", "file": name, "benchmark": "Drawn"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_an_index_holds_a_row_an_item(tmp_path: Path) -> None:
    rows = build_index(write_benchmarks(tmp_path / "b")).rows.to_pylist()
    assert sorted(row["benchmark"] for row in rows) == ["Birds"] + ["Drawn"] * 3 + [
        "Han",
        "Long",
        "Pantry",
        "Pantry",
        "Prompts",
    ]
    by_name = {(row["benchmark"], row["run"]): row for row in rows}
    assert len(by_name["Pantry", 13]["runs"]) == 19 - 13 + 1
    assert [answer["words"] for answer in by_name["Pantry", 13]["answer"]] == [2]
    assert sorted(answer["words"] for answer in by_name["Pantry", 13]["options"]) == [1, 2, 2]
    assert (by_name["Pantry", 3]["weight"], len(by_name["Pantry", 3]["answer"])) == (3, 1)
    assert (by_name["Han", 20]["weight"], by_name["Prompts", 6]["weight"]) == (10, 6)
    drawn = by_name["Drawn", 0]
    assert (drawn["width"], drawn["height"], len(drawn["codes"]) // 32) == (480, 360, len(drawn["points"]) // 2)
    assert len(drawn["hashes"]) == 4 + 9 + 25 + 36 + 49


def test_an_index_holds_no_text_and_no_picture(tmp_path: Path) -> None:
    folder = write_benchmarks(tmp_path / "b")
    save_index(load_index(folder), tmp_path / "index.arrow")
    data = (tmp_path / "index.arrow").read_bytes().lower()
    for word in (b"honey", b"pantry holds", b"green", b"tibbles", b"oak", b"otter", b"wren", b"word7", "苹果".encode()):
        assert word not in data
    for row in load_index(folder).rows.to_pylist():
        texts = {name for name, value in row.items() if isinstance(value, str)}
        assert texts <= {"item", "benchmark", "digest"}
        numbers = orjson.loads(orjson.dumps({**row, "codes": None}))
        # Nothing dense enough to be drawn: hashes, and at most 500 key points.
        assert len(numbers["points"]) <= 1000
        assert len(numbers["hashes"]) <= 130


def test_the_same_items_give_the_same_index_in_any_order(tmp_path: Path) -> None:
    one = build_index(write_benchmarks(tmp_path / "one"))
    other = build_index(write_benchmarks(tmp_path / "other", ITEMS[::-1]))
    assert one.rows.equals(other.rows)
    assert one.fingerprint == other.fingerprint


def test_a_saved_index_is_the_folders_own(tmp_path: Path) -> None:
    folder = write_benchmarks(tmp_path / "b")
    save_index(build_index(folder), tmp_path / "index.arrow")
    first = (tmp_path / "index.arrow").read_bytes()
    save_index(load_index(tmp_path / "index.arrow"), tmp_path / "index.arrow")
    assert (tmp_path / "index.arrow").read_bytes() == first
    assert load_index(tmp_path / "index.arrow").fingerprint == load_index(folder).fingerprint


@pytest.mark.parametrize("change", ["text", "option", "picture"])
def test_whatever_changes_in_a_benchmark_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    folder = write_benchmarks(tmp_path / "b")
    before = load_index(folder).fingerprint
    assert load_index(folder).fingerprint == before
    if change == "picture":
        (folder / "files/p1.png").write_bytes(encode(scene(480, 360, 7)))
    else:
        old, new = {"text": ("upper", "lower"), "option": ("the green", "the violet")}[change]
        questions = folder / "questions.jsonl"
        questions.write_text(questions.read_text().replace(old, new))
    assert load_index(folder).fingerprint != before


@pytest.mark.parametrize(
    ("questions", "complaint"),
    [
        ("{", r"questions.jsonl:1: not JSON"),
        ("[1]", r"questions.jsonl:1: not an object"),
        ('{"question": "a b"}', r"questions.jsonl:1: cannot be indexed as a benchmark item: KeyError: 'id'"),
        ('{"id": "a", "file": "gone.png"}', r"gone.png"),
        ("", r"holds no benchmark items"),
    ],
)
def test_what_is_no_benchmark_is_refused_by_its_place(tmp_path: Path, questions: str, complaint: str) -> None:
    (tmp_path / "questions.jsonl").write_text(questions)
    with pytest.raises(UserError, match=complaint):
        build_index(tmp_path)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    with pytest.raises(UserError, match=r"cannot be read: No such file"):
        load_index(tmp_path / "none.arrow")
    (tmp_path / "odd.arrow").write_bytes(b"odd")
    with pytest.raises(UserError, match=r"is no index of benchmarks"):
        load_index(tmp_path / "odd.arrow")
    index = build_index(write_benchmarks(tmp_path / "b"))
    for told, complaint in (
        ({"benchmark index": "0"}, "of version 1; build it again"),
        ({"benchmark index": "1", "fingerprint": "0" * 32}, "does not hold what was written into it"),
    ):
        path = tmp_path / f"{complaint[:2]}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA.with_metadata(told)) as writer:
            writer.write_table(index.rows.replace_schema_metadata(told))
        with pytest.raises(UserError, match=complaint):
            load_index(path)


def test_a_uniform_picture_has_no_hashes() -> None:
    assert crop_hashes(np.full((40, 60), 80, np.uint8)) == []
