"""Records born on the way: from one record, or from a group of them."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from catalog import schemas
from catalog.keys import key_of
from pipeline.flow import Flow
from pipeline.plan import PlannedNode
from pipeline.recipe import MergeNode
from pipeline.worker import GROUP

_MEMBERS = "merge members"  # no field can have a name with a space in it


@dataclass(frozen=True)
class Born:
    """Rows for the records table and for the lineage table."""

    records: pl.DataFrame
    edges: pl.DataFrame


def group_members(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    """Members of groups of equal `by`, with the group's key: a hash of its members' keys. Null is no group."""
    members = frame.filter(pl.col(by).is_not_null()).sort("record_key")
    groups = members.group_by(by, maintain_order=True).agg(pl.col("record_key").alias(_MEMBERS))
    names = [key_of(b"group", *(key.encode() for key in keys)) for keys in groups[_MEMBERS]]
    named = groups.with_columns(pl.Series(GROUP, names, dtype=pl.String))
    return members.join(named.select(by, GROUP), on=by, how="inner")


def born_records(flow: Flow, node: PlannedNode) -> Born:
    """What a node bore from the records that enter it now. Everything born of one root shares its split group."""
    frames = []
    columns = ["record_key", "status", "children"]
    merges = isinstance(node.node, MergeNode)
    table = flow.outcome(node.name)
    entering = pl.concat([flow.entering(node.name, bucket) for bucket in flow.buckets]).alias("parent").to_frame()
    for bucket in flow.buckets:
        rows = table.read([*columns, "parents"] if merges else columns, bucket).filter(pl.col("status") == "ok")
        if not merges:
            rows = rows.with_columns(parents=pl.concat_list("record_key"))
        frames.append(rows.select("children", "parents", birth="record_key"))
    births = pl.concat(frames)
    # A birth counts only while every parent still enters the node; for groups, while the group is the same.
    parents = births.select("birth", parent="parents").explode("parent")
    strangers = parents.join(entering, on="parent", how="anti").select("birth").unique()
    births = births.join(strangers, on="birth", how="anti")
    if merges:
        births = births.join(_current_groups(flow, node), left_on="birth", right_on=GROUP, how="semi")
    children = births.explode("children").drop_nulls("children").unnest("children")
    edges = (
        children.select(
            "record_key",
            parent="parents",
            role="role",
            ordinal=pl.int_range(pl.len(), dtype=pl.Int32).over("birth"),
        )
        .explode("parent")
        .with_columns(node=pl.lit(node.name))
    )
    groups = _split_groups(flow)
    roots = edges.join(groups, left_on="parent", right_on="record_key", how="left")
    least = roots.group_by("record_key").agg(split_group=pl.col("split_group").min(), source=pl.col("source").min())
    records = children.join(least, on="record_key", how="left").select(
        "record_key",
        node=pl.lit(node.name),
        source="source",
        place=pl.lit(None, pl.String),
        split_group="split_group",
        fields="fields",
        media="media",
        reason=pl.lit(None, pl.String),
        message=pl.lit(None, pl.String),
    )
    return Born(records.select(schemas.RECORDS.names), edges.select(schemas.LINEAGE.names))


def _current_groups(flow: Flow, node: PlannedNode) -> pl.DataFrame:
    return merge_groups(flow, node).select(GROUP).unique()


def merge_groups(flow: Flow, node: PlannedNode) -> pl.DataFrame:
    """(record_key, GROUP) of the records that enter a merging node now; those of no group are absent."""
    from pipeline.operator import Merger

    assert node.runs is not None
    assert isinstance(node.runs.operator, Merger)
    by = node.runs.operator.group_by
    frames = [flow.frame(node.name, bucket, [by]) for bucket in flow.buckets]
    return group_members(pl.concat(frames), by).select("record_key", GROUP)


def _split_groups(flow: Flow) -> pl.DataFrame:
    return flow.records.read(["record_key", "split_group", "source"])
