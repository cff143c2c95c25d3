"""Bad input: one line that names the place and what to do, exit code 2, and nothing lost or half-written."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from catalog.storage import open_storage
from tests.jobs.tiny import Tiny, here, unifactory, write_tiny

GOOD = '{"id": "a", "file": "files/00.jpg", "caption": "x"}\n'
HINT = "; fix the line or set on_bad_row: quarantine"

MANIFESTS: list[tuple[bytes, str]] = [
    (b'{"id": "a", "file": "files/gone.jpg"}\n', ':1: the file "files/gone.jpg" does not exist' + HINT),
    (
        b'{"id": "a", "file": "files/00.jpg", "caption": 12}\n',
        ":1: caption is a number (12), must be text" + HINT,
    ),
    (GOOD.encode() + GOOD.encode(), ':2: id "a" stands in line 1 already' + HINT),
    (b'{"id": "a", "caption": "\xff"}\n', ":1: column 25: byte 0xff is not UTF-8" + HINT),
    (
        b"\xef\xbb\xbf" + GOOD.encode(),
        ":1: starts with a byte-order mark; save the file as UTF-8 without one" + HINT,
    ),
    (b'{"id": "a", "file": "../../../etc/passwd"}\n', ':1: "../../../etc/passwd" leads outside the root' + HINT),
    (b'{"id": "a", "file": "/etc/passwd"}\n', ':1: "/etc/passwd" is an absolute path' + HINT),
    (b'{"id": "a", "file": "files/link.jpg"}\n', ':1: "files/link.jpg" is a link that leads outside the root' + HINT),
    (
        GOOD.encode() + b'{"id": "b", "fi',
        ":2: the last line is cut off: column 16: not JSON: unexpected end of data" + HINT,
    ),
    (b"[1, 2]\n", ":1: holds [1,2], must be a JSON object" + HINT),
]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return write_tiny(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A corpus with a store in which a run has finished; nobody changes it."""
    made = write_tiny(tmp_path_factory.mktemp("finished"))
    assert made.curate().returncode == 0
    return made


@pytest.fixture
def curated(finished: Tiny, tmp_path: Path) -> Tiny:
    """A copy of it that may be changed."""
    folder = tmp_path / "curated"
    shutil.copytree(finished.recipe.parent, folder)
    return Tiny(folder / "root", folder / "tiny.yaml", folder / "store")


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The only line of an error; a traceback fails the test."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("unifactory: ")


def contents(store: Path) -> dict[str, bytes]:
    """Every object of a store but the lock."""
    return {name: (store / name).read_bytes() for name, _ in open_storage(str(store)).list() if name != "lock"}


@pytest.mark.parametrize(("manifest", "message"), MANIFESTS, ids=[message[:40] for _, message in MANIFESTS])
def test_a_bad_manifest_stops_the_run_before_anything_is_written(curated: Tiny, manifest: bytes, message: str) -> None:
    before = contents(curated.store)
    (curated.root / "pictures" / "files" / "link.jpg").symlink_to("/etc/passwd")
    curated.manifest.write_bytes(manifest)
    assert one_line(here(*curated.arguments)) == "pictures/manifest.jsonl" + message
    assert contents(curated.store) == before


def test_bad_lines_are_set_aside_where_the_recipe_says_so(tiny: Tiny) -> None:
    recipe = tiny.recipe.read_text().replace("kind: jsonl", "kind: jsonl\n    on_bad_row: quarantine")
    tiny.recipe.write_text(recipe)
    bad = b"".join(manifest for manifest, _ in MANIFESTS[:2])
    tiny.manifest.write_bytes(tiny.manifest.read_bytes() + bad)
    assert tiny.curate().returncode == 0
    audit = json.loads(unifactory("audit", str(tiny.store), "--json").stdout)
    assert audit["corpora"]["tiny"]["quarantined"] == {"missing file": 1, "wrong type": 1}
    assert audit["corpora"]["tiny"]["inputs"] == 14


