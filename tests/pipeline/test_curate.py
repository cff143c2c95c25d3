"""Whole runs: what runs again and what does not, what shards hold, and what a crash leaves behind."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalog.audit import audit
from catalog.errors import UserError
from catalog.shards import Card
from catalog.storage import LocalFolder, open_storage
from catalog.store import Store, open_store
from catalog.view import open_view
from model.grammar import check
from pipeline.curate import Run
from pipeline.engine import NodeTiming
from pipeline.flow import Flow
from pipeline.plan import Plan
from tests.pipeline.doom import Crash, Doom
from tests.pipeline.runs import (
    LINES,
    NODES,
    Inline,
    counted,
    curate,
    entry,
    final_states,
    keys_by_id,
    live_tars,
    noted,
    outcome_of,
    plan_of,
    shard_files,
    snapshots,
    store_of,
    tar_keys,
    tars,
    workers,
    write_corpus,
    write_manifest,
    write_picture,
)
from tests.toys import CALLS, calls_noted

PLAN = plan_of(NODES)


def changed(old: str, new: str) -> Plan:
    """The recipe with one text replaced."""
    assert old in NODES
    return plan_of(NODES.replace(old, new))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in `root` and a finished store in `store`; to be copied, never changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder / "root")
    curate(PLAN, folder / "root", folder / "store")
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished folder, with the times of its files."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which toys note their calls."""
    path = tmp_path / "calls"
    monkeypatch.setenv(CALLS, str(path))
    return path


def lines_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]


def assert_sound(store: Path) -> None:
    """The audit finds nothing, and every sample of the catalog lies in the live tars exactly once."""
    view = open_view(str(store))
    result = audit(view, check)
    assert [(finding.kind, finding.place, finding.message) for finding in result.findings] == []
    keys = tar_keys(store)
    assert len(keys) == len(set(keys))
    assert set(keys) == set(view.samples("tiny").collect()["sample_key"])
    assert result.corpora["tiny"].samples == len(keys)


# -- the first run ----------------------------------------------------------------------------------------------------


def test_every_record_ends_in_one_state_for_the_expected_reason(finished: Path) -> None:
    states = final_states(finished / "store")
    assert len(states) == 40
    small = {f"p{n:03d}" for n in range(40) if n % 7 == 3 and n not in (17,)}
    assert {name for name, state in states.items() if state == ("dropped", "side")} == small
    assert states["p017"] == ("quarantined", "UnidentifiedImageError")
    assert states["p016"] == ("quarantined", "OSError")
    assert {states["p008"], states["p009"]} == {("kept", None), ("duplicate", "exact")}


def test_the_samples_are_the_kept_records_and_lie_in_the_tars_once(finished: Path) -> None:
    assert_sound(finished / "store")
    kept = [name for name, (state, _) in final_states(finished / "store").items() if state == "kept"]
    assert len(tar_keys(finished / "store")) == len(kept) > 20


def test_the_books_of_the_snapshot_are_those_of_the_run(finished: Path, tmp_path: Path) -> None:
    done = curate(PLAN, finished / "root", tmp_path / "store")
    view = open_view(str(tmp_path / "store"))
    assert view.books("tiny") == done.books
    for book in done.books:
        book.check()


# -- running again ----------------------------------------------------------------------------------------------------


def test_an_unchanged_recipe_calls_no_operator_and_makes_no_snapshot(here: Path, calls: Path) -> None:
    files, counts = shard_files(here / "store"), counted(here / "store")
    versions = _versions(here / "store")
    done = curate(PLAN, here / "root", here / "store")
    assert not calls.exists()
    assert done.timings == {}
    assert counted(here / "store") == counts
    assert snapshots(here / "store") == 1
    assert shard_files(here / "store") == files
    again = _versions(here / "store")
    assert {name for name, version in again.items() if version != versions[name]} == {"runs"}


def _versions(store: Path) -> dict[str, int | None]:
    found = [path.parent.relative_to(store / "tables").as_posix() for path in store.glob("tables/**/_delta_log")]
    assert len(found) > 10
    return {name: store_of(store).existing(name).version for name in found}


