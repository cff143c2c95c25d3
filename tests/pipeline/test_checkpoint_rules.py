"""Rules upon model scores, with a checkpoint and without: what plan says, what a run does, what stops it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalog.errors import UserError
from pipeline.plan import Plan, check_operators
from pipeline.scorers.checkpoint import CheckpointMeasure
from tests.jobs.tiny import here
from tests.pipeline import runs
from tests.pipeline.conftest import Checkpoints

NODES = """
header: {measure: header}
nsfw:
  measure: classifier
  needs: [header]
  requires: checkpoint
  params: {checkpoint: NSFW, label: nsfw, name: nsfw}
alignment:
  measure: alignment
  needs: [nsfw]
  requires: checkpoint
  params: {checkpoint: CLIP, family: siglip, text: text}
embedding:
  measure: embedding
  needs: [alignment]
  requires: checkpoint
  params: {checkpoint: CLIP, family: siglip}
safe:
  decide: rules
  needs: [embedding]
  rules:
    nsfw: {keep: nsfw < 0.5, else: skip}
    alignment: {keep: alignment >= -0.9, else: short_side >= 150}
split: {decide: split, needs: [safe]}
encode: {encode: text_to_image, needs: [split], params: {prompt: text, resolution: 128}}
shards: {pack: webdataset, needs: [encode]}
"""


def nodes(nsfw: Path | None, clip: Path | None) -> str:
    return NODES.replace("NSFW", str(nsfw or "null")).replace("CLIP", str(clip or "null"))


def planned(nsfw: Path | None, clip: Path | None) -> Plan:
    return runs.plan_of(nodes(nsfw, clip))


def test_with_checkpoints_the_rules_read_the_models_scores(tiny: Checkpoints, tmp_path: Path) -> None:
    runs.write_corpus(tmp_path / "root", 18)
    plan = planned(tiny("classifier")[0], tiny("siglip")[0])
    assert [(rule.name, rule.branch) for rule in plan.nodes["safe"].rules] == [("nsfw", "keep"), ("alignment", "keep")]
    assert plan.nodes["safe"].notes == ()
    runs.curate(plan, tmp_path / "root", tmp_path / "store")
    scores = runs.outcome_of(tmp_path / "store", plan, "nsfw").filter(status="ok")
    assert scores["nsfw"].is_between(0, 1).all()
    keys = runs.keys_by_id(tmp_path / "store")
    names = {key: name for name, key in keys.items()}
    bad = {names[row["record_key"]] for row in scores.to_dicts() if row["nsfw"] >= 0.5}
    dropped = {name for name, (_, reason) in runs.final_states(tmp_path / "store").items() if reason == "nsfw"}
    assert dropped == bad
    assert 0 < len(bad) < len(scores)
    vectors = runs.outcome_of(tmp_path / "store", plan, "embedding").filter(status="ok")["embedding"]
    assert {len(np.frombuffer(vector, "<f2")) for vector in vectors} == {16}


def test_without_them_the_plan_says_so_and_the_rules_take_their_else(tmp_path: Path) -> None:
    runs.write_corpus(tmp_path / "root", 18)
    plan = planned(None, None)
    check_operators(plan)
    missing = [node.missing for node in plan.nodes.values() if node.missing]
    assert missing == [f"no checkpoint is given for {op!r}" for op in ("nsfw", "alignment", "embedding")]
    assert plan.nodes["safe"].notes == (
        "nodes.safe.rules.nsfw: skipped: nsfw of nsfw is missing (no checkpoint is given for 'nsfw')",
        "nodes.safe.rules.alignment: uses else `short_side >= 150`: "
        "alignment of alignment is missing (no checkpoint is given for 'alignment')",
    )
    runs.curate(plan, tmp_path / "root", tmp_path / "store")
    states = runs.final_states(tmp_path / "store")
    assert states["p003"] == ("dropped", "alignment")  # 120 pixels
    assert states["p004"][0] == "kept"


def test_near_duplicates_by_a_missing_models_column_are_left_out_only_by_an_else(tmp_path: Path) -> None:
    twins = "twins: {decide: duplicates, needs: [safe], near: {column: alignment, distance: 3}ELSE}\nsplit:"
    text = nodes(None, None).replace("split:", twins).replace("needs: [safe]}", "needs: [twins]}")
    with pytest.raises(
        UserError,
        match=r"nodes\.twins\.near: 'alignment' of alignment is missing \(no checkpoint is given for 'alignment'",
    ):
        runs.plan_of(text.replace("ELSE", ""))
    plan = runs.plan_of(text.replace("ELSE", ", else: skip"))
    twins_node = plan.nodes["twins"]
    assert twins_node.notes == (
        "nodes.twins.near: skipped: alignment of alignment is missing (no checkpoint is given for 'alignment')",
    )
    assert [(rule.name, rule.branch) for rule in twins_node.rules] == [("near", "skip")]
    runs.write_corpus(tmp_path / "root", 18)
    runs.curate(plan, tmp_path / "root", tmp_path / "store")
    states = runs.final_states(tmp_path / "store")
    assert sorted(state for name, (state, _) in states.items() if name in ("p008", "p009")) == ["duplicate", "kept"]


def test_a_checkpoint_that_does_not_fit_stops_the_run_before_its_first_record(
    tiny: Checkpoints, tmp_path: Path
) -> None:
    runs.write_corpus(tmp_path / "root", 18)
    broken = tmp_path / "broken"
    shutil.copytree(tiny("classifier")[0], broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-100])
    plan = planned(broken, tiny("siglip")[0])
    with pytest.raises(UserError, match=r"^nodes\.nsfw: .*broken: transformers cannot load the network: "):
        runs.curate(plan, tmp_path / "root", tmp_path / "store")
    assert runs.store_of(tmp_path / "store").snapshot() is None
    assert not list((tmp_path / "store").rglob("outcomes/**/*.parquet"))


def test_a_run_that_has_its_scores_loads_no_network(
    tiny: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write_corpus(tmp_path / "root", 18)
    plan = planned(tiny("classifier")[0], tiny("siglip")[0])
    runs.curate(plan, tmp_path / "root", tmp_path / "store")
    states = runs.final_states(tmp_path / "store")

    def loaded(*_: Any) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(CheckpointMeasure, "check", loaded)
    monkeypatch.setattr(CheckpointMeasure, "setup", loaded)
    runs.curate(plan, tmp_path / "root", tmp_path / "store")
    assert runs.final_states(tmp_path / "store") == states


def recipe(folder: Path, nsfw: Path | None, clip: Path | None, **changes: Any) -> str:
    found = yaml.safe_load(nodes(nsfw, clip))
    found["nsfw"]["params"] |= changes
    path = folder / "recipe.yaml"
    head = {"version": 1, "corpus": "tiny", "sources": {"lines": runs.PICTURES}}
    path.write_text(yaml.safe_dump({**head, "nodes": found}))
    return str(path)


def test_plan_says_in_one_line_what_is_wrong_with_a_checkpoint(tiny: Checkpoints, tmp_path: Path) -> None:
    nsfw, clip = tiny("classifier")[0], tiny("siglip")[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[Path, dict[str, str], list[str]]] = [
        (tmp_path / "none", {}, ["/none: the checkpoint cannot be read: No such file or directory"]),
        (empty, {}, ["/empty: holds no weights ("]),
        (nsfw, {"label": "porn"}, ["nodes.nsfw: ", "has no label 'porn'; it has 'normal', 'nsfw'"]),
        (clip, {}, ["nodes.nsfw: ", "names no labels (`id2label`); it is no classifier"]),
    ]
    for checkpoint, changes, said in cases:
        done = here("plan", recipe(tmp_path, checkpoint, None, **changes))
        assert done.returncode == 2
        assert all(words in done.stderr for words in said)
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_package_is_said_with_its_extra(
    tiny: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    done = here("plan", recipe(tmp_path, tiny("classifier")[0], None))
    assert done.returncode == 2
    assert "classifier needs transformers; install it with: pip install 'unifactory[transformers]'" in done.stderr
