from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import UserError
from pipeline.media import MediaReader
from tests.pipeline.sources.conftest import make

MAP = {"id": "path", "text": "txt", "licence": "json.licence"}


@pytest.fixture
def pictures(root: Path) -> Path:
    top = root / "pictures"
    (top / "b" / "deep").mkdir(parents=True)
    for name in ("b/deep/2.PNG", "b/1.jpg", "z é'\".webp", "a.jpg", "notes.pdf"):
        (top / name).write_bytes(name.encode())
    return root


def test_every_picture_below_the_folder_is_a_row_in_a_fixed_order(pictures: Path) -> None:
    rows = list(make("folder", folder="pictures", map={"id": "path"}).rows(pictures))
    assert [row.place for row in rows] == [
        "pictures/a.jpg", "pictures/z é'\".webp", "pictures/b/1.jpg", "pictures/b/deep/2.PNG",
    ]  # fmt: skip
    assert [row.fields["id"] for row in rows] == ["a.jpg", "z é'\".webp", "b/1.jpg", "b/deep/2.PNG"]
    for row in rows:
        assert MediaReader(str(pictures)).read(row.media[0]).decode() == row.fields["id"]


def test_side_files_give_text_and_fields_and_may_be_absent(pictures: Path) -> None:
    (pictures / "pictures/a.txt").write_text("\ufeffa cat\n", encoding="utf-8")
    (pictures / "pictures/a.json").write_text('{"licence": "MIT"}')
    rows = {row.fields["id"]: row.fields for row in make("folder", folder="pictures", map=MAP).rows(pictures)}
    assert rows["a.jpg"] == {"id": "a.jpg", "text": "a cat", "licence": "MIT"}
    assert rows["b/1.jpg"] == {"id": "b/1.jpg", "text": None, "licence": None}
    source = make("folder", folder="pictures", map=MAP, select={"json.licence": "MIT"})
    assert [row.fields["id"] for row in source.rows(pictures)] == ["a.jpg"]


def test_side_files_that_nothing_names_are_not_read(pictures: Path) -> None:
    (pictures / "pictures/a.json").write_bytes(b"\xff broken")
    assert len(list(make("folder", folder="pictures").rows(pictures))) == 4


BAD = [
    ("a.json", b"[1]", "not an object", '"a.json": holds [1], must be a JSON object'),
    ("a.json", b"{", "not JSON", '"a.json": column 2: not JSON: unexpected end of data'),
    ("a.json", b'{"licence": 1}', "wrong type", "json.licence is a number (1), must be text"),
    ("a.txt", b"caf\xe9", "broken UTF-8", '"a.txt": byte 0xe9 at 3 is not UTF-8'),
]


@pytest.mark.parametrize(("name", "data", "reason", "message"), BAD)
def test_a_bad_side_file_stops_or_sets_the_picture_aside(
    pictures: Path, name: str, data: bytes, reason: str, message: str
) -> None:
    (pictures / "pictures" / name).write_bytes(data)
    with pytest.raises(UserError) as stopped:
        list(make("folder", folder="pictures", map=MAP).rows(pictures))
    hint = "fix the file or set on_bad_row: quarantine"
    assert str(stopped.value) == f"pictures/a.jpg: {message}; {hint}"
    rows = list(make("folder", folder="pictures", map=MAP, on_bad_row="quarantine").rows(pictures))
    assert [row.problem for row in rows] == [(reason, message), None, None, None]
    assert rows[0].raw == b"pictures/a.jpg"


def test_links_out_of_the_root_pipes_and_odd_names_are_bad_rows(pictures: Path) -> None:
    top = pictures / "pictures"
    (top / "link.jpg").symlink_to(pictures.parent / "outside.jpg")
    os.mkfifo(top / "pipe.jpg")
    (Path(os.fsdecode(os.fsencode(top) + b"/\xff.jpg"))).write_bytes(b"x")
    rows = list(make("folder", folder="pictures", on_bad_row="quarantine").rows(pictures))
    problems = {row.place: row.problem and row.problem[0] for row in rows if row.problem}
    assert problems == {
        "pictures/link.jpg": "path leaves the root",
        "pictures/pipe.jpg": "not a file",
        "pictures/\\udcff.jpg": "broken UTF-8",
    }


def test_linked_folders_are_not_entered(pictures: Path) -> None:
    (pictures / "pictures" / "loop").symlink_to(pictures / "pictures")
    assert len(list(make("folder", folder="pictures").rows(pictures))) == 4


def test_inputs_are_the_folders_and_the_side_files_in_use(pictures: Path) -> None:
    (pictures / "pictures/a.txt").write_text("x")
    (pictures / "pictures/a.json").write_text("{}")
    found = make("folder", folder="pictures", map={"text": "txt"}).inputs(pictures)
    assert [path.relative_to(pictures).as_posix() for path in found] == [
        "pictures", "pictures/a.txt", "pictures/b", "pictures/b/deep",
    ]  # fmt: skip


UNUSABLE = [
    ("nowhere", 'folder "nowhere": no such folder (the root is {root})'),
    ("..", 'folder "..": ".." leads outside the root (the root is {root})'),
    ("/tmp", 'folder "/tmp": "/tmp" is an absolute path (the root is {root})'),
    ("away", 'folder "away": leads outside the root {root} through a link'),
]


@pytest.mark.parametrize(("folder", "message"), UNUSABLE)
def test_an_unusable_folder_always_stops(root: Path, folder: str, message: str) -> None:
    (root / "away").symlink_to(root.parent)
    source = make("folder", folder=folder, on_bad_row="quarantine")
    for use in (source.check, source.inputs, lambda root: list(source.rows(root))):
        with pytest.raises(UserError) as stopped:
            use(root)
        assert str(stopped.value) == message.format(root=root)


def test_endings_need_their_dot() -> None:
    with pytest.raises(ValidationError, match="must each start with a dot"):
        make("folder", endings=["jpg"])


def test_the_order_is_that_of_the_names_whatever_the_disk_says(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in "dacb":
        (root / "many" / folder).mkdir(parents=True)
        for name in "3142":
            (root / "many" / folder / f"{name}.jpg").touch()
    real = os.walk

    def shuffled(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, names in real(top):
            folders.reverse()
            yield folder, folders, names[::-1]

    source = make("folder", folder="many")
    expected = [f"many/{folder}/{name}.jpg" for folder in "abcd" for name in "1234"]
    assert [row.place for row in source.rows(root)] == expected
    monkeypatch.setattr(os, "walk", shuffled)
    assert [row.place for row in source.rows(root)] == expected