def test_new_records_alone_are_processed_and_old_tars_stay(here: Path, calls: Path) -> None:
    before = shard_files(here / "store")
    old_keys = keys_by_id(here / "store")
    for number in (45, 46, 47):
        write_picture(here / f"root/files/{number:03d}.jpg", number, 200)
    write_manifest(here / "root", [*(entry(n) for n in (45, 46, 47)), *lines_of(here / "root")])
    curate(PLAN, here / "root", here / "store")
    keys = keys_by_id(here / "store")
    new = {keys[f"p{n:03d}"] for n in (45, 46, 47)}
    assert {name: key for name, key in keys.items() if name in old_keys} == old_keys
    assert {key for _, key in calls_noted(calls)} == new
    assert noted(calls) == {"toy_header": 3, "toy_brightness": 3}
    assert counted(here / "store")["encode"] == len(tar_keys(here / "store"))
    after = shard_files(here / "store")
    assert {name for name in before if after.get(name) != before[name]} <= {
        f"shards/tiny/{split}/card.json" for split in ("train", "validation")
    }
    fresh = {name for name in live_tars(here / "store") if name not in before}
    assert fresh
    assert all("/g0001/" in name for name in fresh)
    assert_sound(here / "store")


def test_a_tightened_threshold_calls_no_operator(here: Path, calls: Path) -> None:
    brightness = outcome_of(here / "store", PLAN, "light").select("record_key", "brightness")
    before, counts = final_states(here / "store"), counted(here / "store")
    old_tars = tars(here / "store")
    curate(changed("brightness >= 60", "brightness >= 100"), here / "root", here / "store")
    assert not calls.exists()
    assert counted(here / "store") == counts
    keys = {key: name for name, key in keys_by_id(here / "store").items()}
    now_dark = {keys[key] for key, value in brightness.rows() if value is not None and value < 100}
    after = final_states(here / "store")
    for name, state in before.items():
        if name in now_dark and state[0] in ("kept", "dropped", "duplicate"):
            assert after[name] == ("dropped", "bright")
        elif name not in ("p008", "p009"):
            assert after[name] == state
    # Tars that lost no sample are untouched, and what a rewritten tar replaces is left for older snapshots.
    assert all((here / "store" / name).read_bytes() == data for name, data in old_tars.items())
    assert_sound(here / "store")


def test_a_loosened_threshold_calls_exactly_the_keys_that_newly_pass(here: Path, calls: Path) -> None:
    light = outcome_of(here / "store", PLAN, "light").filter(pl.col("status") == "ok")
    predicted = set(light.filter(pl.col("brightness").is_between(30, 60, closed="left"))["record_key"])
    done = set(outcome_of(here / "store", PLAN, "encode")["record_key"])
    assert predicted
    assert not predicted & done
    loosened = changed("brightness >= 60", "brightness >= 30")
    curate(loosened, here / "root", here / "store")
    assert not calls.exists()  # the toys stand above the threshold
    now = outcome_of(here / "store", loosened, "encode")
    assert set(now["record_key"]) - done == predicted
    assert now.height == len(done) + len(predicted)
    assert counted(here / "store")["encode"] == now.height
    assert_sound(here / "store")


def test_a_gate_that_opens_further_up_calls_exactly_what_lies_behind_it(here: Path, calls: Path) -> None:
    header = outcome_of(here / "store", PLAN, "header").filter(pl.col("status") == "ok")
    predicted = set(header.filter(pl.col("short_side") < 160)["record_key"])
    curate(changed("short_side >= 160", "short_side >= 100"), here / "root", here / "store")
    assert noted(calls) == {"toy_brightness": len(predicted)}
    assert {key for _, key in calls_noted(calls)} == predicted


