from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import grammar

# Text ids 0..9 and specials 10..18; size tokens for sides 1..3; eight image codes from 20.
VOCABULARY = {
    "format": 1,
    "text_size": 20,
    "image_offset": 20,
    "image_codes": 8,
    "start_image": 10,
    "end_image": 11,
    "begin_image_tokens": 12,
    "mask": 13,
    "eos": 14,
    "pad": 14,
    "role_end": 15,
    "size_ids": [16, 17, 18],
}


def span(kind: str, start: int, length: int, target: bool = False, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "start": start, "length": length, "target": target, **more}


# "ab" <|image|> 2 3 <boi> six codes <|/image|> "c" <|image|> 1 1 <boi> one code
IDS = [1, 2, 10, 17, 18, 12, 20, 21, 22, 23, 24, 25, 11, 3, 10, 16, 16, 12, 27]
SPANS = [
    span("text", 0, 2),
    span("token", 2, 4),
    span("image", 6, 6, grid=[2, 3], role="source"),
    span("token", 12, 1),
    span("text", 13, 1),
    span("token", 14, 4),
    span("image", 18, 1, True, grid=[1, 1], role="target"),
]


def check(ids: list[int], spans: list[dict[str, Any]], complete: bool = True) -> None:
    grammar.check(VOCABULARY, np.array(ids, np.int32), spans, complete=complete)


def changed(position: int, token_id: int) -> list[int]:
    return [*IDS[:position], token_id, *IDS[position + 1 :]]


def respanned(index: int, **change: Any) -> list[dict[str, Any]]:
    return [*SPANS[:index], SPANS[index] | change, *SPANS[index + 1 :]]


def test_a_good_sequence_passes():
    check(IDS, SPANS)
    check([], [], complete=False)


def kind_of(token_id: int) -> str:
    """What an id may be exchanged for without harm."""
    if 20 <= token_id < 28:
        return "image"
    return "text" if token_id in {*range(10), 19} else str(token_id)


@given(st.integers(0, len(IDS) - 1), st.integers(-3, 40))
def test_any_exchanged_id_is_noticed(position: int, token_id: int):
    ids = changed(position, token_id)
    if kind_of(token_id) == kind_of(IDS[position]):
        check(ids, SPANS)
    else:
        with pytest.raises(ValueError, match=r"position \d+|span \d+"):
            check(ids, SPANS)


@given(st.integers(0, len(IDS) - 1))
def test_a_lost_id_is_noticed(position: int):
    with pytest.raises(ValueError, match="cover 19 ids, the sequence has 18"):
        check(IDS[:position] + IDS[position + 1 :], SPANS)


