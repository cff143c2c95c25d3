from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import bench_ocr
from tests.bench.bench_ocr import Score, Sheet, figures, kind_of, run
from tests.pipeline.pictures import encode
from tests.pipeline.text_pages import LINES, page


def test_both_error_rates_are_printed_by_kind_and_a_worse_reading_would_not_hold() -> None:
    scores = [Score("a", "receipts", 0.2, 0.1, 1), Score("b", "receipts", 0.1, 0.1, 2), Score("c", "turned", 0.6, 0, 1)]
    every, upright = figures(scores)
    assert (every["value"], upright["value"], upright["n"], upright["holds"]) == (4.5, 1.5, 2, True)
    assert upright["baseline"] == "one pass of RapidOCR, upright: CER 0.1500; coarse to fine 0.1000"
    assert every["by_kind"]["receipts"] == {"n": 2, "single": 0.15, "coarse_to_fine": 0.1, "cpu_s_a_page": 1.5}
    assert not figures([Score("a", "scenes", 0.1, 0.2, 1)])[1]["holds"]


def test_a_page_is_read_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = Sheet("a", "documents", encode(page(LINES[:2])), "\n".join(LINES[:2]))
    monkeypatch.setattr(bench_ocr, "sheets", lambda: iter([sheet]))
    every, _ = run()
    assert every["by_kind"]["documents"]["single"] < 0.1
    assert every["by_kind"]["documents"]["coarse_to_fine"] == 0


def test_without_the_sample_corpora_the_embedded_pages_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_ocr, "CORPUS", Path("nowhere"))
    found = list(bench_ocr.sheets())
    assert len(found) >= 5
    assert all(sheet.text and sheet.data for sheet in found)


def test_a_pages_kind_follows_from_its_tags() -> None:
    kinds = [
        kind_of({"tags": tags}) for tags in (["receipt"], ["scene-text", "sign"], ["scan", "rotated-90"], ["page"])
    ]
    assert kinds == ["receipts", "scenes", "turned", "documents"]
