"""The report of a run: written after curate and by the verb, the same every time, whatever became of the files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import orjson
import pytest

import catalog
from catalog.report import FORMAT
from catalog.storage import open_storage
from catalog.view import View
from jobs import report as module
from jobs.report import refresh_report, write_report
from tests.catalog.stores import Facts, Row, write_store
from tests.jobs.tiny import Tiny, unifactory, write_tiny
from tests.pipeline.runs import NODES, curate, entry, plan_of, write_manifest, write_picture


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A store after one run; tests must not change it."""
    tiny = write_tiny(tmp_path_factory.mktemp("finished"))
    lines = tiny.manifest.read_text().splitlines()
    first = orjson.loads(lines[0]) | {"caption": "<script>alert(1)</script> & more"}
    tiny.manifest.write_text("\n".join([orjson.dumps(first).decode(), *lines[1:]]) + "\n")
    done = tiny.curate()
    assert done.returncode == 0, done.stderr
    return tiny


@pytest.fixture
def copied(finished: Tiny, tmp_path: Path) -> Tiny:
    """A copy of it to work on."""
    shutil.copytree(finished.root, tmp_path / "root")
    shutil.copytree(finished.store, tmp_path / "store")
    shutil.copy(finished.recipe, tmp_path)
    return Tiny(tmp_path / "root", tmp_path / "tiny.yaml", tmp_path / "store")


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / "reports").iterdir())}


def test_a_run_leaves_its_report_in_the_store(finished: Tiny) -> None:
    found = files(finished.store)
    assert sorted(found) == ["tiny.html", "tiny.json", "tiny.txt"]
    data = orjson.loads(found["tiny.json"])
    assert data["final"] == {"kept": 10, "dropped": 2}
    assert (data["samples"], data["snapshot"]) == (10, 1)
    page = found["tiny.html"].decode()
    # Every record is shown: ten kept, two dropped, each with its picture.
    assert page.count("data:image/jpeg;base64,") >= 12
    assert "no picture" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "<script" not in page
    assert f"--store {finished.store}" in page
    assert "12 inputs: 10 kept, 2 dropped" in found["tiny.txt"].decode()


def test_the_verb_writes_the_same_bytes_again(copied: Tiny) -> None:
    shutil.rmtree(copied.store / "reports")
    pages = []
    for _ in range(2):
        done = unifactory("report", str(copied.store), "--root", str(copied.root))
        assert done.returncode == 0, done.stderr
        assert f"tiny: {copied.store}/reports/tiny.html" in done.stdout
        pages.append(files(copied.store))
    assert pages[0] == pages[1]


def test_an_unchanged_run_leaves_the_report_alone(copied: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    view = catalog.open(str(copied.store))
    calls: list[str] = []

    def counted(view: View, corpus: str, root: Path, store: str) -> str:
        calls.append(corpus)
        return write_report(view, corpus, root, store)

    monkeypatch.setattr(module, "write_report", counted)
    assert refresh_report(view, "tiny", copied.root, "s") == "reports/tiny.html"
    assert calls == []
    for name, damage in (("tiny.json", b"{"), ("tiny.html", None), ("tiny.json", b'{"format": 0, "snapshot": 1}')):
        path = copied.store / "reports" / name
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        calls.clear()
        refresh_report(view, "tiny", copied.root, "s")
        assert calls == ["tiny"], name
        assert "s/shards/tiny/train" in (copied.store / "reports" / "tiny.html").read_text()


def test_a_corpus_that_comes_later_leaves_the_report_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path / "store"))
    first = write_store(storage, [Row("a")])
    storage.write("reports/toy.html", b"page")
    calls: list[str] = []
    monkeypatch.setattr(module, "write_report", lambda view, corpus, *rest: calls.append(corpus))
    for number, remade in ((first.snapshot.number, []), (0, ["toy"]), ("x", ["toy"])):
        storage.write("reports/toy.json", orjson.dumps({"format": FORMAT, "snapshot": number}))
        view = write_store(storage, [Row("b")], Facts(corpus="other"))
        refresh_report(view, "toy", tmp_path, "s")
        assert calls == remade, number
        calls.clear()
    storage.write("reports/toy.json", orjson.dumps({"format": FORMAT, "snapshot": first.snapshot.number}))
    refresh_report(write_store(storage, [Row("a"), Row("c", bad="cut")]), "toy", tmp_path, "s")
    assert calls == ["toy"]


def test_a_file_that_is_gone_or_changed_becomes_a_tile(copied: Tiny) -> None:
    pictures = copied.root / "pictures" / "files"
    (pictures / "00.jpg").unlink()
    (pictures / "01.jpg").write_bytes((pictures / "02.jpg").read_bytes())
    done = unifactory("report", str(copied.store), "--root", str(copied.root))
    assert done.returncode == 0, done.stderr
    page = files(copied.store)["tiny.html"].decode()
    assert "its file is not there" in page
    assert "its file has changed since" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["STORE", "--root", "ROOT", "--corpus", "other"], "no corpus 'other' in the store; it has: tiny"),
        (["STORE", "--root", "ROOT/gone"], "--root ROOT/gone: is not a folder"),
        (["STORE", "--root", "ROOT", "--snapshot", "7"], "STORE: no snapshot 7; there are 1 to 1"),
        (["ROOT", "--root", "ROOT"], "ROOT: no store here; `unifactory curate RECIPE --store ROOT` makes one"),
        (["STORE"], "Missing option '--root'."),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_exit_code_2(
    finished: Tiny, arguments: list[str], message: str
) -> None:
    def place(text: str) -> str:
        return re.sub("STORE", str(finished.store), text.replace("ROOT", str(finished.root)))

    done = unifactory("report", *map(place, arguments))
    assert (done.returncode, done.stderr) == (2, f"unifactory: {place(message)}\n")


def test_a_report_can_lie_in_an_object_store(
    s3: tuple[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, options = s3
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    storage = open_storage(uri, {**options, "AWS_ALLOW_HTTP": "true"})
    view = write_store(storage, [Row("a"), Row("b", bad="cut")])
    page = write_report(view, "toy", tmp_path, uri)
    assert b"pipe:aws s3 cp" in storage.read(page)
    assert orjson.loads(storage.read("reports/toy.json"))["final"] == {"kept": 1, "quarantined": 1}


def test_a_corpus_of_which_nothing_is_left_has_a_report(tmp_path: Path) -> None:
    """The decisions below the rule that drops everything have no table."""
    write_manifest(tmp_path / "data", map(entry, range(3)))
    for number in range(3):
        write_picture(tmp_path / f"data/files/{number:03d}.jpg", number, 60)
    curate(plan_of(NODES), tmp_path / "data", tmp_path / "store")
    store = str(tmp_path / "store")
    page = refresh_report(catalog.open(store), "tiny", tmp_path / "data", store)
    assert "short_side" in (tmp_path / "store" / page).read_text()
