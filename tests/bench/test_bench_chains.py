"""The benches of texts and chains mean something without the sample corpora too."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.bench import bench_chains, bench_minhash


def test_planted_steps_of_drawn_chains_are_found_and_true_ones_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_chains, "CORPUS", Path("nowhere"))
    figures = {figure["name"]: figure for figure in bench_chains.run()}
    assert figures["arithmetic_false_rejections"]["value"] == 0
    assert figures["arithmetic_planted_found"]["value"] >= 0.95
    assert figures["arithmetic_planted_found_marked"]["value"] >= 0.95


def test_a_plant_differs_from_its_chain_in_one_number() -> None:
    (chain, *_) = bench_chains.sample()
    plants = list(bench_chains.planted(chain, random.Random(1)))
    assert plants
    for text, _ in plants:
        changed = [pair for pair in zip(text.splitlines(), chain.text.splitlines(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1


def test_pairs_of_a_known_similarity_are_made_and_found() -> None:
    truths, share = bench_minhash.pairs(40, 0.8, 7)
    assert all(0.8 <= truth < 0.83 for truth in truths)
    assert share >= 0.95
    truths, share = bench_minhash.pairs(40, 0.48, 7)
    assert all(0.45 < truth < 0.5 for truth in truths)
    assert share == 0
