from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import pipeline.sources.jsonl as jsonl
from catalog.errors import UserError
from pipeline.media import MediaReader, MediaRef
from pipeline.sources.jsonl import read_lines
from tests.pipeline.sources.conftest import make

MAP = {"id": "id", "text": "caption", "licence": "licence", "score": "score", "origin": "origin.repo"}
CONFIG: dict[str, Any] = {"manifest": "images/manifest.jsonl", "map": MAP, "media": {"image": "file"}}
GOOD = b'{"id": "a", "file": "files/a.jpg", "caption": "a cat", "licence": "MIT", "origin": {"repo": "x/y"}}'
HINT = "; fix the line or set on_bad_row: quarantine"


def write(root: Path, *lines: bytes, end: bytes = b"\n") -> None:
    (root / "images" / "manifest.jsonl").write_bytes(b"\n".join(lines) + end)


def line(**values: Any) -> bytes:
    return orjson.dumps({"file": "files/a.jpg", **values})


def test_a_line_becomes_a_row_with_its_place_fields_and_file(root: Path) -> None:
    write(root, GOOD)
    (row,) = make("jsonl", **CONFIG, const={"task": "t2i"}).rows(root)
    assert row.place == "images/manifest.jsonl:1"
    assert row.fields == {
        "id": "a", "text": "a cat", "licence": "MIT", "score": None, "origin": "x/y", "task": "t2i",
    }  # fmt: skip
    assert row.media == (MediaRef("image", "file", "images/files/a.jpg"),)
    assert row.problem is None
    assert MediaReader(str(root)).read(row.media[0]) == b"a picture"


BAD_LINES: list[tuple[str, bytes, str]] = [
    ("not JSON", b'{"id": "b", caption}', "column 13: not JSON: unexpected character, expected a string key"),
    ("not JSON", b'{"file": 1e999}', "column 10: not JSON: number is infinity when parsed as double"),
    ("not JSON", b'{"file": NaN}', "column 10: not JSON: unexpected character, expected a JSON value"),
    ("not an object", b'["files/a.jpg"]', 'holds ["files/a.jpg"], must be a JSON object'),
    ("broken UTF-8", b'{"caption": "\xff"}', "column 14: byte 0xff is not UTF-8"),
    ("wrong type", line(caption=12), "caption is a number (12), must be text"),
    ("wrong type", line(caption=["a\n", "b"]), 'caption is a list (["a\\n","b"]), must be text'),
    ("wrong type", line(licence=True), "licence is a truth value (true), must be text"),
    ("wrong type", line(id={"a": 1}), 'id is an object ({"a":1}), must be text'),
    ("wrong type", line(score="9"), 'score is text ("9"), must be a number'),
    (
        "wrong type",
        line(score="x" * 99),
        'score is text ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...), must be a number',
    ),
    ("wrong type", line(origin="x/y"), 'origin is text ("x/y"), must be an object that has \'repo\''),
    ("wrong type", b"{}", "file is null, must be text"),
    ("wrong type", line(file=3), "file is a number (3), must be text"),
    ("empty path", line(file=""), "the path is empty"),
    ("absolute path", line(file="/etc/passwd"), '"/etc/passwd" is an absolute path'),
    ("path leaves the root", line(file="../../outside.jpg"), '"../../outside.jpg" leads outside the root'),
    ("path leaves the root", line(file="files/../../.."), '"files/../../.." leads outside the root'),
    ("path leaves the root", line(file="link.jpg"), '"link.jpg" is a link that leads outside the root'),
    ("path leaves the root", line(file="up/x.jpg"), '"up/x.jpg" leads outside the root through a link'),
    ("missing file", line(file="files/b.jpg"), 'the file "files/b.jpg" does not exist'),
    ("missing file", line(file="files/a.jpg/b"), 'the file "files/a.jpg/b" does not exist'),
    ("missing file", line(file="dangling.jpg"), 'the file "dangling.jpg" does not exist'),
    ("missing file", line(file="a\nb"), 'the file "a\\nb" does not exist'),
    ("not a file", line(file="files"), '"files" is not a plain file'),
    ("not a file", line(file="pipe"), '"pipe" is not a plain file'),
    ("unreadable file", line(file="a\0b"), '"a\\u0000b" has a zero byte in it'),
    ("unreadable file", line(file="x" * 300), f'the file "{"x" * 56}...: File name too long'),
    ("duplicate id", GOOD, 'id "a" stands in line 1 already'),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "bad", "message"), BAD_LINES)
