from __future__ import annotations

import numpy as np
import pytest

from pipeline.coarse_to_fine import Scales, Verdict, decided, read_page, regions
from pipeline.ocr import Line, Rgb, Seen


def line(text: str, left: float, top: float, sure: float = 0.9, wide: float = 0.4, high: float = 0.05) -> Line:
    return Line(left, top, left + wide, top + high, text, sure)


def only(coarse: list[Line], fine: list[Line]) -> Verdict:
    (verdict,) = decided(coarse, fine, 1.0)
    return verdict


@pytest.mark.parametrize(
    ("coarse", "fine", "stands", "agreement"),
    [
        (("abcd", 0.9), ("abcd", 0.8), "abcd", 1.0),
        (("abcd", 0.9), ("abce", 0.8), "abcd", 0.75),
        (("abcd", 0.8), ("abce", 0.9), "abce", 0.75),
        (("ab cd", 0.8), ("abcd", 0.9), "ab cd", 1.0),
        (("abcd", 0.9), ("ab cd", 0.8), "ab cd", 1.0),
        (("abcd", 0.9), ("wxyz", 0.8), "abcd", 0.0),
    ],
)
def test_the_surer_reading_stands_and_the_one_that_kept_its_blanks(
    coarse: tuple[str, float], fine: tuple[str, float], stands: str, agreement: float
) -> None:
    verdict = only([line(coarse[0], 0.1, 0.1, coarse[1])], [line(fine[0], 0.1, 0.1, fine[1])])
    assert (verdict.line.text, verdict.agreement, verdict.coarse, verdict.fine) == (stands, agreement, True, True)


def test_a_line_that_one_pass_alone_saw_agrees_with_nothing() -> None:
    coarse, fine = decided([line("up", 0.1, 0.1)], [line("down", 0.1, 0.8)], 1.0)
    assert (coarse.line.text, coarse.agreement, coarse.coarse, coarse.fine) == ("up", 0.0, True, False)
    assert (fine.line.text, fine.agreement, fine.coarse, fine.fine) == ("down", 0.0, False, True)


def test_a_line_that_is_two_in_the_other_pass_is_compared_as_a_whole() -> None:
    found = list(
        decided([line("left right", 0.1, 0.1)], [line("left", 0.1, 0.1, wide=0.15), line("right", 0.3, 0.1)], 1.0)
    )
    assert {verdict.agreement for verdict in found} == {1.0}


def test_lines_close_by_are_a_region_and_a_headline_is_its_own() -> None:
    lines = [line("head", 0.1, 0.02, high=0.15), line("a", 0.1, 0.2), line("b", 0.1, 0.26), line("far", 0.1, 0.8)]
    assert regions(lines, 100, 100) == [[0], [1, 2], [3]]
    assert regions([], 100, 100) == []


class Reader:
    """Sees given lines on the page, and in any cut one line over all of it."""

    def __init__(self, lines: list[Line], tall: float = 0.0) -> None:
        self.lines, self.tall, self.shapes = tuple(lines), tall, list[tuple[int, ...]]()

    def __call__(self, rgb: Rgb) -> Seen:
        self.shapes.append(rgb.shape[:2])
        if len(self.shapes) == 1:
            return Seen(self.lines, self.tall, 0.0)
        return Seen((Line(0.1, 0.25, 0.9, 0.75, "fine", 0.95),), 0.0, 0.0)


def test_the_page_is_reduced_and_a_region_brought_to_one_height_of_line() -> None:
    reader = Reader([line("coarse", 0.1, 0.1, wide=0.2, high=0.01)])
    page = read_page(reader, np.zeros((2000, 1000, 3), np.uint8), Scales(coarse_side=500, line_height=40))
    assert reader.shapes == [(500, 250), (2 * 40, 2 * 221)]
    assert (page.regions, page.unread, page.turned) == (1, 0, 0)


def test_limits_keep_regions_from_the_fine_pass_those_with_least_text_first() -> None:
    lines = [line("much text here", 0.1, 0.1), line("some text", 0.1, 0.4), line("x", 0.1, 0.7)]
    for limit in (Scales(regions=1), Scales(lines=1)):
        reader = Reader(lines)
        page = read_page(reader, np.zeros((100, 100, 3), np.uint8), limit)
        assert (page.regions, page.unread, len(reader.shapes)) == (1, 2, 2)
        # What was not read again is kept, and agrees with nothing.
        assert {verdict.line.text: verdict.agreement for verdict in page.verdicts if not verdict.fine} == {
            "some text": 0.0,
            "x": 0.0,
        }


def test_a_page_on_its_side_is_turned() -> None:
    reader = Reader([line("many letters", 0.1, 0.1)], tall=1.0)
    page = read_page(reader, np.zeros((100, 60, 3), np.uint8), Scales())
    assert (page.turned, page.width, page.height, reader.shapes[1]) == (90, 100, 60, (60, 100))


def test_a_page_without_text_is_read_once() -> None:
    reader = Reader([])
    assert read_page(reader, np.zeros((100, 60, 3), np.uint8), Scales()).verdicts == ()
    assert len(reader.shapes) == 1