def test_going_back_and_forth_computes_nothing_and_gives_the_same_shards(here: Path, calls: Path) -> None:
    before = {name: data for name, data in shard_files(here / "store").items() if name in live_tars(here / "store")}
    curate(changed("brightness >= 60", "brightness >= 100"), here / "root", here / "store")
    curate(PLAN, here / "root", here / "store")
    assert not calls.exists()
    assert_sound(here / "store")
    # What comes back makes a new generation; what stayed is where it was.
    assert len(tar_keys(here / "store")) == sum(Card.from_bytes(path.read_bytes()).samples for path in _cards(here))
    assert {name for name in before if name in live_tars(here / "store")}


def _cards(folder: Path) -> list[Path]:
    return sorted(folder.glob("store/shards/tiny/*/card.json"))


# -- sources that change ----------------------------------------------------------------------------------------------


def test_a_record_that_leaves_its_source_leaves_catalog_and_shards(here: Path, calls: Path) -> None:
    keys = keys_by_id(here / "store")
    kept = [name for name, (state, _) in final_states(here / "store").items() if state == "kept"]
    gone = {kept[0], kept[5], "p017"}
    before = live_tars(here / "store")
    write_manifest(here / "root", [line for line in lines_of(here / "root") if line["id"] not in gone])
    curate(PLAN, here / "root", here / "store")
    assert not calls.exists()
    assert set(keys_by_id(here / "store")) == set(keys) - gone
    assert len(tar_keys(here / "store")) == len(kept) - 2
    assert 1 <= len(before - live_tars(here / "store")) <= 2
    assert_sound(here / "store")
    # Taking out and running again is the same as taking out.
    files = shard_files(here / "store")
    curate(PLAN, here / "root", here / "store")
    assert shard_files(here / "store") == files
    assert snapshots(here / "store") == 2


def test_losing_many_records_must_be_meant(here: Path, calls: Path) -> None:
    lines, states = lines_of(here / "root"), final_states(here / "store")
    write_manifest(here / "root", lines[:30])
    with pytest.raises(UserError) as refused:
        curate(PLAN, here / "root", here / "store")
    assert str(refused.value) == (
        "corpus tiny: the sources hold 30 rows, 10 fewer than at the last run; "
        "if that is meant, run again with --accept-removals"
    )
    assert final_states(here / "store") == states
    assert snapshots(here / "store") == 1
    assert_sound(here / "store")
    curate(PLAN, here / "root", here / "store", accept_removals=True)
    assert len(final_states(here / "store")) == 30
    assert not calls.exists()
    assert_sound(here / "store")


def test_losing_a_few_records_is_everyday(here: Path) -> None:
    write_manifest(here / "root", lines_of(here / "root")[:31])
    curate(PLAN, here / "root", here / "store")
    assert len(final_states(here / "store")) == 31


def test_a_picture_that_changes_is_another_record(here: Path, calls: Path) -> None:
    old = keys_by_id(here / "store")
    write_picture(here / "root/files/005.jpg", 77, 210)
    curate(PLAN, here / "root", here / "store")
    new = keys_by_id(here / "store")
    assert {name for name in new if new[name] != old[name]} == {"p005"}
    assert {key for _, key in calls_noted(calls)} == {new["p005"]}
    assert_sound(here / "store")


def test_a_file_that_is_touched_is_read_again_and_nothing_else(here: Path, calls: Path) -> None:
    os.utime(here / "root/files/005.jpg", ns=(1, 1))
    curate(PLAN, here / "root", here / "store")
    assert not calls.exists()
    assert snapshots(here / "store") == 1


def test_a_text_that_changes_is_another_record(here: Path, calls: Path) -> None:
    lines = lines_of(here / "root")
    lines[4]["text"] = "another text"
    write_manifest(here / "root", lines)
    curate(PLAN, here / "root", here / "store")
    assert {key for _, key in calls_noted(calls)} == {keys_by_id(here / "store")["p004"]}


# -- the same bytes ---------------------------------------------------------------------------------------------------


def test_one_worker_or_two_write_the_same_shards(finished: Path, tmp_path: Path) -> None:
    wanted = shard_files(finished / "store")
    for count in (1, 2):
        curate(PLAN, finished / "root", tmp_path / str(count), workers(count))
        assert shard_files(tmp_path / str(count)) == wanted
        assert_sound(tmp_path / str(count))


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_writes_the_same_shards(finished: Path, tmp_path: Path, ray_runtime: Any) -> None:
    from pipeline.ray_engine import RayEngine

    curate(PLAN, finished / "root", tmp_path / "ray", lambda: RayEngine(2))
    assert shard_files(tmp_path / "ray") == shard_files(finished / "store")


