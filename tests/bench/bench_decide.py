"""Deciding: six rules and duplicates within Hamming 4, over one and ten million rows read from bucketed files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.bench.figure import Figure, apart, figure

RULES = [(f"rule{i}", f"score{i} >= {0.01 * i}", "undecided") for i in range(6)]
KINDS = ("near", "identical", "ball")
_BUCKETS = "0123456789abcdef"


class Files:
    """One Parquet file a bucket, as tables have them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.buckets = _BUCKETS
        self.alive: dict[str, pl.Series] | None = None

    def frame(self, bucket: str, columns: Sequence[str]) -> pl.DataFrame:
        """The records that enter: all, or those that passed the rules."""
        frame = pl.scan_parquet(self._folder / f"{bucket}.parquet").select("record_key", *columns).collect()
        if self.alive is None:
            return frame
        return frame.join(self.alive[bucket].to_frame(), on="record_key", how="semi", maintain_order="left")


def write_rows(folder: Path, rows: int, kind: str) -> None:
    """Rows with six scores and a hash; what repeats depends on the kind."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(-(2**63), 2**63, rows, dtype=np.int64)
    special = rng.permutation(rows)
    if kind == "near":
        copies = special[: rows * 3 // 100]
        bits = rng.integers(0, 64, (len(copies), 3))
        flips = np.bitwise_or.reduce(np.int64(1) << bits, axis=1)
        hashes[copies] = hashes[special[-len(copies) :]] ^ flips
    elif kind == "identical":
        copies = special[: rows * 2 // 100]
        hashes[copies] = hashes[special[-len(copies) :]]
    else:
        ball = special[:20_000]
        flips = np.zeros(len(ball), np.int64)
        for _ in range(3):
            flips |= np.int64(1) << rng.integers(0, 64, len(ball))
        hashes[ball] = np.int64(0x0F1E2D3C4B5A6978) ^ flips
    edges = np.linspace(0, rows, 17).astype(int)
    for number, bucket in enumerate(_BUCKETS):
        count = int(edges[number + 1] - edges[number])
        raw = rng.bytes(15 * count).hex()
        keys = sorted(f"{bucket}0{raw[30 * i : 30 * i + 30]}" for i in range(count))
        frame = pl.DataFrame({"record_key": keys, "split_group": keys})
        frame = frame.with_columns(
            pl.Series("phash", hashes[edges[number] : edges[number + 1]]),
            *[pl.Series(f"score{i}", rng.random(count)) for i in range(6)],
        )
        frame.write_parquet(folder / f"{bucket}.parquet")


def decide(folder: str) -> dict[str, Any]:
    """Both decisions over the files of a folder."""
    from catalog.decisions import Duplicates, decide_rules
    from catalog.deduplicate import decide_duplicates

    files = Files(Path(folder))
    start = time.perf_counter()
    alive: dict[str, pl.Series] = {}
    columns = [f"score{i}" for i in range(6)]
    for bucket, frame in decide_rules(RULES, files, columns):
        frame.write_parquet(Path(folder) / f"rules-{bucket}.parquet")
        alive[bucket] = frame.filter(pl.col("state") == "passed")["record_key"]
    files.alive = alive
    decision = Duplicates.model_validate({"decide": "duplicates", "exact": False, "near": {"distance": 4}})
    found = 0
    for bucket, frame in decide_duplicates(decision, files, "none", None):
        frame.write_parquet(Path(folder) / f"duplicates-{bucket}.parquet")
        found += frame.filter(pl.col("state") == "duplicate").height
    return {"seconds": time.perf_counter() - start, "duplicates": found}


def run(rows: int = 1_000_000, most: int = 10_000_000) -> list[Figure]:
    """The worst of three inputs at a million rows, and the memory at ten."""
    seconds, peaks = {}, {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder), rows, kind)
            done = apart("tests.bench.bench_decide", "decide", folder)
            seconds[kind], peaks[kind] = done["seconds"], done["own_peak_mb"]
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), most, "near")
        large = apart("tests.bench.bench_decide", "decide", folder)
    worst = max(seconds.values())
    return [
        figure(
            "decide_1m_s",
            [worst],
            "s",
            30,
            rows,
            "none",
            True,
            1,
            by_input={k: round(v, 1) for k, v in seconds.items()},
        ),
        figure("decide_1m_mb", [max(peaks.values())], "MB", 1500, rows, "none", True, 0),
        figure(
            "decide_10m_mb", [large["own_peak_mb"]], "MB", 2500, most, "none", True, 0, seconds=round(large["seconds"])
        ),
    ]
