"""A set from the command line: plan, curate, a kill on the way; what status, report, explain and audit say of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from unittest import mock

import pytest

from catalog.apportion import exact
from catalog.schemas import RUNS
from catalog.store import Store
from jobs.run import RECIPES
from jobs.sets import load
from tests.jobs.sets import TinySet, write_set
from tests.jobs.tiny import here
from tests.pipeline.runs import Inline, counted, shard_files, snapshots

ALL = load("all", [])
assert ALL is not None


@dataclass(frozen=True)
class Finished(TinySet):
    """A set that was killed between its corpora and its mixtures, and run again."""

    stages_then: list[str]
    calls_then: Counter[str]
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Nobody changes it."""
    tiny = write_set(tmp_path_factory.mktemp("finished"))
    with (
        mock.patch("jobs.run.EngineChoice.build", return_value=Inline),
        mock.patch("jobs.run.refresh_report"),  # pages of corpora are not what this is about
    ):
        with mock.patch("jobs.sets.mix", side_effect=SystemExit(137)):
            assert here(*tiny.arguments).returncode == 137
        then = (tiny.view.stages, counted(tiny.store))
        done = here(*tiny.arguments)
    assert done.returncode == 0, done.stderr
    return Finished(tiny.folder, *then, done.stdout)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> TinySet:
    shutil.copytree(finished.folder, tmp_path / "copy")
    return TinySet(tmp_path / "copy")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def cells(said: str, first: str, second: str) -> list[str]:
    """The cells of the row of a table that begins with these two."""
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in said.splitlines() if "│" in line]
    return next(row for row in rows if row[:2] == [first, second])


def test_curate_of_a_set_runs_its_corpora_and_tells_what_the_stages_read(finished: Finished) -> None:
    said = finished.said
    assert cells(said, "first", "images")[2:8] == ["16", "16", "16", "1.00", "66.7%", "66.7%"]
    assert cells(said, "first", "text")[2:8] == ["12", "8", "8", "0.67", "33.3%", "33.3%"]
    assert cells(said, "first", "all, in samples")[3:5] == ["24", "24"]
    assert f"report: {finished.store}/reports/both.html" in said
    assert sorted(finished.view.corpora) == ["pictures", "words"]
    assert json.loads(here("audit", str(finished.store), "--json").stdout)["findings"] == []


def test_status_and_plan_tell_the_same(finished: Finished) -> None:
    status = here("status", str(finished.store)).stdout
    plan = here("plan", str(finished.recipe), "--root", str(finished.root), "--store", str(finished.store)).stdout
    for said in (status, plan):
        assert cells(said, "second", "long") == cells(finished.said, "second", "long")
    assert cells(plan, "images", "pictures: text_to_image 64") == [
        "images", "pictures: text_to_image 64", "66.7%", "", "1",
    ]  # fmt: skip
    assert "stale" not in status


def test_plan_before_any_run_says_what_is_lacking(tmp_path: Path) -> None:
    tiny = write_set(tmp_path, pictures=2, texts=2)
    done = here("plan", str(tiny.recipe), "--store", str(tiny.store))
    assert done.returncode == 0, done.stderr
    assert "what snapshot" not in done.stdout
    assert not tiny.store.exists()


def test_explain_names_the_stages_that_read_a_sample(finished: Finished) -> None:
    key = finished.view.mixture("first").collect().filter(part="images")["sample_key"][0]
    said = here("explain", key, "--store", str(finished.store)).stdout
    assert "    read by both/first as images, once" in said
    left = finished.view.samples().filter(split="validation").collect()["sample_key"][0]
    assert "read by" not in here("explain", left, "--store", str(finished.store)).stdout


def test_the_page_of_a_set_shows_every_part(finished: Finished) -> None:
    page = (finished.store / "reports" / "both.html").read_text()
    for words in ("first", "second", "images", "long", "text_tokens &gt;= 20", "66.7%", "as many as the scarcest part"):
        assert words in page
    assert "<script" not in page


