"""The arithmetic of chains of thought: true steps that are called wrong, planted wrong steps that are found.

python -m tests.bench.bench_chains
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.measures.arithmetic import equations
from tests.bench.figure import Figure, figure

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpora" / "reasoning" / "chains.jsonl"
TYPOS = {
    # Read by a person: the text of these two says something else than their marks, and it is wrong.
    "reasoning/gsm8k-train-6760": "4+4+6 = 18",
    "reasoning/gsm8k-train-6812": "50-8 = 44",
}
_MARK = re.compile(r"<<([^<>]*)>>(?=\$?(-?[\d,]*\.?\d+))")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")


@dataclass(frozen=True)
class Chain:
    """A chain as it is read, and the same with GSM8K's marks."""

    id: str
    text: str
    marked: str


def sample() -> list[Chain]:
    """The GSM8K chains of the sample corpora; drawn ones in the same manner where they are not."""
    if CORPUS.exists():
        rows = map(json.loads, CORPUS.read_text().splitlines())
        return [Chain(row["id"], row["chain_of_thought"], row["chain_raw"]) for row in rows]
    return [_drawn(random.Random(seed), seed) for seed in range(150)]


def _drawn(rng: random.Random, seed: int) -> Chain:
    lines = []
    for _ in range(4):
        a, b, what = rng.randint(2, 90), rng.randint(2, 30), rng.choice(["eggs", "dollars", "miles"])
        sign, value = rng.choice([("+", a + b), ("*", a * b), ("-", a - b), ("x", a * b)])
        lines.append(f"She has {a} {sign} {b} = <<{a}{sign.replace('x', '*')}{b}={value}>>{value} {what} now.")
    marked = "\n".join(lines)
    return Chain(f"drawn-{seed}", re.sub(r"<<[^<>]*>>", "", marked), marked)


def planted(chain: Chain, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Wrong copies, each (text, marked) with one result changed, in the text alone: the marks stay as they were."""
    for mark in _MARK.finditer(chain.marked):
        shown = mark.group(2)
        start, end = mark.span(2)
        wrong = _changed(shown, rng)
        before = _MARK.sub("", chain.marked[:start])
        # Only where the equation itself is to be seen in the text, not only its result.
        written = re.sub(r"\s", "", re.sub(r"<<[^<>]*>>", "", before))[-len(mark.group(1)) - 6 :]
        if "=" in written and written.rstrip("$").endswith("=") and _NUMBER.search(written):
            text = re.sub(r"<<[^<>]*>>", "", chain.marked[:start] + wrong + chain.marked[end:])
            yield text, chain.marked[:start] + wrong + chain.marked[end:]


def _changed(number: str, rng: random.Random) -> str:
    """Another number: off by one, a digit changed, ten times as much, two digits swapped."""
    digits = number.replace(",", "")
    value = float(digits)
    kinds = [
        f"{value + rng.choice([-1, 1, 2, -2]):g}" if value < 1e5 else str(int(value) + 1),
        f"{digits[:-1]}{(int(digits[-1]) + rng.randint(1, 9)) % 10}",
        f"{digits}0" if "." not in digits else f"1{digits}",
        digits[:-2] + digits[-1] + digits[-2] if len(digits) > 1 and digits[-2:].isdigit() else f"{digits}5",
    ]
    wrong = [kind for kind in kinds if float(kind) != value and float(kind) >= 0]
    return rng.choice(wrong) if wrong else f"{int(value) + 3}"


def run() -> list[Figure]:
    """All figures."""
    chains = sample()
    start = time.process_time()
    judged = {chain.id: equations(chain.text) for chain in chains}
    spent = (time.process_time() - start) * 1e6 / len(chains)
    wrong = {id: [one.text for one in found if not one.holds] for id, found in judged.items()}
    false = [(id, text) for id, texts in wrong.items() for text in texts if not text.startswith(TYPOS.get(id, "="))]
    true = sum(map(len, wrong.values())) - len(false)
    checked = sum(map(len, judged.values()))
    signs = sum(chain.text.count("=") for chain in chains)
    rng = random.Random(20)
    plants = [plant for chain in chains if not wrong[chain.id] for plant in planted(chain, rng)]
    found = [any(not one.holds for one in equations(text)) for text, _ in plants]
    marked = [any(not one.holds for one in equations(text)) for _, text in plants]
    missed = [text for (text, _), hit in zip(plants, found, strict=True) if not hit][:5]
    return [
        figure(
            "arithmetic_false_rejections", [len(false)], "", 0, len(chains), "none", True, wrong=false, true_finds=true
        ),
        figure("arithmetic_read", [checked / signs], "", 0.9, signs, "none", checked=checked),
        figure("arithmetic_planted_found", [statistics.mean(found)], "", 0.95, len(plants), "none", missed=missed),
        figure("arithmetic_planted_found_marked", [statistics.mean(marked)], "", 0.95, len(plants), "none"),
        figure("arithmetic_us_per_chain", [spent], "us", 5000, len(chains), "none", True, 0),
    ]


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
