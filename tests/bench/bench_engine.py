"""What the engine costs a record: a node that does nothing, over 100,000 records, with the shipped defaults."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure, apart, figure

RECORDS = 100_000
RECIPE = """version: 1
corpus: nothing
sources:
  lines: {kind: jsonl, manifest: lines.jsonl, map: {id: id, text: text, licence: licence}}
nodes:
  warm: {measure: "tests.bench.noop:NoOp"}
  nothing: {measure: "tests.bench.noop:AlsoNoOp", needs: [warm]}
"""


def run_nothing(count: int) -> dict[str, Any]:
    """Run two nodes that do nothing; the first starts the workers, the second is timed."""
    import pipeline.curate
    from jobs.run import EngineChoice, load_plan, run

    walls: list[float] = []
    operate = pipeline.curate.Run.operate

    def timed(self: Any, *arguments: Any) -> None:
        start = time.perf_counter()
        operate(self, *arguments)
        walls.append(time.perf_counter() - start)

    pipeline.curate.Run.operate = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines = (
            json.dumps({"id": f"id{i}", "text": f"caption number {i} of a picture", "licence": "MIT"})
            for i in range(count)
        )
        (root / "lines.jsonl").write_text("\n".join(lines) + "\n")
        (root / "recipe.yaml").write_text(RECIPE)
        plan = load_plan(str(root / "recipe.yaml"), [])
        finished = run(plan, root, str(root / "store"), EngineChoice("local", 2))
        assert finished.final == {"kept": count}
    return {"us_per_record": walls[-1] / count * 1e6}


def run(repeats: int = 3) -> list[Figure]:
    """Engine time a record, and memory at two sizes."""
    large = [apart("tests.bench.bench_engine", "run_nothing", RECORDS) for _ in range(repeats)]
    small = [apart("tests.bench.bench_engine", "run_nothing", RECORDS // 10) for _ in range(repeats)]
    growth = [one["peak_mb"] / other["peak_mb"] for one, other in zip(large, small, strict=True)]
    return [
        figure("engine_us_per_record", [one["us_per_record"] for one in large], "us", 20, RECORDS, "none", True, 2),
        figure("memory_growth", growth, "x", 1.2, RECORDS, f"the same with {RECORDS // 10} records", True),
        figure("memory_mb", [one["peak_mb"] for one in large], "MB", 1500, RECORDS, "none", True, 0),
    ]