def test_the_order_of_the_source_decides_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "root", tmp_path / "root")
    lines = lines_of(finished / "root")
    random.Random(5).shuffle(lines)
    write_manifest(tmp_path / "root", lines)
    curate(PLAN, tmp_path / "root", tmp_path / "store")
    assert shard_files(tmp_path / "store") == shard_files(finished / "store")


def test_how_tables_are_bucketed_decides_nothing(finished: Path, tmp_path: Path) -> None:
    from catalog.store import create_store

    create_store(LocalFolder(str(tmp_path / "store")), key_chars=2)
    curate(PLAN, finished / "root", tmp_path / "store")
    assert shard_files(tmp_path / "store") == shard_files(finished / "store")


def test_where_root_and_store_lie_decides_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "root", tmp_path / "else where")
    curate(PLAN, tmp_path / "else where", tmp_path / "a store")
    assert shard_files(tmp_path / "a store") == shard_files(finished / "store")


def test_a_store_in_a_bucket_holds_the_same_shards(finished: Path, s3: tuple[str, dict[str, str]]) -> None:
    uri, options = s3
    curate(PLAN, finished / "root", uri, options=options)
    storage = open_storage(uri, options)
    stored = {name: storage.read(name) for name, _ in storage.list("shards/")}
    assert stored == shard_files(finished / "store")
    before = open_store(uri, options).snapshots()
    done = curate(PLAN, finished / "root", uri, options=options)
    assert done.timings == {}
    assert open_store(uri, options).snapshots() == before


# -- several corpora --------------------------------------------------------------------------------------------------


def test_two_corpora_share_outcomes_and_leave_each_other_alone(here: Path, calls: Path) -> None:
    before = shard_files(here / "store")
    other = plan_of(NODES.replace("brightness >= 60", "brightness >= 100"), corpus="other")
    curate(other, here / "root", here / "store")
    assert not calls.exists()
    after = shard_files(here / "store")
    assert {name: data for name, data in after.items() if name.startswith("shards/tiny/")} == before
    assert set(open_view(str(here / "store")).corpora) == {"other", "tiny"}
    assert_sound(here / "store")
    curate(PLAN, here / "root", here / "store")
    assert snapshots(here / "store") == 2


# -- what fails -------------------------------------------------------------------------------------------------------

NULLS = """
score: {measure: 'tests.toys:Score'}
good: {decide: rules, needs: [score], rules: {good: RULE}}
last: {measure: 'tests.toys:ReadsScore', needs: [good]}
"""


def null_plan(rule: str) -> Plan:
    return plan_of(NULLS.replace("RULE", rule), LINES)


def test_a_rule_on_null_fails_the_run_until_the_recipe_says_what_to_do(tmp_path: Path, calls: Path) -> None:
    write_manifest(tmp_path / "root", [entry(n, do="null" if n == 3 else None) for n in range(8)])
    with pytest.raises(UserError) as stopped:
        curate(null_plan("score > 0.1"), tmp_path / "root", tmp_path / "store")
    assert str(stopped.value) == (
        "node good: 1 records undecided: good reads null; "
        "say on_null: drop, keep or quarantine, or add a rule before it"
    )
    assert open_store(str(tmp_path / "store")).snapshot() is None
    curate(null_plan("{keep: score > 0.1, on_null: quarantine}"), tmp_path / "root", tmp_path / "store")
    assert noted(calls) == {"toy_score": 8, "toy_reads": 7}
    assert final_states(tmp_path / "store")["p003"] == ("quarantined", "good")


