from __future__ import annotations

import io
import re
from collections import Counter

import pytest
from PIL import Image

from pipeline.embedded.chains import marked, reasoning, story
from pipeline.embedded.item import KEPT, REASONING, Item, Row
from pipeline.embedded.stories import STORIES

SUM = re.compile(r"([\d(][\d ()+*/x-]*) = (\d+)")


def right(text: str) -> bool:
    """Every sum of a text, computed by Python."""
    sums = SUM.findall(text)
    return bool(sums) and all(eval(left.replace("x", "*")) == int(result) for left, result in sums)


@pytest.mark.parametrize("kind", STORIES)
def test_the_sums_of_a_story_are_right_and_end_on_its_answer(kind: str) -> None:
    for number in range(100):
        told = story(kind, number)
        assert all(right(step) for step in told.steps if "=" in step), told
        assert told.answer >= 0
        assert re.findall(r"\d+", told.steps[-1])[-1] == str(told.answer) or kind in told.question


def test_kept_chains_are_right_and_miscounted_ones_are_not() -> None:
    chains = {one.name: str(one.content["chain_of_thought"]) for one in reasoning() if isinstance(one, Row)}
    kept = {one.name for one in reasoning() if isinstance(one, Row) and one.expected[REASONING] == KEPT}
    assert len(kept) > 20
    assert all(right(chains[name]) for name in kept)
    wrong = [name for name in chains if name.startswith("miscounted")]
    assert len(wrong) == 4
    assert not any(right(chains[name]) for name in wrong)


def test_marks_repeat_the_sum_before_its_result() -> None:
    assert marked("So 7 x 96 = 672 people.") == "So 7 x 96 = <<7*96=672>>672 people."
    assert marked("The way is 2 * (3 + 4) = 14.") == "The way is 2 * (3 + 4) = <<2*(3+4)=14>>14."
    assert marked("No sum here.") == "No sum here."


def test_every_fault_has_a_chain() -> None:
    faults = Counter(one.expected[REASONING].reason for one in reasoning())
    for reason in ("arithmetic", "answer", "leak", "repeated", "reasoned", "steps", "template", "pictures",
                   "repetition", "encoding", "licence", "no licence", "exact", "near", "truncated image"):  # fmt: skip
        assert faults[reason], reason


def test_questions_over_pictures_count_what_is_drawn() -> None:
    asked = [one for one in reasoning() if isinstance(one, Item)]
    assert len(asked) >= 10
    for item in asked:
        shown = sum(map(int, re.findall(r"makes (\d+) \+ (\d+)", item.facts["chain_of_thought"])[0]))
        options = eval(item.facts["options"]) if "options" in item.facts else None
        answer = options["ABCD".index(item.facts["answer"])] if options else item.facts["answer"]
        assert int(answer) == shown
        image = Image.open(io.BytesIO(item.data or b""))
        if item.file == "counted_cut.jpg":
            with pytest.raises(OSError, match="truncated"):
                image.load()
        else:
            image.load()
