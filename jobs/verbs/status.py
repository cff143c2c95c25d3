"""`unifactory status`: how far a store is."""

from __future__ import annotations

from jobs.verbs.audit import StoreArgument


def status(store: StoreArgument) -> None:
    """Say what runs a store has seen, what the newest snapshot holds, and what is unfinished.

    Example: unifactory status runs/demo
    """
    from jobs.progress import show_status

    show_status(store)
