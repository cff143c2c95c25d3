"""A run: ingest, every node in order, books, and the snapshot that makes it all visible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
import polars as pl
import pyarrow as pa

from catalog import schemas
from catalog.books import Book, check_all
from catalog.datafile import DataFile
from catalog.decisions import Decision
from catalog.errors import UserError
from catalog.keys import canonical, key_of
from catalog.store import Store
from catalog.tables import Table
from pipeline.born import born_records, group_members
from pipeline.closing import Closing
from pipeline.decide import decide
from pipeline.engine import Engine, NodeTiming, UnitCutter, run_node
from pipeline.flow import Flow
from pipeline.ingest import ingest
from pipeline.operator import Measure, Merger
from pipeline.pack import card_names, current_card, pack
from pipeline.plan import Plan, PlannedNode, PlannedOperator, check_operators
from pipeline.recipe import INGEST, ExpandNode, MergeNode, OperatorNode, PackNode
from pipeline.worker import GROUP, Task, outcome_schema


class Progress(Protocol):
    """Shows how far a run is."""

    def start(self, name: str, total: int | None) -> Callable[[int], None]:
        """A step begins; the returned function advances it."""


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    corpus: str
    snapshot: int
    books: list[Book]
    final: dict[str, int]
    timings: dict[str, NodeTiming]
    sets: dict[str, str] = field(default_factory=dict)
    embedded: tuple[str, ...] = ()
    """Parts that stand in for the real model."""


@dataclass
class Run:
    """One run over one recipe. The caller holds the store's lock."""

    store: Store
    plan: Plan
    root: Path
    engine: Callable[[], Engine]
    progress: Progress
    accept_removals: bool = False
    sample: int | None = None
    """Only so many rows of each source, those of lowest hash: for a probe."""

    def __post_init__(self) -> None:
        self.corpus = self.plan.recipe.corpus
        self.flow = Flow(self.store, self.plan)
        self.number = self.store.next_run()
        self.tag = f"r{self.number:06d}"
        self.timings: dict[str, NodeTiming] = {}
        self.sets: dict[str, str] = {}
        self._engine: Engine | None = None
        self._entries = 0
        self._unfinished = self.store.unfinished_tag()

    def __call__(self) -> Finished:
        """Do it all; raises UserError for what the user can mend."""
        try:
            check_operators(self.plan, lambda runs: self.flow.outcome_table(runs).rows() > 0)
            advance = self.progress.start(INGEST, None)
            ingest(self.store, self.plan.recipe, self.root, self.tag, advance, self.accept_removals, self.sample)
            self._log("started")
            for name in self.plan.recipe.order:
                self.flow.forget()
                self._run(self.plan.nodes[name])
            self.flow.forget()
            return self._finish()
        finally:
            if self._engine is not None:
                self._engine.close()

    def _log(self, event: str) -> None:
        nodes = {name: node.fingerprint for name, node in self.plan.nodes.items()}
        row = {
            "run": self.number,
            "corpus": self.corpus,
            "event": event,
            "recipe": canonical(self.plan.recipe.model_dump(mode="json", by_alias=True)).decode(),
            "plan": canonical({"fingerprint": self.plan.fingerprint, "nodes": nodes}).decode(),
        }
        self.store.append_log("runs", schemas.RUNS, [row], self.tag)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _run(self, node: PlannedNode) -> None:
        if isinstance(node.node, PackNode):
            self._pack(node)
        elif isinstance(node.node, Decision):
            self._decide(node)
        elif node.missing is None:
            assert node.runs is not None
            self.adopt(node.name, self.flow.outcome(node.name))
            if isinstance(node.runs.operator, Merger):
                groups = list(self._groups(node))
                total = sum(rows.num_rows for _, rows in groups)
                self.operate(node.name, node.runs, node.node, total, iter(groups))
            else:
                total = sum(len(self.flow.missing(node.name, bucket)) for bucket in self.flow.buckets)
                self.operate(node.name, node.runs, node.node, total, self._missing_rows(node))
            if isinstance(node.node, (ExpandNode, MergeNode)):
                self._bear(node)

    def operate(
        self,
        name: str,
        runs: PlannedOperator,
        node: OperatorNode | None,
        total: int,
        buckets: Iterator[tuple[str, pa.Table]],
    ) -> None:
        """Run an operator over `total` rows that have no outcome yet; they are drawn bucket by bucket."""
        table = self.flow.outcome_table(runs)
        if not total:
            return
        refused = runs.operator.refuse(total)
        if refused is not None:
            raise UserError(f"node {name}: {refused}")
        runs.operator.check_packages()
        runs.operator.preflight(self.store.storage)
        storage = self.store.storage
        task = Task(
            node=name,
            op=runs.op,
            params=orjson.dumps(runs.params, option=orjson.OPT_SORT_KEYS).decode(),
            table=runs.table,
            store=storage.uri,
            options=tuple(sorted(storage.options.items())),
            root=str(self.root),
            tag=self.tag,
            time_limit=(node and node.time_limit) or runs.operator.time_limit,
            loads_model=runs.operator.loads_model,
            gpus=runs.operator.gpus,
        )
        table.create()
        least = runs.operator.batch if isinstance(runs.operator, Measure) else 1
        cutter = UnitCutter(node.batch if node else None, least)
        budget = self.plan.recipe.error_budget
        if node is not None and node.error_budget is not None:
            budget = node.error_budget

        def commit(files: Sequence[DataFile], timing: NodeTiming) -> None:
            # Calls first: after a kill between the two there are never more outcomes than calls.
            self._count(name, timing)
            table.add(files)

        if self._engine is None:
            self._engine = self.engine()
        self.timings[name] = run_node(
            self._engine,
            task,
            outcome_schema(runs.operator),
            cutter.units(buckets),
            cutter,
            commit,
            self.progress.start(name, total),
            budget,
            self._earlier(name, table) if node is not None else None,
        )
        self.flow.forget()

    def _earlier(self, name: str, table: Table) -> NodeTiming:
        """What came of the node's records in runs before this one."""
        found = NodeTiming()
        for bucket in self.flow.buckets:
            entering = self.flow.entering(name, bucket).alias("record_key").to_frame()
            rows = table.scan(["record_key", "reason"], bucket).join(entering.lazy(), on="record_key", how="semi")
            for reason, count in rows.group_by("reason").len().collect().iter_rows():
                found.calls += count
                if reason is not None:
                    found.quarantined[reason] += count
        return found

    def _count(self, name: str, timing: NodeTiming) -> None:
        self._entries += 1
        row = {
            "run": self.number,
            "entry": self._entries,
            "corpus": self.corpus,
            "node": name,
            "calls": timing.calls,
            "seconds": timing.seconds,
            "bytes": timing.bytes,
        }
        self.store.append_log("calls", schemas.CALLS, [row], self.tag)

    def adopt(self, name: str, table: Table) -> None:
        """Make finished files visible that a killed run wrote but did not commit, so that no call is made twice."""
        if self._unfinished is None:
            return
        files, calls = adoptable(self.store, table, self._unfinished)
        if files:
            self._count(name, NodeTiming(calls=calls))
            table.add(files)
            self.flow.forget()

    def _missing_rows(self, node: PlannedNode) -> Iterator[tuple[str, pa.Table]]:
        columns = ["media", "fields", *[column for column in node.reads if column not in ("media", "fields")]]
        for bucket in self.flow.buckets:
            keys = self.flow.missing(node.name, bucket)
            if len(keys):
                frame = self.flow.frame(node.name, bucket, columns, keys)
                yield bucket, _arrow(frame)

    def _groups(self, node: PlannedNode) -> Iterator[tuple[str, pa.Table]]:
        """Rows of groups without an outcome, bucketed by the key of the group: a hash of its members' keys."""
        assert node.runs is not None
        assert isinstance(node.runs.operator, Merger)
        by = node.runs.operator.group_by
        table = self.flow.outcome(node.name)
        columns = ["media", "fields", *[column for column in node.reads if column not in ("media", "fields")]]
        frames = [self.flow.frame(node.name, bucket, columns) for bucket in self.flow.buckets]
        frame = group_members(pl.concat(frames), by)
        done = table.read(["record_key"]).rename({"record_key": GROUP})
        frame = frame.join(done, on=GROUP, how="anti").sort(GROUP, "record_key")
        for bucket in self.flow.buckets:
            some = frame.filter(pl.col(GROUP).str.starts_with(bucket))
            if some.height:
                yield bucket, _arrow(some)

    def _bear(self, node: PlannedNode) -> None:
        """Bring the records born at a node, and their lineage, in line with its outcomes."""
        born = born_records(self.flow, node)
        records = self.flow.records
        lineage = self.store.lineage(self.corpus)

        def with_others(table: Table, mine: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
            for bucket in self.flow.buckets:
                others = table.read(bucket=bucket).filter(pl.col("node") != node.name)
                here = mine.filter(pl.col("record_key").str.starts_with(bucket))
                yield bucket, pl.concat([others, here.select(others.columns).cast(dict(others.schema))])  # type: ignore[arg-type]

        records.sync(with_others(records, born.records), self.tag)
        lineage.sync(with_others(lineage, born.edges), self.tag)
        self.flow.forget()

    def _decide(self, node: PlannedNode) -> None:
        advance = self.progress.start(node.name, None)
        table = self.flow.verdicts(node.name)
        table.sync(decide(self, node, advance), self.tag)
        undecided = table.scan(["state", "reason"]).filter(pl.col("state") == "undecided").collect()
        if undecided.height:
            rule = undecided["reason"].drop_nulls().mode().sort().to_list()
            raise UserError(
                f"node {node.name}: {undecided.height} records undecided: {rule[0] if rule else 'a rule'} reads null; "
                "say on_null: drop, keep or quarantine, or add a rule before it"
            )

    def _pack(self, node: PlannedNode) -> None:
        newest = self.store.snapshot()
        before = card_names(newest.corpora, self.corpus) if newest else {}
        version = newest.tables.get(self.store.samples(self.corpus).name) if newest else None
        advance = self.progress.start(node.name, None)
        packed = pack(self.store, self.flow, node.name, before, version, self.tag, advance)
        self.sets = packed.sets

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self) -> Finished:
        books, final = self._close_books()
        newest = self.store.snapshot()
        tables = dict(newest.tables) if newest else {}
        corpora = dict(newest.corpora) if newest else {}
        tables = {name: version for name, version in tables.items() if not name.startswith(f"{self.corpus}/")}
        for table in self._tables():
            if table.version is not None:
                table.compact(self.tag)
                tables[table.name] = table.version
        self.store.log("calls", schemas.CALLS).compact(self.tag)
        corpora[self.corpus] = {
            "plan": self.plan.fingerprint,
            "nodes": {name: _node_facts(self.flow, node) for name, node in self.plan.nodes.items()},
            "order": self.plan.recipe.order,
            "sinks": self.plan.recipe.sinks,
            "sets": self.sets,
        }
        snapshot = self.store.publish(self.number, tables, corpora)
        for split, card in self.sets.items():
            current_card(self.store, self.corpus, split, card)
        self._log("finished")
        embedded = sorted({name for node in self.plan.nodes.values() for name in _embedded(node)})
        return Finished(self.corpus, snapshot.number, books, final, self.timings, self.sets, tuple(embedded))

    def _tables(self) -> list[Table]:
        store = self.store
        found = [
            store.records(self.corpus),
            store.lineage(self.corpus),
            store.states(self.corpus),
            store.samples(self.corpus),
            store.log(f"{self.corpus}/books", schemas.BOOKS),
        ]
        for name, node in self.plan.nodes.items():
            if isinstance(node.node, Decision):
                found.append(self.flow.verdicts(name))
            elif node.runs is not None and node.missing is None:
                found.append(self.flow.outcome(name))
            if node.verify is not None:
                found.append(self.flow.outcome_table(node.verify))
        return found

    def _close_books(self) -> tuple[list[Book], dict[str, int]]:
        closing = Closing(self.flow)
        final: Counter[str] = Counter()
        inputs = born = 0

        def states() -> Iterator[tuple[str, pl.DataFrame]]:
            nonlocal inputs, born
            for bucket in self.flow.buckets:
                frame, here = closing.bucket(bucket)
                inputs += here.inputs
                born += here.born
                for state, count in frame.group_by("state").len().iter_rows():
                    final[state] += count
                yield bucket, frame

        self.store.states(self.corpus).sync(states(), self.tag)
        books = list(closing.books.values())
        check_all(books, final, inputs, born)
        rows = [book.row(position) for position, book in enumerate(books)]
        self._save_books(rows)
        return books, dict(final)

    def _save_books(self, rows: list[dict[str, Any]]) -> None:
        table = self.store.log(f"{self.corpus}/books", schemas.BOOKS)
        keyed = [{"row_key": key_of(f"book {row['position']}".encode()), **row} for row in rows]
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(keyed, schema=table.schema)))
        table.sync(
            ((bucket, frame.filter(pl.col("row_key").str.starts_with(bucket))) for bucket in self.store.buckets),
            self.tag,
        )


