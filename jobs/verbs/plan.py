"""`unifactory plan`: what a recipe would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.verbs.curate import Recipe, Set


def plan(
    recipe: Recipe,
    root: Annotated[Path | None, typer.Option(help="Check the sources below this folder, and time a probe.")] = None,
    store: Annotated[str | None, typer.Option(help="Say what is done already in this store.")] = None,
    probe: Annotated[int, typer.Option(min=0, help="Records timed per node; 0 for none.")] = 16,
    settings: Set = [],  # noqa: B006 - typer reads the default, nobody changes it
) -> None:
    """Validate a recipe without touching data, and say what would run.

    For a set it says what its corpora make and its stages ask for; a probe is made of each corpus' own recipe.

    Example: unifactory plan generation --root corpora --store runs/store
    """
    from jobs.forecast import show_plan
    from jobs.run import load_plan
    from jobs.sets import load, show_set

    planned = load(recipe, settings)
    if planned is not None:
        show_set(planned, root, store)
        return
    show_plan(load_plan(recipe, settings), root, store, probe)
