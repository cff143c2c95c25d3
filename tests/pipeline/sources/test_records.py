from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import UserError
from pipeline.sources.jsonl import Jsonl


def source(**given: Any) -> Jsonl:
    common = {"kind": "jsonl", "manifest": "m.jsonl", "map": {"id": "id", "text": "record.text", "licence": "licence"}}
    return Jsonl.model_validate({**common, "records": {"file": "docs.jsonl"}, **given})


def write(root: Path, numbers: list[Any], docs: str = '{"text": "nought"}\n{"text": "one"}\n{"text": "two"}') -> None:
    lines = [json.dumps({"id": f"r{place}", "line": number, "licence": "MIT"}) for place, number in enumerate(numbers)]
    (root / "m.jsonl").write_text("".join(line + "\n" for line in lines))
    (root / "docs.jsonl").write_text(docs)


def test_a_row_has_the_fields_of_its_line_and_of_the_record_it_names(tmp_path: Path) -> None:
    write(tmp_path, [2, 0, 2])
    rows = list(source().rows(tmp_path))
    assert [row.fields["text"] for row in rows] == ["two", "nought", "two"]
    assert rows[0].fields == {"id": "r0", "text": "two", "licence": "MIT"}
    assert rows[0].place == "m.jsonl:1"


@pytest.mark.parametrize(
    ("number", "reason", "message"),
    [
        (3, "no such record", "line is 3, docs.jsonl has lines 0 to 2"),
        (-1, "no such record", "line is -1, docs.jsonl has lines 0 to 2"),
        ("1", "wrong type", 'line is text ("1"), must be a whole number'),
        (None, "wrong type", "line is null, must be a whole number"),
    ],
)
def test_a_line_that_names_no_record_is_a_bad_row(tmp_path: Path, number: Any, reason: str, message: str) -> None:
    write(tmp_path, [0, number])
    _, bad = source(on_bad_row="quarantine").rows(tmp_path)
    assert bad.problem == (reason, message)
    with pytest.raises(UserError, match=r"m\.jsonl:2: line is"):
        list(source().rows(tmp_path))


def test_a_broken_record_is_a_bad_row(tmp_path: Path) -> None:
    write(tmp_path, [0, 1], '{"text": "nought"}\n{"text": ')
    good, bad = source(on_bad_row="quarantine").rows(tmp_path)
    assert good.problem is None
    assert bad.problem is not None
    assert bad.problem[0] == "not JSON"


def test_a_missing_file_of_records_stops_before_the_run(tmp_path: Path) -> None:
    write(tmp_path, [0])
    (tmp_path / "docs.jsonl").unlink()
    with pytest.raises(UserError, match=r"records .*docs\.jsonl"):
        source().check(tmp_path)


def test_a_change_of_the_records_means_reading_again(tmp_path: Path) -> None:
    write(tmp_path, [0])
    assert source().inputs(tmp_path) == [tmp_path / "docs.jsonl", tmp_path / "m.jsonl"]