def test_report_makes_the_page_again(copied: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.report.write_report", lambda view, corpus, *rest: f"reports/{corpus}.html")
    before = files(copied.store / "reports")
    shutil.rmtree(copied.store / "reports")
    done = here("report", str(copied.store), "--root", str(copied.root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2] == f"both: {copied.store}/reports/both.html"
    assert files(copied.store / "reports") == {"both.html": before["both.html"]}


def test_a_second_run_changes_nothing(copied: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen() -> list[object]:
        store = copied.store
        mixed = copied.view.store.read_log("runs", RUNS).filter(corpus="both").height
        return [shard_files(store), files(store / "reports"), snapshots(store), counted(store), mixed]

    monkeypatch.setattr("jobs.run.refresh_report", lambda *rest: None)
    before = seen()
    assert here(*copied.arguments).returncode == 0
    assert seen() == before


def test_a_run_killed_before_its_mixtures_is_completed_by_the_next(finished: Finished) -> None:
    assert finished.stages_then == []
    assert finished.view.stages == ["both/first", "both/second"]
    assert counted(finished.store) == finished.calls_then


def test_mixtures_that_were_written_and_not_published_are_not_seen(
    copied: TinySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copied.view.mixture("first").collect().sort("sample_key")
    copied.write(lambda data: data["stages"]["first"].update(total=6))
    with monkeypatch.context() as patched:
        patched.setattr(Store, "publish", lambda *rest: sys.exit(137))
        with pytest.raises(SystemExit):
            copied.mix()
    assert copied.view.mixture("first").collect().sort("sample_key").equals(before)
    assert here("audit", str(copied.store)).returncode == 0
    copied.mix()
    assert copied.view.mixture("first").collect()["copies"].sum() == 6
    assert here("audit", str(copied.store)).returncode == 0


def test_a_stage_that_is_left_out_is_gone_and_a_refused_one_changes_nothing(
    copied: TinySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run.refresh_report", lambda *rest: None)
    copied.write(lambda data: data["stages"]["first"].update(total=1000))
    done = here(*copied.arguments)
    assert done.returncode == 2
    told = (
        f"unifactory: {copied.recipe}: stages.first.parts.images: total 1000 asks it for 667 samples, and 16 samples "
    )
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1
    assert copied.view.stages == ["both/first", "both/second"]
    copied.write(lambda data: data["stages"].pop("first"))
    copied.mix()
    assert copied.view.stages == ["both/second"]
    assert here("audit", str(copied.store)).returncode == 0


def test_two_sets_live_in_one_store(copied: TinySet) -> None:
    copied.write(lambda data: data.update(set="other", stages={"first": data["stages"]["first"]}))
    copied.mix()
    assert copied.view.stages == ["both/first", "both/second", "other/first"]
    assert here("gc", str(copied.store), "--keep", "1").returncode == 0
    assert [one.number for one in copied.view.store.snapshots()] == [copied.view.snapshot.number]
    done = here("audit", str(copied.store))
    assert done.returncode == 0, done.stdout


BAD: list[tuple[list[str], str]] = [
    (["plan", "SET", "--set", "header.x=1"], "--set header.x: write CORPUS.NODE.PARAM=VALUE; corpora are: pictures, w"),
    (["plan", "SET", "--set", "words.encode"], "--set words.encode: write NODE.PARAM=VALUE"),
    (["plan", "SET", "--set", "words.nothing.x=1"], "--set nothing.x: write --set NODE.PARAM=VALUE with a node of the"),
    (["curate", "SET", "--root", "nowhere", "--store", "STORE"], "--root nowhere: is not a folder"),
    (["curate", "SET", "--root", "EMPTY", "--store", "STORE"], "pictures: sources.lines: "),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_wrong_command_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    tiny = write_set(tmp_path, pictures=0, texts=0)
    (tmp_path / "empty").mkdir()
    places = {"SET": str(tiny.recipe), "STORE": str(tiny.store), "EMPTY": str(tmp_path / "empty")}
    done = here(*[places.get(argument, argument) for argument in arguments])
    assert done.returncode == 2
    assert done.stderr.startswith(f"unifactory: {message}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not tiny.store.exists()


def test_all_has_every_shipped_corpus_and_every_stage_of_the_paper() -> None:
    assert set(ALL.plans) == {path.stem for path in RECIPES.glob("*.yaml")} - {"all"}
    assert list(ALL.recipe.stages) == ["stage0_256", "stage0_512", "stage1", "stage2"]
    drawn = {part.corpus for stage in ALL.recipe.stages.values() for part in stage.parts.values()}
    assert drawn == set(ALL.plans)


def test_the_last_stage_of_all_has_text_to_multimodal_as_one_to_five() -> None:
    parts = ALL.recipe.stages["stage2"].parts.values()
    text = sum(exact(part.weight) for part in parts if part.task in ("plain_text", "document"))
    assert text / (sum(exact(part.weight) for part in parts) - text) == Fraction(1, 5)
