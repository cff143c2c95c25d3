"""What a recipe comes to, worked out without touching data: operators, fingerprints, columns, rules, branches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pydantic import ValidationError

from catalog import schemas
from catalog.columns import Column
from catalog.decisions import Decision, Duplicates, Licence, Near, NearEmbeddings, NearTexts, Quota, Route, Rules, Split
from catalog.errors import UserError
from catalog.keys import fingerprint
from catalog.rules import SKIP, Condition, OnNull, check_ranges, check_types, parse
from pipeline.operator import Expander, Measure, Merger, Operator, load_operator
from pipeline.recipe import (
    INGEST,
    AnyNode,
    EncodeNode,
    ExpandNode,
    MergeNode,
    OperatorNode,
    PackNode,
    Recipe,
    dep,
)

RECORD_COLUMNS = {
    "source": Column("source", pa.string(), "name of the source"),
    "split_group": Column("split_group", pa.string(), "key of the root the record comes from"),
}

OWN_NAMES = frozenset({*schemas.RECORDS.names, *schemas.OUTCOME.names, *schemas.VERDICT.names})
"""Columns the tables of the catalog have themselves; a field or measure of that name could not be told from them."""


@dataclass(frozen=True)
class PlannedOperator:
    """An operator with validated parameters and the fingerprint under which its outcomes are cached."""

    op: str
    params: dict[str, Any]
    operator: Operator
    fingerprint: str

    @property
    def table(self) -> str:
        """The name of its outcome table."""
        slug = re.sub(r"[^a-z0-9]+", "_", self.op.lower()).strip("_")
        return f"outcomes/{slug}-{self.fingerprint[:12]}"


@dataclass(frozen=True)
class PlannedRule:
    """A rule with its missing-model branch taken; `condition` is None when it is skipped."""

    name: str
    condition: Condition | None
    on_null: OnNull
    branch: str
    """`keep`, `else` or `skip`: which text of the rule counts."""


@dataclass(frozen=True)
class PlannedNode:
    """One node, ready to run. `reads` maps the columns it reads to the nodes that write them (`ingest`: the record)."""

    name: str
    node: AnyNode
    kind: str
    fingerprint: str
    reads: dict[str, str] = field(default_factory=dict)
    runs: PlannedOperator | None = None
    verify: PlannedOperator | None = None
    rules: tuple[PlannedRule, ...] = ()
    missing: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A resolved recipe."""

    recipe: Recipe
    nodes: dict[str, PlannedNode]

    @property
    def fingerprint(self) -> str:
        """What decides the corpus, apart from the data."""
        sources = {name: source.model_dump(mode="json") for name, source in self.recipe.sources.items()}
        return fingerprint({"sources": sources, "nodes": {n: p.fingerprint for n, p in self.nodes.items()}})

    def columns(self, name: str) -> dict[str, tuple[str, Column]]:
        """Columns a node may read: name -> (node that writes it, contract). Birth hides what lies above it."""
        return _visible(self.recipe, name, self.nodes)


def resolve(recipe: Recipe, place: str) -> Plan:
    """Work a recipe out; raises UserError with `place` and the node for whatever cannot be right."""
    planned: dict[str, PlannedNode] = {}
    try:
        for source_name, source in recipe.sources.items():
            for mapped in (*source.map, *source.const):
                if mapped in OWN_NAMES:
                    raise UserError(
                        f"sources.{source_name}: {mapped!r} is a name of the catalog's own; map it to another"
                    )
        for name in recipe.order:
            planned[name] = _resolve_node(recipe, name, planned)
        _check_routes(recipe)
        _check_packing(recipe)
        _check_births(recipe)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return Plan(recipe, planned)


def _check_births(recipe: Recipe) -> None:
    for name, node in recipe.nodes.items():
        if isinstance(node, (ExpandNode, MergeNode)):
            above = recipe.ancestors(name)
            split = next((n for n in recipe.order if n in above and isinstance(recipe.nodes[n], Split)), None)
            if split is not None:
                raise UserError(
                    f"nodes.{name}: bears records below nodes.{split}, which gives them no split; split below it"
                )


