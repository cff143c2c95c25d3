"""Near-duplicate texts by MinHash: how many are found, how many pairs are wrong, what it costs.

python -m tests.bench.bench_minhash
"""

from __future__ import annotations

import json
import random
import statistics
import time
from pathlib import Path

import numpy as np

from catalog.near_texts import alike
from pipeline.measures.minhash import shingles, signature
from tests.bench.figure import Figure, apart, figure

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpora" / "text" / "docs.jsonl"
WORDS, CHARACTERS, PERMUTATIONS, JACCARD = 5, 10, 128, 0.8


def documents(count: int, seed: int) -> list[list[str]]:
    """Texts of 300 to 600 words from a vocabulary whose words are as unequally common as in a language."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, 5001)
    drawn = [rng.choice(5000, rng.integers(300, 601), p=chances / chances.sum()) for _ in range(count)]
    return [[f"w{word}" for word in words] for words in drawn]


def similar(words: list[str], jaccard: float, rng: random.Random) -> list[str]:
    """A copy with words replaced one after the other while the sets of shingles stay so similar or more."""
    own = shingles(" ".join(words), WORDS, CHARACTERS)
    copy = list(words)
    for number, place in enumerate(rng.sample(range(len(words)), len(words))):
        before, copy[place] = copy[place], f"new{number}"
        found = shingles(" ".join(copy), WORDS, CHARACTERS)
        if len(own & found) / len(own | found) < jaccard:
            copy[place] = before
            break
    return copy


def pairs(count: int, jaccard: float, seed: int) -> tuple[list[float], float]:
    """The true similarities of so many pairs, and the share that the decision calls duplicates."""
    rng = random.Random(seed)
    truths, found = [], 0
    for words in documents(count, seed):
        sets = [shingles(" ".join(one), WORDS, CHARACTERS) for one in (words, similar(words, jaccard, rng))]
        truths.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
        signatures = np.stack([signature(one, PERMUTATIONS) for one in sets])
        found += int(alike(signatures, np.arange(2), JACCARD).duplicate.any())
    return truths, found / count


def decide_cost(rows: int) -> dict[str, float]:
    """The decision over signatures of which a tenth are near copies of others."""
    rng = np.random.default_rng(5)
    signatures = rng.integers(0, 2**32, (rows, PERMUTATIONS), dtype=np.uint32)
    copies = np.arange(0, rows, 10)
    signatures[copies] = signatures[(copies + 1) % rows]
    signatures[copies] ^= (rng.random((len(copies), PERMUTATIONS)) < 0.1).astype(np.uint32)
    start = time.process_time()
    found = alike(signatures, rng.permutation(rows), JACCARD)
    return {"seconds": time.process_time() - start, "found": int(found.duplicate.sum())}


def run() -> list[Figure]:
    """All figures; the cost per document is that of the sample corpus where it is, of drawn texts elsewhere."""
    figures = []
    truths, share = pairs(1000, 0.8, 1)
    true = round(statistics.mean(truths), 3)
    figures.append(figure("minhash_recall_80", [share], "", 0.95, len(truths), "none", jaccard=true))
    truths, share = pairs(1000, 0.48, 2)
    true = round(statistics.mean(truths), 3)
    figures.append(figure("minhash_false_pairs_50", [share], "", 0.01, len(truths), "none", True, jaccard=true))
    if CORPUS.exists():
        texts = [json.loads(line)["text"] for line in CORPUS.read_text().splitlines()]
    else:
        texts = [" ".join(words) for words in documents(250, 3)]
    spent = []
    for _ in range(4):
        start = time.process_time()
        for text in texts:
            if some := shingles(text, WORDS, CHARACTERS):
                signature(some, PERMUTATIONS)
        spent.append((time.process_time() - start) * 1e6 / len(texts))
    size = round(statistics.mean(map(len, texts)))
    # The first repeat loads the library.
    figures.append(figure("minhash_us_per_doc", spent[1:], "us", 2000, len(texts), "none", True, 0, chars=size))
    cost = apart("tests.bench.bench_minhash", "decide_cost", 100_000)
    peak = round(cost["own_peak_mb"])
    figures.append(figure("minhash_decide_100k_s", [cost["seconds"]], "s", 30, 100_000, "none", True, 1, peak_mb=peak))
    return figures


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
