"""`unifactory explain`: one record's whole life."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    key: Annotated[str, typer.Argument(help="A record's or a sample's key, or the start of one.")],
    store: Annotated[str, typer.Option(help="Folder or s3:// address of the store.")],
    snapshot: Annotated[int | None, typer.Option(help="An older snapshot instead of the newest.")] = None,
) -> None:
    """Tell where a record came from, what every node said of it, and where it went.

    Example: unifactory explain 3fa91c --store runs/demo
    """
    import catalog
    from catalog.explain import lives
    from jobs.show import show_life

    for life in lives(catalog.open(store, snapshot), key):
        show_life(life)
