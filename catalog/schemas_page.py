"""The page docs/catalog-schema.md, made from the declared schemas.

python -m catalog.schemas_page > docs/catalog-schema.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow as pa

from catalog.schemas import MEDIA, MEDIA_FIELDS, TABLES, Described

_INTRODUCTION = """# The catalog's tables

A store keeps what it knows in Delta Lake tables below `tables/`, which polars, DuckDB, Spark and everything else that
knows Delta can read. Words in capitals stand for names: CORPUS for a corpus of a recipe, NODE for a node of it.

Each table lies in folders `bucket=XX`, named for the leading characters of its key; the bucket is not a column of the
files. Small tables that only grow have a `row_key`, a digest of the row. Statistics are kept for the key alone, so that
no deleted text lives on in the log.

Which rows belong together is said by a **snapshot**, which names a version of every table: read the newest row of
`snapshots`, then each table at the version it names. `catalog.open(store)` does that.

This page is made by `python -m catalog.schemas_page`.
"""


def schemas_page() -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *_section(MEDIA_FIELDS), *(line for table in TABLES for line in _section(table))])


def _section(table: Described) -> Iterator[str]:
    yield f"## {table.place}\n"
    yield table.about + "\n"
    if table.key:
        yield f"Key: `{table.key}`.\n"
    yield "| column | type | meaning |\n|---|---|---|"
    for name, kind, about in table.columns:
        yield f"| {name} | {_kind(kind)} | {about} |"
    yield ""


def _kind(kind: pa.DataType) -> str:
    if kind == MEDIA:
        return "list of media"
    if pa.types.is_list(kind):
        return f"list of {kind.value_type}"
    return str(kind)


if __name__ == "__main__":
    sys.stdout.write(schemas_page())
