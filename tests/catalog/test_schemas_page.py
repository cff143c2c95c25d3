"""The page docs/catalog-schema.md says what the schemas say."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from catalog import schemas
from catalog.schemas_page import schemas_page
from tests.pipeline.runs import curate, entry, plan_of, write_manifest

PAGE = Path(__file__).parents[2] / "docs" / "catalog-schema.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == schemas_page(), "run: python -m catalog.schemas_page > docs/catalog-schema.md"


def test_every_declared_schema_is_on_the_page() -> None:
    declared = {id(value) for name, value in vars(schemas).items() if isinstance(value, pa.Schema)}
    assert {id(table.schema) for table in schemas.TABLES} == declared


@pytest.mark.parametrize("table", [*schemas.TABLES, schemas.MEDIA_FIELDS], ids=lambda table: table.place)
def test_every_column_is_described_once(table: schemas.Described) -> None:
    names = [name for name, _, _ in table.columns]
    assert len(set(names)) == len(names)
    assert all(about.strip() and "|" not in about for _, _, about in table.columns)
    page = schemas_page()
    section = page.partition(f"## {table.place}\n")[2].partition("\n## ")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][
        1:
    ] == names


def test_a_store_holds_the_tables_of_the_page_and_no_others(tmp_path: Path) -> None:
    nodes = """
    score: {measure: 'tests.toys:Score'}
    fine: {decide: rules, needs: [score], rules: {fine: score > 0}}
    parts: {expand: 'tests.toys:ThreeParts', needs: [fine]}
    """
    source = {"kind": "jsonl", "manifest": "manifest.jsonl", "map": {"id": "id", "do": "do"}}
    write_manifest(tmp_path / "root", [entry(n) for n in range(3)])
    curate(plan_of(nodes, source), tmp_path / "root", tmp_path / "store")
    tables = tmp_path / "store" / "tables"
    found = {path.parent.relative_to(tables).as_posix() for path in tables.glob("**/_delta_log")}
    places = {
        table.place.replace("CORPUS", "tiny").split("OPERATOR")[0].split("NODE")[0].split("SET")[0]
        for table in schemas.TABLES
    }
    assert {
        name
        for name in found
        if not any(name == place or (place.endswith("/") and name.startswith(place)) for place in places)
    } == set()
    assert {place for place in places if not any(name.startswith(place) for name in found)} == {
        "media_digests",  # no media here
        "tiny/samples",  # no packing here
        "mixtures/",  # no set here
        "mixture_stages/",
        "shards/CORPUS/SPLIT/GENERATION/index-DIGEST.parquet".replace("CORPUS", "tiny"),
    }