def _check_packing(recipe: Recipe) -> None:
    packing = [name for name in recipe.order if isinstance(recipe.nodes[name], PackNode)]
    if len(packing) > 1:
        raise UserError(f"nodes.{packing[1]}: {packing[0]} packs already; let it need more encode nodes")
    for name in packing:
        seen: dict[tuple[Any, ...], str] = {}
        for need in recipe.nodes[name].needs:
            encode = recipe.nodes[dep(need)]
            assert isinstance(encode, EncodeNode)
            params = encode.params
            made = (encode.encode, params.get("resolution", 0), params.get("variant", "main"))
            other = seen.setdefault(made, need)
            if other != need and not _apart(recipe, need, other):
                raise UserError(
                    f"nodes.{need}: makes the samples that {other} makes: same task, resolution and variant; "
                    "give one of them a `variant`"
                )


def _needs_both(recipe: Recipe, name: str, route_node: str) -> bool:
    """Whether two needs of a node admit different routes of one node, so that no record passes both."""
    admitted = []
    for need in recipe.nodes[name].needs:
        above, _, route = need.partition(".")
        own = {route} if above == route_node and route else _routes_above(recipe, above).get(route_node)
        if own is not None:
            admitted.append(own)
    return any(not (one & two) for one in admitted for two in admitted)


def _routes_above(recipe: Recipe, name: str) -> dict[str, set[str]]:
    """Per route node the routes by which records come to a node."""
    found: dict[str, set[str]] = {}
    for node in [name, *recipe.ancestors(name)]:
        for need in recipe.nodes[node].needs:
            above, _, route = need.partition(".")
            if route:
                found.setdefault(above, set()).add(route)
    return found


def _apart(recipe: Recipe, one: str, two: str) -> bool:
    """Whether no record can come to both nodes: they lie below different routes of one node."""
    left, right = _routes_above(recipe, one), _routes_above(recipe, two)
    return any(not (left[node] & right[node]) for node in left.keys() & right.keys())


def _check_routes(recipe: Recipe) -> None:
    """Records that take a route nobody needs, or need two routes at once, would be neither kept nor dropped."""
    for name, node in recipe.nodes.items():
        for above, routes in _routes_above(recipe, name).items():
            if len(routes) > 1 and not isinstance(node, PackNode) and _needs_both(recipe, name, above):
                both = " and ".join(sorted(routes))
                raise UserError(f"nodes.{name}.needs: no record takes {both} of {above} at once")
    needed = {need for node in recipe.nodes.values() for need in node.needs}
    for name, node in recipe.nodes.items():
        if isinstance(node, Route) and name not in needed and name not in recipe.sinks:
            for route in node.routes:
                if f"{name}.{route}" not in needed:
                    raise UserError(f"nodes.{name}.routes.{route}: leads nowhere: no node needs {name}.{route}")


def _resolve_node(recipe: Recipe, name: str, planned: dict[str, PlannedNode]) -> PlannedNode:
    node = recipe.nodes[name]
    for need in node.needs:
        above, _, route = need.partition(".")
        target = recipe.nodes[above]
        if isinstance(target, PackNode):
            raise UserError(f"nodes.{name}.needs: {above!r} packs; nothing comes after packing")
        if route and not (isinstance(target, Route) and route in target.routes):
            raise UserError(f"nodes.{name}.needs: {above!r} has no route {route!r}")
    if isinstance(node, PackNode):
        for need in node.needs:
            if not isinstance(recipe.nodes[dep(need)], EncodeNode):
                raise UserError(f"nodes.{name}.needs: {need!r} is not an encode node")
        if not node.needs:
            raise UserError(f"nodes.{name}.needs: packing needs an encode node")
        upstream = [planned[dep(need)].fingerprint for need in node.needs]
        return PlannedNode(name, node, "pack", fingerprint([node.model_dump(mode="json"), upstream]))
    visible = _visible(recipe, name, planned)
    if isinstance(node, OperatorNode):
        resolved = _resolve_operator_node(name, node, planned, visible)
        if resolved.runs is not None and resolved.runs.operator.needs_network and not node.network:
            raise UserError(f"nodes.{name}: {resolved.runs.op} uses the network; write `network: true` at the node")
        return resolved
    assert isinstance(node, Decision)
    return _resolve_decision(name, node, planned, visible)


