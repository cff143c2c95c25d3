"""Running a decision node: what enters it comes from the flow, the judgement from the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from catalog import schemas
from catalog.decisions import (
    Duplicates,
    Licence,
    Quota,
    Route,
    Rules,
    Split,
    Verdicts,
    decide_licence,
    decide_quota,
    decide_route,
    decide_rules,
    decide_split,
)
from catalog.deduplicate import decide_duplicates
from catalog.keys import key_of
from pipeline.flow import Flow
from pipeline.plan import PlannedNode

if TYPE_CHECKING:
    from pipeline.curate import Run

DIGEST = "media_digest"
SAME = "same"
"""The column by which an operator that compares two pictures says that they show the same."""


class FlowInputs:
    """What enters a node, as decisions read it. `media_digest` is the digest of the medium with `role`, or of all."""

    def __init__(self, flow: Flow, name: str, role: str = "image") -> None:
        self._flow = flow
        self._name = name
        self._role = role
        self.buckets: Sequence[str] = flow.buckets

    def frame(self, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        """`record_key` and the named columns of one bucket, sorted by key."""
        plain = [column for column in columns if column != DIGEST]
        if len(plain) == len(columns):
            return self._flow.frame(self._name, bucket, plain)
        frame = self._flow.frame(self._name, bucket, [*plain, "media"])
        of_role = pl.col("media").list.eval(
            pl.element().filter(pl.element().struct.field("role") == self._role).struct.field("digest")
        )
        return frame.with_columns(_as_one(of_role).alias(DIGEST)).select("record_key", *columns)


def _as_one(digests: pl.Expr) -> pl.Expr:
    """The digests of a record's media of one role as one text: records are equal only if all of them are, in order."""
    known = digests.list.drop_nulls()
    return pl.when(known.list.len() > 0).then(known.list.join(" "))


