from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from catalog.decisions import Licence, Quota, decide_licence, decide_quota, decide_rules
from catalog.errors import UserError
from jobs.demo import RECIPES
from jobs.run import load_plan
from pipeline.plan import Plan


class Given:
    """A decision's inputs: one bucket with one frame."""

    buckets: Sequence[str] = ("0",)

    def __init__(self, **columns: list[object]) -> None:
        size = len(next(iter(columns.values())))
        self._frame = pl.DataFrame({"record_key": [f"{row:016x}" * 2 for row in range(size)], **columns})

    def frame(self, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        return self._frame.select("record_key", *columns)


@pytest.fixture(scope="module", params=RECIPES)
def plan(request: pytest.FixtureRequest) -> Plan:
    return load_plan(request.param, [])


def branches(plan: Plan) -> dict[str, str]:
    return {rule.name: rule.branch for node in plan.nodes.values() for rule in node.rules}


def test_every_threshold_is_range_checked(plan: Plan) -> None:
    assert not [note for node in plan.nodes.values() for note in node.notes if "not range-checked" in note]


def test_terms_that_forbid_commercial_use_or_changes_are_not_allowed(plan: Plan) -> None:
    decision = plan.nodes["licence"].node
    assert isinstance(decision, Licence)
    terms = {
        "CC0-1.0": True, "CC-PDM-1.0": True, "CC-BY-2.0": True, "CC-BY-SA-4.0": True, "MIT": True, "MIT-CMU": True,
        "Apache-2.0": True, "BSD-3-Clause": True, "CC-BY-NC-2.0": False, "CC-BY-NC-SA-2.0": False,
        "CC-BY-ND-4.0": False, "Apple Sample Code licence": False, "All rights reserved": False, "": False,
    }  # fmt: skip
    ((_, verdicts),) = decide_licence(decision, Given(licence=[*terms, None]))
    assert verdicts["state"].to_list() == ["passed" if held else "dropped" for held in (*terms.values(), False)]
    assert verdicts["reason"].to_list()[-1] == "no licence"


def test_licences_are_judged_before_duplicates(plan: Plan) -> None:
    """Otherwise a permitted picture could yield to a copy that is then dropped for its terms."""
    for name, node in plan.nodes.items():
        if getattr(node.node, "decide", "") == "duplicates":
            assert "licence" in plan.recipe.ancestors(name)


def test_without_scores_the_generation_recipe_says_what_it_uses_instead() -> None:
    plan = load_plan("generation", [])
    taken = branches(plan)
    assert taken["aesthetics"] == taken["quality"] == "else"
    skipped = ("known_aesthetics", "known_quality", "alignment", "watermark", "nsfw", "faces", "text_share", "near")
    assert {taken[name] for name in (*skipped, "benchmarks")} == {"skip"}
    assert any("artimuse of artimuse is missing" in note for note in plan.nodes["quality"].notes)


def test_with_tables_of_scores_the_thresholds_of_the_paper_count(tmp_path: Path) -> None:
    settings = []
    for name, score in (("artimuse", 71.0), ("deqa", 4.2)):
        table = tmp_path / f"{name}.parquet"
        pl.DataFrame({"digest": ["0" * 64], name: [score]}).write_parquet(table)
        settings.append(f"{name}_known.table={table}")
    plan = load_plan("generation", settings)
    assert branches(plan)["known_aesthetics"] == branches(plan)["known_quality"] == "keep"
    conditions = {rule.name: rule.condition.sql for rule in plan.nodes["quality"].rules if rule.condition}
    assert conditions["known_aesthetics"] == "artimuse_known >= 60"
    assert conditions["known_quality"] == "deqa_known >= 4"


def test_a_table_that_is_not_there_is_a_mistake_and_no_reason_for_the_stand_in() -> None:
    with pytest.raises(UserError, match=r"nothing\.parquet"):
        load_plan("generation", ["artimuse_known.table=nothing.parquet"])


def test_the_512_stage_takes_what_the_paper_keeps_and_every_kept_picture_has_samples_of_the_256_stage() -> None:
    plan = load_plan("generation", [])
    (rule,) = plan.nodes["stage_512"].rules
    inputs = Given(short_side=[512, 511, 256, 2000])
    ((_, verdicts),) = decide_rules([("resolution", rule.condition.sql, "undecided")], inputs, ["short_side"])  # type: ignore[union-attr]
    assert verdicts["state"].to_list() == ["passed", "dropped", "dropped", "passed"]
    needs = {node: plan.nodes[node].node.needs for node in plan.nodes if node.startswith("encode")}
    assert needs == {
        "encode_256": ("split",), "encode_256_long": ("split",),
        "encode_512": ("stage_512",), "encode_512_long": ("stage_512",),
    }  # fmt: skip


def test_pictures_of_people_and_of_text_are_boosted_at_the_cost_of_a_tenth_of_the_others_at_most() -> None:
    decision = load_plan("generation", []).nodes["boost"].node
    assert isinstance(decision, Quota)
    subjects = ["people"] * 10 + ["text"] * 5 + ["other"] * 85
    ((_, verdicts),) = decide_quota(decision, Given(subject=subjects))
    ends = Counter(zip(verdicts["subject"], verdicts["state"], strict=True))
    assert ends == {("people", "passed"): 10, ("text", "passed"): 5, ("other", "passed"): 77, ("other", "dropped"): 8}
