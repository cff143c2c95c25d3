from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded.corpus import Corpus, write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The whole embedded corpus, drawn once."""
    return write_corpus(tmp_path_factory.mktemp("embedded") / "corpus")


@pytest.fixture(scope="session")
def lines(corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """Manifest lines of files and records by folder; the indices' own lines are left out."""
    found = {name: read_lines(corpus.folder / name / "manifest.jsonl") for name in corpus.records}
    return {name: [line for line in some if line["kind"] != "index"] for name, some in found.items()}


def read_lines(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]
