from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import sequences, templates
from model.image_tokenizer import Grid
from model.sequences import Image, Segment, Span, Text, Token, TokenSequence
from model.templates import TEMPLATES
from model.text_tokenizer import TextTokenizer
from model.vocabulary import Vocabulary

TOKENIZER = TextTokenizer.embedded()
VOCABULARY = Vocabulary.from_tokenizer(TOKENIZER, image_codes=64)
CODES = np.arange(6, dtype=np.int32).reshape(2, 3)

texts = st.builds(Text, st.text(min_size=1, max_size=20), st.booleans())
tokens = st.builds(
    Token,
    st.sampled_from(["<|endoftext|>", "<|role_end|>", "<|image|>", "<boi>", "<|reserved_token_7|>"]),
    st.booleans(),
)


@st.composite
def images(draw: st.DrawFn) -> Image:
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    codes = draw(st.lists(st.integers(0, 63), min_size=height * width, max_size=height * width))
    role = draw(st.sampled_from(["input", "source", "target", "frame"]))
    grid = Grid(height, width)
    return Image(grid, np.array(codes, np.int32).reshape(height, width), role, draw(st.booleans()))


segment_lists = st.lists(st.one_of(texts, tokens, images()), max_size=8)


@given(segment_lists)
def test_segments_come_back_from_their_sequence(segments: list[Segment]):
    sequence = sequences.render(segments, VOCABULARY, TOKENIZER)
    assert sequences.parse(sequence, VOCABULARY, TOKENIZER) == tuple(segments)


@given(segment_lists)
def test_spans_cover_the_ids_and_come_back_from_json(segments: list[Segment]):
    sequence = sequences.render(segments, VOCABULARY, TOKENIZER)
    position = 0
    for span in sequence.spans:
        assert span.start == position
        position += span.length
        assert Span.from_json(json.loads(json.dumps(span.to_json()))) == span
    assert position == len(sequence.ids)
    assert sequence.ids.dtype == np.int32


@given(segment_lists)
def test_masks_say_what_is_target_and_what_is_image(segments: list[Segment]):
    sequence = sequences.render(segments, VOCABULARY, TOKENIZER)
    target, image = [], []
    for segment in segments:
        length = len(sequences.render([segment], VOCABULARY, TOKENIZER).ids)
        target += [segment.target] * length
        image += [isinstance(segment, Image)] * length
    assert sequence.target_mask().tolist() == target
    assert sequence.image_mask().tolist() == image
    assert image == [VOCABULARY.is_image(i) for i in sequence.ids.tolist()]


@given(st.lists(st.integers(0, VOCABULARY.text_size - 1), max_size=40))
def test_whatever_a_model_wrote_comes_back_exactly(written: list[int]):
    """Also ids that no text would give: odd splits, bytes that are not UTF-8, stray special tokens."""
    ids = np.array(written, np.int32)
    try:
        spans = sequences.find_spans(ids, VOCABULARY)
    except ValueError:
        return  # a header that promises more image ids than there are
    segments = sequences.parse(TokenSequence(ids, spans), VOCABULARY, TOKENIZER)
    assert sequences.render(segments, VOCABULARY, TOKENIZER).ids.tolist() == written


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_every_template_round_trips_and_obeys_the_grammar(name: str):
    for example in TEMPLATES[name].examples:
        segments = TEMPLATES[name].function(**example)
        sequence = sequences.render(segments, VOCABULARY, TOKENIZER)
        assert sequences.parse(sequence, VOCABULARY, TOKENIZER) == segments
        whole = any(segment.target for segment in segments) and segments[-1] != Token("<boi>", target=True)
        sequences.check(sequence, VOCABULARY, complete=whole)
        assert whole or "branch" in example or "codes" not in example


def test_spans_are_found_again_in_bare_ids():
    segments = templates.editing("make it red", [CODES], CODES)
    ids = sequences.render(segments, VOCABULARY, TOKENIZER).ids
    spans = sequences.find_spans(ids, VOCABULARY, role="frame", target=True)
    kinds = ["text", "token", "image", "token", "text", "token", "image", "token"]
    assert [span.kind for span in spans] == kinds
    assert [span.grid for span in spans if span.kind == "image"] == [Grid(2, 3)] * 2
    sequences.check(TokenSequence(ids, spans), VOCABULARY)


