"""What people see in a terminal: progress bars, tables, one-line errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from catalog.audit import Audit
from catalog.explain import Life
from pipeline.curate import Finished

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class Bars:
    """Progress bars on a terminal, silence elsewhere. Implements pipeline.curate.Progress."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, name: str, total: int | None) -> Callable[[int], None]:
        """A step begins; the returned function advances it."""
        bar = self._bars.add_task(name, total=total)

        def advance(count: int) -> None:
            self._bars.advance(bar, count)

        return advance


def print_plain(text: str) -> None:
    """Machine-readable output, as it is."""
    sys.stdout.write(text + "\n")


def reasons_line(counts: Mapping[str, int]) -> str:
    """Reasons and their counts, the greatest first."""
    return ", ".join(
        f"{escape(name)} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def show_finished(finished: Finished, store: str) -> None:
    """The funnel and the cost of each node, and where things are."""
    table = Table(title=f"{finished.corpus}: snapshot {finished.snapshot}", title_justify="left")
    for name in ("node", "in", "born", "passed", "left", "calls", "ms/call"):
        table.add_column(name, justify="left" if name in ("node", "left") else "right")
    for book in finished.books:
        left = []
        for state, reasons in sorted(book.reasons.items()):
            left.append(f"{state}: {reasons_line(reasons)}")
        unexplained = {
            state: count
            for state, count in book.counts.items()
            if state != "passed" and state not in book.reasons and count
        }
        if unexplained:
            left.append(reasons_line(unexplained))
        timing = finished.timings.get(book.node)
        pace = f"{1000 * timing.seconds / timing.calls:.1f}" if timing and timing.calls else ""
        table.add_row(
            book.node,
            str(book.inputs),
            str(book.born or ""),
            str(book.counts["passed"]),
            "; ".join(left),
            str(timing.calls if timing else 0),
            pace,
        )
    console.print(table)
    console.print(f"final: {reasons_line(finished.final)}")
    for split in finished.sets:
        console.print(f"shards: {store}/shards/{finished.corpus}/{split}", soft_wrap=True)
    if finished.embedded:
        console.print(f"embedded stand-ins, not the real model: {', '.join(finished.embedded)}")
    console.print(f"catalog: {store}   report: {store}/reports/{finished.corpus}.html", soft_wrap=True)


def show_audit(result: Audit) -> None:
    """A table of the corpora, then every finding."""
    for name, corpus in result.corpora.items():
        table = Table(title=f"{name} (snapshot {result.snapshot})", title_justify="left", show_header=False)
        rows = {
            "inputs": f"{corpus.inputs}" + (f" and {corpus.born} born" if corpus.born else ""),
            "kept": f"{corpus.kept}",
            "dropped": f"{sum(corpus.dropped.values())}: {reasons_line(corpus.dropped)}",
            "duplicates": f"{corpus.duplicates}",
            "quarantined": f"{sum(corpus.quarantined.values())}: {reasons_line(corpus.quarantined)}",
            "shards": f"{corpus.shards} with {corpus.samples} samples",
            "tokens": f"{corpus.tokens['text']:,} text, {corpus.tokens['image']:,} image",
        }
        for label, value in rows.items():
            table.add_row(label, value.removesuffix(": "))
        console.print(table)
    if not result.findings:
        console.print("clean: books balance, catalog and shards agree byte by byte")
    for finding in result.findings:
        console.print(f"{finding.kind}: {finding.place}: {finding.message}", soft_wrap=True, markup=False)


def show_life(life: Life) -> None:
    """A record's story, one line a step."""
    record, state = life.record, life.state
    say = partial(console.print, markup=False, soft_wrap=True)
    reason = f" ({state['reason']})" if state["reason"] else ""
    say(f"{record['record_key']} in {life.corpus}: {state['state']} at {state['node']}{reason}")
    if state["message"]:
        say(f"  {state['message']}")
    say(f"  source {record['source']}, {record['place'] or 'born on the way'}")
    for name, value in record["fields"].items():
        say(f"    {name}: {value}")
    for ref in record["media"] or []:
        say(f"  {ref['role']}: {ref['path']} ({ref['length']} bytes, sha256 {ref['digest']})")
    for edge in life.parents:
        say(f"  born of {edge['parent']} as {edge['role']} at {edge['node']}")
    for edge in life.children:
        say(f"  parent of {edge['record_key']} ({edge['role']}, {edge['node']})")
    for step in life.steps:
        say(f"  {step.node} [{step.kind}]: {step.said}")
        for name, value in step.values.items():
            if value is not None:
                say(f"    {name}: {value}")
    for sample in life.samples:
        where = f"shards/{life.corpus}/{sample['split']}/g{sample['generation']:04d}/{sample['shard']}"
        say(f"  sample {sample['sample_key']}: {sample['task']} {sample['resolution'] or ''} in {where}")
        say(f"    {sample['text_tokens']} text and {sample['image_tokens']} image tokens, number {sample['position']}")
        for draw in life.draws:
            if draw["sample_key"] == sample["sample_key"]:
                times = "once" if draw["copies"] == 1 else f"{draw['copies']} times"
                say(f"    read by {draw['stage']} as {draw['part']}, {times}")
