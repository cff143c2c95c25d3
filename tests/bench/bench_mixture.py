"""Reading a mixture in a true shuffle by offsets, against a bare sequential webdataset read of the same tars."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from catalog.mixture_samples import MixtureReader
from catalog.storage import open_storage
from catalog.store import create_store
from catalog.view import View, open_view
from pipeline.encode import Encode
from pipeline.flow import Flow
from pipeline.ingest import ingest
from pipeline.mixing import mix
from pipeline.pack import pack
from pipeline.plan import resolve
from pipeline.recipe import Recipe
from pipeline.sets import PlannedSet, SetRecipe
from tests.bench.bench_pack import RECIPE, outcomes
from tests.bench.figure import Figure, figure

SAMPLES = 10_000
STAGE = {"parts": {"images": {"corpus": "packing", "task": "text_to_image", "weight": 1}}}
SET = {"version": 1, "set": "bench", "corpora": ["packing"], "stages": {"all": STAGE}}


def made(root: Path) -> View:
    """A store of `SAMPLES` samples of 600 tokens, and a mixture that has each of them once."""
    lines = (orjson.dumps({"id": str(i), "text": f"caption {i}", "licence": "MIT"}) for i in range(SAMPLES))
    (root / "lines.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    plan = resolve(Recipe.model_validate(RECIPE), "bench")
    store = create_store(open_storage(str(root / "store")))
    flow = Flow(store, plan)
    ingest(store, plan.recipe, root, "r1", lambda count: None)
    runs = plan.nodes["encode"].runs
    assert runs is not None
    assert isinstance(runs.operator, Encode)
    flow.outcome("encode").append(outcomes(flow, runs.operator), "r1")
    packed = pack(store, flow, "shards", {}, None, "r1", lambda count: None)
    tables = {table.name: table.version or 0 for table in (store.records("packing"), store.samples("packing"))}
    store.publish(1, tables, {"packing": {"sets": packed.sets, "nodes": {}, "order": []}})
    mix(store, PlannedSet("bench", SetRecipe.model_validate(SET), {"packing": plan}), lambda count: None)
    return open_view(str(root / "store"))


def bare(view: View) -> Iterator[dict[str, Any]]:
    """Stock webdataset over the tars in their order, members decoded."""
    import webdataset

    tars = [str(path) for path in sorted(Path(view.store.uri).glob("shards/packing/train/g0000/*.tar"))]
    yield from webdataset.WebDataset(tars, shardshuffle=False).decode()


def run(repeats: int = 5) -> list[Figure]:
    """Samples a second of processor time as a ratio, from one process, files in the page cache."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        view = made(Path(folder))
        reader = MixtureReader(view, "all")
        for number in range(repeats):
            start = time.process_time()
            sequential = sum(len(row["ids.npy"]) for row in bare(view))
            between = time.process_time()
            shuffled = sum(len(sample.ids) for sample in reader.epoch(seed=1, epoch=number))
            assert sequential == shuffled
            ratios.append((between - start) / (time.process_time() - between))
    told = "webdataset reading the same tars one after the other, ids and JSON decoded; ours in a true shuffle"
    return [figure("mixture_read_ratio", ratios, "x", 1.0, SAMPLES, told)]