def test_a_header_that_ends_a_prompt_is_a_run_of_tokens():
    ids = sequences.render(templates.text_to_image("p", Grid(2, 3)), VOCABULARY, TOKENIZER).ids
    last = sequences.find_spans(ids, VOCABULARY)[-1]
    assert (last.kind, last.length, last.start + last.length) == ("token", 4, len(ids))


def test_a_picture_cut_short_is_told():
    segments = templates.text_to_image("p", Grid(2, 3), CODES)
    ids = sequences.render(segments, VOCABULARY, TOKENIZER).ids
    with pytest.raises(ValueError, match="only 4 ids follow the header of a 2x3 picture"):
        sequences.find_spans(ids[:-3], VOCABULARY)


def test_pieces_are_tokenised_one_by_one():
    joined = sequences.render([Text("pa"), Text("per")], VOCABULARY, TOKENIZER)
    assert joined.ids.tolist() == TOKENIZER.encode("pa") + TOKENIZER.encode("per")
    assert joined.ids.tolist() != TOKENIZER.encode("paper")


def test_image_ids_are_codes_in_raster_order_above_the_text_ids():
    sequence = sequences.render(sequences.picture(CODES, "input"), VOCABULARY, TOKENIZER)
    header = [VOCABULARY.start_image, VOCABULARY.size_id(2), VOCABULARY.size_id(3)]
    body = [VOCABULARY.begin_image_tokens, *range(VOCABULARY.text_size, VOCABULARY.text_size + 6)]
    assert sequence.ids.tolist() == [*header, *body, VOCABULARY.end_image]
    assert [span.to_json() for span in sequence.spans] == [
        {"kind": "token", "start": 0, "length": 4, "target": False},
        {"kind": "image", "start": 4, "length": 6, "target": False, "grid": [2, 3], "role": "input"},
        {"kind": "token", "start": 10, "length": 1, "target": False},
    ]


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Token("<|nothing|>"), r"segment 1 \(token <\|nothing\|>\): the tokenizer has no such token"),
        (Token("a"), r"'a' \(id \d+\) is no special token"),
        (
            Image(Grid(2, 3), CODES + 60, "target"),
            r"target picture 2x3\): image code 65 is outside the code book",
        ),
        (Image(Grid(2, 3), CODES - 1, "source"), r"source picture 2x3\): image code -1"),
        (Text("x", ids=(VOCABULARY.mask,)), r"text 'x'\): id \d+ at 0 of the text is no ordinary text id"),
        (Text("x", ids=(5, VOCABULARY.image_offset)), "at 1 of the text is no ordinary text id"),
    ],
)
def test_a_segment_that_cannot_be_written_is_named(segment: Segment, message: str):
    with pytest.raises(ValueError, match=message):
        sequences.render([Text("before"), segment], VOCABULARY, TOKENIZER)


def test_a_picture_too_long_for_the_size_tokens_is_told():
    panorama = sequences.picture(np.zeros((6, 188), np.int32), "input")
    with pytest.raises(ValueError, match=r"<\|reserved_token_188\|>\): .* up to 128 patches a side"):
        sequences.render(panorama, VOCABULARY, TOKENIZER)


def test_impossible_segments_are_refused():
    with pytest.raises(ValueError, match="empty"):
        Text("")
    with pytest.raises(ValueError, match=r"codes \[2, 3\] do not fill the target picture's grid 3x2"):
        Image(Grid(3, 2), CODES, "target")


def test_images_compare_by_their_codes():
    image = Image(Grid(2, 3), CODES, "target")
    assert image == Image(Grid(2, 3), CODES.copy(), "target")
    assert hash(image) == hash(Image(Grid(2, 3), CODES.copy(), "target"))
    assert image != Image(Grid(2, 3), CODES[::-1].copy(), "target")
    assert image != Image(Grid(2, 3), CODES, "source")
    assert image != Text("x")