def _visible(recipe: Recipe, name: str, planned: Mapping[str, PlannedNode]) -> dict[str, tuple[str, Column]]:
    found = {column: (INGEST, contract) for column, contract in RECORD_COLUMNS.items()}
    for source in recipe.sources.values():
        for mapped in (*source.map, *source.const):
            kind = pa.float64() if source.types.get(mapped) in ("int", "float") else pa.string()
            found.setdefault(mapped, (INGEST, Column(mapped, kind, f"field {mapped} of the source")))
    waiting = [dep(need) for need in recipe.nodes[name].needs]
    seen: set[str] = set()
    written: dict[str, tuple[str, Column]] = {}
    while waiting:
        above = waiting.pop()
        if above in seen:
            continue
        seen.add(above)
        plan = planned[above]
        if plan.runs is not None and isinstance(plan.runs.operator, Measure):
            for column in plan.runs.operator.columns:
                written[column.name] = (above, column)
        if plan.runs is not None and isinstance(plan.runs.operator, (Expander, Merger)):
            continue
        waiting += [dep(need) for need in recipe.nodes[above].needs]
    return {**found, **written}


def plan_operator(
    name: str,
    op: str,
    params: dict[str, Any],
    planned: Mapping[str, PlannedNode],
    visible: Mapping[str, tuple[str, Column]],
) -> tuple[PlannedOperator, dict[str, str]]:
    """Build an operator for a node; returns it with the columns it reads. Raises UserError."""
    try:
        kind = load_operator(op)
    except UserError as error:
        raise UserError(f"nodes.{name}: {error}") from None
    try:
        operator = kind.build(params)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["nodes", name, "params", *(str(part) for part in first["loc"])])
        what = "is not a parameter of " + op if first["type"] == "extra_forbidden" else first["msg"]
        if first["type"] == "missing":
            what = "is missing"
        raise UserError(f"{where}: {what.removeprefix('Value error, ')}") from None
    reads: dict[str, str] = {}
    for column in operator.reads:
        if column not in visible:
            raise UserError(f"nodes.{name}: {op} reads {column!r}, which no node above writes")
        reads[column] = visible[column][0]
    upstream = {column: planned[above].fingerprint for column, above in reads.items() if above != INGEST}
    parts = {
        "op": op,
        "version": kind.version,
        "params": operator.params.model_dump(mode="json"),
        "parts": operator.fingerprint_parts(),
        "upstream": upstream,
    }
    return PlannedOperator(op, params, operator, fingerprint(parts)), reads


