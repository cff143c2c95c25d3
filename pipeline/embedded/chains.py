"""The records of `reasoning`: chains of thought whose every number is known, over words and over drawn pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.embedded import objects
from pipeline.embedded.item import (
    EXACT,
    KEPT,
    NEAR,
    REASONING,
    End,
    Item,
    Row,
    described,
    dropped,
    encoded,
    quarantined,
)
from pipeline.embedded.picture import COLOURS, NUMBERS, Origin
from pipeline.embedded.stories import STORIES, Story

INDEX = "chains.jsonl"
_ORIGIN = Origin(path="pipeline/embedded/stories.py")
_NAMES = tuple(name for name in COLOURS if name != "white")
_STATED = ("{answer}", "#### {answer}", "Answer: {answer}", "The answer is {answer}.", "\\boxed{{{answer}}}")


def reasoning() -> Iterator[Item | Row]:
    """All of them, in manifest order."""
    yield from _pictured()
    yield from _sound()
    yield from _wrong()
    yield from _copies()


def story(kind: str, number: int) -> Story:
    """The story of a kind and a number."""
    place = list(STORIES).index(kind)
    a, b = 24 + 2 * ((place * 7 + number * 11) % 17), 4 + 2 * ((place * 5 + number * 3) % 7)
    return STORIES[kind](a, b)


def marked(step: str) -> str:
    """A step with its calculation in marks before the result, as GSM8K has it."""
    return re.sub(r"(\(?[\d(][\d ()+*x/-]*) = (\d+)", _mark, step)


def _mark(found: re.Match[str]) -> str:
    sum_, result = found.group(1).replace(" ", "").replace("x", "*"), found.group(2)
    return f"{found.group(1)} = <<{sum_}={result}>>{result}"


def _sound() -> Iterator[Row]:
    """Chains that hold: every story twice, the answer stated in every way there is."""
    for number in range(2):
        for place, kind in enumerate(STORIES):
            told = story(kind, number)
            ending = _STATED[(place + number) % len(_STATED)].format(answer=told.answer)
            chain = [*told.steps, *([ending] if ending != str(told.answer) else [])]
            raw = [*map(marked, told.steps), ending] if place % 3 == 0 else None
            yield _row(f"{kind}_{number}", told, chain, KEPT, raw)
    told = story("bakery", 7)
    thought = f"<think>\n{told.steps[0]}\n{told.steps[1]}\n</think>\nAnswer: {told.answer}"
    yield _row("thought_0", told, [thought], KEPT)
    told = story("cinema", 8)
    yield _row("numbered_0", told, [f"Step {n}: {step}" for n, step in enumerate(told.steps, 1)], KEPT)


def _wrong() -> Iterator[Row]:
    """Chains with one fault each."""
    for number, kind in enumerate(("garden", "boats", "wool", "birds")):
        told = story(kind, 20 + number)
        first = re.sub(r"= (\d+)", lambda found: f"= {int(found.group(1)) + 3}", told.steps[0], count=1)
        yield _row(f"miscounted_{number}", told, [first, *told.steps[1:]], dropped("arithmetic"))
    for number, kind in enumerate(("train", "steps", "choir")):
        told = story(kind, 30 + number)
        yield _row(f"misanswered_{number}", told, [*told.steps, f"Answer: {told.answer + 4}"], dropped("answer"))
    told = story("books", 33)
    yield _row("untold_0", told, [*told.steps, f"Answer: {told.answer}"], dropped("answer"), answer="")
    for number, kind in enumerate(("apples", "cinema")):
        told = story(kind, 40 + number)
        opened = [f"The answer is {told.answer}.", *told.steps]
        yield _row(f"leaked_{number}", told, opened, dropped("leak"))
    told = story("water", 42)
    yield _row("leaked_2", replace(told, question=f"{told.question}\nAnswer: {told.answer}"), list(told.steps),
               dropped("leak"))  # fmt: skip
    for number, kind in enumerate(("bakery", "train")):
        told = story(kind, 50 + number)
        yield _row(f"circling_{number}", told, [*[told.steps[0]] * 5, *told.steps[1:]], dropped("repeated"))
    for number, kind in enumerate(("garden", "books", "boats")):
        told = story(kind, 60 + number)
        bare = (f"{told.answer}", f"The answer is {told.answer}.", f"#### {told.answer}")[number]
        yield _row(f"unreasoned_{number}", told, [bare], dropped("reasoned"))
    yield _row("empty_0", story("wool", 63), [], dropped("steps"))
    told = story("steps", 70)
    yield _row("unclosed_0", told, [f"<think>\n{told.steps[0]}", *told.steps[1:]], dropped("template"))
    told = story("choir", 71)
    yield _row("misnumbered_0", told, [f"Step {n}: {step}" for n, step in zip((1, 3, 4), told.steps, strict=True)],
               dropped("template"))  # fmt: skip
    told = story("birds", 72)
    seen = replace(told, question=f"<image 1> {told.question}")
    yield _row("pictureless_0", seen, list(told.steps), dropped("pictures"))
    told = story("apples", 73)
    yield _row("pictureless_1", told, [f"As [reasoning_image_1] shows: {told.steps[0]}", *told.steps[1:]],
               dropped("pictures"))  # fmt: skip
    told = story("water", 74)
    words = "the tank and the tank and " * 30
    yield _row("stuttered_0", told, [f"{words.strip()}.", *told.steps], dropped("repetition"))
    told = story("cinema", 75)
    yield _row("garbled_0", told, [told.steps[0].replace("euros", "eur\ufffds"), *told.steps[1:]], dropped("encoding"))
    for number, licence in enumerate(("CC-BY-NC-4.0", None)):
        told = story("bakery", 80 + number)
        end = dropped("licence" if licence else "no licence")
        terms = replace(_ORIGIN, licence=licence, note="stated for the test")
        yield _row(f"terms_{number}", told, list(told.steps), end, origin=terms)


def _copies() -> Iterator[Row]:
    """The longer of two near-equal chains stays, so the copies have fewer steps; exact ones are alike in everything."""
    for kind in ("garden", "steps"):
        told = story(kind, 0)
        place = list(STORIES).index(kind)
        ending = _STATED[place % len(_STATED)].format(answer=told.answer)
        chain = [*told.steps, *([ending] if ending != str(told.answer) else [])]
        raw = [*map(marked, told.steps), ending] if place % 3 == 0 else None
        yield _row(f"{kind}_0_exact", told, chain, EXACT, raw, near_dup_group=f"{kind}_0")
    told = story("train", 1)
    yield _row("train_1_reworded", told, [f"{told.steps[0]} {told.steps[1]}", told.steps[2]], NEAR)


def _pictured() -> Iterator[Item]:
    """Questions about how many things a drawn picture shows."""
    for index in range(9):
        yield _asked(f"counted_{index:02d}", index, KEPT)
    yield _asked("counted_wrong", 20, dropped("answer"), more=1)
    yield _asked("counted_elsewhere", 21, dropped("pictures"), place=2)
    broken = _asked("counted_cut", 22, quarantined("truncated image"))
    assert broken.data is not None
    facts = {name: value for name, value in broken.facts.items() if name != "image"}
    yield replace(broken, data=broken.data[: len(broken.data) // 2], facts=facts)


def _asked(name: str, index: int, end: End, more: int = 0, place: int = 1) -> Item:
    """A question over a picture; the chain counts `more` things than there are, the question names picture `place`."""
    kinds = objects.OUTLINES
    one, two = kinds[index % 5], kinds[(index + 2) % 5]
    colours = [_NAMES[(index + step * 3) % len(_NAMES)] for step in range(2)]
    counts = 2 + index % 4, 1 + index * 2 % 5
    wanted = [(colours[0], one, counts[0]), (colours[1], two, counts[1])]
    picture = objects.shapes(name, ((512, 400), (400, 400), (480, 600))[index % 3], wanted)
    words = [_plural(f"{colour} {kind}", count) for colour, kind, count in wanted]
    answer = sum(counts)
    steps = [f"I look for both kinds of paper shapes on the sheet and find {words[0]}.", f"I also count {words[1]}."]
    steps.append(f"Together that makes {counts[0]} + {counts[1]} = {answer} shapes.")
    asked = f"<image {place}> How many {one}s and {two}s lie on the sheet of paper?"
    options = [str(answer + step) for step in (-1, 0, 1, 3)] if index % 3 == 2 else None
    right = "B" if options else str(answer)
    steps.append(f"Answer: {answer + more}")
    data = encoded(picture.image, quality=90)
    facts = described(picture, data, ("image reasoning chain", "chain verification"), question=asked,
                      options=repr(options or []), answer=right, chain_of_thought="\n".join(steps),
                      chain_source="drawn", subject="counting")  # fmt: skip
    del facts["tags"]
    return Item(f"{name}.jpg", data, {REASONING: end}, picture.origin, facts)


def _plural(noun: str, count: int) -> str:
    return f"{NUMBERS[count]} {noun}{'' if count == 1 else 's'}"


def _row(
    name: str,
    told: Story,
    chain: list[str],
    end: End,
    raw: list[str] | None = None,
    answer: str | None = None,
    origin: Origin = _ORIGIN,
    **more: Any,
) -> Row:
    line: dict[str, Any] = {"id": f"reasoning/{name}", "question": told.question, "chain_of_thought": "\n".join(chain)}
    if raw is not None:
        line["chain_raw"] = "\n".join(raw)
    line |= {"answer": str(told.answer) if answer is None else answer, "subject": "math", "chain_source": "drawn"}
    facts = {"purpose": ["reasoning chain"], "subject": "math", "chain_source": "drawn", **more}
    return Row(INDEX, name, line, {REASONING: end}, origin, facts)