COMMANDS: list[tuple[list[str], str]] = [
    (["curate", "nope", "--root", "R", "--store", "S"], "nope: no such recipe file; shipped recipes: "),
    (["curate", "T", "--root", "nowhere", "--store", "S"], "--root nowhere: is not a folder"),
    (["curate", "T", "--root", "R", "--store", "S", "--engine", "spark"], "--engine spark: choose local or ray"),
    (["curate", "T", "--root", "R", "--store", "ftp://x/y"], "ftp://x/y: only folders and s3:// addresses can hold a"),
    (["curate", "T", "--root", "R", "--store", "s3://b/x"], "s3://b/x: no credentials; set AWS_ACCESS_KEY_ID and AWS_"),
    (["curate", "T", "--root", "R", "--store", "S", "--workers", "0"], "Invalid value for '--workers': "),
    (["curate", "T", "--root", "R", "--store", "S", "--set", "header"], "--set header: write NODE.PARAM=VALUE"),
    (
        ["curate", "T", "--root", "R", "--store", "S", "--set", "x.y=1"],
        "--set x.y: write --set NODE.PARAM=VALUE with a",
    ),
    (["curate", "T", "--root", "R"], "Missing option '--store'"),
    (["audit", "nowhere"], "nowhere: no store here; `unifactory curate RECIPE --store nowhere` makes one"),
    (["explain", "xyz", "--store", "nowhere"], "nowhere: no store here"),
    (["status", "nowhere"], "nowhere: no store here"),
    (["gc", "nowhere"], "nowhere: no store here"),
    (["retry", "nowhere", "--where", "reason = 'x'"], "nowhere: no store here"),
    (["frobnicate"], "No such command 'frobnicate'."),
]


@pytest.mark.parametrize(("arguments", "message"), COMMANDS, ids=[" ".join(args)[:50] for args, _ in COMMANDS])
def test_a_wrong_command_is_one_line(
    tiny: Tiny, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"T": str(tiny.recipe), "R": str(tiny.root), "S": str(tiny.store)}
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    line = one_line(here(*[places.get(argument, argument) for argument in arguments]))
    assert line.startswith(message)
    assert not (tiny.store / "tables").exists()


def test_two_runs_on_one_store_do_not_meet(tiny: Tiny) -> None:
    tiny.store.mkdir()
    with (tiny.store / "lock").open("w") as held:
        held.write("process 4711")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert one_line(here(*tiny.arguments)) == f"{tiny.store}: in use by process 4711; wait for it or stop it"


def test_a_newer_store_is_left_alone(tiny: Tiny) -> None:
    tiny.store.mkdir()
    head = tiny.store / "store.json"
    head.write_text('{"format": 99, "key_chars": 1}')
    told = f"{tiny.store}: store format 99 is newer than 1, which this version reads; update unifactory"
    assert one_line(here(*tiny.arguments)) == told
    assert one_line(here("audit", str(tiny.store))) == told
    assert head.read_text() == '{"format": 99, "key_chars": 1}'
    assert not (tiny.store / "tables").exists()


def mounted(folder: Path, size: str) -> bool:
    """Whether a small file system of its own could be mounted there."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    return done.returncode == 0


def test_a_full_disk_is_one_line_and_the_run_goes_on_with_more_room(tiny: Tiny, finished: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    if not mounted(folder, "320k"):
        pytest.skip("no right to mount a small file system")
    try:
        full = Tiny(tiny.root, tiny.recipe, folder / "store")
        line = one_line(full.curate())
        assert line.endswith("no space left on the device; free some and run again")
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        assert full.curate().returncode == 0
        assert tars(full.store) == tars(finished.store)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def tars(store: Path) -> dict[str, bytes]:
    """Shards by name."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(store.rglob("*.tar"))}


def test_a_read_only_store_can_be_read_and_not_written(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    if not mounted(folder, "64m"):
        pytest.skip("no right to mount a small file system")
    try:
        fixed = Tiny(tiny.root, tiny.recipe, folder / "store")
        assert fixed.curate().returncode == 0
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        line = one_line(here(*fixed.arguments))
        assert line == f"{fixed.store}/lock: the file system is read-only; choose another --store"
        assert here("audit", str(fixed.store)).returncode == 0
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_without_permission_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    closed = Tiny(tiny.root, tiny.recipe, folder / "store")
    assert one_line(closed.curate()).endswith("permission denied; choose another folder or mend its permissions")
