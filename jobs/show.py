"""What people see in a terminal: progress bars, tables, one-line errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False)


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
