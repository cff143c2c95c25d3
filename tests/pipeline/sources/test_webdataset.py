from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import webdataset

from catalog.errors import UserError
from pipeline.media import MediaReader, MediaRef
from pipeline.sources.base import SourceRow
from tests.pipeline.sources.conftest import make

MAP = {"id": "json.key", "text": "txt", "licence": "json.license"}
HINT = "; fix the sample or set on_bad_row: quarantine"


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    info.type = kind
    info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info, data


def write(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], mode: str = "w:") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


def sample(key: str, picture: bytes = b"picture") -> list[tuple[tarfile.TarInfo, bytes]]:
    facts = json.dumps({"key": key, "license": "MIT"}).encode()
    return [member(f"{key}.jpg", picture), member(f"{key}.txt", b"a cat\n"), member(f"{key}.json", facts)]


def rows_of(root: Path, **config: object) -> list[SourceRow]:
    source = make("webdataset", **{"tars": "t.tar", "map": MAP, "on_bad_row": "quarantine", **config})
    return list(source.rows(root))


def test_samples_as_img2dataset_writes_them(root: Path) -> None:
    for number in range(2):
        with webdataset.TarWriter(str(root / f"0000{number}.tar")) as sink:
            for n in range(3):
                key = f"0000{number}000{n}"
                facts = {"key": key, "license": "MIT", "status": "success"}
                sink.write({"__key__": key, "jpg": f"picture {key}".encode(), "txt": f"cat {n}", "json": facts})
    rows = rows_of(root, tars="{00000..00001}.tar")
    assert [row.place for row in rows] == [f"0000{t}.tar:0000{t}000{n}" for t in range(2) for n in range(3)]
    assert rows[4].fields == {"id": "000010001", "text": "cat 1", "licence": "MIT"}
    reader = MediaReader(str(root))
    assert [reader.read(row.media[0]) for row in rows] == [f"picture {row.fields['id']}".encode() for row in rows]


def test_media_are_read_where_they_lie(root: Path) -> None:
    write(root / "t.tar", sample("a") + sample("b", b"other"))
    _, row = rows_of(root)
    assert row.media == (MediaRef("image", "tar", "t.tar", member="b.jpg", offset=6 * 512 + 512, length=5),)


def test_keys_keep_their_folder_and_end_at_the_first_dot(root: Path) -> None:
    write(
        root / "t.tar",
        [
            member("d.1/a.b.JPG"),
            member("d.1/a.jpg"),
            member("d.1/a.txt"),
            member("d.1", kind=tarfile.DIRTYPE),
        ],
    )
    (row,) = rows_of(root, map={"id": "key", "text": "txt"})
    assert row.fields == {"id": "d.1/a", "text": "x"}


def test_names_that_belong_to_no_sample_are_passed_over_as_webdataset_does(root: Path) -> None:
    write(root / "t.tar", [member("README"), member("._a.jpg"), *sample("a")])
    assert [row.place for row in rows_of(root)] == ["t.tar:a"]


def test_selection_comes_before_the_picture_is_looked_for(root: Path) -> None:
    failed = [member("a.json", b'{"key": "a", "status": "failed_to_download"}')]
    good = [member("b.jpg"), member("b.json", b'{"key": "b", "status": "success"}')]
    write(root / "t.tar", failed + good)
    assert [row.problem for row in rows_of(root, select={"json.status": "success"})] == [None]


