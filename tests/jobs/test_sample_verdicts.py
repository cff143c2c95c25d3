"""The verdicts on the sample corpora beside the project, reviewed one by one (docs/corpora/), stay what they are.

`verdicts/CORPUS.json` holds per id of a source row its final state and reason. To write one anew after a change that is
meant, run this file with UNIFACTORY_WRITE_VERDICTS=1, look at what `git diff` shows, and at the pictures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from catalog.audit import audit
from catalog.view import open_view
from jobs.run import load_plan
from model.grammar import check
from tests.conftest import SAMPLES
from tests.pipeline.runs import curate

HERE = Path(__file__).parent


@pytest.mark.reviewed
@pytest.mark.parametrize("corpus", ["editing", "generation", "interleaved", "reasoning", "text", "understanding"])
def test_every_sample_has_the_verdict_that_was_reviewed(tmp_path: Path, corpus: str) -> None:
    curate(load_plan(corpus, []), SAMPLES, tmp_path / "store")
    view = open_view(str(tmp_path / "store"))
    assert audit(view, check).findings == []
    found: dict[str, str] = {}
    for row in view.records(corpus).collect().to_dicts():
        if row["place"] is None:
            continue  # born of another, and follows from it
        fields = json.loads(row["fields"])
        name = fields.get("id") or row["place"]
        found[name] = row["state"] if row["reason"] is None else f"{row['state']}: {row['reason']}"
    path = HERE / "verdicts" / f"{corpus}.json"
    if os.environ.get("UNIFACTORY_WRITE_VERDICTS"):
        path.write_text(json.dumps(found, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
    assert found == json.loads(path.read_text())
