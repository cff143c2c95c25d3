from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.annotations.prompt import Prompt, load_prompt, shipped_names

PINNED = {
    "boxes_check/v1": "bdcfb474cfd5ce5de0b1ca070b607ce0",
    "caption_long/v1": "a30c6c325c4fda4b8a1e213551caad03",
    "caption_short/v1": "674ab961d216f66b9d7efbd6ad438967",
    "clip_instruction/v1": "98d48ee691f017110a98b53570c53cf7",
    "edit_instruction/v1": "961d5ecc541c066f0d702936101c2191",
    "edit_judge/v1": "3ab6f41c8bd28d5c1dcc3cca83ab3e1f",
    "frame_text/v1": "2df3a3cdeb4d2d80bb5368e2ff33ed73",
    "ocr_correct/v1": "e65b5b0fcf9ff0ec9c31176620a11072",
    "query_check/v1": "eb5bd3e6818f1c48a9a90a35458409d2",
    "response_check/v1": "96140ec5b46937f1063ccc23346e4e8d",
    "turn_quality/v1": "7afc0917bd3acad322ab810eb827476b",
}


def make(**changes: Any) -> Prompt:
    return Prompt.model_validate({"name": "a", "version": 1, "user": ["Describe it.", 'It says "{text}".'], **changes})


def test_a_shipped_prompt_never_changes_under_its_version() -> None:
    assert {name: load_prompt(name).hash for name in shipped_names()} == PINNED


def test_captions_say_how_many_words_and_take_the_text_of_the_source() -> None:
    for name in ("caption_long/v1", "caption_short/v1"):
        assert load_prompt(name).gaps == ("text",)
    assert "in 100 to 200 words" in load_prompt("caption_long/v1").text({})
    assert "at most 30 words" in load_prompt("caption_short/v1").text({})


def test_a_paragraph_whose_gap_has_no_value_is_left_out() -> None:
    assert make().text({"text": None}) == make().text({"text": " \n"}) == make().text({}) == "Describe it."
    assert make().text({"text": "a\n cake"}) == 'Describe it.\n\nIt says "a cake".'


@given(st.text(alphabet="{}textab \n", min_size=1).filter(str.strip))
def test_braces_in_a_value_are_not_gaps(value: str) -> None:
    assert make().text({"text": value}) == f'Describe it.\n\nIt says "{" ".join(value.split())}".'


def test_json_braces_in_a_prompt_are_no_gaps() -> None:
    prompt = make(user=['Answer {"a": 1} or {}.'])
    assert prompt.gaps == ()
    assert prompt.text({}) == 'Answer {"a": 1} or {}.'


def test_numbers_are_told_without_a_point() -> None:
    prompt = make(user=["It is {width} wide.", "Go."])
    assert prompt.text({"width": 640.0}) == "It is 640 wide.\n\nGo."
    assert prompt.text({"width": 0}) == "It is 0 wide.\n\nGo."


def test_the_hash_covers_all_that_is_asked_and_not_what_is_said_about_it() -> None:
    base = make()
    assert make(about="other").hash == base.hash
    changes: list[dict[str, Any]] = [
        {"name": "b"},
        {"version": 2},
        {"system": "s"},
        {"user": ["Describe it!"]},
        {"max_words": 3},
        {"schema": {"type": "object"}},
    ]
    assert len({base.hash, *(make(**change).hash for change in changes)}) == 1 + len(changes)
    assert base.label == f"a/v1#{base.hash[:12]}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": ["{text}"]}, "would be asked nothing"),
        ({"user": ["At most {max_words}."]}, "has no value; write max_words"),
        ({"system": "About {text}."}, "only user paragraphs"),
        ({"schema": {"type": "array"}}, "describe an object"),
        ({"schema": {"type": "object"}, "take": "caption"}, "not among the schema's required"),
        ({"sistem": "s"}, "Extra inputs"),
        ({"version": 0}, "greater than or equal to 1"),
    ],
)
def test_prompts_that_cannot_be_right_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "prompt .*own.yaml: cannot be read: No such file"),
        (b"a: [", "not YAML"),
        (b"\xff\xfe", "not YAML"),
        (b"- a", "a prompt is a mapping"),
        (b"name: a\nversion: 1\n", "own.yaml: user: Field required"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_prompt(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="no prompt 'caption_short/v9'; there are: boxes_check/v1, caption_long/v1, caption_short/v1"
    ):
        load_prompt("caption_short/v9")


def test_a_prompt_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nversion: 3\nuser: [Say it.]\n")
    assert load_prompt(str(path)).label.startswith("own/v3#")
