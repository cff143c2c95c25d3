"""`unifactory inspect`: what a checkpoint is, and whether shards fit it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from model.inspection import Checkpoint, Part


def inspect(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a checkpoint or of one of its parts; `released` for the released sizes.")
    ],
    shards: Annotated[Path | None, typer.Option(help="Folder of a shard set that should fit it.")] = None,
) -> None:
    """Say what a checkpoint holds, from configurations and headers alone: exit code 0 fits, 1 does not, 2 unreadable.

    Example: unifactory inspect released
    """
    from catalog.errors import UserError
    from model.checkpoint import CheckpointError
    from model.configs import ConfigError
    from model.inspection import inspect_checkpoint, released, shard_problems

    try:
        built_in = str(checkpoint) == "released" and not checkpoint.exists()
        found = released() if built_in else inspect_checkpoint(checkpoint)
        unfit = [] if shards is None else shard_problems(found, _card(shards))
    except (ConfigError, CheckpointError) as problem:
        raise UserError(str(problem)) from None
    _show(str(checkpoint), found)
    if shards is not None:
        _show_fit(shards, unfit)
    if unfit or any(part.problems for part in found.parts):
        raise typer.Exit(1)


def _card(shards: Path) -> dict[str, object]:
    from catalog.errors import UserError
    from catalog.shards import read_card

    try:
        return dict(read_card(shards).__dict__)
    except ValueError as problem:
        raise UserError(str(problem)) from None


def _show(title: str, found: Checkpoint) -> None:
    from rich.table import Table

    from jobs.show import console

    table = Table(title=title, title_justify="left")
    for name in ("part", "layout", "stored as", "tensors", "parameters", "active per token", "fits its config"):
        table.add_column(name, justify="right" if name in ("tensors", "parameters", "active per token") else "left")
    for part in found.parts:
        types = ", ".join(f"{count} {kind}" for kind, count in part.types.items())
        table.add_row(
            part.name,
            part.layout,
            types or "-",
            f"{part.tensors:,}",
            f"{part.parameters:,}",
            f"{part.active:,}",
            _verdict(part),
        )
    console.print(table)
    for part in found.parts:
        if part.vocabulary:
            console.print(
                f"{part.name}: active are all parameters but the routed experts that a token does not choose; "
                f"{part.vocabulary:,} of them are embedding and head",
                soft_wrap=True,
            )
        for problem in part.problems:
            console.print(f"{part.name}: {problem}", markup=False, soft_wrap=True)


def _verdict(part: Part) -> str:
    if not part.types:
        return "-"
    return "yes" if not part.problems else f"no, {len(part.problems)} problems"


def _show_fit(shards: Path, problems: list[str]) -> None:
    from jobs.show import console

    console.print(f"{shards}: {'does not fit' if problems else 'fits'}", markup=False, soft_wrap=True)
    for problem in problems:
        console.print(f"  {problem}", markup=False, soft_wrap=True)
