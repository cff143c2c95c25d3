"""Reading a page coarse to fine: one pass over the page, one over each region of it, and what the two agree on.

The coarse pass says where text stands and which way up the page is. Its lines, with those close by, are the regions;
each is cut out of the picture as it was stored and brought to one height of line, so that small print is large and a
headline no larger than it need be. A line that both passes read alike is trusted; where they differ the surer stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from pipeline.ocr import Line, Rgb, Seen, straightened

Read = Callable[[Rgb], Seen]
"""One pass of an engine over a picture."""


@dataclass(frozen=True, slots=True)
class Scales:
    """How large pictures are read.

    `coarse_side`: longest side in pixels of the page in the coarse pass; smaller pages are not enlarged. `line_height`:
    pixels of a line in the fine pass. `regions`, `lines`: regions, and lines of the coarse pass in them, that are read
    again at most, those with most text first: they bound the time of a page. `region_pixels`: pixels of a region in the
    fine pass at most.
    """

    coarse_side: int = 1288
    line_height: int = 48
    regions: int = 40
    lines: int = 300
    region_pixels: int = 2_000_000


class Verdict(NamedTuple):
    """A line that stands, which passes read it, and how well they agree, 0-1: 0 where one alone saw it."""

    line: Line
    agreement: float
    coarse: bool
    fine: bool


@dataclass(frozen=True, slots=True)
class Page:
    """What was read: lines in no order, boxes on the page turned by `turned` degrees against the clock.

    `single`: the first pass alone, on the page as it lay. `regions`: how many were read again; `unread`: lines
    that were not. `width`, `height`: pixels of the page as it was turned.
    """

    verdicts: tuple[Verdict, ...]
    single: tuple[Line, ...]
    turned: int
    regions: int
    unread: int
    width: int
    height: int


def read_page(read: Read, rgb: Rgb, scales: Scales = Scales()) -> Page:
    """Both passes over an upright picture, uint8 [height, width, 3]."""
    single = read(resized(rgb, _coarse_scale(rgb, scales)))
    coarse, page, turned = single, rgb, 0
    quarters = (single.tall > 0.5) + 2 * (single.flipped > 0.5)
    if quarters and letters(single.lines) >= _TURNED_LETTERS:
        other = np.ascontiguousarray(np.rot90(rgb, quarters))
        again = read(resized(other, _coarse_scale(other, scales)))
        upright = again.tall <= 0.5 and again.flipped <= 0.5
        if upright and confidence(again.lines) >= confidence(single.lines) - _LESS_SURE:
            coarse, page, turned = again, other, 90 * quarters
    height, width = page.shape[:2]
    found = regions(coarse.lines, width, height)
    found.sort(key=lambda region: -letters([coarse.lines[number] for number in region]))
    fine: list[Line] = []
    count = again_read = 0
    for region in found[: scales.regions]:
        if again_read + len(region) <= scales.lines:
            fine += _fine_lines(read, page, coarse.lines, region, scales)
            count, again_read = count + 1, again_read + len(region)
    verdicts = tuple(decided(coarse.lines, fine, width / height))
    return Page(verdicts, single.lines, turned, count, len(coarse.lines) - again_read, width, height)


_TURNED_LETTERS = 8
"""Letters by which a page can be told to lie on its side."""

_LESS_SURE = 0.02
"""Confidence a page may lose by being turned: lines on their side are read turned in any case."""


def letters(lines: Sequence[Line]) -> int:
    """Characters, without blanks."""
    return sum(len("".join(line.text.split())) for line in lines)


def confidence(lines: Sequence[Line]) -> float:
    """Mean over the characters, 0-1; 0 without any."""
    return float(sum(line.confidence * letters([line]) for line in lines) / max(1, letters(lines)))


def resized(rgb: Rgb, scale: float) -> Rgb:
    """A picture enlarged or reduced."""
    import cv2

    if scale == 1:
        return rgb
    height, width = rgb.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, size, interpolation=how))


def _coarse_scale(rgb: Rgb, scales: Scales) -> float:
    return min(1.0, scales.coarse_side / float(max(rgb.shape[:2])))


def regions(lines: Sequence[Line], width: int, height: int) -> list[list[int]]:
    """Numbers of lines that stand together: boxes that touch once grown by most of a line's height."""
    boxes = np.array([line[:4] for line in lines], np.float64).reshape(-1, 4) * (width, height, width, height)
    margin = _MARGIN * (boxes[:, 3] - boxes[:, 1]).reshape(-1, 1)
    grown = boxes + margin * (-1, -1, 1, 1)
    touches = (
        (grown[:, None, 0] < grown[None, :, 2])
        & (grown[None, :, 0] < grown[:, None, 2])
        & (grown[:, None, 1] < grown[None, :, 3])
        & (grown[None, :, 1] < grown[:, None, 3])
    )
    # A headline is read at another size than the small print below it.
    tall = np.log(np.maximum(boxes[:, 3] - boxes[:, 1], 1))
    touches &= np.abs(tall[:, None] - tall[None, :]) < math.log(_SIZES)
    return _components(len(lines), [(int(a), int(b)) for a, b in zip(*np.nonzero(touches), strict=True)])


