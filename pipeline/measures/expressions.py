"""Reads and computes arithmetic as people write it: numbers, operators, brackets, units; nothing is ever run."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "op", "open", "close", "equals", "word", "variable", "stop"]

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    r"(?P<unknown>\d+:\d+(?::\d+)?|(?<![\d,])\d+,\d{1,2}(?![\d,])|\d+(?:st|nd|rd|th)\b)"  # 3:30, 1,5, 2nd
    rf"|(?P<mixed>(?<![\d.,/*+-])(?:[$€£]\s?)?\d+ (?:and )?\(?\d+/\d+\)?(?![\d/]))"
    rf"|(?P<number>(?:[$€£]\s?)?(?:{_NUMBER})(?:\s?(?:\\?%|percent\b))?)"
    r"|(?P<joined>(?<=[\d%])[-/](?:[^\W\d_][\w'’]+)(?:[-/][^\W\d_][\w'’]*)*)"  # 5-foot, $3/quart
    r"|(?P<equals>=|≈)"
    r"|(?P<op>\*\*|[-+*/^−–×·⋅÷]|(?<![A-Za-z])[xX](?=\s*[$€£(]?\s*[.\d])|(?<=\d)\s*[xX](?=\s))"
    r"|(?P<open>[(\[])|(?P<close>[)\]])"
    r"|(?P<power>[²³])"
    r"|(?P<word>[ap]\.m\.|[^\W\d_][\w'’]*(?:[-/][^\W\d_][\w'’]*)*)"
    r"|(?P<stop>[^\s$€£])"
)
_OPERATORS = {"x": "*", "X": "*", "×": "*", "·": "*", "⋅": "*", "÷": "/", "^": "**", "−": "-", "–": "-"}
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "*"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\\approx(?![a-z])"), "≈"),
    (re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|[,;! ()\[\]])"), " "),
    (re.compile(r"\*\*(?=[^\W\d_])|(?<=[\w.:!?])\*\*(?=\s|$)|(?<=\s)\*\*(?=\S)|^\*\*"), " "),
)
_CLOCK = re.compile(r"[ap]\.?m\.?|o['’]clock|noon|midnight", re.IGNORECASE)
_MOST_TOKENS = 120
_MOST_DIGITS = 40
_MOST_POWER = 64


@dataclass(frozen=True, slots=True)
class Token:
    """One sign of an expression: its kind, the text, and of a number the value, decimals and whether it is percent."""

    kind: Kind
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)
    decimals: int = 0
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """An expression that was read.

    `values` are what it may mean: percent as hundredths, percent signs left out, and `+ 10%` as a tenth more.
    """

    values: tuple[Fraction, ...]
    operations: int
    decimals: int
    """Decimals of a lone number; 0 else."""
    units: tuple[str, ...]


def plain(text: str) -> str:
    """The text with LaTeX's fractions, operators and brackets as plain ones, and without bold marks."""
    for pattern, instead in _LATEX:
        text = pattern.sub(instead, text)
    return text


def tokens(line: str) -> list[Token]:
    """The signs of one line."""
    found: list[Token] = []
    for match in _TOKEN.finditer(line):
        kind, text = match.lastgroup or "stop", match.group()
        at = match.span()
        if kind in ("number", "mixed"):
            found.append(_number(text, at))
        elif kind == "unknown":
            found.append(Token("variable", text, *at))
        elif kind == "power":
            found += [Token("op", "**", *at), Token("number", text, *at, Fraction("²³".index(text) + 2))]
        elif kind == "word" and found and found[-1].kind == "number" and found[-1].end == at[0] and len(text) == 1:
            # A letter right after a number is an unknown (4x), except the units that are one letter.
            found.append(Token("word" if text in "gmlsLkh" else "variable", text, *at))
        elif kind == "joined":
            found.append(Token("word", text[1:], *at))
        elif kind == "op":
            text = text.strip()
            found.append(Token("op", _OPERATORS.get(text, text), *at))
        else:
            found.append(Token(kind, text, *at))  # type: ignore[arg-type]
    return found


