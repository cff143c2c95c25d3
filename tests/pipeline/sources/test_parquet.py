from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.sources.parquet as parquet
from catalog.errors import UserError
from pipeline.media import MediaReader, MediaRef
from tests.pipeline.sources.conftest import make

HF_MAP = {"id": "id", "text": "captions.0", "licence": "meta.licence"}


def write_hf(root: Path, name: str = "hf.parquet", rows: int = 7, **options: Any) -> None:
    """A table as Hugging Face writes it: pictures as structs of bytes and path."""
    table = pa.table(
        {
            "id": [f"{name}-{n}" for n in range(rows)],
            "image": [{"bytes": f"{name} {n}".encode(), "path": f"{n}.jpg"} for n in range(rows)],
            "captions": [[f"caption {n}", "other"] for n in range(rows)],
            "meta": [{"licence": "MIT", "score": n / 2, "when": n} for n in range(rows)],
            "taken": pa.array(range(rows), pa.timestamp("us")),
        }
    )
    pq.write_table(table, root / name, row_group_size=3, **options)


def test_bytes_stay_in_the_table_and_are_found_again(root: Path) -> None:
    write_hf(root)
    rows = list(make("parquet", files="hf.parquet", map=HF_MAP, media={"image": "image.bytes"}).rows(root))
    assert rows[4].place == "hf.parquet:4"
    assert rows[4].fields == {"id": "hf.parquet-4", "text": "caption 4", "licence": "MIT"}
    assert rows[4].media == (MediaRef("image", "parquet", "hf.parquet", member="image.bytes", offset=4),)
    reader = MediaReader(str(root))
    assert [reader.read(row.media[0]) for row in rows] == [f"hf.parquet {n}".encode() for n in range(7)]


def test_a_path_column_names_files_beside_the_table(root: Path) -> None:
    table = pa.table({"path": ["files/a.jpg", "files/b.jpg", None, "/etc/passwd"], "caption": ["x"] * 4})
    pq.write_table(table, root / "images" / "laion.parquet")
    config = {"files": "images/laion.parquet", "map": {"text": "caption"}, "media": {"image": "path"}}
    rows = list(make("parquet", **config, on_bad_row="quarantine").rows(root))
    assert rows[0].media == (MediaRef("image", "file", "images/files/a.jpg"),)
    assert [row.problem for row in rows] == [
        None,
        ("missing file", 'the file "files/b.jpg" does not exist'),
        ("wrong type", "path is null, must be text"),
        ("absolute path", '"/etc/passwd" is an absolute path'),
    ]
    with pytest.raises(UserError) as stopped:
        list(make("parquet", **config).rows(root))
    hint = "fix the row or set on_bad_row: quarantine"
    assert str(stopped.value) == f'images/laion.parquet:1: the file "files/b.jpg" does not exist; {hint}'


@pytest.mark.parametrize("statistics", [True, False])
def test_a_null_picture_is_a_bad_row(root: Path, statistics: bool) -> None:
    images = [{"bytes": b"x"}, {"bytes": None}, None, {"bytes": b""}]
    pq.write_table(pa.table({"image": images}), root / "n.parquet", write_statistics=statistics, row_group_size=2)
    source = make("parquet", files="n.parquet", media={"image": "image.bytes"}, on_bad_row="quarantine")
    missing = ("no image", "image.bytes is null")
    rows = list(source.rows(root))
    assert [row.problem for row in rows] == [None, missing, missing, None]
    assert rows[1].raw == b"n.parquet:1"


