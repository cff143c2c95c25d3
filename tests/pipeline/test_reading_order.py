from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ocr import Line, straightened
from pipeline.reading_order import as_text, in_reading_order


def line(text: str, left: float, top: float, wide: float, high: float = 0.02) -> Line:
    return Line(left, top, left + wide, top + high, text, 0.9)


def columns() -> list[Line]:
    left = [line(f"a{row}", 0.05, 0.2 + 0.03 * row, 0.4) for row in range(5)]
    right = [line(f"b{row}", 0.5, 0.2 + 0.03 * row, 0.4) for row in range(5)]
    return [line("title", 0.1, 0.05, 0.8, 0.05), *left, *right, line("foot", 0.4, 0.9, 0.2)]


def receipt() -> list[Line]:
    goods = [line(f"good{row}", 0.05, 0.2 + 0.03 * row, 0.15) for row in range(6)]
    return goods + [line(f"{row}.00", 0.8, 0.2 + 0.03 * row, 0.08) for row in range(6)]


def turned(lines: list[Line], tilt: float) -> list[Line]:
    """A square page turned about its middle, with boxes around the turned lines."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    found = []
    for one in lines:
        x, y = (one.x0 + one.x1 - 1) / 2, (one.y0 + one.y1 - 1) / 2
        x, y = 0.5 + x * cos - y * sin, 0.5 + x * sin + y * cos
        wide = (one.x1 - one.x0) * cos + one.height * abs(sin)
        high = (one.x1 - one.x0) * abs(sin) + one.height * cos
        found.append(Line(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2, one.text, 0.9, tilt))
    return found


def test_columns_of_running_text_are_read_one_after_the_other() -> None:
    told = "title a0 a1 a2 a3 a4 b0 b1 b2 b3 b4 foot"
    assert as_text(columns(), 1.0) == told.replace(" ", "\n")
    assert as_text(columns()[::-1], 1.0) == told.replace(" ", "\n")


def test_receipts_are_read_row_by_row() -> None:
    assert as_text(receipt(), 1.0) == "\n".join(f"good{row} {row}.00" for row in range(6))


@pytest.mark.parametrize("tilt", [-0.06, 0.02, 0.06])
def test_a_page_a_little_askew_is_read_like_one_that_is_not(tilt: float) -> None:
    assert as_text(turned(receipt(), tilt), 1.0) == as_text(receipt(), 1.0)
    assert as_text(turned(columns(), tilt), 1.0) == as_text(columns(), 1.0)


def test_a_straightened_box_is_as_high_as_its_letters() -> None:
    for one in straightened(turned(columns(), 0.06), 1.0):
        assert one.height == pytest.approx(0.05 if one.text == "title" else 0.02, rel=1e-6)


@given(st.lists(st.tuples(*[st.floats(0, 0.9)] * 2, st.floats(0.001, 0.1), st.floats(-0.3, 0.3)), max_size=12))
def test_every_line_is_read_once(boxes: list[tuple[float, float, float, float]]) -> None:
    lines = [Line(x, y, x + 0.1, y + high, str(i), 0.9, tilt) for i, (x, y, high, tilt) in enumerate(boxes)]
    rows = in_reading_order(lines, 0.7)
    assert sorted(one.text for row in rows for one in row) == sorted(one.text for one in lines)