def test_a_bad_line_stops_the_run_with_one_line_or_is_set_aside(
    root: Path, reason: str, bad: bytes, message: str
) -> None:
    (root / "images" / "link.jpg").symlink_to(root.parent / "outside.jpg")
    (root / "images" / "dangling.jpg").symlink_to("nothing.jpg")
    (root / "images" / "up").symlink_to(root.parent)
    os.mkfifo(root / "images" / "pipe")
    after = GOOD.replace(b'"a"', b'"c"')
    write(root, GOOD, bad, after)
    config = {**CONFIG, "types": {"score": "float"}}
    with pytest.raises(UserError) as stopped:
        list(make("jsonl", **config).rows(root))
    assert str(stopped.value) == f"images/manifest.jsonl:2: {message}{HINT}"
    assert "\n" not in str(stopped.value)

    rows = list(make("jsonl", **config, on_bad_row="quarantine").rows(root))
    assert [row.place for row in rows] == [f"images/manifest.jsonl:{n}" for n in (1, 2, 3)]
    assert [row.problem for row in rows] == [None, (reason, message), None]
    assert rows[1].media == ()
    assert bool(rows[1].fields) != bool(rows[1].raw)
    if rows[1].raw:
        assert rows[1].raw == bad


WHOLE_FILES: list[tuple[str, bytes, str, str]] = [
    (
        "byte-order mark",
        b"\xef\xbb\xbf" + GOOD + b"\n",
        "1",
        "starts with a byte-order mark; save the file as UTF-8 without one",
    ),
    ("broken UTF-8", GOOD.decode().encode("utf-16"), "1", "the file is UTF-16; save it as UTF-8"),
    (
        "truncated line",
        GOOD + b'\n{"id": "b", "caption": "cut',
        "2",
        "the last line is cut off: column 28: not JSON: unexpected end of data",
    ),
]


@pytest.mark.parametrize(("reason", "data", "number", "message"), WHOLE_FILES)
def test_a_broken_file_is_refused_at_the_line(root: Path, reason: str, data: bytes, number: str, message: str) -> None:
    (root / "images" / "manifest.jsonl").write_bytes(data)
    with pytest.raises(UserError) as stopped:
        list(make("jsonl", **CONFIG).rows(root))
    assert str(stopped.value) == f"images/manifest.jsonl:{number}: {message}{HINT}"
    rows = list(make("jsonl", **CONFIG, on_bad_row="quarantine").rows(root))
    assert (reason, message) in [row.problem for row in rows]


def _remove(root: Path) -> None:
    (root / "images" / "manifest.jsonl").unlink()


def _make_folder(root: Path) -> None:
    _remove(root)
    (root / "images" / "manifest.jsonl").mkdir()


def _link_out(root: Path) -> None:
    _remove(root)
    (root / "images" / "manifest.jsonl").symlink_to(root.parent / "outside.jpg")


UNUSABLE: list[tuple[Callable[[Path], None], str, str]] = [
    (_remove, "images/manifest.jsonl", 'the file "images/manifest.jsonl" does not exist'),
    (_make_folder, "images/manifest.jsonl", '"images/manifest.jsonl" is not a plain file'),
    (_link_out, "images/manifest.jsonl", '"images/manifest.jsonl" is a link that leads outside the root'),
    (_remove, "/etc/passwd", '"/etc/passwd" is an absolute path'),
    (_remove, "../outside.jpg", '"../outside.jpg" leads outside the root'),
]


@pytest.mark.parametrize("on_bad_row", ["stop", "quarantine"])
@pytest.mark.parametrize(("spoil", "manifest", "message"), UNUSABLE)
def test_an_unusable_manifest_always_stops(
    root: Path, spoil: Callable[[Path], None], manifest: str, message: str, on_bad_row: str
) -> None:
    write(root, GOOD)
    spoil(root)
    source = make("jsonl", **{**CONFIG, "manifest": manifest, "on_bad_row": on_bad_row})
    for use in (source.check, source.inputs, lambda root: list(source.rows(root))):
        with pytest.raises(UserError) as stopped:
            use(root)
        assert str(stopped.value) == f'manifest "{manifest}": {message} (the root is {root})'


