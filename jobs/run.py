"""Opening what a run needs: the recipe's plan, the store under its lock, the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import UserError
from catalog.storage import open_storage
from catalog.store import create_store
from catalog.view import open_view
from jobs.report import refresh_report
from jobs.show import Bars
from pipeline.curate import Finished, Run
from pipeline.engine import Engine
from pipeline.plan import Plan, check_sources, resolve
from pipeline.recipe import load_recipe

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs the nodes. `name` None: Ray inside a Ray job, processes of this machine elsewhere."""

    name: str | None = None
    workers: int | None = None
    ray_address: str | None = None

    def build(self) -> Callable[[], Engine]:
        """A function that starts the engine once it is needed; raises UserError for a choice that cannot be."""
        from pipeline.ray_engine import RayEngine, inside_ray_job

        name = self.name or ("ray" if self.ray_address or inside_ray_job() else "local")
        if name == "local":
            if self.ray_address:
                raise UserError("--ray needs --engine ray")

            def local() -> Engine:
                from pipeline.local import LocalEngine

                return LocalEngine(self.workers or os.cpu_count() or 1)

            return local
        if name != "ray":
            raise UserError(f"--engine {name}: choose local or ray")
        return lambda: RayEngine(self.workers, self.ray_address)


def find_recipe(name: str) -> Path:
    """A recipe file, or a shipped recipe by its name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name.removesuffix('.yaml')}.yaml"
    if path.parent == Path() and shipped.is_file():
        return shipped
    known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
    raise UserError(f"{name}: no such recipe file; shipped recipes: {known}")


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """`NODE.PARAM=VALUE` options as a mapping; values are YAML."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write NODE.PARAM=VALUE")
        found[name] = yaml.safe_load(value)
    return found


def load_plan(recipe: str, settings: list[str]) -> Plan:
    """The plan of a recipe file or shipped recipe."""
    path = find_recipe(recipe)
    return resolve(load_recipe(path, settings_of(settings)), str(path))


def run(
    plan: Plan,
    root: Path,
    store: str,
    engine: EngineChoice,
    accept_removals: bool = False,
    key_chars: int | None = None,
) -> Finished:
    """Run a plan over a media root into a store."""
    check_sources(plan.recipe, root)
    build = engine.build()
    storage = open_storage(store)
    with storage.lock(), Bars() as bars:
        opened = create_store(storage, key_chars)
        finished = Run(opened, plan, root.absolute(), build, bars, accept_removals)()
        bars.start("report", None)
        refresh_report(open_view(store), finished.corpus, root.absolute(), store)
    return finished
