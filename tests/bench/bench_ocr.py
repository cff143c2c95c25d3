"""Reading coarse to fine against one pass of the same engine, by character error rate.

.venv/bin/python -m tests.bench.bench_ocr

The pages are those of the sample corpora that have a reference text, or the embedded ones where they are not there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.coarse_to_fine import read_page
from pipeline.measures.ocr import Ocr, character_error_rate
from pipeline.operator import load_operator
from pipeline.pictures import decode_noted
from pipeline.reading_order import as_text
from tests.bench.figure import Figure, figure

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "ocr"


@dataclass(frozen=True)
class Sheet:
    """A picture with the text that stands in it."""

    id: str
    kind: str
    data: bytes
    text: str


@dataclass(frozen=True)
class Score:
    """Character error rates of both ways to read a page, and CPU seconds of the longer one."""

    id: str
    kind: str
    single: float
    fine: float
    seconds: float


def sheets() -> Iterator[Sheet]:
    """Every page with a reference text."""
    if CORPUS.exists():
        for row in map(json.loads, (CORPUS / "manifest.jsonl").read_text().splitlines()):
            if row.get("text"):
                yield Sheet(row["id"], kind_of(row), (CORPUS / row["file"]).read_bytes(), row["text"])
        return
    from pipeline.embedded.reading import reading

    for item in reading():
        line = item.line("ocr")
        if item.data is not None and line.get("text"):
            yield Sheet(line["id"], kind_of(line), item.data, line["text"])


def kind_of(row: dict[str, Any]) -> str:
    """Receipts, scenes, documents, and documents that lie on their side or head."""
    tags = row["tags"]
    if "receipt" in tags:
        return "receipts"
    if "scene-text" in tags:
        return "scenes"
    return "turned" if any(tag.startswith(("rotated", "skewed")) for tag in tags) else "documents"


def scored(sheet: Sheet, measure: Ocr) -> Score:
    """Read one page both ways."""
    assert measure.engine is not None
    rgb = decode_noted(sheet.data, None).rgb
    start = time.process_time()
    page = read_page(measure.engine.read, rgb, measure.scales)
    fine = str(measure.told(page)[0])
    seconds = time.process_time() - start
    sure = [line for line in page.single if line.confidence >= measure.params.least_confidence]
    single = as_text(sure, rgb.shape[1] / rgb.shape[0])
    rates = [character_error_rate(sheet.text, reading) or 0.0 for reading in (single, fine)]
    return Score(sheet.id, sheet.kind, rates[0], rates[1], seconds)


def figures(scores: list[Score]) -> list[Figure]:
    """Mean error of one pass over that of both, over all pages and over those that lie upright."""
    kinds = {kind: [one for one in scores if one.kind == kind] for kind in sorted({one.kind for one in scores})}
    by_kind = {
        kind: {
            "n": len(part),
            "single": round(fmean(one.single for one in part), 4),
            "coarse_to_fine": round(fmean(one.fine for one in part), 4),
            "cpu_s_a_page": round(fmean(one.seconds for one in part), 1),
        }
        for kind, part in kinds.items()
    }
    found = []
    upright = [one for one in scores if one.kind != "turned"]
    for suffix, part, which in (("", scores, "all pages"), ("_upright", upright, "upright")):
        single, fine = fmean(one.single for one in part), fmean(one.fine for one in part)
        baseline = f"one pass of RapidOCR, {which}: CER {single:.4f}; coarse to fine {fine:.4f}"
        found.append(
            figure(
                f"ocr_error_ratio{suffix}", [single / max(fine, 1e-6)], "x", 1.0, len(part), baseline, by_kind=by_kind
            )
        )
    return found


def run() -> list[Figure]:
    """Both figures."""
    measure = load_operator("ocr").build({})
    assert isinstance(measure, Ocr)
    measure.setup()
    return figures([scored(sheet, measure) for sheet in sheets()])


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