class SplitInputs(FlowInputs):
    """What enters a split: groups that a merged record ties together count as one, by the least of their keys."""

    def __init__(self, flow: Flow, name: str) -> None:
        super().__init__(flow, name)
        edges = flow.store.lineage(flow.corpus).read(["record_key", "parent"])
        births = edges.filter(pl.col("record_key").is_duplicated())
        tied: dict[str, list[str]] = {}
        if births.height:
            groups = flow.records.read(["record_key", "split_group"]).rename({"record_key": "parent"})
            for child, group in births.join(groups, on="parent").select("record_key", "split_group").iter_rows():
                tied.setdefault(child, []).append(group)
        self._component = components(tied.values())

    def frame(self, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        """As above, with the component in place of each split group."""
        frame = super().frame(bucket, columns)
        return frame.with_columns(pl.col("split_group").replace(self._component)) if self._component else frame


def components(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """For keys that groups tie together, directly or through others, the least of them; the least is left out."""
    parent: dict[str, str] = {}

    def least(key: str) -> str:
        while (above := parent.get(key, key)) != key:
            parent[key] = parent.get(above, above)
            key = above
        return key

    for group in groups:
        roots = {least(key) for key in group}
        low = min(roots)
        for root in roots - {low}:
            parent[root] = low
    return {key: least(key) for key in parent}


def decide(run: Run, node: PlannedNode, advance: Callable[[int], None]) -> Verdicts:
    """The verdicts of a decision node, bucket by bucket."""
    decision = node.node
    inputs = FlowInputs(run.flow, node.name, decision.role if isinstance(decision, Duplicates) else "image")
    columns = sorted(node.reads)
    if isinstance(decision, Rules):
        rules = [(rule.name, rule.condition.sql, rule.on_null) for rule in node.rules if rule.condition is not None]
        verdicts = decide_rules(rules, inputs, columns)
    elif isinstance(decision, Route):
        verdicts = decide_route(decision, inputs, columns)
    elif isinstance(decision, Licence):
        verdicts = decide_licence(decision, inputs)
    elif isinstance(decision, Split):
        verdicts = decide_split(decision, SplitInputs(run.flow, node.name))
    elif isinstance(decision, Quota):
        verdicts = decide_quota(decision, inputs)
    else:
        assert isinstance(decision, Duplicates)
        comparison = Comparison(run, node) if node.verify is not None else None
        told = run.flow.verdicts(node.name).schema.names
        columns = [column for column in columns if column in told]
        verdicts = _with_values(decide_duplicates(decision, inputs, DIGEST, comparison), inputs, columns)
    for bucket, frame in verdicts:
        advance(frame.height)
        yield bucket, frame


def _with_values(verdicts: Verdicts, inputs: FlowInputs, columns: Sequence[str]) -> Verdicts:
    """The values a global decision read, beside its verdicts."""
    values = [column for column in columns if column not in schemas.VERDICT.names]
    for bucket, frame in verdicts:
        read = inputs.frame(bucket, values)
        yield bucket, frame.join(read, on="record_key", how="left", maintain_order="left")


class Comparison:
    """Compares pairs of records by an operator whose outcomes are kept under the digests of the two pictures."""

    def __init__(self, run: Run, node: PlannedNode) -> None:
        assert node.verify is not None
        assert isinstance(node.node, Duplicates)
        self._run = run
        self._name = node.name
        self._verify = node.verify
        self._role = node.node.role
        self._adopted = False

    def __call__(self, one: pl.Series, two: pl.Series) -> NDArray[np.bool_]:
        """Whether each pair of record keys shows the same picture; a pair that cannot be compared does not."""
        media = self._media(pl.concat([one, two]).unique().sort())
        pairs = (
            pl.DataFrame({"one": one, "two": two})
            .join(media.rename({"record_key": "one", "ref": "ref_one"}), on="one", how="left", maintain_order="left")
            .join(media.rename({"record_key": "two", "ref": "ref_two"}), on="two", how="left", maintain_order="left")
        )
        rows: list[dict[str, object]] = []
        keys = []
        for first, second in pairs.select("ref_one", "ref_two").iter_rows():
            a, b = sorted((first, second), key=lambda ref: ref["digest"])
            key = key_of(b"pair", a["digest"].encode(), b["digest"].encode())
            keys.append(key)
            rows.append({"record_key": key, "media": [{**a, "role": "a"}, {**b, "role": "b"}], "fields": b"{}"})
        self._compare(rows)
        table = self._run.flow.outcome_table(self._verify)
        known = table.read(["record_key", SAME])
        found = pl.DataFrame({"record_key": keys}).join(known, on="record_key", how="left", maintain_order="left")
        return found[SAME].fill_null(value=False).to_numpy()

    def _media(self, keys: pl.Series) -> pl.DataFrame:
        wanted = keys.alias("record_key").to_frame()
        frames = []
        for bucket in self._run.flow.buckets:
            here = wanted.filter(pl.col("record_key").str.starts_with(bucket))
            if here.height:
                records = self._run.flow.records.scan(["record_key", "media"], bucket)
                frames.append(records.join(here.lazy(), on="record_key", how="semi").collect())
        media = pl.concat(frames).explode("media").unnest("media").filter(pl.col("role") == self._role)
        first = media.unique("record_key", keep="first", maintain_order=True)
        return first.select("record_key", ref=pl.struct(pl.exclude("record_key")))

    def _compare(self, rows: list[dict[str, object]]) -> None:
        run, verify = self._run, self._verify
        table = run.flow.outcome_table(verify)
        if not self._adopted:
            run.adopt(self._name, table)
            self._adopted = True
        done = set(table.read(["record_key"]).to_series())
        unique = {str(row["record_key"]): row for row in rows if row["record_key"] not in done}
        schema = pa.schema([("record_key", pa.string()), ("media", schemas.MEDIA), ("fields", pa.binary())])

        def buckets() -> Iterator[tuple[str, pa.Table]]:
            for bucket in run.flow.buckets:
                mine = [unique[key] for key in sorted(unique) if key.startswith(bucket)]
                if mine:
                    yield bucket, pa.Table.from_pylist(mine, schema=schema)

        run.operate(self._name, verify, None, len(unique), buckets())
