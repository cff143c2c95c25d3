"""One unit in one process: whatever one record does, its neighbours keep their values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import schemas
from catalog.columns import Column
from catalog.keys import key_of
from catalog.storage import LocalFolder
from catalog.tables import Table
from pipeline.operator import Quarantine, check_row, load_operator
from pipeline.worker import GROUP, Task, Unit, outcome_schema, pack_rows, quarantine_unit, run_unit, unpack_rows

Said = tuple[str, str | None, str | None]
OK: Said = ("ok", None, None)


def task_of(folder: Path, op: str, **given: Any) -> Task:
    fixed: dict[str, Any] = {
        "node": "toy", "op": f"tests.toys:{op}", "params": "{}", "table": "outcomes/toy", "store": str(folder),
        "options": (), "root": str(folder / "root"), "tag": "r000001", "time_limit": 60.0,
    }  # fmt: skip
    return Task(**{**fixed, **given})


def rows_of(dos: list[str | None]) -> pa.Table:
    """Records 0 to n - 1 of bucket 0, in key order, each with what it should do."""
    keys = sorted("0" + key_of(b"%d" % n)[1:] for n in range(len(dos)))
    return pa.table(
        {
            "record_key": pa.array(keys, pa.string()),
            "fields": pa.array([b'{"id":"%d"}' % n for n in range(len(dos))], pa.binary()),
            "do": pa.array(dos, pa.string()),
        }
    )


def outcome(task: Task) -> list[dict[str, Any]]:
    """The rows of the outcome file, in key order."""
    paths = list(Path(task.store).glob(f"tables/{task.table}/*/*.parquet"))
    return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in paths]).sort("record_key").to_dicts()


def run(folder: Path, op: str, dos: list[str | None], **given: Any) -> list[dict[str, Any]]:
    task = task_of(folder, op, **given)
    result = run_unit(task, Unit("0", len(dos), pack_rows(rows_of(dos))))
    found = outcome(task)
    assert result.calls == result.file.rows == len(found) == len(dos)
    assert result.quarantined.total() == sum(row["status"] != "ok" for row in found)
    return found


def said(row: dict[str, Any]) -> Said:
    return row["status"], row["reason"], row["message"]


TROUBLE: list[tuple[str, str, str]] = [
    ("raise", "ValueError", "no good"),
    ("quarantine", "too odd", "the particulars"),
    ("surrogate", "OSError", "cannot read \\udcff.jpg"),
    ("sys.exit 3", "SystemExit", "3"),
    ("memory", "out of memory", "the record needs more memory than there is"),
    ("nan", "non-finite value", "score is nan"),
    ("np.nan", "non-finite value", "score is nan"),
    ("inf", "non-finite value", "score is inf"),
    ("negative", "value out of range", "score is -0.5, declared 0 to 1"),
    ("large", "value out of range", "score is 1.5, declared 0 to 1"),
    ("text", "wrong type", "score is a str, not double"),
]


@pytest.mark.parametrize("op", ["Score", "BatchScore"])
@pytest.mark.parametrize(("do", "reason", "message"), TROUBLE)
def test_one_bad_record_is_set_aside_and_its_neighbours_are_untouched(
    tmp_path: Path, op: str, do: str, reason: str, message: str
) -> None:
    found = run(tmp_path, op, [None] * 5 + [do] + [None] * 6)
    assert [said(row) for row in found] == [OK] * 5 + [("quarantined", reason, message)] + [OK] * 6
    assert [row["score"] for row in found if row["status"] == "ok"] == [0.5] * 11
    assert found[5]["score"] is None


@pytest.mark.parametrize("op", ["Score", "BatchScore"])
def test_all_kinds_of_trouble_at_once(tmp_path: Path, op: str) -> None:
    dos = [do for case in TROUBLE for do in (None, case[0])]
    found = run(tmp_path, op, dos)
    assert [said(row) for row in found[1::2]] == [("quarantined", *case[1:]) for case in TROUBLE]
    assert [said(row) for row in found[::2]] == [OK] * len(TROUBLE)


def test_null_is_a_value_like_any_other(tmp_path: Path) -> None:
    found = run(tmp_path, "Score", ["null", None])
    assert [said(row) for row in found] == [OK, OK]
    assert [row["score"] for row in found] == [None, 0.5]


def test_a_batch_may_set_one_of_its_records_aside_itself(tmp_path: Path) -> None:
    found = run(tmp_path, "BatchScore", [None, "answer", None])
    assert [said(row) for row in found] == [OK, ("quarantined", "said so", "by the batch"), OK]


def test_a_batch_that_answers_for_too_few_is_done_one_by_one(tmp_path: Path) -> None:
    found = run(tmp_path, "BatchScore", [None, None, "short", None])
    assert [said(row) for row in found] == [OK] * 4


def test_an_operator_that_returns_too_few_values_fails_record_by_record(tmp_path: Path) -> None:
    found = run(tmp_path, "WrongCount", [None, None])
    assert [row["reason"] for row in found] == ["ValueError"] * 2


WRONG = [
    ("surrogate", "wrong type", "words is a str, not string"),
    ("number for text", "wrong type", "words is a int, not string"),
    ("fraction", "wrong type", "count is 2.5, not int64"),
    ("huge", "value out of range", f"count is {2**70}, declared 0 to 100"),
    ("nan in list", "non-finite value", "parts is nan"),
    ("text in list", "wrong type", "parts is a list, not list<item: double>"),
    ("object", "wrong type", "words is a object, not string"),
]


def test_a_value_of_another_type_sets_its_record_aside_alone(tmp_path: Path) -> None:
    found = run(tmp_path, "Words", [do for case in WRONG for do in (None, case[0])])
    assert [said(row) for row in found[1::2]] == [("quarantined", *case[1:]) for case in WRONG]
    for row in found[::2]:
        assert said(row) == OK
        assert (row["words"], row["count"], row["parts"]) == ("a", 1, [0.5])


@given(st.lists(st.sampled_from([None, *(case[0] for case in TROUBLE)]), min_size=1, max_size=20))
@settings(max_examples=25)
def test_a_record_fares_the_same_whoever_stands_beside_it(tmp_path_factory: Any, dos: list[str | None]) -> None:
    wanted = {None: OK} | {case[0]: ("quarantined", *case[1:]) for case in TROUBLE}
    for op in ("Score", "BatchScore"):
        found = run(tmp_path_factory.mktemp("unit"), op, dos)
        assert [said(row) for row in found] == [wanted[do] for do in dos]


def test_messages_do_not_tell_where_the_media_lie(tmp_path: Path) -> None:
    rows = rows_of([None])
    ref = {"role": "image", "container": "file", "path": "a.jpg", "member": None, "offset": None, "length": 1}
    rows = rows.append_column("media", pa.array([[{**ref, "digest": "d"}]], schemas.MEDIA))
    task = task_of(tmp_path, "CountedHeader")
    run_unit(task, Unit("0", 1, pack_rows(rows)))
    assert said(outcome(task)[0]) == (
        "quarantined", "FileNotFoundError", "[Errno 2] No such file or directory: 'a.jpg'",
    )  # fmt: skip


def test_the_file_a_unit_writes_is_what_a_table_takes(tmp_path: Path) -> None:
    task = task_of(tmp_path, "Score")
    rows = rows_of([None, "raise", None])
    unit = Unit("0", 3, pack_rows(rows), attempt=2)
    result = run_unit(task, unit)
    table = Table(
        LocalFolder(str(tmp_path)), task.table, outcome_schema(load_operator(task.op).build({})), "record_key", 1
    )
    table.add([result.file])
    found = table.read().to_dicts()
    assert [row["record_key"] for row in found] == rows.column("record_key").to_pylist()
    assert {row["attempt"] for row in found} == {2}
    assert run_unit(task, unit).file == result.file  # the same work, the same file


def test_a_unit_that_cannot_be_run_is_set_aside_whole(tmp_path: Path) -> None:
    task = task_of(tmp_path, "Score")
    schema = outcome_schema(load_operator(task.op).build({}))
    result = quarantine_unit(task, Unit("0", 1, pack_rows(rows_of([None])), 2), schema, "time limit", "took long")
    assert (result.calls, result.quarantined) == (1, {"time limit": 1})
    assert [(*said(row), row["attempt"], row["score"]) for row in outcome(task)] == [
        ("quarantined", "time limit", "took long", 2, None)
    ]


def test_rows_survive_their_way_to_a_worker() -> None:
    rows = rows_of([None, "a", "b"])
    assert unpack_rows(pack_rows(rows.slice(1, 2))).equals(rows.slice(1, 2))


# -- born records -----------------------------------------------------------------------------------------------------


def test_rows_with_empty_lists_travel_whatever_buffers_they_have() -> None:
    nothing = pa.Array.from_buffers(pa.int64(), 0, [None, pa.py_buffer(b"")], offset=1)
    structs = pa.StructArray.from_arrays([nothing], names=["length"])
    rows = pa.table({"media": pa.LargeListArray.from_arrays(pa.array([0, 0, 0], pa.int64()), structs)})
    assert unpack_rows(pack_rows(rows)).to_pylist() == [{"media": []}, {"media": []}]


def test_children_are_keyed_by_parent_place_and_content(tmp_path: Path) -> None:
    found = run(tmp_path, "ThreeParts", [None, "raise", "childless"])
    children = found[0]["children"]
    assert [child["role"] for child in children] == ["part"] * 3
    assert len({child["record_key"] for child in children}) == 3
    assert [child["fields"] for child in children] == [b'{"id":"0.%d","part":"%d"}' % (n, n) for n in range(3)]
    assert said(found[1]) == ("quarantined", "ValueError", "no good")
    assert (said(found[2]), found[2]["children"]) == (OK, [])
    again = run(tmp_path / "again", "ThreeParts", [None])
    assert again[0]["children"] == children
    other = run(tmp_path / "other", "ThreeParts", [None], params='{"children":2}')
    assert not {child["record_key"] for child in other[0]["children"]} & {child["record_key"] for child in children}


def test_a_bad_group_costs_the_other_groups_nothing(tmp_path: Path) -> None:
    rows = rows_of([None, None, "raise", None, None])
    rows = rows.append_column("id", pa.array(list("abcde")))
    rows = rows.append_column(GROUP, pa.array(["g1", "g1", "g2", "g2", "g3"]))
    task = task_of(tmp_path, "Together")
    result = run_unit(task, Unit("0", 5, pack_rows(rows)))
    found = {row["record_key"]: row for row in outcome(task)}
    assert result.calls == 3
    assert [found[group]["status"] for group in ("g1", "g2", "g3")] == ["ok", "quarantined", "ok"]
    keys = rows.column("record_key").to_pylist()
    assert [found[group]["parents"] for group in ("g1", "g2", "g3")] == [keys[:2], keys[2:4], keys[4:]]
    assert b'"id":"a+b"' in found["g1"]["children"][0]["fields"]


def test_a_group_that_kills_its_worker_is_set_aside_with_its_members(tmp_path: Path) -> None:
    rows = rows_of([None, None]).append_column(GROUP, pa.array(["g1", "g1"]))
    task = task_of(tmp_path, "Together")
    schema = outcome_schema(load_operator(task.op).build({}))
    result = quarantine_unit(task, Unit("0", 1, pack_rows(rows), 2), schema, "killed its worker", "")
    assert result.calls == 1
    assert outcome(task)[0]["parents"] == rows.column("record_key").to_pylist()


# -- the contract of values -------------------------------------------------------------------------------------------

BOUNDED = (Column("score", pa.float64(), "bounded", 0, 1),)
FREE = (Column("score", pa.float64(), "free"),)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf"), [0.5, math.nan]]
)
@pytest.mark.parametrize("columns", [BOUNDED, FREE])
def test_no_scorer_may_emit_what_is_no_number(columns: tuple[Column, ...], value: Any) -> None:
    with pytest.raises(Quarantine) as refused:
        check_row(columns, (value,))
    assert refused.value.reason == "non-finite value"


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, 2, -1, np.float32(1.5), [0.5, 1.5]])
def test_no_scorer_may_leave_its_declared_range(value: Any) -> None:
    with pytest.raises(Quarantine) as refused:
        check_row(BOUNDED, (value,))
    assert refused.value.reason == "value out of range"


@pytest.mark.parametrize("value", [0, 1, 0.5, True, None, np.float32(1), [], [0.0, 1.0], "text", b"bytes", {"a": 5}])
def test_other_values_are_left_to_their_types(value: Any) -> None:
    check_row(BOUNDED, (value,))


def test_every_declared_column_has_a_value() -> None:
    with pytest.raises(ValueError, match="zip"):
        check_row(BOUNDED, ())
