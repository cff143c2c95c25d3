from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from catalog.errors import UserError
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Record, load_operator
from tests.pipeline.pictures import measure

CONTRACT: dict[str, Any] = {"column": "score", "name": "artimuse", "low": 0, "high": 100}


def table(folder: Path, columns: dict[str, Any]) -> str:
    path = folder / "scores.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def record(key: str = "k", digest: str | None = None, **fields: Any) -> Record:
    media = (MediaRef("image", "file", "x", digest=digest),)
    return Record(key, media, orjson.dumps(fields), {}, MediaReader("."))


@pytest.mark.parametrize("key", ["digest", "record_key", "id"])
def test_a_record_gets_the_score_of_its_key_and_others_null(tmp_path: Path, key: str) -> None:
    path = table(tmp_path, {key: ["b", "a", "c"], "score": [62.5, 3.0, None], "more": [1, 2, 3]})
    made = measure("scores", table=path, key=key, **CONTRACT)
    records: dict[str, Callable[[str], Record]] = {
        "digest": lambda value: record(digest=value),
        "record_key": record,
        "id": lambda value: record(id=value),
    }
    assert [made.process(records[key](value)) for value in ("a", "b", "c", "d", "")] == [
        (3.0,),
        (62.5,),
        (None,),
        (None,),
        (None,),
    ]


def test_ids_may_be_numbers_and_the_key_column_may_be_named(tmp_path: Path) -> None:
    path = table(tmp_path, {"item": [10, 9], "score": pa.array([1, 2], pa.int32())})
    made = measure("scores", table=path, key="id", key_column="item", **CONTRACT)
    assert made.process(record(id=9)) == (2.0,)
    assert made.process(record()) == (None,)


def test_the_column_carries_the_contract() -> None:
    (column,) = measure("scores", **CONTRACT, better="lower", about="a test").columns
    assert (column.name, column.low, column.high, column.better, column.about) == (
        "artimuse",
        0,
        100,
        "lower",
        "a test",
    )
    assert column.type == pa.float64()


def test_without_a_table_it_is_missing_and_invents_nothing(tmp_path: Path) -> None:
    made = measure("scores", **CONTRACT)
    assert made.missing == "no table of scores is given for 'artimuse'"
    assert made.process(record(digest="a")) == (None,)
    assert measure("scores", table=table(tmp_path, {"digest": ["a"], "score": [1.0]}), **CONTRACT).missing is None


def test_the_fingerprint_follows_the_bytes_of_the_table(tmp_path: Path) -> None:
    prints = []
    for name, score in (("one", 1.0), ("two", 2.0), ("three", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        path = table(folder, {"digest": ["a"], "score": [score]})
        prints.append(load_operator("scores").build({"table": path, **CONTRACT}).fingerprint_parts())
    assert prints[0] == prints[2] != prints[1]
    assert load_operator("scores").build(CONTRACT).fingerprint_parts() == {}


def test_a_table_rewritten_in_place_gets_another_fingerprint(tmp_path: Path) -> None:
    def fingerprint(score: float) -> dict[str, Any]:
        path = table(tmp_path, {"digest": ["a"], "score": [score]})
        return load_operator("scores").build({"table": path, **CONTRACT}).fingerprint_parts()

    assert fingerprint(1.0) != fingerprint(2.0)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"digest": ["a"], "points": [1.0]}, "has no column 'score'; it has digest, points"),
        ({"key": ["a"], "score": [1.0]}, "has no column 'digest'; it has key, score"),
        (
            {"digest": ["b", "a", "a"], "score": [1.0, 2.0, 3.0]},
            "1 scores, the first 3 of key 'a': a second score for the same key",
        ),
        ({"digest": ["a"], "score": [101.0]}, "1 scores, the first 101 of key 'a': not within 0 to 100"),
        (
            {"digest": ["a"], "score": [float("nan")]},
            "1 scores, the first nan of key 'a': not within 0 to 100",
        ),
        ({"digest": ["a"], "score": ["high"]}, "cannot be read as a table of scores"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused(tmp_path: Path, columns: dict[str, Any], complaint: str) -> None:
    path = table(tmp_path, columns)
    with pytest.raises(UserError) as caught:
        measure("scores", table=path, **CONTRACT)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


def test_the_same_score_twice_is_fine(tmp_path: Path) -> None:
    path = table(tmp_path, {"digest": ["a", "a"], "score": [5.0, 5.0]})
    assert measure("scores", table=path, **CONTRACT).process(record(digest="a")) == (5.0,)


def test_a_table_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    made = load_operator("scores").build({"table": str(tmp_path / "none.parquet"), **CONTRACT})
    for act in (made.fingerprint_parts, made.setup):
        with pytest.raises(UserError, match=r"none\.parquet"):
            act()
    (tmp_path / "none.parquet").write_text("no table")
    with pytest.raises(UserError, match="cannot be read as a table of scores"):
        made.setup()


@pytest.mark.parametrize("wrong", [{"low": 100}, {"high": float("inf")}, {"name": "Arti Muse"}, {"key": "path"}])
def test_parameters_that_make_no_contract_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        load_operator("scores").build({**CONTRACT, **wrong})
