from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measures.text import alphabet, matched_share, repeated_share, split_words
from pipeline.operator import Quarantine, check_row
from tests.pipeline.pictures import columns_of, measure, record


def look(text: Any, **params: Any) -> dict[str, Any]:
    made = measure("text", **params)
    given_record = record(Path(), **{params.get("field", "text"): text})
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def test_a_plain_caption() -> None:
    found = look("A cat sits on the mat, and looks at 2 dogs.")
    assert (found["chars"], found["words"], found["script"], found["language"]) == (43, 11, "Latin", "en")
    assert found["upper_share"] == pytest.approx(1 / 30)
    assert found["digit_share"] == pytest.approx(1 / 43)
    assert found["alpha_share"] == pytest.approx(30 / 43)
    clutter = ("repetition", "url_share", "markup_share", "control_chars", "bidi_chars", "invalid_chars")
    assert {name: found[name] for name in clutter} == dict.fromkeys(clutter, 0)


@pytest.mark.parametrize("fields", [{}, {"text": None}, {"text": ""}])
def test_without_a_text_only_its_length_is_known(fields: dict[str, Any]) -> None:
    made = measure("text")
    found = columns_of(made, record(Path(), **fields))
    assert found.pop("chars") == 0
    assert set(found.values()) == {None}


def test_blanks_are_a_text_without_words() -> None:
    found = look(" \n\t ")
    assert (found["chars"], found["words"], found["script"], found["language"]) == (4, 0, None, "und")
    assert found["control_chars"] == 0


def test_a_field_that_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine) as caught:
        look(["a", "b"])
    assert (caught.value.reason, str(caught.value)) == ("text is not a string", "field 'text' holds list")


def test_the_field_is_a_parameter() -> None:
    assert look("ein Hund und eine Katze", field="caption")["language"] == "de"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one two  three\nfour", 4),
        ("don't well-known — yes!", 3),
        ("一只猫坐着", 5),
        ("猫がいます", 5),
        ("हिन्दी में लिखा", 3),
        ("... !!! 42", 1),
    ],
)
def test_words_are_counted_in_scripts_with_and_without_blanks(text: str, words: int) -> None:
    assert len(split_words(text)) == words


def test_repetition_is_the_share_of_n_grams_seen_before() -> None:
    assert repeated_share(["a", "b", "c", "d"], 3) == 0
    assert repeated_share(["a", "b", "a", "b", "a", "b"], 2) == pytest.approx(3 / 5)
    assert repeated_share(["A", "b", "a", "B"], 2) == pytest.approx(1 / 3)
    assert repeated_share(["a"], 3) == 0
    assert look("buy now " * 50)["repetition"] == pytest.approx(96 / 98)
    assert look("buy now " * 50, ngram=1)["repetition"] == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("see https://example.org/a?b=1 now", "https://example.org/a?b=1"),
        ("www.shop.example/x", "www.shop.example/x"),
        ("from Example.com and more", "Example.com"),
        ("version 2.0 of e.g. this", ""),
    ],
)
def test_web_addresses_are_found(text: str, matched: str) -> None:
    assert look(text)["url_share"] == pytest.approx(len(matched) / len(text))


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("<p class='x'>hello</p>", "<p class='x'></p>"),
        ("fish &amp; chips &#8217;", "&amp;&#8217;"),
        ("[b]bold[/b] [url=x]y[/url]", "[b][/b][url=x][/url]"),
        ("a [link](http://x) here", "[link](http://x)"),
        ("{{Infobox}} [[Berlin]]", "{{Infobox}}[[Berlin]]"),
        ("3 < 4 and 5 > 2 & so on", ""),
    ],
)
def test_markup_is_found(text: str, matched: str) -> None:
    assert look(text)["markup_share"] == pytest.approx(len(matched) / len(text))


def test_characters_that_should_not_be_there_are_counted() -> None:
    kinds = alphabet("a\0b\x1bc\u202ed\ufffde\U0010fffff\ttab\n")
    assert (kinds.control_chars, kinds.bidi_chars, kinds.invalid_chars) == (2, 1, 2)


def test_marks_of_a_script_are_letters() -> None:
    assert alphabet("हिन्दी").alpha_share == 1


def test_matched_share_of_nothing_is_nothing() -> None:
    assert matched_share(re.compile("a"), "") == 0


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_values_within_the_contract_twice_the_same(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert look(text) == look(text)


@pytest.mark.parametrize("piece", ["[", "<a ", "](", "&", "{{", "a.", "http://", "[a="])
def test_no_text_takes_long(piece: str) -> None:
    import time

    start = time.process_time()
    look(piece * (200_000 // len(piece)))
    assert time.process_time() - start < 10
