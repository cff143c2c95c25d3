"""A recipe: a typed YAML DAG of named nodes that turns sources into shards of one corpus."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator

from catalog.decisions import AnyDecision, Split
from catalog.errors import UserError
from pipeline.sources.source import SourceConfig

NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
INGEST = "ingest"


class Node(BaseModel):
    """What every node has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: tuple[str, ...] = ()


class OperatorNode(Node):
    """A node that runs an operator over its records.

    `requires` names a parameter without which the operator cannot run: null (no checkpoint, say), or the column of a
    node that cannot run itself. Rules on its columns then take their `else`. `network` allows it to talk to other
    machines. `time_limit` is in seconds a record, `batch` in records a unit.
    """

    params: dict[str, Any] = Field(default_factory=dict)
    requires: str | None = None
    network: bool = False
    time_limit: float | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    error_budget: float | None = Field(default=None, ge=0, le=1)


class MeasureNode(OperatorNode):
    """Writes columns, never drops."""

    measure: str

    @property
    def op(self) -> str:
        """The operator's name."""
        return self.measure


class AnnotateNode(OperatorNode):
    """Writes text a model wrote; answers are stored and never asked twice."""

    annotate: str

    @property
    def op(self) -> str:
        """The operator's name."""
        return self.annotate


class ExpandNode(OperatorNode):
    """Turns one record into several."""

    expand: str

    @property
    def op(self) -> str:
        """The operator's name."""
        return self.expand


class MergeNode(OperatorNode):
    """Turns a group of records into one."""

    merge: str

    @property
    def op(self) -> str:
        """The operator's name."""
        return self.merge


class EncodeNode(OperatorNode):
    """Turns records into token sequences of one task."""

    encode: str

    @property
    def op(self) -> str:
        """The operator's name."""
        return "encode"


class PackNode(Node):
    """Writes the sequences of its needs into shards. `shard_samples` is what a shard should hold, about."""

    pack: Literal["webdataset"]
    shard_samples: int = Field(default=1000, ge=1)


_VERBS = ("measure", "decide", "annotate", "expand", "merge", "encode", "pack")
_OPERATOR_VERBS = ("measure", "annotate", "expand", "merge", "encode")


def _verb(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((verb for verb in _VERBS if verb in value), None)
    return next((verb for verb in _VERBS if hasattr(value, verb)), None)


AnyNode = Annotated[
    Annotated[MeasureNode, Tag("measure")]
    | Annotated[AnyDecision, Tag("decide")]
    | Annotated[AnnotateNode, Tag("annotate")]
    | Annotated[ExpandNode, Tag("expand")]
    | Annotated[MergeNode, Tag("merge")]
    | Annotated[EncodeNode, Tag("encode")]
    | Annotated[PackNode, Tag("pack")],
    Discriminator(_verb, custom_error_type="verb", custom_error_message="needs one of " + ", ".join(_VERBS)),
]


class Recipe(BaseModel):
    """Sources and nodes of one corpus. `error_budget` is the share of a node's records that may be quarantined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    corpus: str
    about: str = ""
    error_budget: float = Field(default=0.5, ge=0, le=1)
    sources: dict[str, SourceConfig] = Field(min_length=1)
    nodes: dict[str, AnyNode] = Field(min_length=1)

    @field_validator("corpus")
    @classmethod
    def _corpus_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"{value!r}: write a lower-case name of letters, digits and _")
        return value

    @field_validator("sources", "nodes")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not NAME.match(name) or name == INGEST:
                raise ValueError(f"{name!r}: write a lower-case name of letters, digits and _ (not {INGEST!r})")
        return value

    @cached_property
    def order(self) -> list[str]:
        """Node names so that needs come first and splits late, otherwise as written.

        A split must know of every birth that ties records together. Raises UserError for cycles and unknown needs.
        """
        done: list[str] = []
        waiting = list(self.nodes)
        for name, node in self.nodes.items():
            for need in node.needs:
                if need.partition(".")[0] not in self.nodes:
                    known = ", ".join(self.nodes)
                    raise UserError(f"nodes.{name}.needs: there is no node {need!r}; nodes are: {known}")
        while waiting:
            able = [name for name in waiting if all(dep(need) in done for need in self.nodes[name].needs)]
            if not able:
                raise UserError(f"nodes: {', '.join(waiting)} need each other in a circle")
            ready = next((name for name in able if not isinstance(self.nodes[name], Split)), able[0])
            done.append(ready)
            waiting.remove(ready)
        return done

    def ancestors(self, name: str) -> set[str]:
        """Every node above one, itself not included."""
        found: set[str] = set()
        waiting = [dep(need) for need in self.nodes[name].needs]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += [dep(need) for need in self.nodes[node].needs]
        return found

    @property
    def sinks(self) -> list[str]:
        """Nodes nobody needs, in order: what comes through one is kept."""
        needed = {dep(need) for node in self.nodes.values() for need in node.needs}
        return [name for name in self.order if name not in needed]


def dep(need: str) -> str:
    """The node a need names: `resolution` of `resolution.r512`."""
    return need.partition(".")[0]


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, which plain YAML silently overrides."""


_MERGE = "tag:yaml.org,2002:merge"


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            continue  # refused below, with its place
        if key in seen:
            mark = key_node.start_mark
            raise UserError(f"{mark.name}:{mark.line + 1}: {key!r} is written twice")
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_recipe(path: Path, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Read and validate a recipe file; `settings` are `node.param` values that override it. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        data = _parse(text, str(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{line}: not YAML: {problem}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a recipe is a mapping with version, corpus, sources and nodes")
    for name, value in (settings or {}).items():
        _set(data, name, value)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from None
    try:
        _ = recipe.order
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return recipe


def _parse(text: str, name: str) -> Any:
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _set(data: dict[str, Any], name: str, value: Any) -> None:
    node, _, param = name.partition(".")
    nodes = data.get("nodes")
    if not param or not isinstance(nodes, dict) or not isinstance(nodes.get(node), dict):
        raise UserError(f"--set {name}: write --set NODE.PARAM=VALUE with a node of the recipe")
    if not set(_OPERATOR_VERBS) & nodes[node].keys():
        raise UserError(f"--set {name}: {node!r} runs no operator and has no params; change the recipe")
    params = nodes[node].get("params")
    nodes[node]["params"] = {**(params if isinstance(params, dict) else {}), param: value}


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    place = ".".join(_place(first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if first["type"] == "extra_forbidden":
        message = "is not a known name here"
    elif first["type"] == "missing":
        message = "is missing"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {message}{more}"


def _place(loc: tuple[int | str, ...]) -> list[str]:
    """Where in the recipe, without the tags by which pydantic names the kinds of nodes, decisions and sources."""
    parts = [str(part) for part in loc]
    tags = 0
    if parts[:1] == ["sources"]:
        tags = 1
    elif parts[:1] == ["nodes"]:
        tags = 2 if parts[2:3] == ["decide"] else 1
    rest = parts[2 + tags :]
    if tags == 2 and rest[:1] == ["near"]:
        rest = rest[:1] + rest[2:]
    return parts[:2] + rest


def operator_nodes(recipe: Recipe) -> Iterator[tuple[str, OperatorNode]]:
    """Nodes that run an operator, in order."""
    for name in recipe.order:
        node = recipe.nodes[name]
        if isinstance(node, OperatorNode):
            yield name, node
