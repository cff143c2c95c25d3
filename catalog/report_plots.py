"""The report's plots as SVG that stands inside a page and takes the page's colours and font."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalog.report_reasons import FunnelRow
from catalog.report_values import Bins, ValueChart
from catalog.report_words import number, one_line
from catalog.rules import Atom

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _LINE, _PAPER, _ON_BAR = "#010101", "#020202", "#030303", "#040404", "#050505"
_PASSED, _DROPPED, _DUPLICATE, _QUARANTINED, _OTHER = "#060606", "#070707", "#080808", "#090909", "#0a0a0a"
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _LINE: "line",
    _PAPER: "card",
    _ON_BAR: "on-bar",
    _PASSED: "passed",
    _DROPPED: "dropped",
    _DUPLICATE: "duplicate",
    _QUARANTINED: "quarantined",
    _OTHER: "other",
}
"""Colours drawn with, and the variable of the page's style sheet that replaces each."""

_SLIVER = 0.02
"""Whatever is there at all is drawn at least this part of the axis, so that one record among a million is seen."""


def funnel_svg(rows: Sequence[FunnelRow], wide: bool) -> str:
    """One stacked bar a node: passed, dropped, duplicate, quarantined, other; `wide` for screens, else for phones."""
    most = max((row.inputs + row.born for row in rows), default=0) or 1
    height = (0.4 if wide else 0.56) * len(rows) + 0.1
    figure = _figure(f"funnel {wide}", 11.2 if wide else 4.2, height)
    axes = figure.add_axes((0.165 if wide else 0.0, 0.0, 0.61 if wide else 1.0, 1.0))
    axes.set_xlim(0, most)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axis("off")
    for place, row in enumerate(rows):
        bar, half = (place, 0.34) if wide else (place + 0.16, 0.16)
        _bar(axes, row, bar, half, most, labels=wide)
        _label(axes, row, place, wide)
    return _svg(figure, "Funnel: what became of the records at each node")


def _segments(row: FunnelRow) -> list[tuple[int, str, str]]:
    found = [
        (row.passed, _PASSED, "passed"),
        (row.dropped, _DROPPED, "dropped"),
        (row.duplicate, _DUPLICATE, "duplicates" if row.duplicate > 1 else "duplicate"),
        (row.quarantined, _QUARANTINED, "quarantined"),
    ]
    return [part for part in [*found, *((count, _OTHER, state) for state, count in row.other.items())] if part[0]]


def _bar(axes: Axes, row: FunnelRow, y: float, half: float, most: int, labels: bool) -> None:
    segments = _segments(row)
    start = 0.0
    for count, colour, _ in segments:
        width = max(count, _SLIVER / 4 * most)
        axes.barh(y, width, left=start, height=2 * half, color=colour, edgecolor=_PAPER, linewidth=0.8)
        if labels and width > 0.045 * most:
            _text(axes, start + width / 2, y, f"{count:,}", _ON_BAR, 8.5, ha="center", weight="bold")
        start += width
    if labels and segments and segments[0][2] == "passed" and segments[0][0] <= 0.045 * most and len(segments) == 1:
        _text(axes, start + 0.01 * most, y, f"{row.passed:,}", _INK, 8.5)


def _label(axes: Axes, row: FunnelRow, place: int, wide: bool) -> None:
    beside = {"transform": axes.get_yaxis_transform()}
    lost = [part for part in _segments(row) if part[2] != "passed"]
    said = [(f"{count:,} {name}", colour) for count, colour, name in lost]
    said += [(f"{row.born:,} born", _MUTED)] if row.born else []
    if row.missing:
        said.append(("not run", _MUTED))
    if wide:
        _text(axes, -0.02, place - 0.17, row.node, _INK, 9.5, ha="right", weight="bold", **beside)
        below = f"after {row.after}" if row.after else row.kind
        _text(axes, -0.02, place + 0.22, one_line(below, 30), _MUTED, 7.5, ha="right", **beside)
        for number, (text, colour) in enumerate(said):
            # Two stand beside each other; more stand in two lines, for a third would leave the page.
            line = 0.0 if len(said) <= 2 else (-0.19 if number < 2 else 0.21)
            column = number % 2 if number < 4 else number - 2
            _text(axes, 1.015 + 0.175 * column, place + line, text, colour, 9, weight="bold", **beside)
        return
    _text(axes, 0.0, place - 0.22, row.node, _INK, 10.5, weight="bold", **beside)
    counts = f"{row.passed:,} passed" if row.passed else ""
    rest = [text for text, _ in said]
    _text(
        axes,
        1.0,
        place - 0.22,
        " · ".join([part for part in [counts, *rest] if part]),
        _MUTED,
        9.5,
        ha="right",
        **beside,
    )