def _resolve_operator_node(
    name: str,
    node: OperatorNode,
    planned: Mapping[str, PlannedNode],
    visible: Mapping[str, tuple[str, Column]],
) -> PlannedNode:
    verb = next(verb for verb in ("measure", "annotate", "encode", "expand", "merge") if hasattr(node, verb))
    params = dict(node.params)
    if isinstance(node, EncodeNode):
        params["task"] = node.encode
    op: str = node.op  # type: ignore[attr-defined]
    if node.requires is not None and params.get(node.requires) is None:
        missing = f"no {node.requires} given"
        params = {key: value for key, value in params.items() if value is not None}
    else:
        missing = None
    runs, reads = plan_operator(name, op, params, planned, visible)
    expected: type[Operator] = {"expand": Expander, "merge": Merger}.get(verb, Measure)
    if not isinstance(runs.operator, expected):
        kinds: tuple[type[Operator], ...] = (Measure, Expander, Merger)
        kind = next(kind for kind in kinds if isinstance(runs.operator, kind))
        raise UserError(f"nodes.{name}: {op} cannot {verb}; it is a {kind.__name__.lower()}")
    if isinstance(runs.operator, Merger) and runs.operator.group_by not in visible:
        raise UserError(f"nodes.{name}: {op} groups by {runs.operator.group_by!r}, which no node above writes")
    if isinstance(runs.operator, Merger):
        reads[runs.operator.group_by] = visible[runs.operator.group_by][0]
    if isinstance(runs.operator, Measure):
        for column in runs.operator.columns:
            if column.name in OWN_NAMES:
                raise UserError(f"nodes.{name}: {op} writes {column.name!r}, which is a name of the catalog's own")
            other = visible.get(column.name)
            if other is not None and other[0] != INGEST:
                raise UserError(f"nodes.{name}: writes {column.name!r}, which {other[0]} writes already")
    stands_in = runs.operator.stands_in
    missing = runs.operator.missing or (missing if stands_in is None else None)
    if missing is not None and node.requires is None:
        raise UserError(f"nodes.{name}: {op} cannot run: {missing}; write `requires:` if rules have an `else`")
    for read, above in reads.items():
        if missing is None and above != INGEST and planned[above].missing is not None:
            missing = f"{read!r} of {above} is missing ({planned[above].missing})"
            if node.requires is None or getattr(runs.operator.params, node.requires, None) != read:
                raise UserError(f"nodes.{name}: reads {read!r} of {above}, which cannot run: {planned[above].missing}")
    return PlannedNode(
        name,
        cast("AnyNode", node),
        verb,
        runs.fingerprint,
        reads,
        runs=runs,
        missing=missing,
        notes=() if stands_in is None else (f"nodes.{name}: {stands_in}",),
    )


