"""Reading recipes: what is wrong with one is said in one line that names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import UserError
from pipeline.recipe import Recipe, load_recipe, operator_nodes

HEAD = """
version: 1
corpus: toys
sources:
  lines: {kind: jsonl, manifest: m.jsonl, map: {id: id, do: do}}
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def nodes(text: str) -> str:
    """A recipe with these nodes."""
    return f"{HEAD}nodes:\n" + "\n".join(f"  {line}" for line in text.splitlines())


def refusal(folder: Path, text: str | bytes, settings: dict[str, Any] | None = None) -> str:
    """Why a recipe is refused, without its path."""
    path = write(folder, text)
    with pytest.raises(UserError) as refused:
        load_recipe(path, settings)
    message = str(refused.value)
    assert "\n" not in message
    return message.replace(str(path), "R")


BAD = [
    # -- the file
    ("", "R: a recipe is a mapping with version, corpus, sources and nodes"),
    ("- a\n- b", "R: a recipe is a mapping with version, corpus, sources and nodes"),
    ("just words", "R: a recipe is a mapping with version, corpus, sources and nodes"),
    (b"version: 1\n# \xff", "R: not UTF-8 at byte 13"),
    (b"version: 1\n# \x00", "R: not YAML: unacceptable character #x0000: special characters are not allowed"),
    ("a: [1, 2", "R:1: not YAML: expected ',' or ']', but got '<stream end>'"),
    ("a: 1\n b: 2", "R:2: not YAML: mapping values are not allowed here"),
    ("a: &x 1\nb: *y", "R:2: not YAML: found undefined alias 'y'"),
    ("a: 1\n---\nb: 2", "R:2: not YAML: but found another document"),
    # -- what plain YAML lets through
    ("version: 1\ncorpus: a\ncorpus: b", "R:3: 'corpus' is written twice"),
    (nodes("a: {measure: x, params: {k: 1, k: 2}}"), "R:7: 'k' is written twice"),
    ("? [a, b]\n: 1", "R:1: not YAML: found unhashable key"),
    (
        "a: !!python/object/apply:os.system [echo]",
        "R:1: not YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    ("a: !secret x", "R:1: not YAML: could not determine a constructor for the tag '!secret'"),
    # -- the head
    ("version: 1", "R: corpus: is missing (and 2 more)"),
    (nodes("a: {measure: x}").replace("version: 1", "version: 2"), "R: version: input should be 1"),
    (
        nodes("a: {measure: x}").replace("corpus: toys", "corpus: My Toys"),
        "R: corpus: 'My Toys': write a lower-case name of letters, digits and _",
    ),
    (nodes("a: {measure: x}") + "\nbudget: 3", "R: budget: is not a known name here"),
    (
        nodes("a: {measure: x}") + "\nerror_budget: 1.5",
        "R: error_budget: input should be less than or equal to 1",
    ),
    (
        "version: 1\ncorpus: a\nsources: {}\nnodes: {}",
        "R: sources: dictionary should have at least 1 item after validation, not 0 (and 1 more)",
    ),
    # -- sources
    (
        nodes("a: {measure: x}").replace("kind: jsonl", "kind: csv"),
        "R: sources.lines: input tag 'csv' found using 'kind' does not match any of the expected tags: SOURCES",
    ),
    (
        nodes("a: {measure: x}").replace("kind: jsonl, ", ""),
        "R: sources.lines: unable to extract tag using discriminator 'kind'",
    ),
    (nodes("a: {measure: x}").replace("manifest: m.jsonl, ", ""), "R: sources.lines.manifest: is missing"),
    (nodes("a: {measure: x}").replace("manifest:", "manifset:"), "R: sources.lines.manifest: is missing (and 1 more)"),
    (
        nodes("a: {measure: x}").replace("  lines:", "  Lines:"),
        "R: sources: 'Lines': write a lower-case name of letters, digits and _ (not 'ingest')",
    ),
    # -- nodes
    (
        nodes("Shape: {measure: x}"),
        "R: nodes: 'Shape': write a lower-case name of letters, digits and _ (not 'ingest')",
    ),
    (
        nodes("ingest: {measure: x}"),
        "R: nodes: 'ingest': write a lower-case name of letters, digits and _ (not 'ingest')",
    ),
    (nodes("a: {}"), "R: nodes.a: needs one of measure, decide, annotate, expand, merge, encode, pack"),
    (nodes("a: 5"), "R: nodes.a: needs one of measure, decide, annotate, expand, merge, encode, pack"),
    (nodes("a: {meassure: header}"), "R: nodes.a: needs one of measure, decide, annotate, expand, merge, encode, pack"),
    (nodes("a: {measure: x, time_limit: -1}"), "R: nodes.a.time_limit: input should be greater than 0"),
    (nodes("a: {measure: x, paramz: {}}"), "R: nodes.a.paramz: is not a known name here"),
    (nodes("a: {measure: x, decide: rules}"), "R: nodes.a.decide: is not a known name here"),
    (
        nodes("pack: {pack: webdataset, shard_samples: 0}"),
        "R: nodes.pack.shard_samples: input should be greater than or equal to 1",
    ),
    (nodes("measure: {measure: x, batch: 0}"), "R: nodes.measure.batch: input should be greater than or equal to 1"),
    (nodes("a: {pack: zip}"), "R: nodes.a.pack: input should be 'webdataset'"),
    (
        nodes("a: {decide: coin}"),
        "R: nodes.a: input tag 'coin' found using 'decide' does not match any of the expected tags: "
        "'rules', 'route', 'licence', 'duplicates', 'split', 'quota'",
    ),
    (
        nodes("a: {decide: rules, rules: {}}"),
        "R: nodes.a.rules: dictionary should have at least 1 item after validation, not 0",
    ),
    (nodes("a: {decide: rules, rules: {side: {}}}"), "R: nodes.a.rules.side.keep: is missing"),
    (nodes("rules: {decide: rules, rules: {rules: {}}}"), "R: nodes.rules.rules.rules.keep: is missing"),
    (
        nodes("a: {decide: rules, rules: {side: {keep: a > 1, on_null: pass}}}"),
        "R: nodes.a.rules.side.on_null: input should be 'undecided', 'drop', 'keep' or 'quarantine'",
    ),
    (nodes("a: {decide: licence}"), "R: nodes.a.allow: is missing"),
    (
        nodes("a: {decide: split, validation: 0.6, test: 0.5}"),
        "R: nodes.a: validation and test together must leave something to train on",
    ),
    (
        nodes("a: {decide: duplicates, order: [pixels downwards]}"),
        "R: nodes.a.order: 'pixels downwards': write `column` or `column desc`",
    ),
    # -- the graph
    (nodes("a: {measure: x, needs: [b]}"), "R: nodes.a.needs: there is no node 'b'; nodes are: a"),
    (nodes("a: {measure: x, needs: [b.c]}"), "R: nodes.a.needs: there is no node 'b.c'; nodes are: a"),
    (nodes("a: {measure: x, needs: [a]}"), "R: nodes: a need each other in a circle"),
    (
        nodes("a: {measure: x, needs: [c]}\nb: {measure: x, needs: [a]}\nc: {measure: x, needs: [b]}\nd: {measure: x}"),
        "R: nodes: a, b, c need each other in a circle",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_what_is_wrong_with_a_recipe_is_said_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    sources = "'folder', 'jsonl', 'parquet', 'urls', 'webdataset'"
    found = refusal(tmp_path, text)
    if "SOURCES" in message:
        message = message.replace("SOURCES", found.partition("expected tags: ")[2])
        assert set(sources.split(", ")) <= set(found.partition("expected tags: ")[2].split(", "))
    assert found == message


def test_a_recipe_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe\.yaml: cannot be read: No such file or directory$"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=r": cannot be read: Is a directory$"):
        load_recipe(tmp_path)


def load(folder: Path, text: str, **settings: Any) -> Recipe:
    return load_recipe(write(folder, text), {name.replace("__", "."): value for name, value in settings.items()})


def test_merge_keys_and_anchors_are_plain_yaml(tmp_path: Path) -> None:
    recipe = load(tmp_path, nodes("a: &it {measure: x, params: {k: 1}}\nb: {<<: *it, needs: [a]}"))
    assert [(name, node.op, node.params) for name, node in operator_nodes(recipe)] == [
        ("a", "x", {"k": 1}),
        ("b", "x", {"k": 1}),
    ]


# -- the graph --------------------------------------------------------------------------------------------------------

DIAMOND = """a: {measure: x}
d: {decide: rules, needs: [b, c.left], rules: {r: z > 1}}
b: {measure: y, needs: [a]}
c: {decide: route, needs: [a], routes: {left: q > 1, right: q < 1}}
e: {measure: z, needs: [c.right]}
f: {measure: alone}"""


def test_needs_come_first_and_otherwise_nodes_keep_their_places(tmp_path: Path) -> None:
    recipe = load(tmp_path, nodes(DIAMOND))
    assert recipe.order == ["a", "b", "c", "d", "e", "f"]
    assert recipe.sinks == ["d", "e", "f"]
    assert recipe.ancestors("d") == {"a", "b", "c"}
    assert recipe.ancestors("a") == set()


@given(st.integers(1, 12), st.data())
def test_any_graph_without_a_circle_has_an_order_with_needs_first(count: int, data: st.DataObject) -> None:
    names = [f"n{i}" for i in range(count)]
    needs = {
        name: data.draw(st.lists(st.sampled_from(names[:i]), unique=True) if i else st.just([]))
        for i, name in enumerate(names)
    }
    written = data.draw(st.permutations(names))
    recipe = Recipe.model_validate(
        {
            "version": 1,
            "corpus": "c",
            "sources": {"s": {"kind": "jsonl", "manifest": "m"}},
            "nodes": {name: {"measure": "x", "needs": needs[name]} for name in written},
        }
    )
    order = recipe.order
    assert sorted(order) == sorted(names)
    for name in names:
        assert all(order.index(need) < order.index(name) for need in needs[name])
        above = set(needs[name]).union(*(recipe.ancestors(need) for need in needs[name]))
        assert recipe.ancestors(name) == above
    assert set(recipe.sinks) == set(names) - {need for some in needs.values() for need in some}


# -- --set ------------------------------------------------------------------------------------------------------------


def params(recipe: Recipe) -> dict[str, Any]:
    return {name: node.params for name, node in operator_nodes(recipe)}


def test_a_setting_overrides_one_parameter(tmp_path: Path) -> None:
    text = nodes("a: {measure: x, params: {k: 1, l: 2}}\nb: {measure: y}")
    assert params(load(tmp_path, text, a__k=[5])) == {"a": {"k": [5], "l": 2}, "b": {}}
    assert params(load(tmp_path, text, b__new="v", a__l=None)) == {"a": {"k": 1, "l": None}, "b": {"new": "v"}}


def test_a_setting_fills_parameters_that_are_left_empty(tmp_path: Path) -> None:
    assert params(load(tmp_path, nodes("a:\n  measure: x\n  params:\n"), a__k=1)) == {"a": {"k": 1}}


@pytest.mark.parametrize("name", ["a", "a.", ".k", "b.k", ""])
def test_a_setting_names_a_node_and_a_parameter(tmp_path: Path, name: str) -> None:
    message = f"--set {name}: write --set NODE.PARAM=VALUE with a node of the recipe"
    assert refusal(tmp_path, nodes("a: {measure: x}"), {name: 1}) == message


def test_a_setting_of_a_decision_is_refused(tmp_path: Path) -> None:
    found = refusal(tmp_path, nodes("a: {decide: split}"), {"a.test": 0.5})
    assert found == "--set a.test: 'a' runs no operator and has no params; change the recipe"
