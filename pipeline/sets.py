"""A set: the recipes of several corpora, and the mixtures that the stages of a training run read from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from catalog.errors import UserError
from catalog.keys import fingerprint
from catalog.stages import Part, Stage, check_names
from pipeline.encode import Encode
from pipeline.plan import Plan, resolve
from pipeline.recipe import NAME, PackNode, dep, first_problem, load_recipe, read_mapping


class SetRecipe(BaseModel):
    """The recipe of a set. `corpora` are shipped recipes by name, or recipe files seen from this one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    set: str
    about: str = ""
    corpora: tuple[str, ...] = Field(min_length=1)
    stages: dict[str, Stage] = Field(min_length=1)

    @field_validator("set")
    @classmethod
    def _set_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"{value!r}: write a lower-case name of letters, digits and _")
        return value

    @field_validator("stages")
    @classmethod
    def _names(cls, value: dict[str, Stage]) -> dict[str, Stage]:
        return check_names(value)


@dataclass(frozen=True)
class Made:
    """A kind of sample that a corpus' recipe makes."""

    task: str
    resolution: int
    variant: str

    def __str__(self) -> str:
        side = f" {self.resolution}" if self.resolution else ""
        return f"{self.task}{side}{'' if self.variant == 'main' else f' ({self.variant})'}"


@dataclass(frozen=True)
class PlannedSet:
    """A set whose recipes are resolved and fit its stages; `place` is its file. `plans` by corpus, in order."""

    place: str
    recipe: SetRecipe
    plans: dict[str, Plan]

    @property
    def fingerprint(self) -> str:
        """What decides the set, apart from the data."""
        return fingerprint(
            {
                "stages": {name: stage.model_dump(mode="json") for name, stage in self.recipe.stages.items()},
                "corpora": {name: plan.fingerprint for name, plan in self.plans.items()},
            }
        )


HOLDS = "a set is a mapping with version, set, corpora and stages"


def is_set(path: Path) -> bool:
    """Whether a recipe file is that of a set; raises UserError for a file that is no recipe at all."""
    return "set" in read_mapping(path, "a recipe is a mapping with version, corpus, sources and nodes")


def load_set(path: Path, settings: Mapping[str, Any], find: Callable[[str], Path]) -> PlannedSet:
    """Read and validate a set and the recipes it names; `settings` are `corpus.node.param` values that override them.

    `find` gives the file of a recipe that is not beside the set's own. Raises UserError.
    """
    try:
        recipe = SetRecipe.model_validate(read_mapping(path, HOLDS))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
    try:
        files: dict[str, Path] = {}
        for name in recipe.corpora:
            beside = path.parent / name
            file = beside if beside.is_file() else _found(name, find)
            corpus = load_recipe(file).corpus
            if corpus in files:
                raise UserError(
                    f"corpora: {name} and {files[corpus]} are both of the corpus {corpus!r}; name one of them"
                )
            files[corpus] = file
        if recipe.set in files:
            raise UserError(f"set: {recipe.set!r} is the name of a corpus, too; choose another")
        plans = {}
        for corpus, file in files.items():
            mine = {name.removeprefix(f"{corpus}."): v for name, v in settings.items() if name.startswith(f"{corpus}.")}
            plans[corpus] = resolve(load_recipe(file, mine), str(file))
        for name in settings:
            if name.partition(".")[0] not in plans:
                raise UserError(f"--set {name}: write CORPUS.NODE.PARAM=VALUE; corpora are: {', '.join(plans)}")
        for name, stage in recipe.stages.items():
            _check_stage(name, stage, plans)
    except UserError as error:
        told = str(error)
        raise UserError(told if told.startswith(("--set", *map(str, files.values()))) else f"{path}: {told}") from None
    return PlannedSet(str(path), recipe, plans)


def _found(name: str, find: Callable[[str], Path]) -> Path:
    try:
        return find(name)
    except UserError as error:
        raise UserError(f"corpora: {error}") from None


def made(plan: Plan) -> list[Made]:
    """The kinds of samples that a plan packs."""
    found: dict[Made, None] = {}
    for node in plan.nodes.values():
        for need in node.node.needs if isinstance(node.node, PackNode) else ():
            runs = plan.nodes[dep(need)].runs
            assert runs is not None
            assert isinstance(runs.operator, Encode)
            params = runs.operator.params
            found[Made(params.task, params.resolution, params.variant)] = None
    return list(found)


def _check_stage(name: str, stage: Stage, plans: Mapping[str, Plan]) -> None:
    for part_name, part in stage.parts.items():
        for problem in _problems(part, plans):
            raise UserError(f"stages.{name}.parts.{part_name}: {problem}")
    if stage.overlap == "first":
        return
    for (one, first), (other, second) in combinations(stage.parts.items(), 2):
        if _surely_overlap(first, second):
            raise UserError(
                f"stages.{name}: parts {one} and {other} draw the same samples of {first.corpus}; "
                "tell them apart by resolution, source, variant or where, or say overlap: first"
            )


def _problems(part: Part, plans: Mapping[str, Plan]) -> Iterator[str]:
    if part.corpus not in plans:
        yield f"there is no corpus {part.corpus!r} in the set; corpora are: {', '.join(plans)}"
        return
    plan = plans[part.corpus]
    for source in part.source:
        if source not in plan.recipe.sources:
            yield f"{part.corpus} has no source {source!r}; it has: {', '.join(plan.recipe.sources)}"
    for one in made(plan):
        if part.task == one.task and part.resolution in (None, one.resolution) and part.variant in (None, one.variant):
            return
    wanted = Made(part.task, part.resolution or 0, part.variant or "main")
    there = ", ".join(map(str, made(plan))) or "nothing; it packs no samples"
    yield f"{part.corpus} makes no {wanted}; it makes: {there}"


def _surely_overlap(one: Part, other: Part) -> bool:
    """Whether two parts match the same samples whatever the data: two different conditions are left to the data."""
    if (one.corpus, one.task) != (other.corpus, other.task):
        return False
    if one.source and other.source and not set(one.source) & set(other.source):
        return False
    for name in ("resolution", "variant"):
        first, second = getattr(one, name), getattr(other, name)
        if None not in (first, second) and first != second:
            return False
    return one.where is None or other.where is None or one.where == other.where
