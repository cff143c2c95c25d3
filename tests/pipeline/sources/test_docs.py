from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from catalog.storage import LocalFolder
from pipeline.sources.fetch import fetch
from pipeline.sources.limits import Limits
from pipeline.sources.source import SourceConfig, load_sources
from pipeline.sources.urls import UrlList
from tests.pipeline.sources.web import serve

PAGE = (Path(__file__).parents[3] / "docs" / "sources.md").read_text()
EXAMPLES = {
    name: config
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for name, config in yaml.safe_load(block)["sources"].items()
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files as the examples of the page expect them."""
    data = tmp_path / "data"
    for folder in ("images/files", "scans/box 1", "crawl", "hub", "web"):
        (data / folder).mkdir(parents=True)
    (data / "images/files/1.jpg").write_bytes(b"1")
    line = {"id": "1", "kind": "file", "file": "files/1.jpg", "caption": "a cat", "origin": {"repo": "x/y"}}
    (data / "images/manifest.jsonl").write_text(json.dumps(line) + '\n{"kind": "index"}\n')
    (data / "scans/box 1/a.png").write_bytes(b"2")
    (data / "scans/box 1/a.txt").write_text("a page")
    (data / "scans/box 1/a.json").write_text('{"licence": "MIT"}')
    for number in ("00000", "00001"):
        facts = json.dumps({"status": "success", "license": "CC0-1.0"})
        with tarfile.open(data / f"crawl/{number}.tar", "w") as tar:
            for ending, text in (("jpg", "3"), ("txt", "a dog"), ("json", facts)):
                info = tarfile.TarInfo(f"{number}0000.{ending}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    table = pa.table({"id": ["h"], "caption": ["a bird"], "image": [{"bytes": b"4", "path": "4.jpg"}]})
    pq.write_table(table, data / "hub/train-00000.parquet")
    (data / "web/list.jsonl").write_text('{"link": "http://a.test/5.jpg", "alt": "a fish"}\n')
    return data


def test_the_page_has_an_example_of_every_kind() -> None:
    union = SourceConfig.__args__[0].__args__
    assert {config["kind"] for config in EXAMPLES.values()} == {
        kind.model_fields["kind"].annotation.__args__[0] for kind in union
    }


def test_the_examples_run_as_they_stand(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data.parent)
    Path("recipe.yaml").write_text(yaml.safe_dump({"sources": EXAMPLES}, sort_keys=False))
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "docs/sources.md", "exec"), {})
    cat = {"id": "1", "text": "a cat", "licence": None, "origin": "x/y"}
    page = {"id": "box 1/a.png", "text": "a page", "licence": "MIT", "origin": "our scanner"}
    assert capsys.readouterr().out.splitlines() == [
        f"captions images/manifest.jsonl:1 {cat} ['images/files/1.jpg'] None",
        f"scans scans/box 1/a.png {page} ['scans/box 1/a.png'] None",
        *(
            f"crawl crawl/{n}.tar:{n}0000 {{'id': '{n}0000', 'text': 'a dog', 'licence': 'CC0-1.0'}}"
            f" ['crawl/{n}.tar'] None"
            for n in ("00000", "00001")
        ),
        "hub hub/train-00000.parquet:0 {'id': 'h', 'text': 'a bird', 'licence': 'CC-BY-4.0'}"
        " ['hub/train-00000.parquet'] None",
        "web web/list.jsonl:1 {'text': 'a fish', 'url': 'http://a.test/5.jpg'} [] None",
    ]


def test_the_example_of_a_url_list_fetches(data: Path) -> None:
    with serve() as web:
        (data / "web/list.jsonl").write_text(json.dumps({"link": web.url("/ok"), "alt": "a fish"}))
        example: dict[str, Any] = {**EXAMPLES["web"], "allow_private": True}
        source = load_sources({"web": example})["web"]
        assert isinstance(source, UrlList)
        (row,) = fetch(source.rows(data), LocalFolder(str(data / "store")), source)
        assert row.problem is None
        assert row.fields["text"] == "a fish"
        assert web.headers[0]["user-agent"] == "my-project/1.0 (+https://example.org/bot)"


def test_the_table_of_limits_is_true() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", PAGE.partition("| limit |")[2], re.MULTILINE)
    found: dict[str, str] = {}
    for names, defaults in rows:
        found.update(zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=True))
    assert found == {
        name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in Limits().model_dump().items()
    }