def _number(text: str, at: tuple[int, int]) -> Token:
    bare = re.sub(r"[^\d./ ]", " ", text.replace(",", "")).split()
    percent = "%" in text or "percent" in text
    if len(bare) == 2:
        top, bottom = bare[1].split("/")
        value = int(bare[0]) + (Fraction(int(top), int(bottom)) if int(bottom) else Fraction(0))
        return Token("number", text, *at, value, 9, percent)
    decimals = len(bare[0].partition(".")[2])
    return Token("number", text.strip(), *at, Fraction(bare[0][:_MOST_DIGITS]), decimals, percent)


def value_of(text: str) -> Fraction | None:
    """The value of a text that is one number, fraction or expression, units and signs of money aside; else None."""
    line = tokens(plain(text.strip().rstrip(".")))
    term = read(line)
    return term.values[0] if term is not None else None


def read(line: Sequence[Token]) -> Term | None:  # noqa: PLR0911 - one way out for each kind of sign
    """What tokens come to if all of them make up one expression, words being units; None if they do not."""
    names: dict[str, Token] = {}
    parts: list[str] = []
    units: list[str] = []
    operand = False
    for token in line[: _MOST_TOKENS + 1]:
        if token.kind == "number":
            if operand:
                return None
            names[f"n{len(names)}"] = token
            parts.append(f"n{len(names) - 1}")
            operand = True
            if "$" in token.text:
                units.append("$")
        elif token.kind == "word":
            if not operand or _CLOCK.fullmatch(token.text):
                return None
            units.append(token.text.casefold())
        elif token.kind == "open":
            if operand:
                return None
            parts.append("(")
        elif token.kind == "close":
            parts.append(")")
            operand = True
        elif token.kind == "op":
            parts.append(token.text)
            operand = False
        else:
            return None
    if not names or len(line) > _MOST_TOKENS:
        return None
    hundredths = {name: one.value / 100 if one.percent else one.value for name, one in names.items()}
    readings = [_compute(parts, hundredths)]
    if any(one.percent for one in names.values()):
        readings.append(_compute(parts, {name: one.value for name, one in names.items()}))
        readings.append(_compute(_relative(parts, names), hundredths))
    values = tuple(value for value in readings if value is not None)
    if len(values) < len(readings):
        return None
    lone = next(iter(names.values())) if len(names) == 1 else None
    operations = sum(part in {"+", "-", "*", "/", "**"} for part in parts[1:])
    return Term(values, operations, lone.decimals if lone else 0, tuple(units))


def _relative(parts: Sequence[str], names: dict[str, Token]) -> list[str]:
    """The same with `+ 10%` as so much more of all before it."""
    found: list[str] = []
    for part in parts:
        if part in names and names[part].percent and found and found[-1] in {"+", "-"} and "(" not in found:
            sign = found.pop()
            found = ["(", *found, ")", "*", "(", "one", sign, part, ")"]
        else:
            found.append(part)
    return found


def _compute(parts: Sequence[str], names: dict[str, Fraction]) -> Fraction | None:
    """The exact value of an expression in Python's grammar over names; None if it is no such thing or has no value."""
    try:
        return _value(ast.parse(" ".join(parts), mode="eval").body, names)
    except (SyntaxError, ZeroDivisionError, OverflowError, RecursionError, MemoryError, ValueError):
        return None


def _value(node: ast.expr, names: dict[str, Fraction]) -> Fraction:  # noqa: PLR0911 - one way out for each operator
    if isinstance(node, ast.Name):
        return Fraction(1) if node.id == "one" else names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inner = _value(node.operand, names)
        return -inner if isinstance(node.op, ast.USub) else inner
    if not isinstance(node, ast.BinOp):
        raise ValueError("not arithmetic")
    left, right = _value(node.left, names), _value(node.right, names)
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.Pow():
            if right.denominator != 1 or abs(right) > _MOST_POWER or left.numerator.bit_length() > _MOST_DIGITS:
                raise ValueError("not a power that is worth computing")
            return Fraction(left ** int(right))
    raise ValueError("not arithmetic")