def _resolve_decision(
    name: str, node: Decision, planned: Mapping[str, PlannedNode], visible: Mapping[str, tuple[str, Column]]
) -> PlannedNode:
    reads: dict[str, str] = {}
    notes: list[str] = []
    rules: list[PlannedRule] = []
    verify = None
    contracts = {column: contract for column, (_, contract) in visible.items()}

    def need(column: str, where: str) -> None:
        if column not in visible:
            known = ", ".join(sorted(visible))
            raise UserError(f"{where}: no node above writes {column!r}; there are: {known}")
        above = visible[column][0]
        if above != INGEST and planned[above].missing is not None:
            raise UserError(f"{where}: {column!r} of {above} is missing ({planned[above].missing})")
        reads[column] = above

    def fitting(sql: str, where: str) -> Condition:
        parsed = parse(sql, where)
        check_types(parsed, contracts, where)
        check_ranges(parsed, contracts, where)
        return parsed

    def condition(sql: str, where: str) -> Condition:
        for column in parse(sql, where).columns:
            need(column, where)
        parsed = fitting(sql, where)
        if not parsed.checked:
            notes.append(f"{where}: not range-checked: {sql}")
        return parsed

    if isinstance(node, Rules):
        for rule_name, rule in node.rules.items():
            where = f"nodes.{name}.rules.{rule_name}"
            lacking = _lacking(parse(rule.keep, where).columns, planned, visible)
            if lacking is None:
                rules.append(PlannedRule(rule_name, condition(rule.keep, where), rule.on_null, "keep"))
                continue
            # A threshold on the wrong scale shall show before the model is there.
            for column in parse(rule.keep, where).columns:
                if column not in visible:
                    need(column, where)
            fitting(rule.keep, where)
            if rule.otherwise is None:
                raise UserError(f"{where}: {lacking}; name an `else:` rule on other columns, or `else: skip`")
            if rule.otherwise == SKIP:
                rules.append(PlannedRule(rule_name, None, rule.on_null, "skip"))
                notes.append(f"{where}: skipped: {lacking}")
            else:
                rules.append(PlannedRule(rule_name, condition(rule.otherwise, where), rule.on_null, "else"))
                notes.append(f"{where}: uses else `{rule.otherwise}`: {lacking}")
    elif isinstance(node, Route):
        for route, sql in node.routes.items():
            condition(sql, f"nodes.{name}.routes.{route}")
    elif isinstance(node, Licence):
        need(node.field, f"nodes.{name}.field")
    elif isinstance(node, Quota):
        need(node.by, f"nodes.{name}.by")
    elif isinstance(node, Duplicates):
        for item in node.order:
            need(item.split()[0], f"nodes.{name}.order")
        if node.placeholder_sources is not None:
            need(node.placeholder_field, f"nodes.{name}.placeholder_field")
        if isinstance(node.exact, str):
            need(node.exact, f"nodes.{name}.exact")
        if node.near is not None and node.otherwise == SKIP:
            lacking = _lacking(node.near.columns, planned, visible)
            if lacking is not None:
                node = node.model_copy(update={"near": None})
                rules.append(PlannedRule("near", None, "undecided", "skip"))
                notes.append(f"nodes.{name}.near: skipped: {lacking}")
        if node.near is not None:
            for column in node.near.columns:
                need(column, f"nodes.{name}.near")
                if isinstance(node.near, NearTexts) and not pa.types.is_list(contracts[column].type):
                    kind = contracts[column].type
                    raise UserError(
                        f"nodes.{name}.near: {column!r} is {kind}, no signature; `measure: minhash` writes one"
                    )
                if isinstance(node.near, NearEmbeddings) and not pa.types.is_binary(contracts[column].type):
                    kind = contracts[column].type
                    raise UserError(
                        f"nodes.{name}.near: {column!r} is {kind}, no embedding; `measure: embedding` writes one"
                    )
            if isinstance(node.near, Near) and node.near.verify is not None:
                verify, _ = plan_operator(name, node.near.verify, {}, planned, {})
    else:
        assert isinstance(node, Split)
    parts = {
        "decision": node.model_dump(mode="json"),
        "branches": [rule.branch for rule in rules],
        "upstream": {column: planned[above].fingerprint for column, above in reads.items() if above != INGEST},
        "verify": verify.fingerprint if verify else None,
    }
    return PlannedNode(
        name, node, "decide", fingerprint(parts), reads, verify=verify, rules=tuple(rules), notes=tuple(notes)
    )


def _lacking(
    columns: Iterable[str], planned: Mapping[str, PlannedNode], visible: Mapping[str, tuple[str, Column]]
) -> str | None:
    """Why one of the columns cannot be measured here, None when all can."""
    for column in columns:
        above = visible.get(column, (INGEST, None))[0]
        if above != INGEST and planned[above].missing is not None:
            return f"{column} of {above} is missing ({planned[above].missing})"
    return None


def check_operators(plan: Plan, done: Callable[[PlannedOperator], bool] = lambda runs: False) -> None:
    """Raise UserError for an operator that would fail here on every record: a package, a checkpoint.

    Operators that `done` says have run under this fingerprint are passed over.
    """
    for name, node in plan.nodes.items():
        if node.runs is not None and node.missing is None and not done(node.runs):
            try:
                node.runs.operator.check()
            except UserError as error:
                raise UserError(f"nodes.{name}: {error}") from None


def check_sources(recipe: Recipe, root: Path) -> None:
    """Raise UserError if a source is plainly unusable; reads next to nothing."""
    if not root.is_dir():
        raise UserError(f"--root {root}: is not a folder")
    for name, source in recipe.sources.items():
        try:
            source.check(root)
        except UserError as error:
            raise UserError(f"sources.{name}: {error}") from None
