"""`unifactory curate`: run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe, `generation` say (docs/corpora/).")]
Root = Annotated[Path, typer.Option(help="Folder that media and manifest paths of the recipe are relative to.")]
StoreOption = Annotated[str, typer.Option(help="Folder or s3:// address of the store.")]
Set = Annotated[
    list[str], typer.Option("--set", help="NODE.PARAM=VALUE overrides a parameter; of a set CORPUS.NODE.PARAM=VALUE.")
]


def curate(
    recipe: Recipe,
    root: Root,
    store: StoreOption,
    engine: Annotated[str | None, typer.Option(help="local or ray; inside a Ray job ray, elsewhere local.")] = None,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster; none starts Ray here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; all cores by default.")] = None,
    settings: Set = [],  # noqa: B006 - typer reads the default, nobody changes it
    accept_removals: Annotated[
        bool, typer.Option("--accept-removals", help="Let a corpus lose more than a tenth of its rows.")
    ] = False,
    key_chars: Annotated[
        int | None,
        typer.Option(min=1, max=3, help="Of a new store: 1 (default), or 2 or 3 beyond ten million records."),
    ] = None,
) -> None:
    """Run a recipe: measure, decide, annotate, encode and pack what is new or changed.

    The recipe of a set (`all`) runs those of its corpora, then decides what each training stage reads.

    A killed run goes on where it was: run the same command again.

    Example: unifactory curate generation --root corpora --store runs/store
    """
    from jobs.run import EngineChoice, load_plan, run
    from jobs.sets import load, run_set
    from jobs.show import show_finished

    choice = EngineChoice(engine, workers, ray)
    planned = load(recipe, settings)
    if planned is not None:
        run_set(planned, root, store, choice, accept_removals, key_chars)
        return
    finished = run(load_plan(recipe, settings), root, store, choice, accept_removals, key_chars)
    show_finished(finished, store)
