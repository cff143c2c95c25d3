"""Running a set, the recipes of its corpora and then its mixtures, and showing what its stages read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from catalog.errors import UserError
from catalog.mixtures import StageFacts, stage_facts
from catalog.storage import open_storage
from catalog.store import create_store, exists, open_store
from catalog.view import View, open_view
from jobs.report import write_mixtures
from jobs.run import EngineChoice, find_recipe, run, settings_of
from jobs.show import Bars, console, show_finished
from pipeline.mixing import decide_set, mix
from pipeline.plan import check_sources
from pipeline.sets import PlannedSet, is_set, load_set, made


def load(recipe: str, settings: list[str]) -> PlannedSet | None:
    """The set behind a file or a shipped name; None where it is the recipe of one corpus. Raises UserError."""
    path = find_recipe(recipe)
    return load_set(path, settings_of(settings), find_recipe) if is_set(path) else None


def run_set(
    planned: PlannedSet,
    root: Path,
    store: str,
    engine: EngineChoice,
    accept_removals: bool = False,
    key_chars: int | None = None,
) -> list[StageFacts]:
    """Run every corpus of a set, each as alone, then decide its mixtures; print what came of it."""
    for corpus, plan in planned.plans.items():
        try:
            check_sources(plan.recipe, root)
        except UserError as error:
            raise UserError(f"{error}" if str(error).startswith("--root") else f"{corpus}: {error}") from None
    for plan in planned.plans.values():
        show_finished(run(plan, root, store, engine, accept_removals, key_chars), store)
    storage = open_storage(store)
    with storage.lock(), Bars() as bars:
        advance = bars.start("mixtures", len(planned.recipe.stages))
        snapshot, facts = mix(create_store(storage), planned, advance)
        write_mixtures(open_view(store))
    _table_of_stages(f"{planned.recipe.set}: snapshot {snapshot.number}", facts)
    console.print(f"report: {store}/reports/{planned.recipe.set}.html", soft_wrap=True)
    return facts


def show_set(planned: PlannedSet, root: Path | None, store: str | None) -> None:
    """Print what the corpora of a set make and what its stages ask for; with a store what that would come to now."""
    table = Table(title=f"{planned.recipe.set}: {planned.recipe.about}", title_justify="left")
    for name in ("corpus", "nodes", "fingerprint", "makes"):
        table.add_column(name, justify="right" if name == "nodes" else "left")
    for corpus, plan in planned.plans.items():
        if root is not None:
            check_sources(plan.recipe, root)
        kinds = ", ".join(map(str, made(plan)))
        table.add_row(corpus, str(len(plan.nodes)), plan.fingerprint[:12], kinds)
    console.print(table)
    for corpus, plan in planned.plans.items():
        for node in plan.nodes.values():
            if node.missing:
                console.print(f"{corpus}.{node.name}: will not run: {node.missing}", markup=False, soft_wrap=True)
    for name, stage in planned.recipe.stages.items():
        size = f"{stage.total:,} {stage.unit}" if stage.total else f"as many {stage.unit} as the scarcest part allows"
        table = Table(title=f"{name}: {size}", title_justify="left")
        for column in ("part", "draws", "share", "quota", "epochs"):
            table.add_column(column, justify="left" if column in ("part", "draws") else "right")
        whole = sum(part.weight for part in stage.parts.values())
        for part_name, part in stage.parts.items():
            facts = [part.task, part.resolution or "", *part.source, part.variant or "", part.where or ""]
            draws = " ".join(str(one) for one in (f"{part.corpus}:", *facts) if one)
            share = f"{part.weight / whole:.1%}"
            quota = f"{part.quota:,}" if part.quota else ""
            table.add_row(part_name, draws + (", if any" if part.optional else ""), share, quota, f"{part.epochs:g}")
        console.print(table)
    _show_forecast(planned, store)


def _show_forecast(planned: PlannedSet, store: str | None) -> None:
    """What the mixtures would be from the newest snapshot, where every corpus of the set is in it."""
    if store is None or not exists(open_storage(store)):
        return
    newest = open_store(store).snapshot()
    waiting = [corpus for corpus in planned.plans if newest is None or corpus not in newest.corpora]
    if newest is None or waiting:
        console.print(f"in {store} not yet curated: {', '.join(waiting)}", soft_wrap=True)
        return
    facts = [mixture.facts for mixture in decide_set(View(open_store(store), newest), planned)]
    _table_of_stages(f"{planned.recipe.set}: what snapshot {newest.number} of {store} would give", facts)


def show_stages(view: View) -> None:
    """A table of the mixtures of a snapshot, and which of them are stale."""
    facts = stage_facts(view)
    for set_name in sorted({name.partition("/")[0] for name in facts}):
        mine = [one for name, one in facts.items() if name.startswith(f"{set_name}/")]
        _table_of_stages(f"{set_name} (snapshot {view.snapshot.number})", mine)
        for one in mine:
            if changed := one.stale(view):
                again = f"run curate {set_name} again"
                console.print(
                    f"{one.name}: stale: decided before {', '.join(changed)} changed; {again}", soft_wrap=True
                )


def _table_of_stages(title: str, stages: Sequence[StageFacts]) -> None:
    table = Table(title=title, title_justify="left")
    names = ("stage", "part", "pool", "chosen", "copies", "epochs", "asked", "reached", "text tokens", "image tokens")
    for name in names:
        table.add_column(name, justify="left" if name in ("stage", "part") else "right")
    for stage in stages:
        for part in stage.parts:
            table.add_row(
                stage.name, part.name, f"{part.pool:,}", f"{part.chosen:,}", f"{part.copies:,}", f"{part.epochs:.2f}",
                f"{part.asked:.1%}", f"{part.reached:.1%}", f"{part.text_tokens:,}", f"{part.image_tokens:,}",
            )  # fmt: skip
        table.add_row(
            stage.name, f"all, in {stage.unit}", "", f"{sum(part.chosen for part in stage.parts):,}",
            f"{sum(part.copies for part in stage.parts):,}", "", "", "",
            f"{sum(part.text_tokens for part in stage.parts):,}",
            f"{sum(part.image_tokens for part in stage.parts):,}", end_section=True,
        )  # fmt: skip
    console.print(table)
