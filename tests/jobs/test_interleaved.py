"""The shipped recipe for clips, run on clips made here, and on the sample corpus where there is one."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from catalog.audit import audit
from catalog.store import open_store
from catalog.view import open_view
from jobs.run import RECIPES, load_plan
from model.grammar import check
from pipeline.flow import Flow
from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from tests.pipeline.clip_files import FPS, clip_bytes, pan, plain, still, texture
from tests.pipeline.runs import counted, curate

HERE = Path(__file__).resolve().parents[2]
CORPORA = HERE.parent / "shared" / "corpora"
PAGE = HERE / "docs" / "corpora" / "interleaved.md"
SIZE = (426, 240)


def write_clips(root: Path) -> None:
    """One clip a verdict."""
    wide = {"width": SIZE[0], "height": SIZE[1]}
    clips = {
        "good": clip_bytes(pan(1, 6, **wide)),
        "copy": clip_bytes(pan(1, 6, **wide)),
        "two_shots": clip_bytes(itertools.chain(pan(2, 2, **wide), pan(3, 11, **wide))),
        "hard_cuts": clip_bytes(itertools.chain(pan(1, 4, **wide), pan(2, 4, **wide))),
        "brightening": clip_bytes((texture(4, *SIZE) * (0.3 + 0.7 * n / 144)).astype("uint8") for n in range(144)),
        "small": clip_bytes(pan(1, 6)),
        "short": clip_bytes(pan(1, 2, **wide)),
        "garbage": b"this is no video",
        "cut": clip_bytes(pan(5, 12, **wide), container="matroska")[:60_000],
    }
    clips["still"] = clip_bytes(itertools.islice(pan(6, 6, 0.0, **wide), 144))
    clips["terms"] = clip_bytes(pan(7, 6, **wide))
    folder = root / "video"
    folder.mkdir(parents=True)
    lines = []
    for name, data in clips.items():
        (folder / name).write_bytes(data)
        licence = "CC-BY-NC-4.0" if name == "terms" else "MIT"
        lines.append({"id": name, "file": name, "media": "video", "licence": licence, "origin": {"repo": "a/b"}})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.timeout(300)
def test_every_clip_ends_as_it_should(tmp_path: Path) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    write_clips(root)
    plan = load_plan("interleaved", [])
    curate(plan, root, store)
    states = final_ingested(store)
    twins = {states.pop("good"), states.pop("copy")}
    assert twins == {("expanded", None), ("duplicate", "exact")}
    assert states == {
        "two_shots": ("expanded", None),
        "hard_cuts": ("dropped", "shot"),
        "brightening": ("dropped", "motion"),
        "still": ("dropped", "still"),
        "small": ("dropped", "side"),
        "short": ("dropped", "duration"),
        "terms": ("dropped", "licence"),
        "garbage": ("quarantined", "not a video"),
        "cut": ("quarantined", "truncated clip"),
    }
    rows = open_store(str(store)).records("interleaved").read().to_dicts()
    sequences = [json.loads(row["fields"]) for row in rows if row["node"] == "sequence"]
    assert sorted(len(fields["frame_texts"]) for fields in sequences) == [2, 3]
    (long,) = [fields for fields in sequences if fields["id"] == "two_shots"]
    # In the middle of the second shot, which lasts from 2 s to 13 s.
    assert long["times_s"] == pytest.approx([2.5, 7.5, 12.5], abs=1 / FPS)
    samples = open_view(str(store)).samples("interleaved").collect()
    assert samples.select("task", "resolution").unique().rows() == [("interleaved", 256)]
    assert samples.height == len(sequences)
    before = counted(store)
    curate(plan, root, store)
    assert counted(store) == before
    assert not audit(open_view(str(store)), check).findings


def final_ingested(store: Path) -> dict[str, tuple[str, str | None]]:
    """Per id of a source row its final state and reason; what was born shares its clip's id."""
    opened = open_store(str(store))
    states = {row["record_key"]: row for row in opened.states("interleaved").read().to_dicts()}
    return {
        json.loads(row["fields"])["id"]: (states[row["record_key"]]["state"], states[row["record_key"]]["reason"])
        for row in opened.records("interleaved").read().to_dicts()
        if row["node"] == "ingest"
    }


