"""The demo: draw the embedded corpus, run the shipped recipes on it into one store, audit it, show what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

import catalog
from catalog.audit import Audit, CorpusAudit, audit
from catalog.view import View
from jobs.run import EngineChoice, load_plan, run
from jobs.show import Bars, console, reasons_line
from model.grammar import check
from pipeline.embedded.corpus import Corpus, write_corpus

RECIPES = ("understanding", "generation", "editing", "interleaved", "reasoning", "text")

_STANDS_FOR = {
    "patch-vq": "SigLIP-VQ",
    "embedded-bpe": "the released tokenizer",
    "metadata (embedded)": "captions by a vision-language model",
    "source text": "texts by a vision-language model",
}


def demo(store: Path = Path("runs/demo"), workers: int | None = None, recipes: Sequence[str] = RECIPES) -> Audit:
    """Run the factory end to end; returns the audit of the store after printing what a user should see.

    The corpus lies beside the store, in `<store>-corpus`; unchanged it is not drawn again, and then nothing is computed
    again either.
    """
    corpus = write_corpus(store.with_name(f"{store.name}-corpus"))
    _show_corpus(corpus)
    stand_ins: set[str] = set()
    for number, recipe in enumerate(recipes, 1):
        plan = load_plan(recipe, [])
        console.print(f"{recipe} ({number} of {len(recipes)})")
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
    _show_missing(view)
    _show_verdict(result, str(store))
    return result


def _show_corpus(corpus: Corpus) -> None:
    parts = ", ".join(f"{name} {count}" for name, count in corpus.records.items())
    total = sum(corpus.records.values())
    console.print(f"corpus: {corpus.folder}, {total} records, {corpus.bytes / 1e6:.0f} MB ({parts})", soft_wrap=True)


def _show_funnels(corpora: Mapping[str, CorpusAudit]) -> None:
    """One row a corpus, then its reasons; both fit 100 columns."""
    table = Table(title="what became of the records", title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for name in ("inputs", "kept", "dropped", "duplicates", "quarantined", "samples", "text\ntokens", "image\ntokens"):
        table.add_column(name, justify="right", no_wrap=True)
    reasons = Table.grid("", "", "", padding=(0, 2, 0, 0))
    for corpus, found in corpora.items():
        states = (found.kept, sum(found.dropped.values()), found.duplicates, sum(found.quarantined.values()))
        counts = (found.inputs, *states, found.samples, found.tokens["text"], found.tokens["image"])
        table.add_row(corpus, *(f"{count:,}" for count in counts))
        for state, some in (("dropped", found.dropped), ("quarantined", found.quarantined)):
            if some:
                reasons.add_row(corpus, state, reasons_line(some))
    console.print(table)
    console.print(reasons)


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


def _show_missing(view: View) -> None:
    """What did not run for want of a model's scores: its rules took their `else`."""
    for corpus in view.corpora:
        missing = [f"{name} ({node['missing']})" for name, node in view.nodes(corpus).items() if node["missing"]]
        if missing:
            console.print(f"not run in {corpus}: {', '.join(missing)}", soft_wrap=True)


def _show_verdict(result: Audit, store: str) -> None:
    if result.findings:
        console.print(f"audit: {len(result.findings)} findings; `unifactory audit {store}` lists them", soft_wrap=True)
    else:
        console.print("audit: clean, books balance, catalog and shards agree byte by byte")