def test_lines_that_are_not_selected_are_no_inputs_and_cannot_fail(root: Path) -> None:
    write(
        root,
        line(id="a", kind="file"),
        line(id="a", kind="index", file="/nowhere"),
        line(id="a", kind="index", caption=5),
        line(kind=1),
        line(kind=["file"]),
        line(kind="record", origin={"n": 2}),
    )
    config = {**CONFIG, "select": {"kind": "file"}}
    assert [row.place for row in make("jsonl", **config).rows(root)] == ["images/manifest.jsonl:1"]
    config["select"] = {"kind": ["file", "record"], "origin.n": [None, 2]}
    assert [row.fields["id"] for row in make("jsonl", **config).rows(root)] == ["a", None]


def test_selection_tells_true_from_one(root: Path) -> None:
    write(root, line(id="one", kind=1), line(id="true", kind=True), line(id="one.", kind=1.0))
    config = {**CONFIG, "map": {"id": "id"}}
    assert [r.fields["id"] for r in make("jsonl", **config, select={"kind": 1}).rows(root)] == ["one", "one."]
    assert [r.fields["id"] for r in make("jsonl", **config, select={"kind": True}).rows(root)] == ["true"]


def test_an_unreadable_line_counts_though_nothing_can_be_selected_by_it(root: Path) -> None:
    write(root, b"{", line(kind="index"))
    config = {**CONFIG, "select": {"kind": "file"}, "on_bad_row": "quarantine"}
    (row,) = make("jsonl", **config).rows(root)
    assert row.problem == ("not JSON", "column 2: not JSON: unexpected end of data")
    assert row.raw == b"{"


def test_blank_lines_and_carriage_returns_are_no_rows_but_lines_are_counted(root: Path) -> None:
    write(root, b"", GOOD + b"\r", b"  ", line(id="b"), b"")
    rows = list(make("jsonl", **CONFIG).rows(root))
    assert [row.place for row in rows] == ["images/manifest.jsonl:2", "images/manifest.jsonl:4"]


def test_a_dotted_path_may_pick_from_a_list(root: Path) -> None:
    write(root, line(captions=["first", "second"]), line(captions=[]), line())
    rows = make("jsonl", **{**CONFIG, "map": {"text": "captions.0"}}).rows(root)
    assert [row.fields["text"] for row in rows] == ["first", None, None]


def test_a_whole_number_is_stored_as_the_float_it_stands_for(root: Path) -> None:
    write(root, line(score=1))
    (row,) = make("jsonl", **CONFIG, types={"score": "float"}).rows(root)
    assert repr(row.fields["score"]) == "1.0"


def test_a_value_too_deep_to_store_is_a_bad_row(root: Path) -> None:
    write(root, b'{"file": "files/a.jpg", "score": ' + b"[" * 500 + b"]" * 500 + b"}")
    (row,) = make("jsonl", **CONFIG, on_bad_row="quarantine").rows(root)
    assert row.problem is not None
    assert row.problem[0] == "not storable"


@pytest.mark.parametrize(
    "name", ["a b.jpg", 'it\'s "it".jpg', "Zoë 猫.jpg", "new\nline.jpg", "back\\slash.jpg", "%20;$(x).jpg"]
)
def test_odd_names_are_plain_names(root: Path, name: str) -> None:
    (root / "images" / name).write_bytes(name.encode())
    write(root, line(file=name))
    (row,) = make("jsonl", **CONFIG).rows(root)
    assert MediaReader(str(root)).read(row.media[0]) == name.encode()


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "images" / "link.jpg").symlink_to(root / "images" / "files" / "a.jpg")
    (root / "linked").symlink_to("images/files")
    write(root, line(file="link.jpg"), line(file="../linked/a.jpg"), line(file="./files//../files/a.jpg"))
    paths = [row.media[0].path for row in make("jsonl", **CONFIG).rows(root)]
    assert paths == ["images/link.jpg", "linked/a.jpg", "images/files/a.jpg"]


