"""Closing the books: where every record of a bucket went, node by node and in the end."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from catalog import schemas
from catalog.books import Book
from catalog.decisions import Decision
from pipeline.born import merge_groups
from pipeline.flow import Flow
from pipeline.plan import PlannedNode
from pipeline.recipe import INGEST, ExpandNode, MergeNode, PackNode
from pipeline.worker import GROUP

_LEFT = ["record_key", "state", "reason", "message"]


@dataclass(frozen=True)
class Here:
    """How many records of a bucket came from the sources and how many were born."""

    inputs: int
    born: int


class Closing:
    """Final states of one corpus, bucket by bucket, and the books on the way."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        plan = flow.plan
        self.books = {INGEST: Book(INGEST, "source")} | {
            name: Book(name, plan.nodes[name].kind) for name in plan.recipe.order
        }
        self._merged = {
            name: self._merge_states(plan.nodes[name])
            for name in plan.recipe.order
            if isinstance(plan.recipe.nodes[name], MergeNode)
        }

    def bucket(self, bucket: str) -> tuple[pl.DataFrame, Here]:
        """Rows of schemas.STATES for every record of a bucket."""
        flow = self._flow
        records = flow.records.read(["record_key", "node", "reason", "message"], bucket)
        at_the_door = records.filter(pl.col("node") == INGEST).with_columns(
            state=pl.when(pl.col("reason").is_null()).then(pl.lit("passed")).otherwise(pl.lit("quarantined"))
        )
        self.books[INGEST].inputs += at_the_door.height
        self.books[INGEST].add(at_the_door)
        left = [_leaving(at_the_door.select(_LEFT), INGEST)]
        for name in flow.plan.recipe.order:
            node = flow.plan.nodes[name]
            entering = flow.entering(name, bucket)
            states = self._states(node, bucket, entering)
            born = records.filter(pl.col("node") == name)
            book = self.books[name]
            book.inputs += len(entering)
            book.born += born.height
            book.add(states)
            book.counts["passed"] += born.height
            left.append(_leaving(states, name))
        kept = pl.concat([self._kept(sink, bucket) for sink in flow.plan.recipe.sinks])
        final = pl.concat([kept, *left]).unique("record_key", keep="first", maintain_order=True)
        # Records in no population (their route leads nowhere, say) would be missing here and fail the books.
        states_now = final.select(schemas.STATES.names).sort("record_key")
        inputs = at_the_door.height
        return states_now, Here(inputs, records.height - inputs)

    def _kept(self, sink: str, bucket: str) -> pl.DataFrame:
        keys = self._flow.passed(sink, bucket)
        return (
            keys.alias("record_key")
            .to_frame()
            .select(
                "record_key",
                state=pl.lit("kept"),
                reason=pl.lit(None, pl.String),
                message=pl.lit(None, pl.String),
                node=pl.lit(sink),
            )
        )

    def _states(self, node: PlannedNode, bucket: str, entering: pl.Series) -> pl.DataFrame:
        """How every record that entered a node left it."""
        keys = entering.alias("record_key").to_frame()
        nothing = {"reason": pl.lit(None, pl.String), "message": pl.lit(None, pl.String)}
        if isinstance(node.node, PackNode) or node.missing is not None:
            return keys.with_columns(state=pl.lit("passed"), **nothing).select(_LEFT)
        if isinstance(node.node, Decision):
            verdicts = self._flow.verdicts(node.name).read(["record_key", "state", "reason"], bucket)
            found = keys.join(verdicts, on="record_key", how="inner")
            return found.with_columns(message=pl.lit(None, pl.String)).select(_LEFT)
        if isinstance(node.node, MergeNode):
            return (
                keys.join(self._merged[node.name], on="record_key", how="left")
                .with_columns(
                    # A record of no group stays outside: it is neither merged nor lost.
                    state=pl.col("state").fill_null("dropped"),
                    reason=pl.when(pl.col("state").is_null()).then(pl.lit("no group")).otherwise("reason"),
                )
                .select(_LEFT)
            )
        done = "expanded" if isinstance(node.node, ExpandNode) else "passed"
        outcome = self._flow.outcome(node.name).read(["record_key", "status", "reason", "message"], bucket)
        found = keys.join(outcome, on="record_key", how="inner")
        state = pl.when(pl.col("status") == "ok").then(pl.lit(done)).otherwise(pl.lit("quarantined"))
        return found.with_columns(state=state).select(_LEFT)

    def _merge_states(self, node: PlannedNode) -> pl.DataFrame:
        groups = merge_groups(self._flow, node)
        outcome = self._flow.outcome(node.name).read(["record_key", "status", "reason", "message"])
        found = groups.join(outcome.rename({"record_key": GROUP}), on=GROUP, how="inner")
        state = pl.when(pl.col("status") == "ok").then(pl.lit("merged")).otherwise(pl.lit("quarantined"))
        return found.with_columns(state=state).select(_LEFT)


def _leaving(states: pl.DataFrame, node: str) -> pl.DataFrame:
    return states.filter(pl.col("state") != "passed").with_columns(node=pl.lit(node))
