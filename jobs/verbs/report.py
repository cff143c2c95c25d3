"""`unifactory report`: what became of the records, as a page with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.verbs.audit import StoreArgument


def report(
    store: StoreArgument,
    root: Annotated[Path, typer.Option(help="Folder that media paths are relative to; pictures are read from it.")],
    corpus: Annotated[str | None, typer.Option(help="One corpus; all of them by default.")] = None,
    snapshot: Annotated[int | None, typer.Option(help="An older snapshot instead of the newest.")] = None,
) -> None:
    """Write reports/CORPUS.html, .json and .txt into a store: funnel, reasons, thumbnails, tokens, time.

    Of every set with mixtures also reports/SET.html: what each part of its stages asked for and reached.

    Example: unifactory report runs/demo --root runs/demo-corpus
    """
    import catalog
    from catalog.errors import UserError
    from jobs.report import write_mixtures, write_report
    from jobs.show import console

    if not root.is_dir():
        raise UserError(f"--root {root}: is not a folder")
    view = catalog.open(store, snapshot)
    for name in [corpus] if corpus is not None else view.corpora:
        page = write_report(view, name, root.absolute(), store)
        console.print(f"{name}: {store}/{page}", soft_wrap=True)
    for page in write_mixtures(view) if corpus is None else []:
        console.print(f"{page.rpartition('/')[2].removesuffix('.html')}: {store}/{page}", soft_wrap=True)
