"""For every column a good and a bad text, with the exact values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.prose import ends_sentence, mojibake_share, odd_share
from pipeline.operator import Quarantine, check_row
from tests.pipeline.pictures import columns_of, measure, record

GOOD = 'A heron stood in the river.\nIt waited all day for one fish, and then "flew home".'


def look(text: Any, **params: Any) -> dict[str, Any]:
    made = measure("prose", **params)
    given_record = record(Path(), text=text)
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def test_running_text_has_nothing_to_object_to() -> None:
    assert look(GOOD) == {
        "lines": 2, "ends_whole": True, "ended_lines": 1.0, "short_lines": 0.0, "repeated_lines": 0.0,
        "odd_words": 0.0, "mojibake": 0.0,
    }  # fmt: skip


def test_a_text_cut_off_does_not_end_whole() -> None:
    cut = look(GOOD[:50])
    assert (cut["ends_whole"], cut["ended_lines"]) == (False, 0.5)


def test_a_menu_is_short_lines_that_end_nothing() -> None:
    found = look("Home\nAbout us\nSign in\nThe heron is a bird that likes to stand in water.")
    assert (found["short_lines"], found["ended_lines"]) == (0.75, 0.25)
    assert look("Home\nAbout us", short=2)["short_lines"] == 0.5


def test_lines_that_come_again_count_by_their_length() -> None:
    assert look("abc\nabc\ndefg")["repeated_lines"] == pytest.approx(3 / 10)


@pytest.mark.parametrize("word", ["inheren~", "righ^s", "hul~n", "sOme", "w0rd", "a|b", "mix_up"])
def test_words_as_bad_character_recognition_leaves_them_are_odd(word: str) -> None:
    assert odd_share([word, "fine"]) == 0.5


@pytest.mark.parametrize(
    "word", ["QnA", "don't", "co-operate", "3rd", "H2", "Bot_Age", "e.g.", "AudioTask", "naïve", "世界"]
)
def test_words_of_people_and_programmers_are_not(word: str) -> None:
    assert odd_share([word]) == 0.0


@pytest.mark.parametrize(("text", "share"), [("cafÃ© x", 2 / 7), ("weâ\x80\x99re", 3 / 7), ("weâ€™re", 3 / 7)])
def test_utf8_read_as_latin1_is_mojibake(text: str, share: float) -> None:
    assert mojibake_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["café à la crème", "Ångström", "30 °C", "naïve “quoted” – text", "Â"])
def test_accents_in_their_place_are_not(text: str) -> None:
    assert mojibake_share(text) == 0.0


@given(st.text(st.characters(min_codepoint=0xA1, max_codepoint=0x24F, categories=["L"]), min_size=1))
def test_letters_read_in_the_wrong_encoding_are_found_whole(text: str) -> None:
    assert mojibake_share(text.encode().decode("latin-1")) == 1.0


@pytest.mark.parametrize("line", ["Yes.", "Yes?", '"Yes!"', "(Yes.)", "そうだ。", "हाँ।", "نعم؟", "wait…"])
def test_a_sentence_ends_in_any_script(line: str) -> None:
    assert ends_sentence(line)


@pytest.mark.parametrize("line", ["", "Yes", "yes,", "[Office](https://office.com)", "...)a"])
def test_other_lines_do_not(line: str) -> None:
    assert not ends_sentence(line)


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_without_a_text_there_is_nothing_to_say(text: str | None) -> None:
    found = look(text)
    assert found.pop("lines") == 0
    assert set(found.values()) == {None}


def test_a_field_that_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine, match="field 'text' holds int"):
        look(3)
