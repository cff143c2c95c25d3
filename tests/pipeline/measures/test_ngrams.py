from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.ngrams import joined_hash, normal_words, run_hashes, weight, word_hash

words = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Janet’s ducks lay 16 eggs!", ["janets", "ducks", "lay", "16", "eggs"]),
        ("for $70,000 (150 %).", ["for", "70000", "150"]),
        ("tab\tand\nline\u00a0and\x00zero", ["tab", "and", "line", "and", "zero"]),
        ("ＦＵＬＬ Straße", ["full", "strasse"]),
        ("café = cafe\u0301", ["café", "café"]),
        ("猫がいる。二匹", ["猫", "が", "い", "る", "二", "匹"]),
        ("กิน ข้าว", ["กิ", "น", "ข้", "า", "ว"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("?!", []),
        ("", []),
    ],
)
def test_case_punctuation_and_blanks_go(text: str, expected: list[str]) -> None:
    assert normal_words(text) == expected


@given(st.text())
def test_normal_words_stay_as_they_are(text: str) -> None:
    found = normal_words(text)
    again = normal_words(" ".join(found))
    assert normal_words(" ".join(again)) == again
    assert all(found)


def test_characters_of_unspaced_scripts_count_half() -> None:
    assert weight(normal_words("two cats")) == 2
    assert weight(normal_words("猫がいる")) == 2
    assert weight(normal_words("猫がい")) == 2
    assert weight([]) == 0


@given(words, st.integers(1, 5))
def test_two_runs_have_one_hash_if_and_only_if_they_are_equal(some: list[str], size: int) -> None:
    found = run_hashes(some, size)
    runs = [tuple(some[start : start + size]) for start in range(len(some) - size + 1)]
    assert len(found) == len(runs)
    assert len(set(found.tolist())) == len(set(runs))


@given(words, words, words)
def test_a_run_has_its_hash_wherever_it_stands(before: list[str], run: list[str], after: list[str]) -> None:
    if run:
        (alone,) = run_hashes(run, len(run))
        assert alone in run_hashes([*before, *run, *after], len(run))


def test_hashes_stay_what_they_are() -> None:
    assert word_hash("cat") == 3429664268601861939
    assert run_hashes(["a", "cat"], 2).tolist() == [12577249993630844019]
    assert joined_hash(1, 2) == 11868681386100499350
    assert run_hashes(["a"], 2).dtype == np.uint64
    assert joined_hash(1, 2) != joined_hash(2, 1)
