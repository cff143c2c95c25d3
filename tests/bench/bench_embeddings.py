"""Near-duplicates by embedding: how many planted pairs are found in clusters, what it costs in seconds and memory.

python -m tests.bench.bench_embeddings
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.near_embeddings import Vectors, alike
from tests.bench.figure import Figure, apart, figure

COSINE, NUMBERS, SUBJECTS = 0.98, 512, 1000
"""An embedding of a picture shares some of its direction with all, and more with pictures of its subject."""


def turned(rows: NDArray[np.float32], cosine: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vectors of length 1 at that cosine from given ones, in any direction."""
    aside = rng.standard_normal(rows.shape, np.float32)
    aside -= (aside * rows).sum(axis=1, keepdims=True) * rows
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    turned: NDArray[np.float32] = cosine * rows + np.float32(np.sqrt(1 - cosine**2)) * aside
    return turned


def population(rows: int, spread: float, seed: int) -> tuple[Vectors, int]:
    """Vectors of which the last tenth stand at a cosine of 0.9805 from the first tenth, and how many those are.

    Others of one subject have a cosine of about `spread` squared, those of two subjects of half of that.
    """
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((1, NUMBERS)).astype(np.float32)
    common /= np.linalg.norm(common)
    subjects = turned(np.repeat(common, SUBJECTS, axis=0), 0.7, rng)
    copies = rows // 10
    heads = turned(subjects[rng.integers(0, SUBJECTS, rows - copies)], spread, rng)
    # A hair above the threshold, so that rounding to half precision leaves all of them on its right side.
    return np.concatenate([heads, turned(heads[:copies], COSINE + 0.0005, rng)]).astype(np.float16), copies


def decide_cost(rows: int, spread: float, clusters: int | None = None) -> dict[str, float]:
    """The decision over such a population: CPU seconds, found pairs, planted pairs."""
    vectors, copies = population(rows, spread, 6)
    rng = np.random.default_rng(7)
    hashed = rng.integers(0, 2**63, rows).astype(np.uint64)
    # The peak is that of the decision, not of making the vectors.
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    found = alike(vectors, np.arange(rows), COSINE, hashed, clusters)
    seconds = time.process_time() - start
    planted = found.representative[rows - copies :] == np.arange(copies)
    return {"seconds": seconds, "found": int(planted.sum()), "planted": copies, "all": int(found.duplicate.sum())}


def run() -> list[Figure]:
    """All figures: a population with subjects told well apart, and recall of one with hardly any."""
    cost = apart("tests.bench.bench_embeddings", "decide_cost", 100_000, 0.8)
    recall, planted = cost["found"] / cost["planted"], round(cost["planted"])
    flat = apart("tests.bench.bench_embeddings", "decide_cost", 100_000, 0.5)
    extra = round(cost["all"] - cost["found"])
    return [
        figure("embeddings_decide_100k_s", [cost["seconds"]], "s", 60, 100_000, "none", True, 1),
        figure("embeddings_decide_100k_mb", [cost["own_peak_mb"]], "MB", 1500, 100_000, "none", True, 0),
        figure("embeddings_recall_98", [recall], "", 0.95, planted, "all pairs; 40 clusters, two a record"),
        figure(
            "embeddings_recall_98_flat",
            [flat["found"] / flat["planted"]],
            "",
            0.9,
            planted,
            "the same, subjects hardly apart",
        ),
        figure("embeddings_false_pairs", [extra], "", 0, planted, "none", True),
    ]


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
