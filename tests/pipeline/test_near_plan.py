"""Near duplicates of texts and embeddings in a recipe: what cannot be right is refused in one line."""

from __future__ import annotations

import textwrap
from pathlib import Path

import polars as pl
import pytest
import yaml

from catalog.audit import audit
from catalog.decisions import Duplicates, Near, NearEmbeddings, NearTexts
from catalog.errors import UserError
from catalog.view import open_view
from jobs.report import write_report
from model.grammar import check
from pipeline.plan import resolve
from pipeline.recipe import Recipe, load_recipe
from tests.pipeline.runs import curate, entry, plan_of, write_manifest, write_picture

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
        ("near: {cosine: 1.5}", "nodes.twins.near.cosine: input should be less than or equal to 1"),
        ("near: {cosine: 0.3}", "nodes.twins.near.cosine: input should be greater than or equal to 0.5"),
        ("near: {cosine: 0.9, clusters: 0}", "nodes.twins.near.clusters: input should be greater than or equal to 1"),
        ("near: {cosine: 0.9, verify: same}", "nodes.twins.near.verify: is not a known name here"),
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
        ("near: {cosine: 0.98}", "R: nodes.twins.near: no node above writes 'embedding'; there are: "),
        (
            "near: {cosine: 0.98, column: minhash}",
            "R: nodes.twins.near: 'minhash' is list<item: int64>, no embedding; `measure: embedding` writes one",
        ),
    ],
)
def test_a_column_that_is_not_there_or_no_signature_is_refused(tmp_path: Path, duplicates: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(load(tmp_path, duplicates), "R")
    assert str(caught.value).startswith(message)


def test_the_parameters_tell_texts_and_embeddings_from_pictures() -> None:
    for written, kind in (
        ("{column: phash, distance: 4}", Near),
        ("{}", Near),
        ("{jaccard: 0.8}", NearTexts),
        ("{cosine: 0.98}", NearEmbeddings),
    ):
        decision = Duplicates.model_validate({"decide": "duplicates", "near": yaml.safe_load(written)})
        assert type(decision.near) is kind
        assert Duplicates.model_validate(decision.model_dump()) == decision


def test_both_columns_are_read(tmp_path: Path) -> None:
    plan = resolve(load(tmp_path, "exact: text_digest, near: {jaccard: 0.8}, order: [chars desc]"), "R")
    assert plan.nodes["twins"].reads == {"text_digest": "signs", "minhash": "signs", "chars": "words"}


def test_a_recipe_decides_by_embeddings_and_keeps_them_out_of_its_verdicts(tmp_path: Path) -> None:
    entries = [entry(number, do=f"point {number % 4}") for number in range(12)]
    for number in range(12):
        write_picture(tmp_path / f"files/{number:03d}.jpg", number, 130)
    write_manifest(tmp_path, entries)
    nodes = """
    seen: {measure: 'tests.toys:Direction'}
    twins: {decide: duplicates, needs: [seen], exact: false, near: {cosine: 0.98}}
    """
    store = tmp_path / "store"
    curate(plan_of(textwrap.dedent(nodes)), tmp_path, store)
    view = open_view(str(store))
    assert audit(view, check).findings == []
    verdicts = view.node_table("tiny", "twins").collect()  # type: ignore[union-attr]
    # The toy knows four directions.
    assert verdicts["state"].value_counts(sort=True).rows() == [("duplicate", 8), ("passed", 4)]
    assert set(verdicts.filter(pl.col("state") == "duplicate")["distance"]) == {0}
    assert "embedding" not in verdicts.columns
    page = store / write_report(view, "tiny", tmp_path, str(store))
    assert "embedding like a kept record" in page.read_text()
