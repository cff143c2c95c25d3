"""Measure `chain`: whether a chain of thought holds together, and comes to the answer it should."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.measures.answers import final_answer, last_values, number, read_options, same_answer
from pipeline.measures.arithmetic import equations
from pipeline.operator import Column, Measure, Params, Record, text_field

_MARK = re.compile(r"<<[^<>]{0,300}>>")
_TAG = re.compile(r"</?(?:think|answer)>")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+(?=\S)")
_NUMBERED = re.compile(r"<\s*image[ _#]?(\d+)\s*>|\[\s*image[ _#]?(\d+)\s*\]", re.IGNORECASE)
_NAMED = re.compile(r"\[((?:problem|reasoning)_image_\d+)\]", re.IGNORECASE)
_UNNUMBERED = re.compile(r"<\s*image\s*>", re.IGNORECASE)
_ANSWERED = re.compile(
    r"^\W*(?:so,?\s+|thus,?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+is\b|\s*:)", re.IGNORECASE
)
_THOUGHT = re.compile(r"^\W*(?:THOUGHT|Step|STEP)\s+(\d+)\b", re.MULTILINE)


class References(NamedTuple):
    """References of a text to pictures."""

    found: int
    missing: int


def steps_of(chain: str) -> list[str]:
    """The steps of a chain: its lines that say something, or its sentences if it is one line; marks and tags aside."""
    plain = _TAG.sub("\n", _MARK.sub("", chain))
    lines = [line.strip() for line in plain.splitlines() if any(map(str.isalnum, line))]
    return [step for step in _SENTENCE.split(lines[0]) if step] if len(lines) == 1 else lines


def references(text: str, roles: Sequence[str], images: int) -> References:
    """How many references to pictures a text has, and how many of them lead to none.

    `<image 2>` needs two pictures, `[reasoning_image_1]` a medium of that role, and there are no more bare `<image>`
    than pictures. `roles` are those of the record's media, `images` is their number.
    """
    numbered = [int(one or two) for one, two in _NUMBERED.findall(text)]
    named = [name.lower() for name in _NAMED.findall(text)]
    bare = len(_UNNUMBERED.findall(text))
    missing = sum(not 1 <= place <= images for place in numbered)
    missing += sum(name not in roles for name in named) + max(0, bare - images)
    return References(len(numbered) + len(named) + bare, missing)


def template_of(chain: str) -> tuple[str, bool]:
    """The thinking template a chain follows (`think`, `thoughts`, `marks`, `plain`), and whether it keeps to it.

    `think`: one `<think>` part with something in it, closed, first, and an answer after it. `thoughts`: steps that say
    their number, one after the other. `marks`: GSM8K's calculations, every one closed.
    """
    if re.search(r"</?think>", chain):
        match = re.fullmatch(r"\s*<think>(.*?)</think>(.*)", chain, re.DOTALL)
        whole = match is not None and not re.search(r"</?think>", match.group(1) + match.group(2))
        return "think", bool(whole and match and match.group(1).strip() and match.group(2).strip())
    thoughts = [int(place) for place in _THOUGHT.findall(chain)]
    if thoughts:
        return "thoughts", thoughts in (list(range(len(thoughts))), list(range(1, len(thoughts) + 1)))
    if "<<" in chain:
        return "marks", chain.count("<<") == len(_MARK.findall(chain)) == chain.count(">>")
    return "plain", True


def leak_of(question: str, steps: Sequence[str], truth: str, options: Sequence[str]) -> str | None:
    """Where an answer is given away before it is reasoned out: in the `question`, at the `opening`, or None.

    A question gives it away if it states an answer (`Answer: 72`) that is the true one, or holds a true answer of three
    words or more, unless that is one of its options. A chain does if its first step of several states the answer.
    """
    stated = final_answer(question)
    if stated is not None and same_answer(stated, truth, options):
        return "question"
    wordy = len(truth.split()) >= 3 and number(truth) is None and truth not in options
    if wordy and truth.casefold() in question.casefold():
        return "question"
    if len(steps) > 1:
        opening = final_answer(steps[0]) if _ANSWERED.search(steps[0]) else None
        if _bare(steps[0], truth, options) or (opening is not None and same_answer(opening, truth, options)):
            return "opening"
    return None


class ChainParams(Params):
    """Names of the fields read. `marked` may name the same chain with GSM8K's marks, which are checked too."""

    question: str = "question"
    chain: str = "chain"
    answer: str = "answer"
    options: str = "options"
    marked: str | None = None


