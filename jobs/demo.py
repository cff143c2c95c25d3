"""The demo: draw the embedded corpus, run the shipped recipes on it into one store, audit it, show what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

import catalog
from catalog.audit import Audit, CorpusAudit, audit
from catalog.view import View
from jobs.run import EngineChoice, load_plan, run
from jobs.show import Bars, console
from model.grammar import check
from pipeline.embedded.corpus import Corpus, write_corpus

RECIPES = ("understanding", "generation", "editing", "interleaved", "reasoning", "text")

_STANDS_FOR = {
    "patch-vq": "SigLIP-VQ",
    "embedded-bpe": "the released tokenizer",
    "metadata (embedded)": "captions by a vision-language model",
}


def demo(store: Path = Path("runs/demo"), workers: int | None = None, recipes: Sequence[str] = RECIPES) -> Audit:
    """Run the factory end to end; returns the audit of the store after printing what a user should see.

    The corpus lies beside the store, in `<store>-corpus`; unchanged it is not drawn again, and then nothing is computed
    again either.
    """
    corpus = write_corpus(store.with_name(f"{store.name}-corpus"))
    _show_corpus(corpus)
    stand_ins: set[str] = set()
    for recipe in recipes:
        plan = load_plan(recipe, [])
        # The embedded corpus may change with the version of the factory, and then loses rows by design.
        finished = run(plan, corpus.folder, str(store), EngineChoice("local", workers), accept_removals=True)
        stand_ins |= set(finished.embedded)
    view = catalog.open(str(store))
    with Bars() as bars:
        result = audit(view, check, bars.start("audit", None))
    pages = [f"reports/{name}.html" for name in result.corpora]
    _show_funnels(result.corpora)
    _show_paths(view, str(store), pages)
    _show_stand_ins(stand_ins)
    _show_verdict(result, str(store))
    return result


def _show_corpus(corpus: Corpus) -> None:
    parts = ", ".join(f"{name} {count}" for name, count in corpus.records.items())
    total = sum(corpus.records.values())
    console.print(f"corpus: {corpus.folder}, {total} records, {corpus.bytes / 1e6:.0f} MB ({parts})", soft_wrap=True)


def _show_funnels(corpora: Mapping[str, CorpusAudit]) -> None:
    """One column a corpus."""
    table = Table(title="what became of the records", title_justify="left")
    table.add_column("")
    for name in corpora:
        table.add_column(name)
    rows: dict[str, Callable[[CorpusAudit], str]] = {
        "inputs": lambda found: f"{found.inputs:,}",
        "kept": lambda found: f"{found.kept:,}",
        "dropped": lambda found: _counted(found.dropped),
        "duplicates": lambda found: f"{found.duplicates:,}",
        "quarantined": lambda found: _counted(found.quarantined),
        "shards": lambda found: f"{found.shards:,}",
        "samples": lambda found: f"{found.samples:,}",
        "text tokens": lambda found: f"{found.tokens['text']:,}",
        "image tokens": lambda found: f"{found.tokens['image']:,}",
    }
    for label, value in rows.items():
        table.add_row(label, *(value(found) for found in corpora.values()), end_section=label == "quarantined")
    console.print(table)


def _counted(reasons: Mapping[str, int]) -> str:
    """The total, then one line a reason, the commonest first."""
    lines = [f"{sum(reasons.values()):,}"]
    lines += [f"  {name} {count:,}" for name, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    return "\n".join(lines)


def _show_paths(view: View, store: str, pages: Iterable[str]) -> None:
    for corpus in view.corpora:
        for split in sorted(view.cards(corpus)):
            console.print(f"shards:  {store}/shards/{corpus}/{split}", soft_wrap=True)
    console.print(f"catalog: {store}  (unifactory audit {store})", soft_wrap=True)
    for page in pages:
        console.print(f"report:  {store}/{page}", soft_wrap=True)


def _show_stand_ins(names: Iterable[str]) -> None:
    told = [f"{name} for {_STANDS_FOR[name]}" if name in _STANDS_FOR else name for name in sorted(names)]
    console.print(f"embedded stand-ins, not the real models: {', '.join(told)}", soft_wrap=True)


def _show_verdict(result: Audit, store: str) -> None:
    if result.findings:
        console.print(f"audit: {len(result.findings)} findings; `unifactory audit {store}` lists them", soft_wrap=True)
    else:
        console.print("audit: clean, books balance, catalog and shards agree byte by byte")
