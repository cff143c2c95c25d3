"""Finds the equations in a chain of thought and computes them again, exactly.

An equation is what stands left of `=` as far back as it reads as arithmetic, and what stands right of it as far on.
What cannot be read for certain (unknowns, words between an operator and its number, times of day) is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.measures.expressions import Term, Token, plain, read, tokens

_MARK = re.compile(r"<<([^<>]{1,300})>>")
_VISIBLE = re.compile(r"[$€£]?\s?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")
_UNITS_BETWEEN = 12
_CLAUSE = frozenset(
    {"so", "then", "is", "are", "was", "were", "equals", "therefore", "thus", "hence", "because", "which", "and", "but"}
    | {"if", "that", "we", "he", "she", "it", "they", "total", "cost"}
)
"""Words that no unit has: an expression does not reach over them."""
_OPERATOR_WORDS = frozenset({"of", "times", "by", "plus", "minus", "over", "than"})
_SHARES = frozenset(
    {"half", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth", "fifths", "percent"}
)

_SAME = (
    {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800},
    {"month": 1, "year": 12, "decade": 120},
    {"cent": 1, "penny": 1, "pennie": 1, "nickel": 5, "dime": 10, "quarter": 25, "dollar": 100, "$": 100, "buck": 100},
    {"inch": 1, "inche": 1, "foot": 12, "feet": 12, "ft": 12, "yard": 36, "mile": 63360},
    {"mm": 1, "cm": 10, "centimeter": 10, "m": 1000, "meter": 1000, "km": 1_000_000, "kilometer": 1_000_000},
    {"gram": 1, "g": 1, "kg": 1000, "kilogram": 1000, "ton": 1_000_000},
    {"ounce": 1, "oz": 1, "pound": 16, "lb": 16},
    {"milliliter": 1, "ml": 1, "liter": 1000, "l": 1000},
    {"cup": 1, "pint": 2, "quart": 4, "gallon": 16},
    {"": 1, "dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9},
)


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation that was computed again: its text, whether it holds, and what its left side comes to."""

    text: str
    holds: bool
    value: Fraction


def equations(chain: str) -> list[Equation]:
    """Every equation of a chain that can be read, in order, GSM8K's `<<48/2=24>>` marks included.

    The number that follows a mark must be the mark's result.
    """
    found: list[Equation] = []
    for line in plain(chain).splitlines():
        for mark in _MARK.finditer(line):
            found += _of_line(mark.group(1))
            found += _shown(mark, line)
        found += _of_line(_MARK.sub("", line))
    return found


def _shown(mark: re.Match[str], line: str) -> Iterator[Equation]:
    """Whether the text goes on with the result of a mark."""
    result = tokens(mark.group(1).rpartition("=")[2])
    visible = _VISIBLE.match(line, mark.end())
    if visible and len(result) == 1 and result[0].kind == "number":
        written = Fraction(visible.group(1).replace(",", ""))
        yield Equation(mark.group() + visible.group(), written == result[0].value, result[0].value)


def _of_line(line: str) -> Iterator[Equation]:
    signs = tokens(line)
    for place, sign in enumerate(signs):
        if sign.kind == "equals":
            left, right = _before(signs, place), _after(signs, place)
            if left and right:
                yield from _judged(line, left, right, about=sign.text == "≈")


def _judged(
    line: str, left: Sequence[Sequence[Token]], right: Sequence[Sequence[Token]], about: bool
) -> Iterator[Equation]:
    ones = [term for part in left if (term := read(part)) is not None]
    others = [term for part in right if (term := read(part)) is not None]
    if not ones or not others or ones[0].operations + max(other.operations for other in others) == 0:
        return
    # `x 100% = 50`, `50 = 100 / 2`: a bare number on the left says nothing unless the right side is computed.
    holds = any(_equal(one, other, about) for one in ones for other in others)
    last = right[0][-1]
    text = line[left[0][0].start : last.end].strip()
    yield Equation(" ".join(text.split()), holds, ones[0].values[0])


def _equal(one: Term, other: Term, about: bool) -> bool:
    """Equal, or as near as the right side is written; percent signs and units may be taken either way."""
    pairs = [(left, right) for left in one.values for right in other.values]
    pairs += [(one.values[0] * factor, other.values[0]) for factor in _factors(one.units, other.units)]
    return any(_written(left, right, other, about) for left, right in pairs)


def _written(left: Fraction, right: Fraction, other: Term, about: bool) -> bool:
    if left == right:
        return True
    if other.operations:
        return False
    step = Fraction(1, 10**other.decimals)
    if about:
        digits = str(abs(int(right)))
        step = max(
            step, Fraction(10 ** (len(digits) - len(digits.rstrip("0") or "0"))) if other.decimals == 0 else step
        )
        return abs(left - right) <= step
    # Rounded, cut off or rounded up to whole things: only where the exact value cannot be written with these decimals.
    return (left / step).denominator != 1 and abs(left - right) < step


def _factors(one: Sequence[str], other: Sequence[str]) -> Iterator[Fraction]:
    """By what a value in one unit is multiplied to be in the other's."""
    for scale in _SAME:
        ours = {scale[unit] for unit in map(_singular, one) if unit in scale}
        theirs = {scale[unit] for unit in map(_singular, other) if unit in scale}
        if "" in scale:
            ours, theirs = ours | {1}, theirs | {1}
        yield from sorted(Fraction(a, b) for a in ours for b in theirs if a != b)


