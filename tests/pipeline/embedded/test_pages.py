from __future__ import annotations

import numpy as np
import pytest

from pipeline.embedded import pages


@pytest.mark.parametrize("items", range(3, 9))
def test_a_receipt_adds_up(items: int) -> None:
    lines = (pages.receipt(f"test {items}", "CORNER SHOP", items).text or "").split("\n")
    total = float(lines[lines.index("TOTAL") + 1])
    prices = [float(lines[at + 1]) for at, line in enumerate(lines) if " x " in line]
    assert len(prices) == items
    assert sum(prices) == pytest.approx(total)


def test_a_page_says_no_more_than_fits_on_it() -> None:
    long = pages.page("long", (400, 300), "Title", ["some words to fill the page with " * 40], 20)
    lines = (long.text or "").split("\n")
    ink = np.asarray(long.image.convert("L")) < 120
    rows = np.flatnonzero(ink.any(axis=1))
    blocks = 1 + int(np.count_nonzero(np.diff(rows) > 4))
    assert blocks == len(lines) < 40
    assert not ink[:, -20:].any()


def test_the_bars_of_a_chart_are_as_high_as_their_values() -> None:
    values = (10, 20, 40)
    chart = pages.chart("test", (640, 480), "Test", ("a", "b", "c"), values)
    pixels = np.asarray(chart.image, np.int64)
    coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 40
    step = (640 - 48) / 3
    heights = [int(coloured[:, int(24 + step * (index + 0.5))].sum()) for index in range(3)]
    assert heights[1] / heights[0] == pytest.approx(2, rel=0.05)
    assert heights[2] / heights[0] == pytest.approx(4, rel=0.05)
    assert chart.text == "Test\na 10\nb 20\nc 40"
    assert chart.caption == 'A bar chart titled "Test": a 10, b 20 and c 40.'
