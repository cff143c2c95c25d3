"""Every lie that a mixture or its facts can tell is a finding that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pytest

from catalog import schemas
from catalog.audit import Finding
from catalog.audit_mixtures import audit_mixtures
from catalog.view import View
from tests.jobs.sets import TinySet, write_set
from tests.pipeline.runs import curate

FIRST = "both/first"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinySet:
    """A sound store with mixtures; nobody changes it."""
    tiny = write_set(tmp_path_factory.mktemp("audited"))
    tiny.curate()
    tiny.mix()
    return tiny


@dataclass
class Forged:
    """A copy of it whose mixture and facts can be forged: tables and snapshot agree, only the truth does not."""

    tiny: TinySet

    def __post_init__(self) -> None:
        self.view: View = self.tiny.view

    def rows(self, change: Callable[[pl.DataFrame], pl.DataFrame], stage: str = "first") -> None:
        """Change the rows of a stage."""
        table = self.view.store.mixture("both", stage)
        frame = change(table.read().sort("sample_key")).select(table.schema.names)
        table.sync([(b, frame.filter(pl.col("sample_key").str.starts_with(b))) for b in self.view.store.buckets], "r9")
        self.pin(table.name, table.version)

    def facts(self, stage: str = "first", **change: Any) -> None:
        """Change what is told of a stage; of `parts` and `recipe` values are functions of the parsed JSON."""
        table = self.view.store.log("mixture_stages/both", schemas.MIXTURE_STAGES)
        rows = table.read().to_dicts()
        for row in rows:
            for name, value in change.items() if row["stage"] == stage else ():
                if callable(value):
                    data = orjson.loads(row[name])
                    value(data)
                    row[name] = orjson.dumps(data).decode()
                else:
                    row[name] = value
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(rows, schema=table.schema)))
        table.sync([(b, frame.filter(pl.col("row_key").str.starts_with(b))) for b in self.view.store.buckets], "r9")
        self.pin(table.name, table.version)

    def pin(self, name: str, version: int | None) -> None:
        tables = {**self.view.snapshot.tables, name: version or 0}
        self.view = replace(self.view, snapshot=replace(self.view.snapshot, tables=tables))

    def said(self) -> list[str]:
        found: list[Finding] = []
        audit_mixtures(self.view, lambda *finding: found.append(Finding(*finding)))
        assert {one.kind for one in found} <= {"mixture"}
        return [f"{one.place.removeprefix('mixtures/')}: {one.message}" for one in found]


@pytest.fixture
def forged(made: TinySet, tmp_path: Path) -> Forged:
    shutil.copytree(made.folder, tmp_path / "copy")
    return Forged(TinySet(tmp_path / "copy"))


def samples(view: View, condition: pl.Expr) -> pl.DataFrame:
    return view.samples().filter(condition).sort("sample_key").collect()


def added(key: str, corpus: str = "pictures", part: str = "images", copies: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        {"sample_key": [key], "corpus": [corpus], "part": [part], "copies": pl.Series([copies], dtype=pl.Int32)}
    )


def test_a_sound_store_is_clean(made: TinySet) -> None:
    assert Forged(made).said() == []


def test_a_sample_that_is_not_there(forged: Forged) -> None:
    forged.rows(lambda rows: rows.vstack(added("0" * 32)))
    assert f"{FIRST}: sample {'0' * 32} of part images is not in the snapshot" in forged.said()


def test_a_sample_of_the_validation_split(forged: Forged) -> None:
    held = samples(forged.view, (pl.col("split") == "validation") & (pl.col("resolution") == 64))["sample_key"][0]
    forged.rows(lambda rows: rows.vstack(added(held)))
    assert f"{FIRST}: sample {held} of part images is of the validation split" in forged.said()


def test_a_sample_that_does_not_match_its_part(forged: Forged) -> None:
    other = samples(forged.view, (pl.col("split") == "train") & (pl.col("resolution") == 128))["sample_key"][0]
    forged.rows(lambda rows: rows.vstack(added(other)))
    assert f"{FIRST}: sample {other} does not match part images" in forged.said()


def test_a_sample_of_another_source_than_its_parts(forged: Forged) -> None:
    view = forged.view
    verses = view.records("words").filter(pl.col("source") == "verse").select("record_key")
    key = view.samples("words").join(verses, on="record_key", how="semi").sort("sample_key").collect()["sample_key"][0]
    forged.rows(lambda rows: rows.vstack(added(key, "words", "text")))
    assert f"{FIRST}: sample {key} does not match part text" in forged.said()


def test_a_sample_of_another_corpus_than_its_parts(forged: Forged) -> None:
    forged.rows(lambda rows: rows.with_columns(corpus=pl.lit("words")))
    said = "\n".join(forged.said())
    assert "of part images is not of pictures" in said


def test_more_copies_than_epochs_allow(forged: Forged) -> None:
    key = forged.view.mixture("first").filter(pl.col("part") == "images").collect()["sample_key"].min()
    more = pl.when(pl.col("sample_key") == key).then(pl.lit(2)).otherwise("copies").cast(pl.Int32)
    forged.rows(lambda rows: rows.with_columns(copies=more))
    assert f"{FIRST}: sample {key} of part images has 2 copies, 1 epochs allow 1 to 1" in forged.said()


def test_no_copy_at_all(forged: Forged) -> None:
    forged.rows(lambda rows: rows.with_columns(copies=pl.lit(0, pl.Int32)))
    assert "has 0 copies, 1 epochs allow 1 to 1" in "\n".join(forged.said())


def test_a_row_of_a_part_that_the_stage_has_not(forged: Forged) -> None:
    forged.rows(lambda rows: rows.with_columns(part=pl.lit("others")))
    assert f"{FIRST}: rows of others, which is no part of the stage" in forged.said()


def test_a_row_too_few(forged: Forged) -> None:
    forged.rows(lambda rows: rows.filter(pl.col("sample_key") != rows["sample_key"].min()))
    said = forged.said()
    assert f"{FIRST}: is not what its recipe decides: 1 rows are lacking, 0 are not due" in said
    assert any(" copies, its rows come to " in line for line in said)


def test_one_sample_in_place_of_another_that_was_due(forged: Forged) -> None:
    """Everything adds up, and only deciding anew tells."""
    rows = forged.view.mixture("first").filter(pl.col("part") == "text").collect()
    drawn = samples(forged.view, pl.col("sample_key").is_in(rows["sample_key"].to_list()))
    prose = forged.view.records("words").filter(pl.col("source") == "prose").select("record_key")
    pool = forged.view.samples("words").join(prose, on="record_key", how="semi").sort("sample_key").collect()
    left = pool.join(drawn, on="sample_key", how="anti")
    pair = drawn.join(left, on=["text_tokens", "image_tokens"], how="inner").sort("sample_key")
    out, into = pair["sample_key"][0], pair["sample_key_right"][0]
    forged.rows(lambda rows: rows.with_columns(pl.col("sample_key").replace(out, into)))
    assert forged.said() == [f"{FIRST}: is not what its recipe decides: 1 rows are lacking, 1 are not due"]


TOLD: list[tuple[dict[str, Any], str]] = [
    ({"total": 1}, "tells a total of 1, and its parts come to another"),
    ({"fingerprint": "0" * 32}, "its fingerprint is not that of its recipe"),
    ({"parts": lambda parts: parts[0].update(copies=15)}, "part images tells 15 copies, its rows come to 16"),
    ({"parts": lambda parts: parts[0].update(chosen=9)}, "part images tells 9 chosen, its rows come to 16"),
    ({"parts": lambda parts: parts[1].update(text_tokens=1)}, "part text tells 1 text tokens, its rows come to "),
    ({"parts": lambda parts: parts[0].update(pool=99)}, "decided anew it comes to other numbers"),
    ({"parts": lambda parts: parts[0].update(reached=0.5)}, "decided anew it comes to other numbers"),
    ({"parts": lambda parts: parts[0].update(drawable=15)}, "part images tells 16 copies of 16 samples, more than its"),
    ({"parts": lambda parts: parts.reverse()}, "tells of other parts than its recipe has"),
    (
        {"recipe": lambda recipe: recipe["parts"]["images"].update(weight=1)},
        "part images has 16 of 24 samples, its weight asks for 12.0",
    ),
    ({"recipe": lambda recipe: recipe.update(total=23)}, "comes to 24 samples, its recipe asks for 23"),
    (
        {"recipe": lambda recipe: recipe["parts"]["images"].update(quota=4)},
        "part images tells 16 copies of 16 samples, more than its quota or epochs allow",
    ),
    (
        {"recipe": lambda recipe: recipe["parts"]["images"].update(resolution=32)},
        "cannot be decided anew: stages.first.parts.images: needs train samples of pictures that match it, ",
    ),
]


@pytest.mark.parametrize(("change", "message"), TOLD, ids=[message[:50] for _, message in TOLD])
def test_a_fact_that_is_not_so(forged: Forged, change: dict[str, Any], message: str) -> None:
    forged.facts(**change)
    assert any(line.startswith(f"{FIRST}: {message}") for line in forged.said()), forged.said()


def test_a_mixture_without_facts_and_facts_without_a_mixture(forged: Forged) -> None:
    forged.facts(stage="third")
    forged.view.snapshot.tables.pop("mixtures/both/second")
    assert forged.said() == ["both/second: the set tells of it, and it is not in the snapshot"]


def test_a_corpus_curated_alone_makes_its_mixtures_stale_until_the_set_runs(forged: Forged) -> None:
    tiny = forged.tiny
    lines = (tiny.root / "prose.jsonl").read_text().splitlines()
    (tiny.root / "prose.jsonl").write_text("\n".join(lines[1:]) + "\n")
    curate(tiny.plan().plans["words"], tiny.root, tiny.store)
    told = "stale: decided before words changed; run curate both again"
    assert Forged(tiny).said() == [f"both/first: {told}", f"both/second: {told}"]
    tiny.mix()
    assert Forged(tiny).said() == []


def test_a_corpus_curated_again_without_a_change_leaves_them_alone(forged: Forged) -> None:
    tiny = forged.tiny
    tiny.curate()
    assert Forged(tiny).said() == []