def test_thresholds_are_range_checked_and_missing_scores_are_told() -> None:
    plan = load_plan("interleaved", [])
    notes = [note for node in plan.nodes.values() for note in node.notes]
    assert not [note for note in notes if "not range-checked" in note]
    assert {rule.name: rule.branch for rule in plan.nodes["quality"].rules if rule.branch != "keep"} == {
        "aesthetics": "skip", "clarity": "else", "motion": "else",
    }  # fmt: skip


def test_black_and_still_clips_are_known_for_what_they_are(tmp_path: Path) -> None:
    from tests.pipeline.measures.test_clip_scan import scan

    assert scan(tmp_path, plain(0, 1))["black_share"] > 0.2
    assert scan(tmp_path, still(1, 1))["still_share"] > 0.5


def ungated() -> Plan:
    """The shipped rules in one decision behind every measure, so that a clip shows all that it fails."""
    recipe = yaml.safe_load((RECIPES / "interleaved.yaml").read_text())
    nodes = recipe["nodes"]
    rules = {**nodes["shape"]["rules"], **nodes["quality"]["rules"]}
    kept = {name: nodes[name] for name in ("probe", "aesthetics", "clarity_score", "motion_score")}
    scan = {**nodes["scan"], "needs": ["probe"]}
    told = {name: rule if isinstance(rule, dict) else {"keep": rule} for name, rule in rules.items()}
    every = {name: {**rule, "on_null": "keep"} for name, rule in told.items()}
    recipe["nodes"] = {**kept, "scan": scan, "all": {"decide": "rules", "needs": ["motion_score"], "rules": every}}
    return resolve(Recipe.model_validate(recipe), "interleaved")


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="no sample corpora beside the project")
def test_the_page_says_what_the_clips_of_the_sample_corpus_are(tmp_path: Path) -> None:
    store, plan = tmp_path / "store", ungated()
    curate(plan, CORPORA, store)
    flow = Flow(open_store(str(store)), plan)
    names = {row["record_key"]: json.loads(row["fields"])["id"] for row in flow.records.read().to_dicts()}
    cuts = {row["record_key"]: row["cut_times"] for row in flow.outcome("scan").read().to_dicts()}
    found = {
        names[row["record_key"]].removeprefix("video/"): (
            ", ".join(f"{time:.2f}" for time in cuts[row["record_key"]]) or "none",
            ", ".join(row["failing"]) or "none: frames",
        )
        for row in flow.verdicts("all").read().to_dicts()
    }
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {cells[0]: (cells[4], cells[10]) for cells in lines if len(cells) == 11 and cells[0] != "clip"}
    assert told == found


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="no sample corpora beside the project")
def test_five_clips_of_the_sample_corpus_become_sequences_of_two_frames(tmp_path: Path) -> None:
    store = tmp_path / "store"
    curate(load_plan("interleaved", []), CORPORA, store)
    rows = open_store(str(store)).records("interleaved").read().to_dicts()
    sequences = [json.loads(row["fields"]) for row in rows if row["node"] == "sequence"]
    assert [len(fields["times_s"]) for fields in sequences] == [2] * 5
    assert Counter(state for state, _ in final_ingested(store).values()) == {"expanded": 6, "dropped": 14}


def test_texts_come_from_a_server_where_one_is_given_and_say_whose_they_are() -> None:
    server = ["base_url=http://127.0.0.1:8000/v1", "model=m", "revision=r"]
    asked = load_plan("interleaved", [f"{node}.{said}" for node in ("frame_text", "instruction") for said in server])
    plain_plan = load_plan("interleaved", [])
    for name, stand_in in (("frame_text", "frame_facts"), ("instruction", "instruction")):
        assert plain_plan.nodes[name].notes == (f"nodes.{name}: no base_url given: the text is that of {stand_in!r}",)
        assert asked.nodes[name].notes == ()
        assert asked.nodes[name].fingerprint != plain_plan.nodes[name].fingerprint
    assert plain_plan.columns("split")["instruction"][0] == "instruction"