_MARGIN = 0.6
_SIZES = 1.8


def _components(count: int, edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected parts of a graph, each sorted, in the order of their first member."""
    root = list(range(count))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for a, b in edges:
        low, high = sorted((find(a), find(b)))
        root[high] = low
    parts: dict[int, list[int]] = {}
    for number in range(count):
        parts.setdefault(find(number), []).append(number)
    return list(parts.values())


def _fine_lines(read: Read, page: Rgb, coarse: Sequence[Line], region: Sequence[int], scales: Scales) -> Iterator[Line]:
    """The lines of one region, read large, in shares of the page."""
    height, width = page.shape[:2]
    own = [coarse[number] for number in region]
    tall = median(line.height for line in own) * height
    pad = _PAD * tall
    x0, y0 = (max(0, math.floor(min(line[i] for line in own) * side - pad)) for i, side in ((0, width), (1, height)))
    x1, y1 = (min(side, math.ceil(max(line[i] for line in own) * side + pad)) for i, side in ((2, width), (3, height)))
    scale = min(scales.line_height / tall, _ENLARGED, math.sqrt(scales.region_pixels / max(1, (x1 - x0) * (y1 - y0))))
    cut = np.ascontiguousarray(page[y0:y1, x0:x1])
    others = [line for number, line in enumerate(coarse) if number not in set(region)]
    for line in read(resized(cut, scale)).lines:
        left, top = (x0 + line.x0 * (x1 - x0)) / width, (y0 + line.y0 * (y1 - y0)) / height
        right, bottom = (x0 + line.x1 * (x1 - x0)) / width, (y0 + line.y1 * (y1 - y0)) / height
        placed = line._replace(x0=left, y0=top, x1=right, y1=bottom)
        # The edge of the cut goes through lines of other regions.
        here, elsewhere = (max((covered(placed, one) for one in lines), default=0.0) for lines in (own, others))
        if here >= elsewhere:
            yield placed


_PAD = 0.5
_ENLARGED = 4.0


def covered(one: Line, two: Line) -> float:
    """Shared area as a share of the smaller box, 0-1."""
    across, down = min(one.x1, two.x1) - max(one.x0, two.x0), min(one.y1, two.y1) - max(one.y0, two.y0)
    if across <= 0 or down <= 0:
        return 0.0
    return across * down / max(1e-12, min((each.x1 - each.x0) * each.height for each in (one, two)))


def decided(coarse: Sequence[Line], fine: Sequence[Line], aspect: float) -> Iterator[Verdict]:
    """Lines of both passes that lie over each other are one: how well do they agree, and which reading stands?

    The surer one does. Where they say about the same, it is the one in more lines (the detector joins columns, and does
    not cut lines), and where they differ in blanks alone the one that has more of them, for the recogniser loses some.
    """
    both, start = [*coarse, *fine], len(coarse)
    flat = straightened(both, aspect)
    edges = [(a, start + b) for a, b in _nearest(flat[:start], flat[start:])]
    edges += [(a, start + b) for b, a in _nearest(flat[start:], flat[:start])]
    for part in _components(len(both), edges):
        first = [both[number] for number in part if number < start]
        second = [both[number] for number in part if number >= start]
        agreement = agreed(first, second) if first and second else 0.0
        if agreement >= _SAME and len(first) != len(second):
            stands = max(first, second, key=len)
        elif agreement == 1:
            stands = second if _pieces(second) >= _pieces(first) else first
        else:
            stands = second if confidence(second) >= confidence(first) else first
        for line in stands:
            yield Verdict(line, agreement, bool(first), bool(second))


_SAME = 0.9
"""Agreement from which two readings are the same but for a letter or two."""


def _pieces(lines: Sequence[Line]) -> int:
    """Words, as blanks part them."""
    return sum(len(line.text.split()) for line in lines)


def _nearest(lines: Sequence[Line], others: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """Each line with the one it lies over most, if by half of the smaller: one line may be two in the other pass."""
    for number, line in enumerate(lines):
        shares = [covered(line, other) for other in others]
        if shares and max(shares) > 0.5:
            yield number, shares.index(max(shares))


def agreed(one: Sequence[Line], two: Sequence[Line]) -> float:
    """1 - edit distance / length of the longer reading, blanks aside, 0-1."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(_told(one), _told(two)))


def _told(lines: Sequence[Line]) -> str:
    """What lines over each other say, in rows."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.y0 + line.y1, line.x0)):
        if rows and line.y0 + line.y1 < 2 * rows[-1][0].y1:
            rows[-1].append(line)
        else:
            rows.append([line])
    return "".join("".join(line.text.split()) for row in rows for line in sorted(row, key=lambda line: line.x0))
