"""Writing the report of a corpus into its store: `reports/<corpus>.html`, `.json` and `.txt`."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from catalog.mixture_page import render_mixtures
from catalog.mixtures import stage_facts
from catalog.report import FORMAT, gather
from catalog.report_page import render_html
from catalog.report_text import render_text
from catalog.view import View
from pipeline.media import MediaReader
from pipeline.thumbnails import thumbnails


def write_report(view: View, corpus: str, root: Path, store: str) -> str:
    """Write all three, and return the name of the page within the store.

    `root` is the media root of the run; `store` is how the user names the store, since the page shows commands to copy.
    Raises UserError for an unknown corpus.
    """
    report = gather(view, corpus)
    storage = view.store.storage
    # A record of words alone gets no tile.
    media = {key: record.media for key, record in report.pictured.items() if record.media is not None}
    for key, record in report.pictured.items():
        media |= {f"{key}.{place}": other for place, other in enumerate(record.beside)}
    reader = MediaReader(str(root), storage.uri, tuple(sorted(storage.options.items())))
    pictures = thumbnails(media, reader, min(4, os.cpu_count() or 1))
    page = f"reports/{corpus}.html"
    storage.write(page, render_html(report, pictures, store).encode())
    storage.write(f"reports/{corpus}.txt", render_text(report, store).encode())
    # Last, because it says that the report of this snapshot is there.
    storage.write(f"reports/{corpus}.json", report.to_json())
    return page


def write_mixtures(view: View) -> list[str]:
    """Write a page on the mixtures of every set, `reports/<set>.html`; returns their names within the store."""
    facts = stage_facts(view)
    pages = []
    for set_name in sorted({name.partition("/")[0] for name in facts}):
        stages = [one for name, one in facts.items() if name.startswith(f"{set_name}/")]
        pages.append(f"reports/{set_name}.html")
        view.store.storage.write(pages[-1], render_mixtures(view, set_name, stages).encode())
    return pages


def refresh_report(view: View, corpus: str, root: Path, store: str) -> str:
    """As `write_report`, unless it is there already, from this snapshot or one in which the corpus was the same."""
    page = f"reports/{corpus}.html"
    try:
        head = orjson.loads(view.store.storage.read(f"reports/{corpus}.json"))
        current = head["format"] == FORMAT and _same(view, corpus, head["snapshot"])
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        current = False
    if current and view.store.storage.exists(page):
        return page
    return write_report(view, corpus, root, store)


def _same(view: View, corpus: str, number: int) -> bool:
    """Whether a corpus was in another snapshot what it is in this one: other corpora and mixtures may have come."""
    for one in (view.snapshot, *view.store.snapshots()):
        if one.number == number:
            then, now = (
                {n: v for n, v in s.tables.items() if n.startswith(f"{corpus}/")} for s in (one, view.snapshot)
            )
            return then == now and one.corpora.get(corpus) == view.snapshot.corpora[corpus]
    return False
