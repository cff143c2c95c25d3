"""Packing encoded sequences, against writing the same members with a bare tarfile loop."""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from catalog.keys import canonical, sample_key
from catalog.storage import open_storage
from catalog.store import create_store
from pipeline.encode import Encode
from pipeline.flow import Flow
from pipeline.ingest import ingest
from pipeline.pack import pack
from pipeline.plan import resolve
from pipeline.recipe import Recipe
from pipeline.worker import outcome_schema
from tests.bench.figure import Figure, figure

SAMPLES = 20_000
TOKENS = 600
RECIPE = {
    "version": 1,
    "corpus": "packing",
    "sources": {
        "lines": {"kind": "jsonl", "manifest": "lines.jsonl", "map": {"id": "id", "text": "text", "licence": "licence"}}
    },
    "nodes": {
        "encode": {"encode": "text_to_image", "params": {"prompt": "text", "resolution": 256}},
        "shards": {"pack": "webdataset", "needs": ["encode"], "shard_samples": 2000},
    },
}


def outcomes(flow: Flow, encode: Encode) -> pa.Table:
    """What an encode node would have written for the records of a flow."""
    rng = np.random.default_rng(0)
    head = {"resolution": 256, "task": "text_to_image", "template": "text_to_image/v1", "variant": "main"}
    rows = []
    for bucket in flow.buckets:
        for key in flow.entering("encode", bucket):
            ids = rng.integers(0, 4000, TOKENS).astype("<i4").tobytes()
            meta = {**head, "licence": "MIT", "spans": [], "provenance": {"record_key": key}}
            rows.append(
                {
                    "record_key": key,
                    "status": "ok",
                    "attempt": 1,
                    "sample_keys": [sample_key(key, "text_to_image", 256, "text_to_image/v1", "main")],
                    "sample_heads": [canonical(head).decode()],
                    "sample_licences": ["MIT"],
                    "text_tokens": [40],
                    "image_tokens": [TOKENS - 40],
                    "sample_ids": [ids],
                    "sample_metas": [canonical(meta)],
                }
            )
    return pa.Table.from_pylist(rows, schema=outcome_schema(encode))


def run(repeats: int = 5) -> list[Figure]:
    """Throughput of packing as a share of the bare loop's."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines = (orjson.dumps({"id": str(i), "text": f"caption {i}", "licence": "MIT"}) for i in range(SAMPLES))
        (root / "lines.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        plan = resolve(Recipe.model_validate(RECIPE), "bench")
        store = create_store(open_storage(str(root / "store")))
        flow = Flow(store, plan)
        ingest(store, plan.recipe, root, "r1", lambda count: None)
        runs = plan.nodes["encode"].runs
        assert runs is not None
        assert isinstance(runs.operator, Encode)
        made = outcomes(flow, runs.operator)
        flow.outcome("encode").append(made, "r1")
        members = [
            (row["sample_keys"][0], np.frombuffer(row["sample_ids"][0], "<i4"), orjson.loads(row["sample_metas"][0]))
            for row in made.to_pylist()
        ]
        for number in range(repeats):
            start = time.process_time()
            with tarfile.open(root / f"bare{number}.tar", "w") as tar:
                for key, ids, meta in members:
                    buffer = io.BytesIO()
                    np.save(buffer, ids)
                    for suffix, data in (("ids.npy", buffer.getvalue()), ("json", orjson.dumps(meta))):
                        info = tarfile.TarInfo(f"{key}.{suffix}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
            bare = time.process_time() - start
            start = time.process_time()
            packed = pack(store, flow, "shards", {}, None, "r1", lambda count: None)
            ours = time.process_time() - start
            assert packed.written == 16
            ratios.append(bare / ours)
            # The samples table now knows them; forget, so that the next round packs again.
            store.samples("packing").sync(((b, store.samples("packing").read().clear()) for b in store.buckets), "r2")
    return [figure("pack_ratio", ratios, "x", 0.6, SAMPLES, "tarfile.addfile of the same members, already in memory")]
