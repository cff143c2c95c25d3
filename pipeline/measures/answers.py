"""Final answers: where a chain of thought states one, and when two of them are the same."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pipeline.measures.expressions import plain, tokens, value_of

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_STATED = re.compile(
    r"<answer>\s*(.*?)\s*</answer>"
    r"|^\s*####\s*(.+?)\s*$"
    r"|(?:answer|option|choice)(?:\*\*)?[ \t]*(?:is\b[ \t]*:?|:)(?:\*\*)?[ \t]*([^\n]+?)[ \t]*(?:\*\*)?[ \t]*$",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_LETTER = re.compile(
    r"^[\s(\[*$]*(?:option|choice)?\s*\(?([A-Za-z])\)?(?:[\s)\].:*$]*$|[).:]\s+\S.*)", re.IGNORECASE | re.DOTALL
)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_WRAPPING = " \t\n.,;:!?\"'`*$()[]{}"


def final_answer(chain: str) -> str | None:
    """The answer a chain states in so many words: the last `\\boxed{}`, else the last `Answer:`, `####` or tag."""
    boxed = _BOXED.findall(chain)
    if boxed:
        return str(boxed[-1]).strip()
    stated = [next(part for part in match if part) for match in _STATED.findall(chain) if any(match)]
    return stated[-1].strip() if stated else None


def last_values(chain: str) -> list[str]:
    """What a chain without such words ends on, in its last line with a number.

    The first number after the last `=`, the last number, and the last before a `because`.
    """
    for line in reversed(chain.splitlines()):
        signs = [sign for sign in tokens(plain(line)) if sign.kind in ("number", "equals")]
        numbers = [sign.text for sign in signs if sign.kind == "number"]
        if not numbers:
            continue
        equals = max((place for place, sign in enumerate(signs) if sign.kind == "equals"), default=None)
        after = [sign.text for sign in signs[equals + 1 :] if sign.kind == "number"][:1] if equals is not None else []
        claimed = [sign.text for sign in tokens(plain(line.partition(" because ")[0])) if sign.kind == "number"][-1:]
        return list(dict.fromkeys([*after, numbers[-1], *(claimed if " because " in line else [])]))
    return []


def same_answer(stated: str, truth: str, options: Sequence[str] = ()) -> bool:
    """Whether two answers are the same after normalisation.

    An option is its letter or its text; numbers are compared by value, whatever their signs of money, commas, units,
    percent sign or way of writing; other texts without letter case, articles and punctuation.
    """
    if options:
        ours, theirs = option_of(stated, options), option_of(truth, options)
        if ours is not None and theirs is not None:
            return ours == theirs
    if _normal(stated) == _normal(truth):
        return True
    ours_value, theirs_value = number(stated), number(truth)
    if ours_value is None or theirs_value is None:
        return False
    percent = ("%" in stated or "percent" in stated) != ("%" in truth or "percent" in truth)
    return ours_value == theirs_value or (percent and {ours_value * 100, ours_value / 100} & {theirs_value} != set())


def number(text: str) -> Fraction | None:
    """The value of an answer that is a number, perhaps with units or an equation before it (`x = 5 cm`); None else."""
    text = plain(_BOXED.sub(r"\1", text))
    found = value_of(text.strip(" \t\n,;:!?\"'`*"))
    if found is None and "=" in text:
        found = value_of(text.rpartition("=")[2])
    return found


def read_options(value: Any) -> list[str]:
    """Options as a list of texts, from a list or a text that shows one; [] if there are none."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []


def option_of(text: str, options: Sequence[str]) -> int | None:
    """The place of the option that an answer names, by its letter or its text; None if it names none."""
    text = _BOXED.sub(r"\1", text)
    bare = _normal(text)
    for place, option in enumerate(options):
        if bare == _normal(option):
            return place
    match = _LETTER.match(text)
    place = ord(match.group(1).upper()) - ord("A") if match else -1
    return place if 0 <= place < len(options) else None


def _normal(text: str) -> str:
    text = unicodedata.normalize("NFKC", plain(text)).casefold()
    return " ".join(_ARTICLE.sub(" ", text).strip(_WRAPPING).split())
