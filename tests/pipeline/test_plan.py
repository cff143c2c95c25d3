"""Planning: what cannot be right is refused before any data is touched, and fingerprints tell what must run again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.errors import UserError
from pipeline.plan import Plan, check_sources, resolve
from pipeline.recipe import Recipe

SOURCES: dict[str, Any] = {
    "lines": {
        "kind": "jsonl",
        "manifest": "m.jsonl",
        "map": {"id": "id", "do": "do", "scene": "scene", "licence": "licence", "year": "year"},
        "types": {"year": "int"},
        "media": {"image": "file"},
    }
}
SCORE, BEAUTY, MISSING = "tests.toys:Score", "tests.toys:Beauty", "tests.toys:MissingModel"


def recipe(text: str, **head: Any) -> Recipe:
    """A recipe with the nodes of a YAML text."""
    data = {"version": 1, "corpus": "toys", "sources": SOURCES, "nodes": yaml.safe_load(text), **head}
    return Recipe.model_validate(data)


def plan(text: str, **head: Any) -> Plan:
    return resolve(recipe(text, **head), "R")


def refusal(text: str, **head: Any) -> str:
    with pytest.raises(UserError) as refused:
        plan(text, **head)
    message = str(refused.value)
    assert "\n" not in message
    return message


SEEN = "brightness, do, id, licence, scene, score, source, split_group, worker, year".replace("brightness, ", "")
BAD = [
    # -- operators
    (
        "a: {measure: headers}",
        "R: nodes.a: unknown operator 'headers'; known: KNOWN, or package.module:Class",
    ),
    ("a: {measure: 'tests.toys:Nothing'}", "R: nodes.a: operator 'tests.toys:Nothing' cannot be imported: "),
    ("a: {measure: 'no.such:Thing'}", "R: nodes.a: operator 'no.such:Thing' cannot be imported: No module named 'no'"),
    ("a: {measure: 'pathlib:Path'}", "R: nodes.a: operator 'pathlib:Path' is not a pipeline.operator.Operator"),
    ("a: {measure: 'tests.toys:ThreeParts'}", "R: nodes.a: tests.toys:ThreeParts cannot measure; it is a expander"),
    ("a: {expand: 'tests.toys:Score'}", "R: nodes.a: tests.toys:Score cannot expand; it is a measure"),
    ("a: {expand: embedding, params: {family: siglip}}", "R: nodes.a: embedding cannot expand; it is a measure"),
    ("a: {merge: 'tests.toys:ThreeParts'}", "R: nodes.a: tests.toys:ThreeParts cannot merge; it is a expander"),
    (
        f"a: {{measure: '{SCORE}', params: {{shfit: 1}}}}",
        f"R: nodes.a.params.shfit: is not a parameter of {SCORE}",
    ),
    (
        f"a: {{measure: '{SCORE}', params: {{shift: much}}}}",
        "R: nodes.a.params.shift: Input should be a valid number, unable to parse string as a number",
    ),
    ("a: {encode: text_to_image}", "R: nodes.a.params.prompt: is missing"),
    (
        "a: {encode: haiku, params: {prompt: id}}",
        "R: nodes.a.params.task: Input should be 'text_to_image', 'text_to_image_thinking', 'understanding', "
        "'conversation', 'editing', 'interleaved', 'plain_text' or 'document'",
    ),
    (
        "a: {encode: text_to_image, params: {prompt: id}}",
        "R: nodes.a.params: text_to_image needs `resolution`, a multiple of 32, such as 256 or 512",
    ),
    ("a: {encode: understanding, params: {prompt: id}}", "R: nodes.a.params: understanding needs `answer`, a column"),
    ("a: {encode: document, params: {prompt: id, answer: do}}", "R: nodes.a.params: document has no `answer`"),
    (
        "a: {encode: editing, params: {prompt: id, resolution: 512}}",
        "R: nodes.a.params: editing needs `given`, the roles of its source pictures, without 'image'",
    ),
    (
        "a: {encode: text_to_image, params: {prompt: caption, resolution: 512}}",
        "R: nodes.a: encode reads 'caption', which no node above writes",
    ),
    (
        f"a: {{measure: '{SCORE}'}}\nb: {{measure: '{SCORE}', needs: [a]}}",
        "R: nodes.b: writes 'score', which a writes already",
    ),
    (
        "a: {merge: 'tests.toys:Together', params: {by: place}}",
        "R: nodes.a: tests.toys:Together groups by 'place', which no node above writes",
    ),
    (
        f"a: {{measure: '{MISSING}'}}",
        f"R: nodes.a: {MISSING} cannot run: no checkpoint; write `requires:` if rules have an `else`",
    ),
    # -- needs
    (
        "a: {decide: route, routes: {x: year > 5}}\nb: {decide: split, needs: [a.y]}",
        "R: nodes.b.needs: 'a' has no route 'y'",
    ),
    ("a: {decide: split}\nb: {decide: split, needs: [a.y]}", "R: nodes.b.needs: 'a' has no route 'y'"),
    (
        "a: {decide: route, routes: {x: year > 5, y: year > 4}}\nb: {decide: split, needs: [a.x]}",
        "R: nodes.a.routes.y: leads nowhere: no node needs a.y",
    ),
    ("a: {pack: webdataset}", "R: nodes.a.needs: packing needs an encode node"),
    ("a: {decide: split}\nb: {pack: webdataset, needs: [a]}", "R: nodes.b.needs: 'a' is not an encode node"),
    (
        "e: {encode: text_to_image, params: {prompt: id, resolution: 512}}\n"
        "p: {pack: webdataset, needs: [e]}\nq: {decide: split, needs: [p]}",
        "R: nodes.q.needs: 'p' packs; nothing comes after packing",
    ),
    (
        "e: {encode: text_to_image, params: {prompt: id, resolution: 512}}\n"
        "p: {pack: webdataset, needs: [e]}\nq: {pack: webdataset, needs: [e]}",
        "R: nodes.q: p packs already; let it need more encode nodes",
    ),
    (
        "a: {decide: route, routes: {x: year > 5, y: year > 4}}\nb: {decide: split, needs: [a.x, a.y]}",
        "R: nodes.b.needs: no record takes x and y of a at once",
    ),
    (
        "e: {encode: text_to_image, params: {prompt: id, resolution: 512}}\n"
        "f: {encode: text_to_image, params: {prompt: do, resolution: 512}}\n"
        "p: {pack: webdataset, needs: [e, f]}",
        "R: nodes.f: makes the samples that e makes: same task, resolution and variant; give one of them a `variant`",
    ),
    # -- rules
    (
        f"a: {{measure: '{SCORE}'}}\nb: {{decide: rules, needs: [a], rules: {{side: short_side > 5}}}}",
        f"R: nodes.b.rules.side: no node above writes 'short_side'; there are: {SEEN}",
    ),
    (
        f"a: {{measure: '{SCORE}'}}\nb: {{decide: rules, rules: {{side: score > 0.5}}}}",
        "R: nodes.b.rules.side: no node above writes 'score'; there are: "
        "do, id, licence, scene, source, split_group, year",
    ),
    (
        f"a: {{measure: '{SCORE}'}}\nb: {{decide: rules, needs: [a], rules: {{side: score > 60}}}}",
        "R: nodes.b.rules.side: score > 60 decides nothing: score ranges from 0 to 1",
    ),
    (
        f"a: {{measure: '{SCORE}'}}\nb: {{decide: rules, needs: [a], rules: {{side: score >}}}}",
        "R: nodes.b.rules.side: 'score >' is not a condition: something is missing beside an operator",
    ),
    (
        "b: {decide: rules, rules: {side: id > 5}}",
        "R: nodes.b.rules.side: 'id > 5' cannot be evaluated: "
        "cannot compare string with numeric type (i32) (id is string)",
    ),
    (
        f"a: {{measure: '{SCORE}'}}\nb: {{decide: route, needs: [a], routes: {{r: score > 60}}}}",
        "R: nodes.b.routes.r: score > 60 decides nothing: score ranges from 0 to 1",
    ),
    (
        f"a: {{measure: '{BEAUTY}', requires: checkpoint}}\n"
        "b: {decide: rules, needs: [a], rules: {side: beauty > 5}}",
        "R: nodes.b.rules.side: beauty of a is missing (no checkpoint given); "
        "name an `else:` rule on other columns, or `else: skip`",
    ),
    (
        f"a: {{measure: '{BEAUTY}', requires: checkpoint}}\n"
        "b: {decide: rules, needs: [a], rules: {side: {keep: beauty > 5, else: beauty > 4}}}",
        "R: nodes.b.rules.side: 'beauty' of a is missing (no checkpoint given)",
    ),
    (
        f"a: {{measure: '{BEAUTY}', requires: checkpoint}}\nb: {{decide: quota, needs: [a], by: beauty}}",
        "R: nodes.b.by: 'beauty' of a is missing (no checkpoint given)",
    ),
    (
        f"a: {{measure: '{BEAUTY}', requires: checkpoint}}\n"
        "b: {encode: text_to_image, needs: [a], params: {prompt: id, resolution: 512, provenance: [beauty]}}",
        "R: nodes.b: reads 'beauty' of a, which cannot run: no checkpoint given",
    ),
    # -- other decisions
    (
        "a: {decide: licence, allow: [MIT], field: rights}",
        "R: nodes.a.field: no node above writes 'rights'; there are: do, id, licence, scene, source, split_group, year",
    ),
    (
        "a: {decide: quota, by: kind}",
        "R: nodes.a.by: no node above writes 'kind'; there are: do, id, licence, scene, source, split_group, year",
    ),
    (
        "a: {decide: duplicates, order: [pixels desc]}",
        "R: nodes.a.order: no node above writes 'pixels'; there are: do, id, licence, scene, source, split_group, year",
    ),
    (
        "a: {decide: duplicates, placeholder_sources: 2}",
        "R: nodes.a.placeholder_field: no node above writes 'url'; there are: "
        "do, id, licence, scene, source, split_group, year",
    ),
    (
        "a: {decide: duplicates, near: {distance: 4}}",
        "R: nodes.a.near: no node above writes 'phash'; there are: do, id, licence, scene, source, split_group, year",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:70] for _, message in BAD])
def test_what_cannot_be_right_is_refused_in_one_line(text: str, message: str) -> None:
    found = refusal(text)
    if "KNOWN" in message:
        found = re.sub(r"known: [a-z_, ]+, or", "known: KNOWN, or", found)
    if message.endswith("imported: "):
        found = found[: len(message)]
    assert found == message


@pytest.mark.parametrize("name", ["record_key", "media", "fields", "reason", "state", "value", "status", "place"])
def test_names_of_the_catalogs_own_columns_are_refused_for_fields(name: str) -> None:
    sources = {"lines": {**SOURCES["lines"], "map": {"id": "id", name: "x"}, "types": {}}}
    assert refusal("a: {decide: split}", sources=sources) == (
        f"R: sources.lines: {name!r} is a name of the catalog's own; map it to another"
    )


def test_names_of_the_catalogs_own_columns_are_refused_for_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import toys

    monkeypatch.setattr(toys.Score, "columns", (toys.Column("reason", toys.pa.string(), "why"),))
    assert refusal(f"a: {{measure: '{SCORE}'}}") == (
        f"R: nodes.a: {SCORE} writes 'reason', which is a name of the catalog's own"
    )


def test_branches_that_never_meet_may_make_the_same_samples() -> None:
    encode = "{encode: text_to_image, params: {prompt: id, resolution: 512}"
    found = plan(
        "a: {decide: route, routes: {x: year > 5, y: year > 4}}\n"
        f"e: {encode}, needs: [a.x]}}\nf: {encode}, needs: [a.y]}}\np: {{pack: webdataset, needs: [e, f]}}"
    )
    assert [name for name, node in found.recipe.nodes.items() if node.needs == ("a.x",)] == ["e"]


def test_a_route_may_end_the_recipe_or_go_on_as_a_whole() -> None:
    route = "a: {decide: route, routes: {x: year > 5, y: year > 4}}"
    plan(route)
    plan(f"{route}\nb: {{decide: split, needs: [a]}}")
    plan(f"{route}\nb: {{decide: split, needs: [a.x]}}\nc: {{decide: split, needs: [a.y]}}")


# -- what is planned --------------------------------------------------------------------------------------------------


def test_columns_flow_down_from_every_node_above() -> None:
    planned = plan(
        f"a: {{measure: '{SCORE}'}}\nb: {{measure: '{BEAUTY}', needs: [a]}}\nc: {{decide: split, needs: [b]}}"
    )
    columns = planned.columns("c")
    assert {name: above for name, (above, _) in columns.items()} == {
        **dict.fromkeys(["source", "split_group", "id", "do", "scene", "licence", "year"], "ingest"),
        "score": "a",
        "worker": "a",
        "beauty": "b",
    }


def test_birth_hides_the_columns_above_it() -> None:
    planned = plan(
        f"a: {{measure: '{SCORE}'}}\nb: {{expand: 'tests.toys:ThreeParts', needs: [a]}}\n"
        "c: {decide: split, needs: [b]}"
    )
    assert "score" in planned.columns("b")
    assert "score" not in planned.columns("c")


def test_a_rule_that_is_not_range_checked_is_noted() -> None:
    planned = plan("a: {decide: rules, rules: {odd: year % 2 = 1, plain: year > 5}}")
    assert planned.nodes["a"].notes == ("nodes.a.rules.odd: not range-checked: year % 2 = 1",)


BRANCHES = """
a: {{measure: 'tests.toys:Score'}}
m: {{measure: 'tests.toys:Beauty', needs: [a], requires: checkpoint, params: {{checkpoint: {checkpoint}}}}}
b: {{decide: rules, needs: [m], rules: {{fine: {{keep: beauty > 5, else: {otherwise}}}, score: score > 0.1}}}}
c: {{encode: text_to_image, needs: [b], params: {{prompt: id, resolution: 512}}}}
p: {{pack: webdataset, needs: [c]}}
"""


def branched(checkpoint: str, otherwise: str) -> Plan:
    return plan(BRANCHES.format(checkpoint=checkpoint, otherwise=otherwise))


def test_a_rule_takes_its_condition_when_the_model_is_there() -> None:
    node = branched("weights", "skip").nodes["b"]
    assert [(rule.name, rule.branch) for rule in node.rules] == [("fine", "keep"), ("score", "keep")]
    assert node.notes == ()
    assert node.reads == {"beauty": "m", "score": "a"}


def test_a_rule_takes_its_else_when_the_model_is_missing_and_says_so() -> None:
    planned = branched("null", "score > 0.7")
    node = planned.nodes["b"]
    assert planned.nodes["m"].missing == "no checkpoint given"
    fine = node.rules[0]
    assert fine.condition is not None
    assert (fine.branch, fine.condition.sql) == ("else", "score > 0.7")
    assert node.reads == {"score": "a"}
    assert node.notes == ("nodes.b.rules.fine: uses else `score > 0.7`: beauty of m is missing (no checkpoint given)",)


def test_a_rule_may_be_skipped_when_the_model_is_missing_and_says_so() -> None:
    node = branched("null", "skip").nodes["b"]
    assert [(rule.name, rule.branch, rule.condition is None) for rule in node.rules] == [
        ("fine", "skip", True),
        ("score", "keep", False),
    ]
    assert node.notes == ("nodes.b.rules.fine: skipped: beauty of m is missing (no checkpoint given)",)


def test_the_branch_is_part_of_the_fingerprint() -> None:
    plans = [branched(*given) for given in (("weights", "skip"), ("null", "skip"), ("null", "score > 0.7"))]
    for name in ("b",):
        assert len({planned.nodes[name].fingerprint for planned in plans}) == 3
    assert len({planned.fingerprint for planned in plans}) == 3
    # What does not depend on the model is done already.
    assert len({planned.nodes["a"].fingerprint for planned in plans}) == 1
    assert len({planned.nodes["c"].fingerprint for planned in plans}) == 1


def test_an_else_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match=r"nodes\.b\.rules\.fine: score > 7 decides nothing"):
        branched("null", "score > 7")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("beauty > 600", r"nodes\.b\.rules\.fine: beauty > 600 decides nothing: beauty ranges from 0 to 10"),
        ("beauty > 6 AND fame > 1", r"nodes\.b\.rules\.fine: no node above writes 'fame'"),
    ],
)
def test_a_threshold_on_the_wrong_scale_is_refused_before_the_model_is_there(keep: str, message: str) -> None:
    nodes = f"""
    m: {{measure: '{BEAUTY}', requires: checkpoint, params: {{checkpoint: null}}}}
    b: {{decide: rules, needs: [m], rules: {{fine: {{keep: {keep}, else: skip}}}}}}
    """
    with pytest.raises(UserError, match=message):
        plan(nodes)


# -- fingerprints -----------------------------------------------------------------------------------------------------

CHAIN = """
a: {{measure: 'tests.toys:Score', params: {{shift: {shift}}}}}
b: {{measure: 'tests.toys:ReadsScore', needs: [a]}}
c: {{measure: 'tests.toys:Beauty', needs: [b]}}
d: {{decide: rules, needs: [c], rules: {{s: 'score {op} {threshold}'}}}}
"""


def prints(**given: Any) -> dict[str, str]:
    values = {"shift": 0.0, "op": ">", "threshold": 0.5, **given}
    return {name: node.fingerprint for name, node in plan(CHAIN.format(**values)).nodes.items()}


def changed(**given: Any) -> set[str]:
    return {name for name, fingerprint in prints(**given).items() if fingerprint != prints()[name]}


def test_a_threshold_changes_its_decision_alone() -> None:
    assert changed(threshold=0.6) == {"d"}
    assert changed(op=">=") == {"d"}


def test_a_parameter_changes_its_node_and_what_reads_its_columns() -> None:
    assert changed(shift=1.0) == {"a", "b", "d"}


def test_equal_parameters_in_other_words_change_nothing() -> None:
    assert changed(shift="0") == set()


def test_a_version_changes_its_node_and_what_reads_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toys import Score

    before = prints()
    monkeypatch.setattr(Score, "version", 2)
    assert {name for name, fingerprint in prints().items() if fingerprint != before[name]} == {"a", "b", "d"}


def test_what_a_model_says_of_itself_changes_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toys import Beauty

    before = prints()
    monkeypatch.setattr(Beauty, "fingerprint_parts", lambda self: {"revision": "main@1"})
    assert {name for name, fingerprint in prints().items() if fingerprint != before[name]} == {"c"}


def test_time_limits_and_batches_change_no_fingerprint() -> None:
    one = plan(f"a: {{measure: '{SCORE}'}}")
    two = plan(f"a: {{measure: '{SCORE}', time_limit: 5, batch: 3, error_budget: 0.1}}")
    assert one.nodes["a"].fingerprint == two.nodes["a"].fingerprint


def test_the_same_operator_with_the_same_inputs_shares_its_outcomes() -> None:
    planned = plan(
        "r: {decide: route, routes: {x: year > 5, y: year <= 5}}\n"
        f"a: {{measure: '{SCORE}', needs: [r.x]}}\nb: {{measure: '{SCORE}', needs: [r.y]}}"
    )
    tables = {planned.nodes[name].runs.table for name in "ab" if planned.nodes[name].runs}  # type: ignore[union-attr]
    assert len(tables) == 1
    assert re.fullmatch(r"outcomes/tests_toys_score-[0-9a-f]{12}", tables.pop())


def test_the_plan_of_a_recipe_is_the_same_in_every_process() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.pipeline.test_plan import CHAIN, plan\n"
        "print(plan(CHAIN.format(shift=0.0, op='>', threshold=0.5)).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert prints == {plan(CHAIN.format(shift=0.0, op=">", threshold=0.5)).fingerprint + "\n"}


# -- sources ----------------------------------------------------------------------------------------------------------


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = recipe("a: {decide: split}")
    with pytest.raises(UserError) as refused:
        check_sources(one, tmp_path)
    assert str(refused.value) == (
        f'sources.lines: manifest "m.jsonl": the file "m.jsonl" does not exist (the root is {tmp_path})'
    )
    (tmp_path / "m.jsonl").write_text("")
    check_sources(one, tmp_path)


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        check_sources(recipe("a: {decide: split}"), tmp_path / "nowhere")
    assert str(refused.value) == f"--root {tmp_path}/nowhere: is not a folder"
