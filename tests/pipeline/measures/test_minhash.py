from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.minhash import normalised, shingles, signature
from pipeline.operator import Quarantine, check_row
from tests.pipeline.pictures import columns_of, measure, record


def look(text: Any, **params: Any) -> dict[str, Any]:
    made = measure("minhash", **params)
    given_record = record(Path(), text=text)
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def test_runs_of_words_without_case_and_punctuation() -> None:
    assert shingles("The cat, the DOG -- and a bird!", 5, 10) == {
        "the cat the dog and",
        "cat the dog and a",
        "the dog and a bird",
    }


def test_scripts_without_blanks_give_runs_of_characters() -> None:
    assert shingles("天地玄黄,宇宙。", 5, 4) == {"天地玄黄", "地玄黄宇", "玄黄宇宙"}
    assert "สวัสดี" in shingles("สวัสดีครับ 2", 5, 6)


def test_a_few_foreign_characters_do_not_make_a_text_run_on() -> None:
    assert shingles("one two 三 four five six", 5, 4) == {"one two 三 four five", "two 三 four five six"}


@pytest.mark.parametrize("text", ["", None, " \n ", "...!"])
def test_without_letters_there_is_no_signature(text: str | None) -> None:
    assert look(text)["minhash"] is None
    assert (look(text)["text_digest"] is None) == (text != "...!")


def test_a_short_text_is_one_shingle() -> None:
    assert shingles("Good day", 5, 10) == {"good day"}


def test_white_space_alone_makes_no_other_text() -> None:
    assert look(" one\ttwo\n")["text_digest"] == look("one two")["text_digest"]
    assert look("one two")["text_digest"] != look("one Two")["text_digest"]
    assert normalised("e\u0301 \u00a0x") == "é x"


def test_the_signature_is_the_same_on_every_machine() -> None:
    found = look("a b c d e f")["minhash"]
    assert len(found) == 128
    assert found[:3] == GOLDEN


GOLDEN = [1186402755, 2699925076, 1711093300]


@given(st.lists(st.text("abc", min_size=3, max_size=6), min_size=1, max_size=40))
def test_a_signature_depends_on_the_set_alone(some: list[str]) -> None:
    assert signature(set(some), 32).tolist() == signature(set(some * 2), 32).tolist()


def test_agreement_estimates_the_similarity_of_the_sets() -> None:
    one, two = {f"s{n}" for n in range(900)}, {f"s{n}" for n in range(100, 1000)}  # Jaccard 0.8
    agreeing = np.mean(signature(one, 1024) == signature(two, 1024))
    assert agreeing == pytest.approx(0.8, abs=0.04)


def test_a_long_text_is_taken_in_pieces_and_gives_the_same() -> None:
    many = {f"s{n}" for n in range(10_000)}
    parts = [signature({f"s{n}" for n in range(first, first + 2500)}, 16) for first in range(0, 10_000, 2500)]
    assert signature(many, 16).tolist() == np.minimum.reduce(parts).tolist()


def test_fields_are_put_one_after_the_other() -> None:
    made = measure("minhash", field=["question", "answer"])
    both = columns_of(made, record(Path(), question="one two", answer="three"))
    assert both == look("one two\nthree")


def test_a_field_that_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine, match="field 'text' holds list"):
        look(["a"])
