from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import vocabulary
from model.text_tokenizer import TextTokenizer
from model.vocabulary import RELEASED_FILE, Vocabulary, size_token
from tests.model.goldens import golden_json

TINY = Vocabulary(
    text_size=20,
    image_offset=20,
    image_codes=8,
    start_image=10,
    end_image=11,
    begin_image_tokens=12,
    mask=13,
    eos=14,
    pad=14,
    role_end=15,
    size_ids=(16, 17, 18),
)


@dataclass
class FakeTokenizer:
    """Only a table of names."""

    table: dict[str, int]
    size: int
    name: str = "fake"

    def has_token(self, name: str) -> bool:
        return name in self.table

    def token_id(self, name: str) -> int:
        if name not in self.table:
            raise ValueError(f"no {name}")
        return self.table[name]


def released_tokenizer(**changes: int) -> FakeTokenizer:
    """A table with the released ids; those of role end and size tokens are unpublished and made up here."""
    table = dict(json.loads(RELEASED_FILE.read_text())["tokens"]) | {"<|role_end|>": 156900}
    table |= {size_token(n): 157000 + n for n in range(1, 129)}
    return FakeTokenizer(table | changes, size=157184)


def test_text_ids_come_first_and_image_codes_follow():
    assert TINY.size == 28
    assert [TINY.is_image(i) for i in (-1, 0, 19, 20, 27, 28)] == [False, False, False, True, True, False]
    assert TINY.id_of_code(0) == 20
    assert TINY.code_of(27) == 7


@given(st.integers(-5, 40))
def test_code_and_id_are_inverse_and_anything_else_is_named(number: int):
    if 0 <= number < TINY.image_codes:
        assert TINY.code_of(TINY.id_of_code(number)) == number
    else:
        with pytest.raises(ValueError, match=f"image code {number} "):
            TINY.id_of_code(number)
    if TINY.is_image(number):
        assert TINY.id_of_code(TINY.code_of(number)) == number
    else:
        with pytest.raises(ValueError, match=f"id {number} is no image id"):
            TINY.code_of(number)


def test_a_grid_side_has_its_own_size_token_and_beyond_the_largest_none():
    assert [TINY.size_id(n) for n in (1, 2, 3)] == [16, 17, 18]
    for side in (0, 4, -1):
        with pytest.raises(ValueError, match=f"grid side of {side}: the vocabulary has 1..3"):
            TINY.size_id(side)


def test_json_holds_everything_and_the_fingerprint_is_stable():
    assert Vocabulary.from_json(json.loads(json.dumps(TINY.to_json()))) == TINY
    assert TINY.fingerprint() == "8a4faa87d47be00e25d236a220807ac9d8a3da79dfd4be4245dc34e14f189c8c"


@pytest.mark.parametrize(
    "change",
    [
        {"text_size": 19},
        {"image_offset": 21},
        {"image_codes": 9},
        {"start_image": 9},
        {"end_image": 9},
        {"begin_image_tokens": 9},
        {"mask": 9},
        {"eos": 9},
        {"pad": 9},
        {"role_end": 9},
        {"size_ids": (16, 17, 9)},
    ],
)
def test_every_field_counts_for_the_fingerprint(change: dict[str, object]):
    assert dataclasses.replace(TINY, **change).fingerprint() != TINY.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": 10}, "mask and start_image share the id 10"),
        ({"size_ids": (16, 16)}, r"share the id 16"),
        ({"pad": 12}, "pad and begin_image_tokens share the id 12"),
        ({"eos": 20}, "eos has id 20, outside the text ids 0..19"),
        ({"image_offset": 19}, "image_offset 19 lies inside the 20 text ids"),
        ({"size_ids": ()}, "no size tokens"),
        ({"image_codes": 0}, "empty vocabulary"),
    ],
)
def test_an_impossible_layout_is_refused(change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 is not 1"),
        ({"surplus": 1}, r"unknown \[.surplus.\]"),
        ({"mask": "13"}, "mask holds '13', which is no integer"),
        ({"mask": True}, "mask holds True"),
        ({"size_ids": [16, 17.0]}, "size_ids holds 17.0"),
    ],
)
def test_foreign_json_is_refused(change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_json(TINY.to_json() | change)


def test_missing_json_is_named():
    data = TINY.to_json()
    del data["mask"]
    with pytest.raises(ValueError, match=r"missing \[.mask.\]"):
        Vocabulary.from_json(data)


def test_the_embedded_tokenizer_gives_a_vocabulary_by_names_alone():
    tokenizer = TextTokenizer.embedded()
    found = Vocabulary.from_tokenizer(tokenizer, image_codes=1024)
    assert (found.text_size, found.image_offset, found.size) == (3072, 3072, 4096)
    assert tokenizer.token_name(found.mask) == vocabulary.MASK
    assert tokenizer.token_name(found.size_id(32)) == "<|reserved_token_32|>"
    assert found.largest_side == 128
    assert found.eos == found.pad


def test_a_padded_text_range_moves_the_image_codes():
    found = Vocabulary.from_tokenizer(TextTokenizer.embedded(), image_codes=10, text_size=4000)
    assert (found.image_offset, found.size) == (4000, 4010)


def test_the_released_layout_fits_the_released_tokenizer():
    found = Vocabulary.released(released_tokenizer())
    assert (found.size, found.image_offset, found.largest_side) == (173568, 157184, 128)
    assert found.size_id(5) == 157005


def test_the_released_layout_refuses_another_tokenizer():
    with pytest.raises(ValueError, match=r"<boi> the id 7, the released model \d+"):
        Vocabulary.released(released_tokenizer(**{"<boi>": 7}))


@pytest.mark.golden
def test_the_released_ids_are_those_of_the_goldens():
    found = Vocabulary.released(released_tokenizer())
    known = golden_json("templates/templates.json")["known_ids"]
    assert {
        "<|image|>": found.start_image,
        "<|/image|>": found.end_image,
        "<boi>": found.begin_image_tokens,
        "mask": found.mask,
        "eos_and_pad": found.eos,
    } == known
