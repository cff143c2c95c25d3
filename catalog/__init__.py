"""What is known: tables, snapshots, decisions, shards, audit, report.

import catalog
view = catalog.open("runs/demo")
view.records("generation").filter(pl.col("state") == "dropped").collect()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.view import View


def open(store: str, snapshot: int | None = None) -> View:
    """Open a store for reading at its newest snapshot, or at a named one; raises UserError."""
    from catalog.view import open_view

    return open_view(store, snapshot)
