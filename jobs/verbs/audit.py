"""`unifactory audit`: prove that books, catalog and shards agree."""

from __future__ import annotations

from typing import Annotated

import typer

StoreArgument = Annotated[str, typer.Argument(help="Folder or s3:// address of a store.")]


def audit(
    store: StoreArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    snapshot: Annotated[int | None, typer.Option(help="An older snapshot instead of the newest.")] = None,
) -> None:
    """Audit a store: exit code 0 clean, 1 findings, 2 could not run.

    Example: unifactory audit runs/demo
    """
    import catalog
    from catalog.audit import audit as run_audit
    from jobs.show import Bars, print_plain, show_audit
    from model.grammar import check

    view = catalog.open(store, snapshot)
    with Bars() as bars:
        result = run_audit(view, check, bars.start("audit", None))
    if as_json:
        print_plain(result.to_json().decode())
    else:
        show_audit(result)
    raise typer.Exit(1 if result.findings else 0)
