"""Whole runs for tests: a tiny corpus of real JPEGs, a recipe over it, and an engine without processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from catalog import schemas
from catalog.storage import open_storage
from catalog.store import Store, create_store, open_store
from pipeline.curate import Finished, Run
from pipeline.engine import Death, Engine
from pipeline.local import LocalEngine
from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from pipeline.worker import Task, Unit, UnitResult, run_unit
from tests.toys import calls_noted

LINES: dict[str, Any] = {
    "kind": "jsonl",
    "manifest": "manifest.jsonl",
    "map": {"id": "id", "text": "text", "licence": "licence", "scene": "scene", "do": "do"},
}
PICTURES: dict[str, Any] = {**LINES, "media": {"image": "file"}}

NODES = """
header: {measure: 'tests.toys:CountedHeader'}
side: {decide: rules, needs: [header], rules: {side: short_side >= 160}}
light: {measure: 'tests.toys:Brightness', needs: [side]}
bright: {decide: rules, needs: [light], rules: {bright: brightness >= 60}}
unique: {decide: duplicates, needs: [bright], order: [short_side desc]}
split: {decide: split, needs: [unique], validation: 0.2}
encode: {encode: text_to_image, needs: [split], params: {prompt: text, resolution: 128}}
shards: {pack: webdataset, needs: [encode], shard_samples: 6}
"""


class Quiet:
    """No progress shown."""

    def start(self, name: str, total: int | None) -> Callable[[int], None]:
        """Nothing advances."""
        return lambda count: None


class Inline:
    """Runs units in this process, one at a time, in the order they come."""

    workers = 1

    def __init__(self) -> None:
        self._waiting: list[tuple[Task, Unit]] = []

    def submit(self, task: Task, unit: Unit) -> None:
        """Queue a unit."""
        self._waiting.append((task, unit))

    def wait(self, seconds: float) -> list[tuple[Unit, UnitResult | Death]]:
        """Run the first."""
        task, unit = self._waiting.pop(0)
        return [(unit, run_unit(task, unit))]

    def close(self) -> None:
        """Nothing to end."""


def plan_of(nodes: str, source: dict[str, Any] = PICTURES, corpus: str = "tiny", **head: Any) -> Plan:
    """The plan of a recipe with one source and these nodes."""
    data = {"version": 1, "corpus": corpus, "sources": {"lines": source}, "nodes": yaml.safe_load(nodes), **head}
    return resolve(Recipe.model_validate(data), "R")


def curate(
    plan: Plan,
    root: Path,
    store: Path | str,
    engine: Callable[[], Engine] = Inline,
    accept_removals: bool = False,
    options: dict[str, str] | None = None,
) -> Finished:
    """Run a plan into a store, made if need be."""
    storage = open_storage(str(store), options)
    with storage.lock():
        return Run(create_store(storage), plan, root, engine, Quiet(), accept_removals)()


def workers(count: int) -> Callable[[], Engine]:
    """An engine with real processes."""
    return lambda: LocalEngine(count)


def write_picture(path: Path, number: int, side: int) -> None:
    """A JPEG of smooth blobs that follows from its number; brighter with every number, in steps of ten."""
    import cv2

    random = np.random.default_rng(number)
    coarse = random.uniform(0, 80, (5, 6, 3)) + 16 * (number % 10)
    picture = cv2.resize(coarse.astype(np.float32), (side + side // 3, side), interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(picture, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 88])


def entry(number: int, **given: Any) -> dict[str, Any]:
    """A line of the manifest."""
    return {
        "id": f"p{number:03d}",
        "file": f"files/{number:03d}.jpg",
        "text": f'picture "{number}" of blobs, élan\nand 猫',
        "licence": "MIT",
        "scene": f"s{number // 3}",
        **given,
    }


def write_manifest(root: Path, entries: Iterable[dict[str, Any]]) -> None:
    """The manifest, in the given order."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in entries))


def write_corpus(root: Path, count: int = 40) -> list[dict[str, Any]]:
    """Pictures 0 to count - 1 and their manifest: small and dark ones, a copy, a cut one, one that is no picture."""
    entries = []
    for number in range(count):
        write_picture(root / f"files/{number:03d}.jpg", number, 120 if number % 7 == 3 else 170 + 10 * (number % 5))
        entries.append(entry(number))
    copy, cut, none = (root / f"files/{number:03d}.jpg" for number in (8, 16, 17))
    copy.write_bytes((root / "files/009.jpg").read_bytes())
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    none.write_bytes(b"this is no picture")
    write_manifest(root, entries)
    return entries


def tars(store: Path) -> dict[str, bytes]:
    """Every tar below a store by its place."""
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.glob("shards/**/*.tar"))}


def shard_files(store: Path) -> dict[str, bytes]:
    """Every file of every shard set by its place: tars, indexes, cards."""
    found = sorted(path for path in store.glob("shards/**/*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def live_tars(store: Path, corpus: str = "tiny") -> set[str]:
    """Places of the tars that the current cards name."""
    found = set()
    for card in store.glob(f"shards/{corpus}/*/card.json"):
        for generation in json.loads(card.read_bytes())["generations"]:
            for shard in generation["shards"]:
                found.add(str((card.parent / generation["folder"] / shard["file"]).relative_to(store)))
    return found


def tar_keys(store: Path, corpus: str = "tiny") -> list[str]:
    """The key of every sample in the live tars."""
    import tarfile

    keys = []
    for place in sorted(live_tars(store, corpus)):
        with tarfile.open(store / place) as tar:
            keys += [name.removesuffix(".json") for name in tar.getnames() if name.endswith(".json")]
    return keys


def final_states(store: Path, corpus: str = "tiny") -> dict[str, tuple[str, str | None]]:
    """Per record id its final state and reason, from the newest snapshot."""
    opened = open_store(str(store))
    snapshot = opened.snapshot()
    assert snapshot is not None
    states = opened.states(corpus).read(version=snapshot.tables[f"{corpus}/states"])
    rows = opened.records(corpus).read(version=snapshot.tables[f"{corpus}/records"])
    assert sorted(states["record_key"]) == sorted(rows["record_key"])
    joined = rows.select("record_key", "fields").join(states, on="record_key")
    return {json.loads(row["fields"])["id"]: (row["state"], row["reason"]) for row in joined.to_dicts()}


def keys_by_id(store: Path, corpus: str = "tiny") -> dict[str, str]:
    """Record keys by the id of the source row."""
    rows = open_store(str(store)).records(corpus).read(["record_key", "fields"]).to_dicts()
    return {json.loads(row["fields"])["id"]: row["record_key"] for row in rows}


def outcome_of(store: Path, plan: Plan, node: str) -> pl.DataFrame:
    """The outcome table of a node."""
    from pipeline.flow import Flow

    return Flow(open_store(str(store)), plan).outcome(node).read()


def counted(store: Path) -> Counter[str]:
    """Calls per node, summed over the store's life."""
    calls = open_store(str(store)).read_log("calls", schemas.CALLS)
    return Counter(dict(calls.group_by("node").agg(pl.col("calls").sum()).rows()))


def noted(path: Path) -> Counter[str]:
    """Calls per toy operator, as the toys noted them."""
    return Counter(operator for operator, _ in calls_noted(path))


def snapshots(store: Path) -> int:
    """How many snapshots a store has."""
    return len(open_store(str(store)).snapshots())


def store_of(path: Path) -> Store:
    """The store at a path."""
    return open_store(str(path))
