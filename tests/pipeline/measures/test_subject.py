from __future__ import annotations

from typing import Any

import pytest

from catalog.errors import UserError
from pipeline.measures.subject import Subject, SubjectParams
from pipeline.media import MediaReader
from pipeline.operator import Quarantine, Record
from tests.pipeline.runs import plan_of


def subject(values: dict[str, Any], **params: Any) -> str:
    (found,) = Subject(SubjectParams(**params)).process(Record("0" * 32, (), b"{}", values, MediaReader(".")))
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("A man talking on a phone behind a blue car.", "people"),
        ("Portrait of an admiral", "people"),
        ("Two surfers wait for a wave", "people"),
        ("Different kinds of street signs hanging from a pole", "text"),
        ('The words "make things happen" on a circle', "text"),
        ("A bowl labelled Bon Appetit", "text"),
        ("A woman holds a poster", "text"),  # text comes first
        ("An airport filled with large passenger jets", "other"),
        ("A manual typewriter of a human-free world? no, womanless", "people"),  # `human` stands there as a word
        ("A signal lamp by the romantic window", "other"),  # neither `sign` nor `man` is a word here
        ("", "other"),
        (None, "other"),
    ],
)
def test_words_of_the_caption_tell_the_subject(caption: str | None, wanted: str) -> None:
    assert subject({"text": caption}) == wanted


def test_what_was_measured_tells_it_where_the_caption_does_not() -> None:
    measured = {"faces": "faces", "text_share": "text_share"}
    assert subject({"text": None, "faces": 2, "text_share": 0.0}, **measured) == "people"
    assert subject({"text": None, "faces": 2, "text_share": 0.02}, **measured) == "text"
    assert subject({"text": None, "faces": 0, "text_share": 0.019}, **measured) == "other"
    assert subject({"text": "a lake", "faces": None, "text_share": None}, **measured) == "other"


def test_a_caption_that_is_no_text_sets_the_record_aside() -> None:
    with pytest.raises(Quarantine, match="holds int"):
        subject({"text": 3})


def test_columns_that_nobody_writes_are_refused() -> None:
    with pytest.raises(UserError, match=r"nodes\.a: subject reads 'faces', which no node above writes"):
        plan_of("a: {measure: subject, params: {faces: faces}}")
