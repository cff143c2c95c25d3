"""How records went through the nodes of a corpus, and every reason for which some left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.books import Book
from catalog.rules import parse

LOST = ("dropped", "duplicate", "quarantined", "undecided")
"""States of records that left for a reason."""


@dataclass(frozen=True)
class FunnelRow:
    """How records went through one node. `after` names its needs where it does not simply follow the row above."""

    node: str
    kind: str
    after: str
    inputs: int
    born: int
    passed: int
    dropped: int
    duplicate: int
    quarantined: int
    other: dict[str, int]
    missing: str | None


@dataclass(frozen=True)
class Reason:
    """One way to leave a node. `condition` is what was asked, `threshold` its numbers, `note` a branch taken."""

    node: str
    state: str
    reason: str
    count: int
    share: float
    """Of all records of the corpus."""
    share_of_node: float
    condition: str | None
    threshold: str | None
    note: str | None


def funnel(books: Sequence[Book], facts: Mapping[str, Any]) -> Iterator[FunnelRow]:
    """One row a node, in order."""
    before = ""
    for book in books:
        needs = facts[book.node]["needs"] if book.node in facts else []
        other = {s: n for s, n in sorted(book.counts.items()) if n and s not in ("passed", *LOST[:3])}
        yield FunnelRow(
            node=book.node,
            kind=book.kind,
            after="" if needs in ([before], []) else ", ".join(needs),
            inputs=book.inputs,
            born=book.born,
            passed=book.counts["passed"],
            dropped=book.counts["dropped"],
            duplicate=book.counts["duplicate"],
            quarantined=book.counts["quarantined"],
            other=other,
            missing=facts[book.node]["missing"] if book.node in facts else None,
        )
        before = book.node


def reasons(
    books: Sequence[Book], facts: Mapping[str, Any], recipe: Mapping[str, Any], records: int
) -> Iterator[Reason]:
    """Every rule, also those that nobody fails, and every other reason for which somebody left."""
    for book in books:
        node = recipe["nodes"].get(book.node, {})
        rules: Mapping[str, Any] = facts[book.node]["rules"] if book.node in facts else {}
        entered = max(1, book.inputs + book.born)
        left = {(state, reason): n for state in LOST for reason, n in book.reasons.get(state, Counter()).most_common()}
        rows = [("dropped", rule) for rule in rules]
        rows += [key for key in left if key not in rows]
        for state in LOST:
            unexplained = book.counts[state] - sum(n for (s, _), n in left.items() if s == state)
            if unexplained > 0:
                rows.append((state, ""))
                left[state, ""] = unexplained
        for state, reason in rows:
            count = left.get((state, reason), 0)
            asked = _asked(node, rules.get(reason), state, reason)
            yield Reason(
                book.node, state, reason, count, count / records, count / entered,
                asked.condition, asked.threshold, asked.note,
            )  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    condition: str | None = None
    threshold: str | None = None
    note: str | None = None


def _asked(node: Mapping[str, Any], rule: Mapping[str, Any] | None, state: str, reason: str) -> _Asked:
    """What lies behind a reason, as the recipe says it."""
    if rule is not None:
        return _of_rule(node, rule, reason)
    kind = node.get("decide")
    if kind == "route" and state == "dropped":
        condition = " OR ".join(node["routes"].values())
        return _Asked(condition, _thresholds(condition))
    if kind == "licence" and reason == "no licence":
        return _Asked(f"{node['field']} is stated")
    if kind == "licence":
        return _Asked(f"{node['field']} like {', '.join(node['allow'])}")
    if kind == "quota":
        return _of_quota(node, reason.removeprefix("quota "))
    return _of_duplicates(node, reason) if kind == "duplicates" else _Asked()


def _of_quota(node: Mapping[str, Any], stratum: str) -> _Asked:
    limit = node["limits"].get(stratum, node["default"])
    if limit is not None:
        return _Asked(f"at most {limit} records whose {node['by']} is {stratum}", f"<= {limit}")
    wanted = ", ".join(f"{share:.0%} {name}" for name, share in node["least"].items())
    return _Asked(f"room for {wanted} by {node['by']}: at most {node['most_cut']:.0%} of the others goes")


def _of_rule(node: Mapping[str, Any], rule: Mapping[str, Any], name: str) -> _Asked:
    original = node.get("rules", {}).get(name, {}).get("keep")
    if rule["branch"] == "skip":
        return _Asked(original, note="skipped: what it reads cannot be measured here")
    note = f"in place of {original}" if rule["branch"] == "else" else None
    return _Asked(rule["keep"], _thresholds(rule["keep"]), note)


def _of_duplicates(node: Mapping[str, Any], reason: str) -> _Asked:
    near = node["near"]
    if reason == "exact":
        by = node["exact"] if isinstance(node["exact"], str) else "bytes"
        return _Asked(f"the same {by} as a kept record")
    if reason == "placeholder":
        least = node["placeholder_sources"]
        return _Asked(f"one picture under {least} or more values of {node['placeholder_field']}", f">= {least}")
    if reason == "near" and near and "jaccard" in near:
        return _Asked(f"{near['column']} alike a kept record's", f">= {near['jaccard']:g} Jaccard, about")
    if reason == "near" and near and "cosine" in near:
        return _Asked(f"{near['column']} like a kept record's", f">= {near['cosine']:g} cosine")
    if reason == "near" and near:
        verified = f", and {near['verify']} agrees" if near["verify"] else ""
        condition = f"{near['column']} within {near['distance']} bits of a kept record{verified}"
        return _Asked(condition, f"<= {near['distance']} bits")
    return _Asked()


def _thresholds(condition: str) -> str | None:
    """The numbers in a condition, None where it has none."""
    atoms = parse(condition, "condition").atoms
    return ", ".join(f"{atom.op} {atom.literal:g}" for atom in atoms) or None


def branches(facts: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each node that could not run or did something else, and each rule that took its other branch."""
    for name, node in facts.items():
        if node["missing"]:
            yield f"node {name} did not run: {node['missing']}"
        if node.get("stands_in"):
            yield f"node {name}: {node['stands_in']}"
        for rule, said in node["rules"].items():
            original = recipe["nodes"].get(name, {}).get("rules", {}).get(rule, {}).get("keep", "it")
            if said["branch"] == "skip":
                yield f"rule {name}.{rule} was skipped: {original} could not be judged"
            elif said["branch"] == "else":
                yield f"rule {name}.{rule} judged by {said['keep']} in place of {original}"