@pytest.mark.parametrize(
    ("ids", "spans", "message"),
    [
        (changed(1, 23), SPANS, "position 1: image id 23 inside text span 0"),
        (changed(13, 28), SPANS, "position 13: id 28 in text span 4 is outside the vocabulary of 28 ids"),
        (changed(0, -1), SPANS, "position 0: id -1 in text span 0 is outside"),
        (changed(1, 13), SPANS, "position 1: special id 13 inside text span 0"),
        (changed(12, 14), SPANS, "position 12: id 14 after image span 2 is not the end of a picture"),
        (changed(12, 5), respanned(3, kind="text"), "position 12: id 5 after image span 2 is not the end"),
        (changed(2, 5), SPANS, "position 2: ordinary text id 5 inside token span 1"),
        (changed(8, 5), SPANS, "position 8: id 5 inside image span 2 is no image id"),
        (changed(3, 16), SPANS, "image span 2 at 6: header .10, 16, 18, 12. does not announce a grid of 2x3"),
        (IDS, respanned(2, grid=[3, 2]), "does not announce a grid of 3x2"),
        (IDS, respanned(2, grid=[2, 2]), "6 ids for a grid of 2x2"),
        (IDS, respanned(2, grid=[6, 1]), "no size token above 3"),
        (IDS, respanned(2, grid=None), "needs a role and a grid"),
        (IDS, respanned(2, role=None), "needs a role and a grid"),
        (IDS, respanned(2, kind="picture"), "kind 'picture' is none of text, token, image"),
        (IDS, respanned(0, target=1), "target 1 is neither true nor false"),
        (IDS, respanned(0, length=3), "span 1 starts at 2 with length 4; expected start 3"),
        (IDS, respanned(0, length=0), "span 0 starts at 0 with length 0"),
        (IDS, SPANS[:-1], "the spans cover 18 ids, the sequence has 19"),
        (IDS, respanned(6, target=False), "no span is a target"),
    ],
)
def test_what_is_wrong_is_named(ids: list[int], spans: list[dict[str, Any]], message: str):
    with pytest.raises(ValueError, match=message) as error:
        check(ids, spans)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([12], "position 0: begin of image tokens without a header"),
        ([11], "position 0: end of a picture without image ids"),
        ([17], "position 0: size id 17 outside a picture's header"),
        ([10, 16, 17], "position 1: size id 16 outside"),
        ([10, 16, 16, 12, 11], "position 3: begin of image tokens without"),
        ([13], "position 0: mask or pad id 13 inside token span 0"),
    ],
)
def test_stray_tokens_are_named(ids: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        check(ids, [span("token", 0, len(ids), True)])


# "q" | "a" eos | "q" | "a" eos: two turns
TURNS = [
    span("text", 0, 2),
    span("text", 2, 2, True),
    span("token", 4, 1, True),
    span("text", 5, 1),
    span("text", 6, 1, True),
    span("token", 7, 1, True),
]
TURN_IDS = [1, 2, 3, 4, 14, 5, 6, 14]


def test_answers_in_turn_pass_when_each_is_closed():
    check(TURN_IDS, TURNS)


@pytest.mark.parametrize(
    ("ids", "spans", "message"),
    [
        (TURN_IDS[:6], TURNS[:4], "span 3 at 5 is no target: nothing answers it"),
        (TURN_IDS[:7], TURNS[:5], "text span 4 at 6 is a target, and no token of the model closes it"),
        (
            TURN_IDS,
            [*TURNS[:2], TURNS[2] | {"target": False}, *TURNS[3:]],
            "text span 1 at 2 is a target, and no token",
        ),
        ([1, 2, 3, 4, 4, 5, 6, 14], [*TURNS[:2], span("text", 4, 1), *TURNS[3:]], "text span 1 at 2 is a target"),
    ],
)
def test_an_answer_left_open_and_a_question_left_alone_are_named(
    ids: list[int], spans: list[dict[str, Any]], message: str
):
    with pytest.raises(ValueError, match=message):
        check(ids, spans)
    check(ids, spans, complete=False)


def test_a_lone_start_of_image_is_allowed():
    check([10, 1, 14], [span("token", 0, 1), span("text", 1, 1), span("token", 2, 1, True)])


def test_a_prompt_may_end_with_a_header_but_a_sample_may_not():
    ids, spans = IDS[:18], SPANS[:6]
    check(ids, spans, complete=False)
    with pytest.raises(ValueError, match="position 17: begin of image tokens"):
        check(ids, [*spans[:5], spans[5] | {"target": True}])


def test_padding_with_an_id_of_its_own_is_refused():
    vocabulary = VOCABULARY | {"pad": 9}
    with pytest.raises(ValueError, match="position 1: mask or pad id 9"):
        grammar.check(vocabulary, np.array([14, 9]), [span("token", 0, 2, True)])


def test_ids_must_be_a_row_of_integers():
    for ids in (np.zeros((1, 2), np.int32), np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match="ids must be integers"):
            grammar.check(VOCABULARY, ids, [])


def test_pictures_are_found_without_spans():
    assert grammar.find_images(VOCABULARY, np.array(IDS)) == [(6, 2, 3), (18, 1, 1)]
    assert grammar.find_images(VOCABULARY, np.array([16, 16, 12, 10, 12, 10, 16, 1, 12])) == []
