"""The report as plain text, for a terminal or a mail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from catalog.report import Report
from catalog.report_words import one_line, share

_Row = tuple[str, ...]


def render_text(report: Report, store: str) -> str:
    """The same numbers as on the page, without pictures. `store` is how people name the store."""
    lines = [*_head(report, store), *_funnel(report), *_reasons(report), *_tallies(report), *_timings(report)]
    lines += ["", *(f"{one.split}: {one.samples:,} samples in {store}/{one.folder}" for one in report.sets)]
    return "\n".join(lines) + "\n"


def _head(report: Report, store: str) -> Iterator[str]:
    yield f"{report.corpus}: snapshot {report.snapshot} of {store}"
    if report.about:
        yield one_line(report.about, 400)
    yield ""
    counts = ", ".join(f"{count:,} {state}" for state, count in report.final.items())
    yield f"{report.inputs:,} inputs{f' and {report.born:,} born' if report.born else ''}: {counts or 'nothing'}"
    tokens = " and ".join(f"{report.tokens[kind]:,} {kind} tokens" for kind in ("text", "image"))
    yield f"{report.samples:,} samples in {report.shards:,} shards, {tokens}"
    if report.embedded:
        yield f"stand-ins, not the real model: {', '.join(report.embedded)}"
    if report.written_by:
        yield f"annotations by: {', '.join(one_line(name, 80) for name in report.written_by)}"
    yield from (one_line(branch, 300) for branch in report.branches)


def _funnel(report: Report) -> Iterator[str]:
    def count(value: int) -> str:
        return f"{value:,}" if value else ""

    rows = [
        (
            row.node,
            row.kind,
            f"{row.inputs:,}",
            count(row.born),
            f"{row.passed:,}",
            count(row.dropped),
            count(row.duplicate),
            count(row.quarantined),
            count(sum(row.other.values())),
        )
        for row in report.funnel
    ]
    heads = ("node", "kind", "in", "born", "passed", "dropped", "duplicate", "quarantined", "other")
    yield from _table(heads, rows, "ll")


def _reasons(report: Report) -> Iterator[str]:
    rows = [
        (
            row.node,
            one_line(row.reason or "no reason given", 32),
            row.state,
            f"{row.count:,}",
            share(row.share) if row.count else "",
            one_line(row.condition, 60) + (f" ({one_line(row.note, 80)})" if row.note else ""),
        )
        for row in report.reasons
    ]
    yield from _table(("node", "rule or reason", "state", "count", "of all", "condition"), rows, "lllrrl")


def _tallies(report: Report) -> Iterator[str]:
    for title, tallies in (("source", report.sources), ("licence", report.licences)):
        rows = [
            (one_line(row.name or "none", 40), f"{row.records:,}", f"{row.kept:,}", share(row.kept / row.records))
            for row in tallies
        ]
        yield from _table((title, "records", "kept", "share"), rows, "l")


def _timings(report: Report) -> Iterator[str]:
    rows = [
        (
            row.node,
            f"{row.records:,}",
            f"{row.calls:,}",
            f"{row.seconds:.2f}",
            f"{1000 * row.seconds / row.calls:.1f}" if row.calls else "",
            share(row.share),
        )
        for row in report.timings
    ]
    yield from _table(("node", "records", "calls", "seconds", "ms/call", "share"), rows, "l")


def _table(heads: _Row, rows: Sequence[_Row], sides: str) -> Iterator[str]:
    """Columns side by side; `sides` names the side of the first ones (l or r), the others stand right."""
    if not rows:
        return
    sides = sides.ljust(len(heads), "r")
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    yield ""
    for row in [heads, *rows]:
        cells = zip(row, widths, sides, strict=True)
        yield "  ".join(cell.ljust(width) if side == "l" else cell.rjust(width) for cell, width, side in cells).rstrip()