def test_only_the_needed_columns_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hf(root)
    asked: list[list[str]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: Any, **options: Any) -> Any:
        asked.append(options["columns"])
        return original(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    list(make("parquet", files="hf.parquet", map=HF_MAP, media={"image": "image.bytes"}).rows(root))
    assert asked == [["captions", "id", "meta.licence"]] * 3


def test_rows_come_in_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hf(root)
    monkeypatch.setattr(parquet, "_BATCH", 2)
    source = make("parquet", files="hf.parquet", map=HF_MAP, media={"image": "image.path"}, on_bad_row="quarantine")
    assert [row.place for row in source.rows(root)] == [f"hf.parquet:{n}" for n in range(7)]


def test_brace_patterns_and_wildcards_read_files_in_order(root: Path) -> None:
    for name in ("p-0.parquet", "p-1.parquet", "p-2.parquet"):
        write_hf(root, name, rows=1)

    def ids(files: str) -> list[Any]:
        source = make("parquet", files=files, map={"id": "id"})
        return [row.fields["id"][:3] for row in source.rows(root)]

    assert ids("p-{2..0}.parquet") == ["p-2", "p-1", "p-0"]
    assert ids("p-*.parquet") == ["p-0", "p-1", "p-2"]
    with pytest.raises(UserError, match=r'^file "p-0.parquet": names "p-0.parquet" twice$|twice'):
        ids("p-{0,0}.parquet")
    with pytest.raises(UserError, match=r'file "q-\*.parquet": matches no file'):
        ids("q-*.parquet")
    with pytest.raises(UserError, match=r'file "p-3.parquet": the file "p-3.parquet" does not exist'):
        ids("p-{0..3}.parquet")
    with pytest.raises(UserError, match=r"Unbalanced braces"):
        ids("p-{0..3.parquet")


def test_an_id_in_two_files_names_both_rows(root: Path) -> None:
    for name in ("p-0.parquet", "p-1.parquet"):
        pq.write_table(pa.table({"id": [f"{name}", "same"]}), root / name)
    with pytest.raises(UserError) as stopped:
        list(make("parquet", files="p-{0..1}.parquet", map={"id": "id"}).rows(root))
    assert str(stopped.value) == (
        'p-1.parquet:1: id "same" stands in p-0.parquet:1 already; fix the row or set on_bad_row: quarantine'
    )


def test_nan_is_no_json_value(root: Path) -> None:
    table = pa.table({"score": [0.5, math.nan, None], "deep": [[{"a": 1.0}], None, [{"a": math.inf}]]})
    pq.write_table(table, root / "s.parquet")
    source = make("parquet", files="s.parquet", map={"score": "score", "deep": "deep"}, on_bad_row="quarantine")
    assert [row.problem for row in source.rows(root)] == [
        None,
        ("non-finite number", "score is nan, must be a finite number or null"),
        ("non-finite number", "deep is inf, must be a finite number or null"),
    ]


COLUMNS = "its columns are id, image, captions, meta, taken"
NO_FIELD = "which no field can hold; map another"
UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"map": {"text": "caption"}}, f"hf.parquet: has no column 'caption'; {COLUMNS}"),
    (
        {"map": {"text": "meta.author"}},
        "hf.parquet: has no column 'meta.author'; its columns are meta.licence, meta.score, meta.when",
    ),
    ({"map": {"text": "id.x"}}, "hf.parquet: column 'id.x': 'id' is string"),
    ({"map": {"x": "taken"}}, f"hf.parquet: column 'taken' is timestamp[us], {NO_FIELD}"),
    ({"map": {"x": "image.bytes"}}, f"hf.parquet: column 'image.bytes' is binary, {NO_FIELD}"),
    ({"select": {"kind": "x"}}, f"hf.parquet: has no column 'kind'; {COLUMNS}"),
    (
        {"media": {"image": "image"}},
        "hf.parquet: column 'image' is struct<bytes: binary, path: string>, must be bytes or text; "
        "name one of image.bytes, image.path",
    ),
    ({"media": {"image": "meta.score"}}, "hf.parquet: column 'meta.score' is double, must be bytes or text"),
    (
        {"files": "images/files/a.jpg"},
        "images/files/a.jpg: not a readable Parquet file: Parquet magic bytes not found in footer. "
        "Either the file is corrupted or this is not a parquet file.",
    ),
]


@pytest.mark.parametrize(("config", "message"), UNUSABLE)
def test_an_unusable_table_stops_before_any_row(root: Path, config: dict[str, Any], message: str) -> None:
    write_hf(root)
    source = make("parquet", **{"files": "hf.parquet", "on_bad_row": "quarantine", **config})
    for use in (source.check, lambda root: next(source.rows(root))):
        with pytest.raises(UserError) as stopped:
            use(root)
        assert str(stopped.value) == message


def test_a_damaged_row_group_is_named(root: Path) -> None:
    write_hf(root, compression="none")
    data = bytearray((root / "hf.parquet").read_bytes())
    start = pq.ParquetFile(root / "hf.parquet").metadata.row_group(1).column(0).dictionary_page_offset
    data[start : start + 8] = b"\xff" * 8
    (root / "hf.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"^hf.parquet: row group 1 cannot be read: [^\n]+$"):
        list(make("parquet", files="hf.parquet", map={"id": "id"}).rows(root))


def lists(root: Path, column: Any, path: str) -> list[Any]:
    pq.write_table(pa.table({"images": column}), root / "lists.parquet", row_group_size=2)
    source = make("parquet", files="lists.parquet", media={"image": path}, on_bad_row="quarantine")
    source.check(root)
    return list(source.rows(root))


STRUCT = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


@pytest.mark.parametrize(
    ("cell", "kind", "path", "member"),
    [
        (lambda data: data, pa.list_(pa.binary()), "images", "images.{}"),
        (lambda data: {"bytes": data, "path": "x.jpg"}, STRUCT, "images.bytes", "images.{}.bytes"),
    ],
)
def test_a_list_of_bytes_gives_one_medium_each(root: Path, cell: Any, kind: Any, path: str, member: str) -> None:
    cells = [[b"one", b"two"], [b"three"], [], None, [b"four", None], [b"five"]]
    column = pa.array([None if some is None else [cell(one) for one in some] for some in cells], kind)
    rows = lists(root, column, path)
    reader = MediaReader(str(root))
    assert [[reader.read(ref) for ref in row.media] for row in rows if row.problem is None] == [
        [b"one", b"two"],
        [b"three"],
        [b"five"],
    ]
    assert [ref.member for ref in rows[0].media] == [member.format(0), member.format(1)]
    assert [row.problem for row in rows[2:5]] == [
        ("no image", f"{path} is an empty list"),
        ("no image", f"{path} is null"),
        ("no image", f"{member.format(1)} is null"),
    ]


def test_a_list_of_paths_names_files_beside_the_table(root: Path) -> None:
    (root / "b.jpg").write_bytes(b"b")
    paths = [["b.jpg", "images/files/a.jpg"], [], ["b.jpg", None]]
    for path, column in (
        ("images", pa.array(paths)),
        ("images.path", pa.array([[{"path": one} for one in some] for some in paths], STRUCT)),
    ):
        rows = lists(root, column, path)
        assert [ref.path for ref in rows[0].media] == ["b.jpg", "images/files/a.jpg"]
        assert [row.problem for row in rows[1:]] == [
            ("no image", f"{path} is an empty list, must name at least one"),
            ("wrong type", f"{path}.1 is null, must be text"),
        ]
