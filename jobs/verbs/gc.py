"""`unifactory gc`: remove what no snapshot needs."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.verbs.audit import StoreArgument


def gc(
    store: StoreArgument,
    keep: Annotated[int | None, typer.Option(min=1, help="Give up all but the newest N snapshots.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove leftovers of killed runs and, with --keep, what only older snapshots need.

    Example: unifactory gc runs/demo --keep 1 --dry-run
    """
    from catalog.garbage import collect
    from catalog.storage import open_storage
    from catalog.store import open_store
    from jobs.show import console

    opened = open_store(store)
    with open_storage(store).lock():
        gone = collect(opened, keep, f"gc{opened.next_run():06d}", dry_run)
    for name, size in gone if dry_run else []:
        console.print(f"{size:>12,}  {name}")
    verb = "would remove" if dry_run else "removed"
    console.print(f"{verb} {len(gone)} objects, {sum(size for _, size in gone):,} bytes")
