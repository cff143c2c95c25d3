"""What the pages say is run: every `sh` block of the README in order, every Python block, every recipe of a page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.plan import resolve
from pipeline.recipe import Recipe
from tests.conftest import Shown

HERE = Path(__file__).parents[1]
PAGES = [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def run(folder: Path, command: str) -> None:
    line = command.replace("unifactory", f"{sys.executable} -m jobs.cli", 1)
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(900)
def test_the_readmes_commands_work_in_order(shown: Shown) -> None:
    commands = [line for block in blocks(HERE / "README.md", "sh") for line in block.splitlines()]
    assert len(commands) >= 5
    for command in commands:
        assert command.startswith("unifactory ")
        run(shown.folder, command)


@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(900)
def test_the_readmes_python_works(shown: Shown) -> None:
    for code in blocks(HERE / "README.md", "python"):
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=shown.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_page_on_recipes_shows_recipes_that_resolve() -> None:
    whole, part = blocks(HERE / "docs" / "recipes.md", "yaml")
    recipe = yaml.safe_load(whole)
    resolve(Recipe.model_validate(recipe), "docs/recipes.md")
    nodes = yaml.safe_load(part)
    plan = resolve(Recipe.model_validate({**recipe, "nodes": nodes}), "docs/recipes.md")
    assert [rule.branch for rule in plan.nodes["quality"].rules] == ["skip"]


def test_the_page_on_model_scores_shows_nodes_that_fit_a_recipe() -> None:
    recipe = yaml.safe_load((HERE / "jobs" / "recipes" / "generation.yaml").read_text())
    (part,) = blocks(HERE / "docs" / "scorers.md", "yaml")
    nodes = yaml.safe_load(part)
    shipped = {name: recipe["nodes"][name] for name in ("header", "shape", "licence", "pixels")}
    plan = resolve(Recipe.model_validate({**recipe, "nodes": {**shipped, **nodes}}), "docs/scorers.md")
    assert [rule.branch for rule in plan.nodes["models"].rules] == ["skip"] * 4


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