def _singular(unit: str) -> str:
    unit = unit.partition("/")[0].rstrip(".")
    return unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit


def _before(signs: Sequence[Token], place: int) -> list[Sequence[Token]]:
    """The longest run of tokens before an equals sign that reads as one expression; none if it cannot be told.

    Walks back over: units, then a number or a bracket, then perhaps an operator and once more.
    """
    start = place
    begin = place
    while True:
        units = 0
        start -= 1
        while start >= 0 and _is_unit(signs[start]) and units < _UNITS_BETWEEN:
            start, units = start - 1, units + 1
        if start >= 0 and signs[start].kind == "close":
            start = _opening(signs, start)
        elif start < 0 or signs[start].kind != "number":
            return []
        if start < 0:
            return []
        begin = start
        if start > 0 and signs[start].kind == "open" and _touches(signs, start):
            # 2(3 + 4)
            return []
        if start > 0 and signs[start - 1].kind == "op":
            sign = start - 1
            if sign == 0 or signs[sign - 1].kind in ("equals", "stop", "open"):
                # A sign before the first number: a minus, or a bullet of a list.
                if signs[sign].text == "-" and signs[sign].end == signs[begin].start:
                    return [signs[sign:place]]
                return [signs[begin:place], signs[sign:place]]
            start = sign
            continue
        return [signs[begin:place]] if _begins(signs, begin) else []


def _begins(signs: Sequence[Token], begin: int) -> bool:
    """Whether an expression can begin here: no operator waits for it behind words, nothing unknown stands by it."""
    before = begin - 1
    if before >= 0 and signs[before].kind in ("variable", "close", "number"):
        return signs[before].kind == "number"
    if before >= 0 and signs[before].text.casefold() in _OPERATOR_WORDS:
        # `a total of 3 + 4`, `rose by 3 + 4`; but `half of 3 + 4`, `20% of 80`, `5 times 3`, `divided by 3`.
        verb = signs[before - 1].text.casefold() if before else ""
        share = before > 0 and (signs[before - 1].kind == "number" or verb in _SHARES)
        share |= verb.startswith(("divi", "multipl"))
        if share or signs[before].text.casefold() not in ("of", "by"):
            return False
    if before > 0 and signs[before].kind == "open" and signs[before - 1].kind == "op":
        return False
    while before >= 0 and signs[before].kind == "word":
        before -= 1
    return before < 0 or signs[before].kind not in ("op", "variable")


def _touches(signs: Sequence[Token], place: int) -> bool:
    """Whether a bracket follows a number or bracket without a blank, which means times."""
    return signs[place - 1].kind in ("number", "close") and signs[place - 1].end == signs[place].start


def _is_unit(sign: Token) -> bool:
    return sign.kind == "word" and sign.text.casefold() not in _CLAUSE


def _opening(signs: Sequence[Token], place: int) -> int:
    """Where the bracket that closes at `place` opens; -1 if nowhere."""
    depth = 0
    for start in range(place, -1, -1):
        depth += {"close": 1, "open": -1}.get(signs[start].kind, 0)
        if depth == 0:
            return start
    return -1


def _after(signs: Sequence[Token], place: int) -> list[Sequence[Token]]:
    """What an equals sign may be followed by, the longest reading first: a whole expression, or its first number alone.

    Empty if it goes on in a way that cannot be read.
    """
    at = place + 1
    if at < len(signs) and signs[at].kind == "op" and signs[at].text == "-":
        at += 1
    first = _operand(signs, at)
    if first is None:
        return []
    end = first
    while end < len(signs) and signs[end].kind == "op":
        after = _operand(signs, end + 1)
        if after is None:
            # `= 10*p`, `= 3 x the rest`: not a number, unless a dash or slash joins words (`= 5-foot`, `= $3/quart`).
            joins = signs[end].text in "-/" and end + 1 < len(signs) and signs[end + 1].kind == "word"
            if not joins:
                return []
            break
        end = after
    if end < len(signs) and (signs[end].kind == "variable" or (signs[end].kind == "open" and _touches(signs, end))):
        return []
    if end + 1 < len(signs) and signs[end].text.casefold() in _OPERATOR_WORDS and signs[end + 1].kind == "number":
        return []
    units = end
    while units < len(signs) and _is_unit(signs[units]) and units < end + 2:
        units += 1
    whole = signs[place + 1 : units]
    alone = signs[place + 1 : first]
    if units < len(signs) and signs[units].kind == "op" and end == first and _operand(signs, units + 1) is not None:
        # `= 10 boats - 6 boats = 4`: the first number is meant, or all of it.
        rest = _after_units(signs, place, units)
        return [whole, *rest]
    return [whole] if len(alone) == len(whole) else [whole, alone]


def _after_units(signs: Sequence[Token], place: int, at: int) -> list[Sequence[Token]]:
    end = at
    while end < len(signs) and signs[end].kind in ("op", "number", "word", "open", "close"):
        end += 1
    return [signs[place + 1 : end]] if end < len(signs) and signs[end].kind == "equals" else []


def _operand(signs: Sequence[Token], at: int) -> int | None:
    """The place after the number or bracket that begins at `at`; None if none does."""
    if at >= len(signs):
        return None
    if signs[at].kind == "number":
        return at + 1
    if signs[at].kind != "open":
        return None
    depth = 0
    for end in range(at, len(signs)):
        depth += {"open": 1, "close": -1}.get(signs[end].kind, 0)
        if depth == 0:
            return end + 1
    return None