def values_svg(chart: ValueChart) -> str:
    """The histogram of one column, its thresholds drawn and their wrong sides shaded; empty without values."""
    if chart.bins is None:
        return ""
    name = f"{chart.node} {chart.rule} {chart.column}"
    figure, axes = _histogram(name, chart.bins, (_PASSED, _DROPPED, _OTHER))
    if chart.every_atom:
        for low, high in _wrong_sides(chart.atoms, chart.bins):
            axes.axvspan(low, high, color=_DROPPED, alpha=0.1, linewidth=0, zorder=0)
    for atom in chart.atoms:
        for x in _lines(atom, chart.bins):
            axes.axvline(x, color=_INK, linewidth=1.2, zorder=4)
    return _svg(figure, f"Histogram of {chart.column}")


def tokens_svg(kind: str, bins: Bins) -> str:
    """The histogram of tokens a sample."""
    figure, _ = _histogram(f"tokens {kind}", bins, (_PASSED, _DROPPED, _OTHER))
    return _svg(figure, f"Histogram of {kind} tokens a sample")


def _histogram(name: str, bins: Bins, colours: Sequence[str]) -> tuple[Figure, Axes]:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = _figure(name, 4.0, 1.55)
    axes = figure.add_axes((0.1, 0.16, 0.84, 0.78))
    edges = bins.edges
    if bins.log:
        axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    tallest = max(sum(column) for column in zip(*bins.counts, strict=True)) or 1
    base = [0.0] * (len(edges) - 1)
    for counts, colour in zip(bins.counts, colours, strict=True):
        for place, count in enumerate(counts):
            if count:
                height = max(count, _SLIVER * tallest)
                width = edges[place + 1] - edges[place]
                look = {"color": colour, "edgecolor": _PAPER, "linewidth": 0.5}
                axes.bar(edges[place], height, width, base[place], align="edge", **look)
                base[place] += height
    axes.set_ylim(0, 1.12 * max(base))
    axes.yaxis.set_major_locator(FixedLocator([tallest]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_major_locator(FixedLocator(_ticks(bins)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.tick_params(length=0, labelsize=8.5, labelcolor=_MUTED, pad=3)
    axes.grid(axis="y", color=_LINE, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.set_facecolor("none")
    return figure, axes


def _ticks(bins: Bins) -> list[float]:
    """At most six round numbers within the axis."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = bins.edges[0], bins.edges[-1]
    locator: Any
    if bins.log:
        for subs in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            found = [float(x) for x in LogLocator(subs=subs, numticks=50).tick_values(low, high) if low <= x <= high]
            if len(found) <= 6:
                return found
        return found[:: 1 + len(found) // 6]
    locator = MaxNLocator(nbins=6, integer=bins.whole, steps=[1, 2, 5, 10])
    return [float(x) for x in locator.tick_values(low, high) if low <= x <= high]


def _short(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (10 if suffix == "k" else 1):
            return f"{value / size:.3g}{suffix}"
    return number(value)


def _lines(atom: Atom, bins: Bins) -> list[float]:
    """Where a threshold is drawn: between two bars where a bar is a whole number."""
    if atom.op in ("=", "!="):
        return [atom.literal - 0.5, atom.literal + 0.5] if bins.whole else [atom.literal]
    if not bins.whole:
        return [atom.literal]
    return [atom.literal - 0.5 if atom.op in (">=", "<") else atom.literal + 0.5]


def _wrong_sides(atoms: Sequence[Atom], bins: Bins) -> list[tuple[float, float]]:
    low, high = bins.edges[0], bins.edges[-1]
    found = []
    for atom in atoms:
        lines = _lines(atom, bins)
        if atom.op in (">", ">=", "="):
            found.append((low, lines[0]))
        if atom.op in ("<", "<=", "="):
            found.append((lines[-1], high))
        if atom.op == "!=" and len(lines) > 1:
            found.append((lines[0], lines[1]))
    return [(start, end) for start, end in found if end > start]


def _text(axes: Axes, x: float, y: float, text: str, colour: str, size: float, **more: Any) -> None:
    axes.text(x, y, text, color=colour, fontsize=size, va="center", parse_math=False, **more)


def _figure(name: str, width: float, height: float) -> Figure:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    figure.set_label(name)
    return figure


def _svg(figure: Figure, about: str) -> str:
    """The figure as one SVG element without anything that differs between two runs."""
    import matplotlib

    buffer = io.StringIO()
    # Names inside the SVG are hashes of its content and this salt; two figures of a page must not share them.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": str(figure.get_label())}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|font-family: [^;]*; ", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z]+[0-9.]*_[0-9]+"', "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    head = re.search(r'viewBox="([^"]+)"', text)
    assert head is not None
    attributes = f'viewBox="{head[1]}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return re.sub(r"<svg[^>]*>", f'<svg {attributes} role="img" aria-label="{about}">', text, count=1)
