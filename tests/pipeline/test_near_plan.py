"""Near duplicates of texts in a recipe: what cannot be right is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from catalog.decisions import Duplicates, Near, NearTexts
from catalog.errors import UserError
from pipeline.plan import resolve
from pipeline.recipe import Recipe, load_recipe

HEAD = "version: 1\ncorpus: c\nsources: {lines: {kind: jsonl, manifest: m.jsonl, map: {id: id, text: text}}}\n"
NODES = "nodes:\n  words: {measure: text}\n  signs: {measure: minhash, needs: [words]}\n"


def load(folder: Path, duplicates: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(f"{HEAD}{NODES}  twins: {{decide: duplicates, needs: [signs], {duplicates}}}\n")
    return load_recipe(path)


@pytest.mark.parametrize(
    ("duplicates", "message"),
    [
        ("near: {jaccard: 1.5}", "nodes.twins.near.jaccard: input should be less than or equal to 1"),
        ("near: {jaccard: 0.8, distance: 3}", "nodes.twins.near.distance: is not a known name here"),
        ("near: {distance: 99}", "nodes.twins.near.distance: input should be less than or equal to 16"),
    ],
)
def test_a_bad_parameter_is_named_where_it_stands(tmp_path: Path, duplicates: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, duplicates)
    assert str(caught.value) == f"{tmp_path / 'recipe.yaml'}: {message}"


@pytest.mark.parametrize(
    ("duplicates", "message"),
    [
        ("exact: digest", "R: nodes.twins.exact: no node above writes 'digest'; there are: "),
        ("near: {jaccard: 0.8, column: nothing}", "R: nodes.twins.near: no node above writes 'nothing'; there are: "),
        (
            "near: {jaccard: 0.8, column: chars}",
            "R: nodes.twins.near: 'chars' is int64, no signature; `measure: minhash` writes one",
        ),
    ],
)
def test_a_column_that_is_not_there_or_no_signature_is_refused(tmp_path: Path, duplicates: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(load(tmp_path, duplicates), "R")
    assert str(caught.value).startswith(message)


def test_the_parameters_tell_texts_from_pictures() -> None:
    for written, kind in (("{column: phash, distance: 4}", Near), ("{}", Near), ("{jaccard: 0.8}", NearTexts)):
        decision = Duplicates.model_validate({"decide": "duplicates", "near": yaml.safe_load(written)})
        assert type(decision.near) is kind
        assert Duplicates.model_validate(decision.model_dump()) == decision


def test_both_columns_are_read(tmp_path: Path) -> None:
    plan = resolve(load(tmp_path, "exact: text_digest, near: {jaccard: 0.8}, order: [chars desc]"), "R")
    assert plan.nodes["twins"].reads == {"text_digest": "signs", "minhash": "signs", "chars": "words"}