def test_a_run_stopped_by_its_budget_keeps_what_was_done(tmp_path: Path, calls: Path) -> None:
    write_manifest(tmp_path / "root", [entry(n, do="raise" if n % 2 else None) for n in range(300)])
    with pytest.raises(UserError, match=r"^node score: \d+ of \d+ records quarantined, more than error_budget 0.4"):
        curate(plan_of(NULLS.replace("RULE", "score > 0"), LINES, error_budget=0.4), tmp_path / "root", tmp_path / "s")
    before = noted(calls)["toy_score"]
    assert 100 <= before < 300
    curate(plan_of(NULLS.replace("RULE", "score > 0"), LINES, error_budget=0.6), tmp_path / "root", tmp_path / "s")
    assert noted(calls) == {"toy_score": 300, "toy_reads": 150}
    assert counted(tmp_path / "s") == {"score": 300, "last": 150}


def test_starting_again_and_again_does_not_wear_the_budget_away(tmp_path: Path, calls: Path) -> None:
    write_manifest(tmp_path / "root", [entry(n, do="raise" if n % 2 else None) for n in range(300)])
    plan = plan_of(NULLS.replace("RULE", "score > 0"), LINES, error_budget=0.4)
    made = []
    for _ in range(4):
        with pytest.raises(UserError, match=r"records quarantined, more than error_budget 0.4"):
            curate(plan, tmp_path / "root", tmp_path / "store")
        made.append(noted(calls)["toy_score"])
    assert made == [made[0]] * 4


