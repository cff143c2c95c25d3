from __future__ import annotations

import re
from collections import Counter

import pytest

from pipeline.embedded.documents import documents, story
from pipeline.embedded.item import KEPT, TEXT
from pipeline.embedded.sentences import PROSE, SINGLE
from pipeline.measures.language import guess_language
from pipeline.measures.text import split_words

ROWS = list(documents())


def test_there_are_documents_of_many_languages() -> None:
    kept = Counter(row.facts["lang"] for row in ROWS if row.expected[TEXT] == KEPT)
    assert len(kept) >= 20
    assert kept.keys() == {*PROSE, *SINGLE}


@pytest.mark.parametrize("language", PROSE)
def test_no_gap_is_left_open_and_gaps_have_fillings(language: str) -> None:
    prose = PROSE[language]
    assert {name for sentence in prose.sentences for name in re.findall(r"\{(\w+)\}", sentence)} == set(prose.gaps)
    for index in range(20):
        assert not re.search(r"[{}]", story(language, index))
    assert len({story(language, index) for index in range(20)}) > 15


def test_documents_are_in_the_language_they_are_said_to_be() -> None:
    for row in ROWS:
        if row.expected[TEXT] == KEPT:
            text = str(row.content["text"])
            assert guess_language(text, split_words(text))[1] == row.facts["lang"], row.name


def test_good_documents_hold_no_addresses_and_no_numbers_of_telephones() -> None:
    for row in ROWS:
        if row.expected[TEXT] == KEPT:
            assert not re.search(r"@|https?:|\d{4}", str(row.content["text"])), row.name


def test_copies_are_exact_or_a_little_shorter() -> None:
    texts = {row.name: str(row.content["text"]) for row in ROWS}
    for row in ROWS:
        group = row.facts.get("near_dup_group")
        if group is None:
            continue
        mine, whole = texts[row.name], texts[group]
        assert (mine == whole) == (row.expected[TEXT].reason == "exact")
        assert 0.9 * len(whole) < len(mine) <= len(whole)


def test_the_same_documents_come_every_time() -> None:
    assert [row.data for row in documents()] == [row.data for row in ROWS]
