"""`unifactory retry`: open quarantined records again."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.verbs.audit import StoreArgument


def retry(
    store: StoreArgument,
    where: Annotated[str, typer.Option(help="Condition on reason, message, node, corpus, attempt and record_key.")],
) -> None:
    """Forget the quarantine of records that fit a condition; the next curate runs exactly those again.

    Example: unifactory retry runs/demo --where "reason = 'time limit'"
    """
    from jobs.reopen import reopen
    from jobs.show import console

    counts = reopen(store, where)
    for (corpus, node), count in sorted(counts.items()):
        console.print(f"{corpus}: {node}: {count} records opened again")
    if not counts:
        console.print("no quarantined record fits; nothing changed")
    else:
        console.print("run curate again to process them")
