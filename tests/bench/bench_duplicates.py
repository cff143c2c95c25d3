"""Duplicates: time and memory of the decisions by hash, and how well pictures tell copies from others.

.venv/bin/python -m tests.bench.bench_duplicates
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.same_picture import Descriptors, describe, match
from tests.bench.figure import Figure, apart, figure
from tests.pipeline.measures.copies import COPIES, Picture

IMAGES = Path(__file__).parents[3] / "shared" / "corpora" / "images"
KINDS = ("near", "identical", "ball")
DISTANCE = 8
"""Bits within which pictures are compared; every copy below is found at 6."""
TWINS = (("rgb_trns.png", "p_trns_single.png"), ("l_trns.png", "i_trns.png"))
"""Pictures that the manifest does not declare as copies but that look the same on white."""


def hashes(rows: int, kind: str) -> NDArray[np.int64]:
    """Random hashes, some of them near copies, identical, or 20,000 within four bits of one."""
    draw = np.random.default_rng(1)
    found = draw.integers(-(2**63), 2**63, rows, dtype=np.int64)
    special = draw.permutation(rows)
    share = {"near": rows * 3 // 100, "identical": rows * 2 // 100, "ball": 20_000}[kind]
    copies, flips = special[:share], np.zeros(share, np.int64)
    for _ in range(0 if kind == "identical" else 4):
        flips |= np.where(draw.random(share) < 0.75, np.int64(1) << draw.integers(0, 64, share), 0)
    found[copies] = (found[special[-1]] if kind == "ball" else found[special[-share:]]) ^ flips
    return found


def greedy_cost(rows: int, kind: str) -> dict[str, Any]:
    """Duplicates within four bits."""
    from catalog.duplicates import greedy

    words, order = hashes(rows, kind), np.random.default_rng(2).permutation(rows)
    start = time.process_time()
    found = greedy(words, order, 4)
    return {"seconds": time.process_time() - start, "duplicates": int(found.duplicate.sum())}


def candidates_cost(rows: int) -> dict[str, Any]:
    """Candidates with a mirror image and seven windows a row, the last two compared with each other."""
    from catalog.candidates import Variants, candidates

    words, order, draw = hashes(rows, "near"), np.random.default_rng(2).permutation(rows), np.random.default_rng(3)

    def variants() -> Variants:
        own = words.copy()
        for _ in range(16):
            own ^= np.where(draw.random(rows) < 0.6, np.int64(1) << draw.integers(0, 64, rows), 0)
        return Variants(own, np.arange(rows))

    sets = [variants() for _ in range(8)]
    together = Variants(*(np.concatenate(part) for part in zip(*((s.hashes, s.owner) for s in sets), strict=True)))
    further = [(sets[0], together), (sets[6], None), (sets[7], None)]
    start = time.process_time()
    found = candidates(words, order, distance=DISTANCE, most=8, variants=together, further=further)
    return {"seconds": time.process_time() - start, "pairs": len(found.row)}


def decisions() -> list[Figure]:
    """What the decisions over arrays cost, each in a process of its own."""
    call = functools.partial(apart, "tests.bench.bench_duplicates")
    one = {kind: [call("greedy_cost", 1_000_000, kind) for _ in range(3)] for kind in KINDS}
    worst = max(one.values(), key=lambda runs: statistics.median(run["seconds"] for run in runs))
    peaks = [run["own_peak_mb"] for runs in one.values() for run in runs]
    by_input = {kind: round(statistics.median(run["seconds"] for run in runs), 1) for kind, runs in one.items()}
    ten = call("greedy_cost", 10_000_000, "near")
    proposed = call("candidates_cost", 100_000)
    at_most = functools.partial(figure, baseline="none", at_most=True, digits=1)
    return [
        at_most("duplicates_1m_s", [run["seconds"] for run in worst], "s", 10, 1_000_000, by_input=by_input),
        at_most("duplicates_1m_mb", [max(peaks)], "MB", 700, 1_000_000),
        at_most("duplicates_10m_mb", [ten["own_peak_mb"]], "MB", 2000, 10_000_000, seconds=round(ten["seconds"])),
        at_most("candidates_100k_s", [proposed["seconds"]], "s", 60, 100_000, peak_mb=round(proposed["own_peak_mb"])),
    ]


@dataclass(frozen=True)
class Picked:
    """One picture of the sample corpus; pictures of one `group` show the same."""

    name: str
    group: str
    picture: Picture


def pictures() -> list[Picked]:
    """All pictures of the sample corpus, upright, on white."""
    from PIL import Image, ImageOps

    found = []
    for line in map(json.loads, (IMAGES / "manifest.jsonl").read_text().splitlines()):
        name = line["id"].split("__")[-1]
        with Image.open(IMAGES / line["file"]) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                # 16 bits a pixel: the range it uses, as 8.
                deep = np.asarray(image).astype(np.float64)
                spread = (deep - deep.min()) * (255 / max(1.0, deep.max() - deep.min()))
                image = Image.fromarray(spread.astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                clear = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
            twin = next((pair[0] for pair in TWINS if name in pair), line["id"])
            found.append(Picked(name, line.get("near_dup_group") or twin, np.asarray(image.convert("RGB"))))
    return found


def decided(chosen: Sequence[Picked], copies: Sequence[Picture]) -> tuple[int, int, list[float]]:
    """Originals and their copies, decided as a corpus is: copies found, wrong pairs, milliseconds per comparison."""
    from catalog.candidates import Variants, candidates, decide
    from pipeline.measures.phash import hash_grey

    everything = [*(one.picture for one in chosen), *copies]
    groups = [one.group for one in chosen] * 2
    hashed = [hash_grey(describe(picture).gray) for picture in everything]
    rows = [row for row, found in enumerate(hashed) if found is not None]
    known = [found for found in hashed if found is not None]
    owner = np.arange(len(rows))

    def variants(values: list[list[int]]) -> Variants:
        return Variants(np.array(values, np.int64).reshape(-1), np.repeat(owner, len(values[0])))

    mirrors, windows = variants([[one.mirror] for one in known]), variants([one.windows for one in known])
    bands = [variants([[one.windows[place]] for one in known]) for place in (-2, -1)]
    proposed = candidates(
        np.array([one.full for one in known], np.int64),
        owner,
        distance=DISTANCE,
        most=8,
        variants=variants([[one.mirror, *one.windows] for one in known]),
        further=[(mirrors, windows), (bands[0], None), (bands[1], None)],
    )
    described: dict[int, Descriptors] = {}
    spent: list[float] = []

    def same(one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
        answers = []
        for pair in zip(one.tolist(), two.tolist(), strict=True):
            for row in pair:
                if row not in described:
                    described[row] = describe(everything[rows[row]])
            start = time.process_time()
            answers.append(match(described[pair[0]], described[pair[1]]).same)
            spent.append((time.process_time() - start) * 1e3)
        return np.array(answers, np.bool_)

    representative = decide(proposed, owner, same)
    found = wrong = 0
    for row, leader in zip(rows, representative.tolist(), strict=True):
        if leader >= 0:
            right = groups[row] == groups[rows[leader]]
            found += right and row >= len(chosen)
            wrong += not right
    return found, wrong, spent


def recalls(chosen: Sequence[Picked]) -> list[Figure]:
    """Per kind of copy: the share found by hash and verified, with the share that verification alone accepts."""
    described = [describe(one.picture) for one in chosen]
    figures, spent, wrong = [], [], 0
    for kind, copy in COPIES.items():
        copies = [copy(one.picture) for one in chosen]
        alone = [match(one, describe(two)).same for one, two in zip(described, copies, strict=True)]
        found, pairs, times = decided(chosen, copies)
        spent += times
        wrong += pairs
        share = [found / len(chosen)]
        verified = round(statistics.mean(alone), 3)
        figures.append(figure(f"near_recall_{kind}", share, "", 0.97, len(chosen), "none", verified=verified))
    figures.append(figure("near_false_decisions", [wrong], "", 0, len(chosen) * len(COPIES), "none", True))
    slow = round(float(np.quantile(spent, 0.95)), 1)
    figures.append(
        figure("near_verify_ms", [statistics.median(spent)], "ms", 20, len(spent), "none", True, 1, p95=slow)
    )
    return figures


def false_pairs(chosen: Sequence[Picked]) -> list[Figure]:
    """Every pair of different pictures compared, as if every hash were near."""
    start = time.process_time()
    described = [describe(one.picture) for one in chosen]
    describing = (time.process_time() - start) * 1e3 / len(chosen)
    wrong, scores = [], []
    start = time.process_time()
    for place, one in enumerate(chosen):
        for other, two in enumerate(chosen[:place]):
            if one.group != two.group:
                found = match(described[place], described[other])
                scores.append(found.score)
                if found.same:
                    wrong.append(f"{one.name} {two.name}")
    comparing = (time.process_time() - start) * 1e3 / len(scores)
    return [
        figure("near_false_pairs", [len(wrong)], "", 0, len(scores), "none", True, highest=max(scores), wrong=wrong),
        figure("near_reject_ms", [comparing], "ms", 40, len(scores), "none", True, 1),
        figure("near_describe_ms", [describing], "ms", 40, len(chosen), "none", True, 1),
    ]


def run() -> list[Figure]:
    """All figures; those over real pictures only where the sample corpora are."""
    figures = decisions()
    if IMAGES.exists():
        # A picture of one colour has no hash and no copies: there is nothing in it to tell.
        chosen = [one for one in pictures() if describe(one.picture).gray.std() >= 1]
        figures += recalls(chosen) + false_pairs(chosen)
    return figures


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
