"""The order in which people read lines of text: down a column of running text, along the rows of anything else.

Lines that stand one below the other, of one size and wide for their height, are running text. All others (receipts,
signs, tables) are read row by row. Columns, rows and headings are then ordered as in Breuel, "High performance document
layout analysis" (2003): a part comes before what stands below it, and before what stands to its right unless something
between the two reaches over both.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pipeline.ocr import Line, straightened

_WIDE = 8.0
"""Median width over height from which lines of a column are running text: about 15 letters."""

_LEAST_LINES = 4
"""Lines of a column of running text."""

_GAP = 0.8
"""Heights of a line that may lie between it and the next of its column."""

_ASIDE = 3.0
"""Heights by which the left edges, or the middles, of neighbours in a column may lie apart: the depth of an indent."""

_SIZES = 1.7
"""How many times as high a line of a column may be as its neighbour."""


def in_reading_order(lines: Sequence[Line], aspect: float) -> list[list[Line]]:
    """Rows of lines in reading order. `aspect`: width / height of the picture, to compare widths with heights."""
    flat = [line._replace(text=str(number)) for number, line in enumerate(straightened(lines, aspect))]
    columns = [column for column in _columns(flat, aspect) if _is_running(column, aspect)]
    taken = {line.text for column in columns for line in column}
    parts = [*columns, *_rows([line for line in flat if line.text not in taken])]
    found: list[list[Line]] = []
    for number in _ordered([_hull(part) for part in parts]):
        part = [lines[int(line.text)] for line in parts[number]]
        found += [[line] for line in part] if number < len(columns) else [part]
    return found


def as_text(lines: Sequence[Line], aspect: float) -> str:
    """The lines in reading order, one row a line."""
    return "\n".join(" ".join(line.text for line in row) for row in in_reading_order(lines, aspect))


Hull = tuple[float, float, float, float]


def _hull(part: Sequence[Line]) -> Hull:
    lefts, tops, rights, bottoms = zip(*(line[:4] for line in part), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _columns(lines: Sequence[Line], aspect: float) -> list[list[Line]]:
    """Chains of lines, each the nearest below the one before and the other way round, about equally high."""
    ordered = sorted(lines, key=lambda line: (line.y0, line.x0))
    below = {number: _nearest(ordered, number, 1, aspect) for number in range(len(ordered))}
    above = {number: _nearest(ordered, number, -1, aspect) for number in range(len(ordered))}
    linked = {a: b for a, b in below.items() if b is not None and above[b] == a}
    chains = []
    for start in sorted(set(range(len(ordered))) - set(linked.values())):
        chain = [start]
        while chain[-1] in linked:
            chain.append(linked[chain[-1]])
        chains.append([ordered[number] for number in chain])
    return chains


def _nearest(lines: Sequence[Line], number: int, way: int, aspect: float) -> int | None:
    """The nearest line below (`way` 1) or above (-1) that lies over it by half of the shorter one."""
    line, best, best_gap = lines[number], None, float("inf")
    for other_number, other in enumerate(lines):
        upper, lower = (line, other) if way > 0 else (other, line)
        gap = lower.y0 - upper.y1
        apart = (lower.y0 + lower.y1 - upper.y0 - upper.y1) / 2
        size = min(line.height, other.height)
        if (
            other_number == number
            or apart < size / 2
            or gap > _GAP * size
            or max(line.height, other.height) > 1.7 * size
        ):
            continue
        shared = min(line.x1, other.x1) - max(line.x0, other.x0)
        aside = abs(line.x0 - other.x0), abs(line.x0 + line.x1 - other.x0 - other.x1) / 2
        if min(aside) * aspect > _ASIDE * size:
            continue
        if shared > min(line.x1 - line.x0, other.x1 - other.x0) / 2 and apart < best_gap:
            best, best_gap = other_number, apart
    return best


def _is_running(column: Sequence[Line], aspect: float) -> bool:
    if len(column) < _LEAST_LINES:
        return False
    widths = [line.x1 - line.x0 for line in column]
    return median(widths) * aspect >= _WIDE * median(line.height for line in column)


def _rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines that stand side by side, from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.y0 + line.y1, line.x0)):
        for row in rows[-1:]:
            middle, size = median((each.y0 + each.y1) / 2 for each in row), median(each.height for each in row)
            if abs((line.y0 + line.y1) / 2 - middle) < max(line.height, size) / 2:
                row.append(line)
                break
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: (line.x0, line.y0)) for row in rows]


def _ordered(hulls: Sequence[Hull]) -> list[int]:
    """Numbers of the parts in reading order."""
    numbers = sorted(range(len(hulls)), key=lambda number: (hulls[number][1], hulls[number][0]))
    before = {b: {a for a in numbers if a != b and _comes_before(hulls, a, b)} for b in numbers}
    found: list[int] = []
    left = list(numbers)
    while left:
        # Where parts lie over each other there may be circles: then the upper one comes first.
        free = [number for number in left if not before[number] & set(left)]
        found.append((free or left)[0])
        left.remove(found[-1])
    return found


def _comes_before(hulls: Sequence[Hull], a: int, b: int) -> bool:
    one, two = hulls[a], hulls[b]
    if _shared(one, two, 0) > 0:
        return one[1] + one[3] < two[1] + two[3]
    if one[0] + one[2] >= two[0] + two[2]:
        return False
    low, high = sorted(((one[1] + one[3]) / 2, (two[1] + two[3]) / 2))
    between = (
        hull for number, hull in enumerate(hulls) if number not in (a, b) and low < (hull[1] + hull[3]) / 2 < high
    )
    return not any(_shared(hull, one, 0) > 0 and _shared(hull, two, 0) > 0 for hull in between)


def _shared(one: Hull, two: Hull, axis: int) -> float:
    """How far the two overlap across (0) or down (1), less a tenth of the smaller: boxes of a detector are wide."""
    overlap = min(one[axis + 2], two[axis + 2]) - max(one[axis], two[axis])
    return overlap - 0.1 * min(one[axis + 2] - one[axis], two[axis + 2] - two[axis])
