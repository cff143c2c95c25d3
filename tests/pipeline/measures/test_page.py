from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import sqlglot

from pipeline.measures.page import SHOWN, measures_page
from pipeline.operator import Column, Measure, load_operator

PAGE = Path(__file__).resolve().parents[3] / "docs" / "measures.md"


def all_columns() -> list[Column]:
    made = [load_operator(name).build(params) for name, params in SHOWN]
    return [column for measure in made if isinstance(measure, Measure) for column in measure.columns]


def test_the_page_in_docs_is_what_the_columns_say() -> None:
    assert PAGE.read_text() == measures_page(), "run: python -m pipeline.measures.page > docs/measures.md"


@pytest.mark.parametrize("column", all_columns(), ids=lambda column: column.name)
def test_every_column_can_stand_in_a_rule_and_in_a_table(column: Column) -> None:
    rule = f"{column.name} > 1"
    assert pl.sql_expr(rule).meta.root_names() == [column.name]
    parsed = sqlglot.parse_one(rule)
    assert isinstance(parsed.this, sqlglot.exp.Column)
    # Unsigned 64-bit and enum columns change or fail on their way through Delta.
    leaf = column.type.value_type if pa.types.is_list(column.type) else column.type
    leaves = [part.type for part in leaf] if pa.types.is_struct(leaf) else [leaf]
    assert set(leaves) <= {pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary()}
    assert column.about


def test_measures_of_pictures_and_texts_do_not_share_column_names() -> None:
    made = [load_operator(name).build({}) for name in ("header", "pixels", "text")]
    names = [column.name for measure in made if isinstance(measure, Measure) for column in measure.columns]
    assert len(names) == len(set(names))
