"""`unifactory demo`: the whole factory on an embedded corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    store: Annotated[Path, typer.Option(help="Where the store goes.")] = Path("runs/demo"),
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; all cores by default.")] = None,
) -> None:
    """Run the factory end to end on a corpus that comes with it; no download, no model.

    Example: unifactory demo --store runs/demo
    """
    from jobs.demo import demo as run_demo

    run_demo(store, workers)
