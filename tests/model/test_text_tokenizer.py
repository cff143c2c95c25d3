from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.embedded import train_tokenizer
from model.text_tokenizer import EMBEDDED_FILE, TextTokenizer, json_digest

TOKENIZER = TextTokenizer.embedded()
SPECIAL = train_tokenizer.special_tokens()


@given(st.text())
def test_any_text_round_trips(text: str):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.one_of(st.text(max_size=5), st.sampled_from(SPECIAL)), max_size=6).map("".join))
def test_content_never_becomes_a_special_token(text: str):
    special = {TOKENIZER.token_id(name) for name in SPECIAL}
    assert special.isdisjoint(TOKENIZER.encode(text))


def test_a_tokenizer_sent_to_a_worker_still_reads_special_spellings_as_text():
    sent = pickle.loads(pickle.dumps(TOKENIZER))
    text = "a caption that says <|image|> and <|endoftext|>"
    assert sent.encode(text) == TOKENIZER.encode(text)
    assert (sent.name, sent.fingerprint, sent.is_embedded) == (
        TOKENIZER.name,
        TOKENIZER.fingerprint,
        True,
    )


def test_encoding_adds_no_token_of_its_own():
    assert TOKENIZER.encode("") == []
    assert TOKENIZER.encode("ab") + TOKENIZER.encode(" boat") == TOKENIZER.encode("ab boat")


def test_special_tokens_are_found_by_name_and_back():
    for name in SPECIAL:
        assert TOKENIZER.token_name(TOKENIZER.token_id(name)) == name
    assert TOKENIZER.decode([TOKENIZER.token_id("<boi>")]) == "<boi>"


def test_role_tags_are_plain_text():
    assert not TOKENIZER.has_token("<role>")
    assert len(TOKENIZER.encode("<role>HUMAN</role>")) > 1


def test_an_unknown_name_or_id_is_told():
    with pytest.raises(ValueError, match=r"embedded-bpe has no token '<\|nothing\|>'"):
        TOKENIZER.token_id("<|nothing|>")
    for token_id in (-1, TOKENIZER.size):
        with pytest.raises(ValueError, match=f"no id {token_id}"):
            TOKENIZER.token_name(token_id)


def test_it_says_that_it_is_embedded(tmp_path: Path):
    copy = tmp_path / "tokenizer.json"
    copy.write_text(EMBEDDED_FILE.read_text("utf-8"), "utf-8")
    other = TextTokenizer.load(tmp_path)
    assert TOKENIZER.is_embedded
    assert not other.is_embedded
    assert other.name == tmp_path.name


def test_the_fingerprint_follows_content_not_layout_nor_a_callers_settings(tmp_path: Path):
    content = json.loads(EMBEDDED_FILE.read_text("utf-8"))
    reordered = dict(reversed(content.items()))
    reordered["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    same = TextTokenizer.from_json("copy", json.dumps(reordered, indent=3))
    assert same.fingerprint == TOKENIZER.fingerprint
    assert len(same.encode("one two three four")) == 4

    content["model"]["merges"] = content["model"]["merges"][:-1]
    assert TextTokenizer.from_json("cut", json.dumps(content)).fingerprint != TOKENIZER.fingerprint


def test_what_is_no_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="give a tokenizer"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        TextTokenizer.load(tmp_path)


def test_training_again_gives_the_shipped_file():
    assert json.loads(train_tokenizer.train()) == json.loads(EMBEDDED_FILE.read_text("utf-8"))


def test_english_is_shorter_in_ids_than_in_letters():
    text = "A man is riding a red bicycle in front of an old church. What colour is the sky?"
    assert len(TOKENIZER.encode(text)) < len(text) / 3


def test_the_digest_is_that_of_the_canonical_text():
    # sha256 of {"a":[1,"ü"],"b":null}
    assert json_digest({"b": None, "a": [1, "ü"]}) == json_digest({"a": [1, "ü"], "b": None})
    assert json_digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    with pytest.raises(ValueError, match="Out of range"):
        json_digest(float("nan"))