class Chain(Measure):
    """Structure, final answer, arithmetic, references and leaks of a chain of thought; nulls without one."""

    name = "chain"
    version = 1
    Params = ChainParams
    params: ChainParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column(
                "steps", pa.int64(), "lines that say something, or sentences of a single line; 0 without a chain", 0
            ),
            Column("only_answer", pa.bool_(), "nothing but the answer is said"),
            Column("repeated_steps", pa.float64(), "share of the steps that occurred before", 0, 1, "lower"),
            Column("template", pa.string(), "`think`, `thoughts`, `marks` or `plain`"),
            Column("template_whole", pa.bool_(), "the chain keeps to its template: tags closed, steps numbered on"),
            Column("final_answer", pa.string(), "the answer the chain states or ends on"),
            Column("answer_matches", pa.bool_(), "it is the true one after normalisation; null without a true one"),
            Column("equations", pa.int64(), "equations that could be computed again", 0),
            Column("wrong_steps", pa.int64(), "equations that do not hold", 0, None, "lower"),
            Column("wrong_step", pa.string(), "the first of them and what it comes to"),
            Column("image_references", pa.int64(), "references to pictures in question and chain", 0),
            Column(
                "missing_images", pa.int64(), "references to pictures that the record does not have", 0, None, "lower"
            ),
            Column("leak", pa.string(), "where the answer is given away: `question`, `opening`; else null"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The chain's columns; raises Quarantine when a field holds something else than text."""
        fields = record.fields
        question, chain, answer = (
            text_field(fields, name) or "" for name in (self.params.question, self.params.chain, self.params.answer)
        )
        steps = steps_of(chain)
        if not steps:
            return (0, *[None] * (len(self.columns) - 1))
        options = read_options(fields.get(self.params.options))
        stated = final_answer(chain)
        candidates = [stated] if stated is not None else last_values(chain)
        if not candidates:
            candidates = [steps[-1]]
        matching = [one for one in candidates if answer and same_answer(one, answer, options)]
        template, whole = template_of(chain)
        found = equations(chain)
        if self.params.marked is not None:
            marked = equations("\n".join(_with_marks(text_field(fields, self.params.marked) or "")))
            found += [one for one in marked if one.text not in {other.text for other in found}]
        wrong = [one for one in found if not one.holds]
        shown = references(f"{question}\n{chain}", [ref.role for ref in record.media], len(record.media))
        return (
            len(steps),
            len(steps) == 1 and (_ANSWERED.search(steps[0]) is not None or _bare(steps[0], answer, options)),
            1 - len(set(steps)) / len(steps),
            template,
            whole,
            (matching or candidates)[0],
            bool(matching) if answer else None,
            len(found),
            len(wrong),
            f"{wrong[0].text} (it is {_shown(wrong[0].value)})" if wrong else None,
            shown.found,
            shown.missing,
            leak_of(question, steps, answer, options) if answer else None,
        )


def _with_marks(chain: str) -> list[str]:
    """Lines that hold marks: of the others nothing new is learned."""
    return [line for line in chain.splitlines() if "<<" in line]


def _bare(step: str, answer: str, options: Sequence[str]) -> bool:
    return (
        bool(answer) and "=" not in step and len(step.split()) <= 3 and same_answer(step.lstrip("# "), answer, options)
    )


def _shown(value: Any) -> str:
    return f"{float(value):.10g}" if abs(value) < 10**15 else "very large"