def test_digests_are_stored_while_sources_are_read(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kill in the first hour of reading must not cost that hour."""
    monkeypatch.setattr("pipeline.ingest.SAVE_EVERY", 1)
    monkeypatch.setattr("pipeline.ingest.CHUNK", 10)

    def crash(*_: Any) -> None:
        raise RuntimeError("crash")

    monkeypatch.setattr("pipeline.ingest._Spill.close", crash)
    with pytest.raises(RuntimeError, match="crash"):
        curate(PLAN, here / "root", tmp_path / "new")
    assert open_store(str(tmp_path / "new")).media_digests().read().height == 40


def test_calls_of_equal_cost_are_all_counted(tmp_path: Path) -> None:
    write_manifest(tmp_path / "root", [entry(1)])
    plan = null_plan("score > 0")
    curate(plan, tmp_path / "root", tmp_path / "store")
    storage = LocalFolder(str(tmp_path / "store"))
    from tests.pipeline.runs import Quiet

    run = Run(open_store(storage.uri), plan, tmp_path / "root", Inline, Quiet())
    for _ in range(3):
        run._count("score", NodeTiming(calls=1, seconds=0.0, bytes=500))
    assert counted(tmp_path / "store")["score"] == 4


NASTY = [
    "plain", 'with "quotes"', "back\\slash", "line\nbreak", "tab\t", "\u2028 separator", "élan 猫 \U0001f600", "", " ",
    "null", "true", "1", '{"a": 1}', "[1]", "$.id", "a,b", "\x7f", "x" * 5000, "\\u0041", "'", "\\n",
]  # fmt: skip


def test_mapped_texts_reach_operators_and_rules_as_they_stand_in_the_source(tmp_path: Path) -> None:
    texts: list[Any] = [*NASTY, None]
    write_manifest(tmp_path / "root", [entry(n, text=text) for n, text in enumerate(texts)])
    plan = plan_of("split: {decide: split}", LINES)
    curate(plan, tmp_path / "root", tmp_path / "store")
    flow = Flow(open_store(str(tmp_path / "store")), plan)
    found = pl.concat([flow.frame("split", bucket, ["id", "text"]) for bucket in flow.buckets])
    assert dict(found.select("id", "text").rows()) == {f"p{n:03d}": text for n, text in enumerate(texts)}


def test_mapped_numbers_are_numbers(tmp_path: Path) -> None:
    values = [0, -1, 2**53, 1.5, -0.25, 1e300, 1e-300, None]
    source = {**LINES, "map": {"id": "id", "size": "size"}, "types": {"size": "float"}}
    write_manifest(tmp_path / "root", [entry(n, size=value) for n, value in enumerate(values)])
    plan = plan_of("split: {decide: split}", source)
    curate(plan, tmp_path / "root", tmp_path / "store")
    flow = Flow(open_store(str(tmp_path / "store")), plan)
    found = pl.concat([flow.frame("split", bucket, ["id", "size"]) for bucket in flow.buckets])
    assert dict(found.select("id", "size").rows()) == {f"p{n:03d}": value for n, value in enumerate(values)}


# -- crashes at every write -------------------------------------------------------------------------------------------


@pytest.fixture
def doom(monkeypatch: pytest.MonkeyPatch) -> Doom:
    return Doom(monkeypatch)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen records and the shards they come to, after one run and after three records more."""
    folder = tmp_path_factory.mktemp("small")
    lines = write_corpus(folder / "root", 20)
    write_manifest(folder / "root", lines[2:14])
    curate(PLAN, folder / "root", folder / "first")
    shutil.copytree(folder / "first", folder / "second")
    write_manifest(folder / "root", lines[:16])
    curate(PLAN, folder / "root", folder / "second")
    write_manifest(folder / "root", lines[2:14])
    return folder


def crash_and_resume(small: Path, tmp_path: Path, doom: Doom, calls: Path, point: int, before: bool) -> bool:
    """Crash a first run at a write, resume, crash a second run there, resume; False when there was no such write."""
    lines = lines_of(small / "root")
    shutil.copytree(small / "root", tmp_path / "root")
    happened = False
    for manifest, wanted in ((lines, small / "first"), (_more(lines), small / "second")):
        write_manifest(tmp_path / "root", manifest)
        doom.live()
        doom.at, doom.before = point, before
        try:
            curate(PLAN, tmp_path / "root", tmp_path / "store")
        except Crash:
            happened = True
        doom.live()
        curate(PLAN, tmp_path / "root", tmp_path / "store")
        found = shard_files(tmp_path / "store")
        whole = shard_files(wanted)
        assert {name: found.get(name) for name in whole} == whole
        assert live_tars(tmp_path / "store") == live_tars(wanted)
        assert_sound(tmp_path / "store")
        assert final_states(tmp_path / "store") == final_states(wanted)
    toys = noted(calls)
    # One engine, one unit in work at a time: at most a bucket's records are lost at each of two kills.
    assert 16 <= toys["toy_header"] <= 16 + 2 * 4
    # What is counted may count a commit twice that a kill cut in two; here a commit holds a whole node.
    assert 16 <= counted(tmp_path / "store")["header"] <= 16 + 12 + 4
    return happened


def _more(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry(0), entry(1), *lines, entry(14), entry(15)]


@pytest.mark.parametrize("point", [1, 2, 6, 11, 25, 40, 60, 75, 84, 88, 90, 92, 95])
def test_a_crash_at_any_write_costs_nothing_that_was_done(
    small: Path, tmp_path: Path, doom: Doom, calls: Path, point: int
) -> None:
    crash_and_resume(small, tmp_path, doom, calls, point, before=point % 2 == 0)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_crash_at_every_single_write_costs_nothing_that_was_done(
    small: Path, tmp_path: Path, doom: Doom, monkeypatch: pytest.MonkeyPatch
) -> None:
    for before in (True, False):
        point = 1
        while True:
            folder = tmp_path / f"{point}-{before}"
            folder.mkdir()
            monkeypatch.setenv(CALLS, str(folder / "calls"))
            if not crash_and_resume(small, folder, doom, folder / "calls", point, before):
                break
            shutil.rmtree(folder)
            point += 1
        assert point > 60


def test_a_crash_before_the_snapshot_shows_readers_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = final_states(here / "store")

    def crash(*_: Any) -> None:
        raise Crash

    write_manifest(here / "root", lines_of(here / "root")[3:])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "publish", crash)
        with pytest.raises(Crash):
            curate(PLAN, here / "root", here / "store")
    assert final_states(here / "store") == states
    keys = tar_keys(here / "store")
    assert len(keys) == sum(state == "kept" for state, _ in states.values())
    curate(PLAN, here / "root", here / "store")
    assert len(final_states(here / "store")) == 37
    assert_sound(here / "store")


