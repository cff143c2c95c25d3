from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from catalog.errors import UserError
from tests.pipeline.sources.conftest import make


def test_a_text_list_has_a_url_a_line(root: Path) -> None:
    (root / "urls.txt").write_bytes(b"http://a.test/1\r\n\n  http://a.test/2 \n\xff\n")
    rows = list(make("urls", file="urls.txt", const={"licence": "MIT"}, on_bad_row="quarantine").rows(root))
    assert [(row.place, row.fields) for row in rows[:2]] == [
        ("urls.txt:1", {"url": "http://a.test/1", "licence": "MIT"}),
        ("urls.txt:3", {"url": "http://a.test/2", "licence": "MIT"}),
    ]
    assert rows[2].problem == ("broken UTF-8", "column 1: byte 0xff is not UTF-8")
    assert rows[2].raw == b"\xff"


def test_a_jsonl_list_brings_its_fields(root: Path) -> None:
    lines = '{"link": "http://a.test/1", "alt": "a cat"}\n{"link": null}\n{"link": 5}\n'
    (root / "list.jsonl").write_text(lines)
    rows = list(make("urls", file="list.jsonl", url="link", map={"text": "alt"}, on_bad_row="quarantine").rows(root))
    assert rows[0].fields == {"text": "a cat", "url": "http://a.test/1"}
    assert [row.problem for row in rows] == [
        None,
        ("wrong type", "link is null, must be text"),
        ("wrong type", "link is a number (5), must be text"),
    ]


def test_a_parquet_list_brings_its_fields(root: Path) -> None:
    table = pa.table({"URL": ["http://a.test/1", "http://a.test/2"], "TEXT": ["a cat", "a dog"], "NSFW": ["no", "yes"]})
    pq.write_table(table, root / "laion.parquet")
    source = make("urls", file="laion.parquet", url="URL", map={"text": "TEXT"}, select={"NSFW": "no"})
    (row,) = source.rows(root)
    assert (row.place, row.fields) == ("laion.parquet:0", {"text": "a cat", "url": "http://a.test/1"})
    assert source.inputs(root) == [root / "laion.parquet"]


def test_a_missing_list_always_stops(root: Path) -> None:
    for name in ("no.txt", "no.jsonl", "no.parquet"):
        source = make("urls", file=name, network=True, on_bad_row="quarantine")
        for use in (source.check, source.inputs, lambda root, source=source: list(source.rows(root))):
            with pytest.raises(UserError, match=f'^(list|manifest|file) "{name}": the file "{name}" does not exist'):
                use(root)


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"map": {"url": "x"}}, "the field url is the URL itself"),
    ({"file": "urls.txt", "map": {"text": "x"}}, "urls.txt is plain text and has no columns"),
    ({"file": "urls.txt", "url": "x"}, "urls.txt is plain text and has no columns"),
    ({"allow_private": ["10.0.0.0/99"]}, "value is not a valid IPv4 or IPv6 network"),
    ({"limits": {"per_host": 0}}, "greater than or equal to 1"),
    ({"limits": {"patience": 1}}, "Extra inputs are not permitted"),
    ({"limits": {"user_agent": "me\r\nX: y"}}, "should match pattern"),
]


@pytest.mark.parametrize(("config", "message"), BAD_CONFIGS)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make("urls", **{"file": "list.jsonl", **config})