def _embedded(node: PlannedNode) -> list[str]:
    operator = node.runs.operator if node.runs else None
    return list(operator.embedded) if operator is not None else []


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def adoptable(store: Store, table: Table, tag: str) -> tuple[list[DataFile], int]:
    """Finished files of a killed run whose keys no visible file has, and how many calls they stand for."""
    files: list[DataFile] = []
    calls = 0
    known = table.read([table.key]).to_series() if table.version is not None else pl.Series([], dtype=pl.String)
    for path in table.orphans(tag):
        bucket = path.partition("/")[0].removeprefix("bucket=")
        data = store.storage.read(f"tables/{table.name}/{path}")
        try:
            frame = pl.read_parquet(data, columns=[table.key])
        except pl.exceptions.ComputeError:
            continue
        keys = frame.to_series()
        if keys.is_in(known.implode()).any() or not len(keys):
            continue
        files.append(DataFile(path, bucket, len(keys), len(data), str(keys.min()), str(keys.max())))
        known = pl.concat([known, keys])
        calls += len(keys)
    return files, calls


def _node_facts(flow: Flow, node: PlannedNode) -> dict[str, Any]:
    """What a reader of a snapshot must know of a node: its tables, what it reads, which branches were taken."""
    table: str | None = None
    if isinstance(node.node, Decision):
        table = flow.verdicts(node.name).name
    elif node.runs is not None and node.missing is None:
        table = node.runs.table
    return {
        "kind": node.kind,
        "needs": list(node.node.needs),
        "fingerprint": node.fingerprint,
        "table": table,
        "verify": node.verify.table if node.verify else None,
        "missing": node.missing,
        "stands_in": node.runs.operator.stands_in if node.runs else None,
        "rules": {
            rule.name: {
                "branch": rule.branch,
                "keep": rule.condition.sql if rule.condition else None,
                "on_null": rule.on_null,
            }
            for rule in node.rules
        },
    }