PLAIN = ", must be a plain file"
ONE_OF = ", must have one of .jpg, .jpeg, .png, .webp"
BROKEN_JSON = '"a.json": column 2: not JSON: unexpected end of data'
LONG = [member("a.jpg"), member("b.jpg"), member("a.txt")]
BAD_SAMPLES = [
    ("split sample", LONG, 'its members do not stand together, "a.txt" comes after "b.jpg"'),
    ("duplicate member", [member("a.jpg"), member("a.jpg")], '"a.jpg" stands there twice'),
    ("unsafe member", [member("a.jpg", kind=tarfile.SYMTYPE)], '"a.jpg" is a symbolic link' + PLAIN),
    ("unsafe member", [member("a.jpg", kind=tarfile.LNKTYPE)], '"a.jpg" is a hard link' + PLAIN),
    ("unsafe member", [member("a.jpg", kind=tarfile.FIFOTYPE)], '"a.jpg" is a device or pipe' + PLAIN),
    ("no image", [member("a.txt")], "has only .txt" + ONE_OF),
    ("two of image", [member("a.jpg"), member("a.png")], "has .jpg and .png" + ONE_OF),
    ("not JSON", [member("a.jpg"), member("a.json", b"{")], BROKEN_JSON),
    ("broken UTF-8", [member("a.jpg"), member("a.txt", b"\xff")], '"a.txt": byte 0xff at 0 is not UTF-8'),
    ("wrong type", [member("a.json", b'{"key": 1}')], "json.key is a number (1), must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "members", "message"), BAD_SAMPLES)
def test_a_bad_sample_stops_or_is_set_aside(
    root: Path, reason: str, members: list[tuple[tarfile.TarInfo, bytes]], message: str
) -> None:
    write(root / "t.tar", members + sample("z"))
    with pytest.raises(UserError) as stopped:
        rows_of(root, on_bad_row="stop")
    assert str(stopped.value) == f"t.tar:a: {message}{HINT}"
    problems = [(row.place, row.problem) for row in rows_of(root) if row.place != "t.tar:b"]
    assert problems == [("t.tar:a", (reason, message)), ("t.tar:z", None)]


def test_an_id_in_two_tars_names_both(root: Path) -> None:
    write(root / "t0.tar", sample("a"))
    write(root / "t1.tar", sample("b") + sample("a"))
    problems = [row.problem for row in rows_of(root, tars="t{0,1}.tar")]
    assert problems == [None, None, ("duplicate id", 'id "a" stands in sample 1 of t0.tar already')]


def test_a_tar_cut_anywhere_never_gives_a_cut_picture_and_says_so(root: Path) -> None:
    write(root / "whole.tar", sample("a") + sample("b", b"p" * 2000))
    whole = (root / "whole.tar").read_bytes()
    assert [row.problem for row in rows_of(root, tars="whole.tar")] == [None, None]
    end = len(whole.rstrip(b"\0"))
    for cut in [*range(512, end, 256), -(-end // 512) * 512]:
        (root / "t.tar").write_bytes(whole[:cut])
        rows = rows_of(root)
        assert any(row.problem and row.problem[0] in ("truncated tar", "damaged tar") for row in rows), cut
        for row in rows:
            if row.problem is None:
                assert MediaReader(str(root)).read(row.media[0]) in (b"picture", b"p" * 2000)
        with pytest.raises(UserError, match=r"^t\.tar[^\n]*set on_bad_row: quarantine$"):
            rows_of(root, on_bad_row="stop")


def test_a_cut_tar_names_the_member(root: Path) -> None:
    write(root / "whole.tar", sample("a") + sample("b", b"p" * 2000))
    (root / "t.tar").write_bytes((root / "whole.tar").read_bytes()[: 6 * 512 + 512 + 1000])
    assert [(row.place, row.problem) for row in rows_of(root)] == [
        ("t.tar:a", None),
        ("t.tar:b", ("truncated tar", 'the tar ends within "b.jpg"')),
    ]
    (root / "t.tar").write_bytes((root / "whole.tar").read_bytes()[: 6 * 512])
    assert [(row.place, row.problem) for row in rows_of(root)] == [
        ("t.tar:a", None),
        ("t.tar", ("truncated tar", 'cut off after "a.json", the end mark is missing')),
    ]


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(root: Path) -> None:
    write(root / "t.tar", sample("a") + sample("b"))
    data = bytearray((root / "t.tar").read_bytes())
    data[6 * 512 : 6 * 512 + 100] = b"\xff" * 100
    (root / "t.tar").write_bytes(data)
    assert [(row.place, row.problem) for row in rows_of(root)] == [
        ("t.tar:a", None),
        ("t.tar", ("damaged tar", 'damaged after "a.json", byte 3072 begins no member')),
    ]


def test_other_files_and_compressed_tars_are_refused(root: Path) -> None:
    (root / "t.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(UserError, match=r"^t.tar: not a readable tar: [^\n]+$"):
        rows_of(root)
    write(root / "t.tar", sample("a"), "w:gz")
    with pytest.raises(UserError, match=r"^t.tar: not a readable tar: .*; compressed tars must be unpacked first$"):
        rows_of(root)
    (root / "t.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"^t.tar: not a readable tar: empty file"):
        rows_of(root)
    with pytest.raises(UserError, match=r'^tar "u.tar": the file "u.tar" does not exist'):
        rows_of(root, tars="u.tar")


def test_inputs_are_the_tars(root: Path) -> None:
    for name in ("t0.tar", "t1.tar"):
        write(root / name, sample("a"))
    source = make("webdataset", tars="t{1,0}.tar")
    source.check(root)
    assert source.inputs(root) == [root / "t0.tar", root / "t1.tar"]


def test_an_ending_with_a_star_stands_for_all_members_that_fit_by_their_numbers(root: Path) -> None:
    numbers = (10, 2, 1)
    write(root / "t.tar", [member(f"a.image.{n}.jpg", b"%d" % n) for n in numbers] + sample("a")[1:])
    (row,) = rows_of(root, media={"image": ["image.*.jpg"]})
    reader = MediaReader(str(root))
    assert [(ref.role, reader.read(ref)) for ref in row.media] == [("image", b"1"), ("image", b"2"), ("image", b"10")]
    write(root / "t.tar", sample("a"))
    (row,) = rows_of(root, media={"image": ["image.*.jpg"]})
    assert row.problem == ("no image", "has only .jpg, .txt, .json, must have one of .image.*.jpg")