def test_a_root_that_is_itself_a_link_is_fine(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    write(root, GOOD)
    assert [row.problem for row in make("jsonl", **CONFIG).rows(tmp_path / "alias")] == [None]


def test_inputs_are_the_manifest(root: Path) -> None:
    write(root, GOOD)
    source = make("jsonl", **CONFIG)
    source.check(root)
    assert source.inputs(root) == [root / "images" / "manifest.jsonl"]


def test_an_endless_line_is_refused_before_it_fills_the_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE", 1000)
    write(root, GOOD, b'"' + b"x" * 3 * 2**20)
    with pytest.raises(UserError, match=r"manifest.jsonl:2: longer than 1,000 bytes; is this a JSONL file\?$"):
        list(make("jsonl", **CONFIG).rows(root))


@given(
    data=st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\n\n"])).map(b"".join),
    block=st.integers(1, 9),
)
def test_lines_are_cut_as_python_cuts_them(tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", block)
        found = list(read_lines(path))
    with path.open("rb") as file:
        expected = [(n, text.removesuffix(b"\n"), text.endswith(b"\n")) for n, text in enumerate(file, 1)]
    assert found == expected


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"manifest": ""}, "at least 1 character"),
    ({"const": {"id": "x"}}, "id stands in both map and const; keep one"),
    ({"types": {"colour": "str"}}, "types names colour, which neither map nor const gives"),
    ({"types": {"score": "number"}}, "'str', 'int', 'float', 'bool', 'list' or 'dict'"),
    ({"map": {"our field": "x"}}, "should match pattern"),
    ({"folder": "x"}, "Extra inputs are not permitted"),
    ({"on_bad_row": "drop"}, "'stop' or 'quarantine'"),
]


@pytest.mark.parametrize(("config", "message"), BAD_CONFIGS)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make("jsonl", **{**CONFIG, **config})


@pytest.mark.corpora
def test_the_sample_corpora_read_without_a_bad_line() -> None:
    corpora = Path(__file__).parents[4] / "shared" / "corpora"
    if not corpora.is_dir():
        pytest.skip("needs ../shared/corpora")
    counts = {}
    for name in ("images", "hostile", "ocr", "grounding"):
        config = {**CONFIG, "manifest": f"{name}/manifest.jsonl", "select": {"kind": "file"}}
        counts[name] = sum(1 for _ in make("jsonl", **config).rows(corpora))
    assert counts == {"images": 176, "hostile": 38, "ocr": 49, "grounding": 52}


def several(root: Path, value: Any, **config: Any) -> Any:
    (root / "images" / "files" / "b.jpg").write_bytes(b"another")
    write(root, orjson.dumps({"images": value, "out": "files/a.jpg"}))
    media = {"image": "images", "target": "out"}
    (row,) = make("jsonl", **{**CONFIG, "map": {}, "media": media, "on_bad_row": "quarantine", **config}).rows(root)
    return row


def test_a_list_of_paths_gives_one_medium_each_in_its_order(root: Path) -> None:
    row = several(root, ["files/b.jpg", "files/b.jpg", "files/a.jpg"])
    assert [(ref.role, ref.path[-5:]) for ref in row.media] == [
        ("image", "b.jpg"),
        ("image", "b.jpg"),
        ("image", "a.jpg"),
        ("target", "a.jpg"),
    ]
    assert several(root, ["files/b.jpg"]).media == several(root, "files/b.jpg").media


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], ("no image", "images is an empty list, must name at least one")),
        (["files/a.jpg", None], ("wrong type", "images.1 is null, must be text")),
        ([["files/a.jpg"]], ("wrong type", 'images.0 is a list (["files/a.jpg"]), must be text')),
        (["files/a.jpg", "/etc/passwd"], ("absolute path", '"/etc/passwd" is an absolute path')),
        (["files/a.jpg", "files/none.jpg"], ("missing file", 'the file "files/none.jpg" does not exist')),
    ],
)
def test_a_list_with_anything_else_in_it_is_a_bad_row(root: Path, value: Any, problem: tuple[str, str]) -> None:
    assert several(root, value).problem == problem


@pytest.mark.parametrize(
    ("value", "references"),
    [(["files/a.jpg"], []), (["files/a.jpg", "files/b.jpg", "files/a.jpg"], ["b.jpg", "a.jpg"])],
)
def test_the_rest_of_a_list_may_be_empty(root: Path, value: Any, references: list[str]) -> None:
    row = several(root, value, media={"source": "images.0", "reference": "images.1:"})
    assert row.problem is None
    assert [ref.path[-5:] for ref in row.media if ref.role == "reference"] == references
    assert [ref.path[-5:] for ref in row.media if ref.role == "source"] == ["a.jpg"]
