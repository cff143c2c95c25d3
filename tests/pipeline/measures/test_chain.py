"""For every check a good and a bad chain, with the exact values."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.measures.chain import references, steps_of, template_of
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, measure

QUESTION = "Ann sold 48 clips in April and half as many in May. How many in all?"
CHAIN = "She sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips altogether."


def look(
    chain: Any = CHAIN, pictures: tuple[str, ...] = (), params: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    made = measure("chain", **(params or {}))
    media = tuple(MediaRef(role, "file", role) for role in pictures)
    given = {"question": QUESTION, "answer": "72", "chain": chain, **fields}
    record = Record("0" * 32, media, orjson.dumps(given), {}, MediaReader("."))
    check_row(made.columns, made.process(record))
    return columns_of(made, record)


def test_a_good_chain() -> None:
    assert look() == {
        "steps": 2, "only_answer": False, "repeated_steps": 0.0, "template": "plain", "template_whole": True,
        "final_answer": "72", "answer_matches": True, "equations": 2, "wrong_steps": 0, "wrong_step": None,
        "image_references": 0, "missing_images": 0, "leak": None,
    }  # fmt: skip


@pytest.mark.parametrize("chain", [None, "", " \n", "...\n--"])
def test_an_empty_chain_has_no_steps(chain: str | None) -> None:
    found = look(chain)
    assert found.pop("steps") == 0
    assert set(found.values()) == {None}


@pytest.mark.parametrize("chain", ["72", "The answer is 72.", "#### 72", "Answer: 72", "72 clips"])
def test_an_answer_alone_is_no_chain(chain: str) -> None:
    assert look(chain)["only_answer"] is True


@pytest.mark.parametrize("chain", ["48 + 24 = 72", "In May it is half of 48, so 72."])
def test_one_line_may_be_a_chain(chain: str) -> None:
    assert look(chain)["only_answer"] is False


def test_a_wrong_step_is_named_with_what_it_comes_to() -> None:
    found = look(CHAIN.replace("24 clips", "25 clips"))
    assert (found["equations"], found["wrong_steps"]) == (2, 1)
    assert found["wrong_step"] == "48/2 = 25 clips in (it is 24)"


def test_marks_beside_the_chain_are_checked_too() -> None:
    marked = "She sold half, <<48/2=24>>24, in May.\nShe sold 48+24 = <<48+24=72>>73 clips altogether."
    found = look("She sold half, 24, in May.\nThat makes 72.", params={"marked": "marked"}, marked=marked)
    assert (found["wrong_steps"], found["wrong_step"]) == (2, "<<48+24=72>>73 (it is 72)")


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"answer": "$72.00"}, True),
        ({"answer": "73"}, False),
        ({"answer": None}, None),
        ({"answer": ""}, None),
    ],
)
def test_the_answer_is_compared_with_the_true_one(change: dict[str, Any], matches: bool | None) -> None:
    assert look(**change)["answer_matches"] is matches


def test_of_options_the_letter_counts() -> None:
    options = "['Soleus', 'Peroneus longus']"
    fields = {"question": "Which? <image 1>", "options": options, "pictures": ("image",)}
    assert look("It is lateral.\nAnswer: B", answer="B", **fields)["answer_matches"] is True
    assert look("It is lateral.\nAnswer: Peroneus longus", answer="B", **fields)["answer_matches"] is True
    assert look("It is lateral.\nAnswer: $A$", answer="B", **fields)["answer_matches"] is False


@pytest.mark.parametrize(
    ("text", "pictures", "expected"),
    [
        ("see <image 1> and <image 2>", ("image", "image"), (2, 0)),
        ("see <image 1> and <image 3>", ("image", "image"), (2, 1)),
        ("see <image_1>, [Image 2]", ("image",), (2, 1)),
        ("<image 0>", ("image",), (1, 1)),
        ("<image>\n<image>", ("image",), (2, 1)),
        ("<image_start>[reasoning_image_1]<image_end>", ("problem_image_1", "reasoning_image_1"), (1, 0)),
        ("<image_start>[reasoning_image_2]<image_end>", ("problem_image_1", "reasoning_image_1"), (1, 1)),
        ("an image of 2 cats", (), (0, 0)),
    ],
)
def test_references_must_lead_to_pictures(text: str, pictures: tuple[str, ...], expected: tuple[int, int]) -> None:
    assert references(text, pictures, len(pictures)) == expected
    found = look(f"{CHAIN}\n{text}", pictures)
    assert (found["image_references"], found["missing_images"]) == expected


@pytest.mark.parametrize(
    ("chain", "template", "whole"),
    [
        ("<think>48/2 is 24</think>72", "think", True),
        ("<think>48/2 is 24</think>", "think", False),
        ("<think></think>72", "think", False),
        ("<think>48/2 is 24. 72", "think", False),
        ("well <think>a</think> 72", "think", False),
        ("<think>a<think>b</think>c</think>72", "think", False),
        ("THOUGHT 0: look\nTHOUGHT 1: count", "thoughts", True),
        ("Step 1: look\nStep 2: count", "thoughts", True),
        ("Step 1: look\nStep 3: count", "thoughts", False),
        ("48/2 = <<48/2=24>>24", "marks", True),
        ("48/2 = <<48/2=24>24", "marks", False),
        (CHAIN, "plain", True),
    ],
)
def test_a_template_is_kept_to(chain: str, template: str, whole: bool) -> None:
    assert template_of(chain) == (template, whole)


@pytest.mark.parametrize(
    ("fields", "leak"),
    [
        ({}, None),
        ({"question": QUESTION + " (Answer: 72)"}, "question"),
        ({"question": QUESTION + " Is 72 right?"}, None),
        ({"question": "Who wrote it? Ann Lee Smith did.", "answer": "Ann Lee Smith"}, "question"),
        ({"question": "Who wrote it?", "answer": "Ann Lee Smith"}, None),
        ({"chain": "The answer is 72.\n" + CHAIN}, "opening"),
        ({"chain": "72\n" + CHAIN}, "opening"),
        ({"chain": "<think>\nAnswer: 72\n" + CHAIN + "</think>72"}, "opening"),
        ({"chain": "She sold 144/2 = 72 clips.\nThat is all."}, None),
    ],
)
def test_an_answer_given_away_is_a_leak(fields: dict[str, Any], leak: str | None) -> None:
    assert look(**fields)["leak"] == leak


def test_steps_that_come_again_are_a_share() -> None:
    assert look("\n".join(["again and again"] * 3 + ["then 72"]))["repeated_steps"] == 0.5


def test_steps_are_lines_or_the_sentences_of_one_line() -> None:
    assert steps_of("First this.\n\n---\nThen that.") == ["First this.", "Then that."]
    assert steps_of("First this. Then that! 3.5 is left.") == ["First this.", "Then that!", "3.5 is left."]


def test_a_field_that_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine, match="field 'chain' holds list"):
        look(["a"])