def test_samples_of_several_branches_have_the_split_of_their_branch(finished: Path, tmp_path: Path) -> None:
    plan = plan_of(
        """
        header: {measure: 'tests.toys:CountedHeader'}
        size: {decide: route, needs: [header], routes: {large: short_side >= 190, small: short_side < 190}}
        few: {decide: split, needs: [size.large], test: 0.5}
        many: {decide: split, needs: [size.small], validation: 0.5}
        one: {encode: text_to_image, needs: [few], params: {prompt: text, resolution: 128}}
        two: {encode: text_to_image, needs: [many], params: {prompt: text, resolution: 128}}
        shards: {pack: webdataset, needs: [one, two]}
        """
    )
    curate(plan, finished / "root", tmp_path / "store")
    view = open_view(str(tmp_path / "store"))
    samples = (
        view.samples("tiny")
        .collect()
        .join(outcome_of(tmp_path / "store", plan, "header").select("record_key", "short_side"), on="record_key")
    )
    splits = dict(samples.group_by(pl.col("short_side") >= 190).agg(pl.col("split").unique().sort()).rows())
    assert splits == {True: ["test", "train"], False: ["train", "validation"]}
    assert_sound(tmp_path / "store")


NEAR = """
hash: {measure: phash}
unique: {decide: duplicates, needs: [hash], order: [id], near: {column: phash, distance: 8, verify: same_picture}}
last: {measure: 'tests.toys:Score', needs: [unique]}
"""


def test_pictures_are_compared_once_whatever_the_order(finished: Path, tmp_path: Path) -> None:
    import cv2

    shutil.copytree(finished / "root", tmp_path / "root")
    picture = cv2.imread(str(tmp_path / "root/files/012.jpg"))
    random_marks = np.random.default_rng(1).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    picture[20:60, 20:60] = random_marks  # something to recognise in a smooth picture
    for number, quality in ((12, 90), (13, 40)):
        cv2.imwrite(str(tmp_path / f"root/files/{number:03d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    plan = plan_of(NEAR)
    curate(plan, tmp_path / "root", tmp_path / "store")
    states, compared = final_states(tmp_path / "store"), counted(tmp_path / "store")["unique"]
    assert states["p013"] == ("duplicate", "near")
    assert states["p012"] == ("kept", None)
    assert compared > 0
    curate(plan, tmp_path / "root", tmp_path / "store")
    assert counted(tmp_path / "store")["unique"] == compared
    assert snapshots(tmp_path / "store") == 1
    # The other order keeps the other one, and compares no pair again.
    curate(plan_of(NEAR.replace("[id]", "[id desc]")), tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store")["p012"] == ("duplicate", "near")
    assert final_states(tmp_path / "store")["p013"] == ("kept", None)
    assert counted(tmp_path / "store")["unique"] == compared


def test_texts_without_pictures_are_packed_and_audited_like_any_sample(tmp_path: Path) -> None:
    write_manifest(tmp_path / "root", [entry(n) for n in range(30)])
    nodes = """
split: {decide: split, validation: 0.2}
chat: {encode: plain_text, needs: [split], params: {prompt: id, answer: text, thinking: scene}}
page: {encode: document, needs: [split], params: {prompt: text}}
shards: {pack: webdataset, needs: [chat, page], shard_samples: 8}
"""
    curate(plan_of(nodes, LINES), tmp_path / "root", tmp_path / "store")
    assert_sound(tmp_path / "store")
    samples = open_view(str(tmp_path / "store")).samples("tiny").collect()
    assert samples.group_by("task").len().sort("task").rows() == [("document", 30), ("plain_text", 30)]
    assert samples["image_tokens"].sum() == 0
    assert len(tar_keys(tmp_path / "store")) == 60


def test_a_package_that_is_missing_stops_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.toys.Score.packages", {"no_such_package": "video"})
    write_manifest(tmp_path / "root", [entry(1)])
    with pytest.raises(UserError) as missing:
        curate(null_plan("score > 0"), tmp_path / "root", tmp_path / "store")
    said = "nodes.score: toy_score needs no_such_package; install it with: pip install 'unifactory[video]'"
    assert str(missing.value) == said
