"""Equations as people write them: what is read, what is wrong, and what is left alone."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.arithmetic import equations
from pipeline.measures.expressions import value_of
from tests.bench.bench_chains import TYPOS
from tests.pipeline.pictures import CORPORA

CHAINS = CORPORA / "reasoning" / "chains.jsonl"


def judged(text: str) -> list[tuple[str, bool]]:
    return [(one.text, one.holds) for one in equations(text)]


TRUE = [
    "Natalia sold 48/2 = 24 clips in May.",
    "he had 10 + 40 = 50 pencils in all",
    "a discount of 10/100 x $400 = $40 for the jackets",
    "5 people/vampire * 2 vampires = 10 people",
    "36 books belonging to Albert + 9 books belonging to Stu = 45 books",
    "$6,000 / $1,500/scarf = 4 scarves",
    "5 jars x 2 liters/jar = 10 liters of juice",
    "30 boats * 20% = 6 boats",
    "$8.50/$50 x 100% = 17%",
    "200 + 10% = 220",
    "100 - 20% = 80",
    "10/.10 = 100 dimes",
    "40/60 = 2/3 of a mile",
    "100 / 6= 16 and (2/3)",
    "100/3 = 33.33",
    "100/3 = 34 buses",
    "1000/3 ≈ 330",
    r"\frac{3}{4} \times 8 = 6",
    "5^2 = 25",
    "5² = 25",
    "12 ÷ 4 = 3",
    "(2+3)*4 = 20",
    "10*5 = 50 - 20 = 30",
    "2 * 3 hours = 360 minutes",
    "25 cents * 4 = $1",
    "2 million * 3 = 6,000,000",
    "-3 + 5 = 2",
    "- 5 + 3 = 8",
    "2 + 3 = 5 (apples)",
    "$35 x (52 x 2) = $35 x 104 = $3640",
    "500 cubic inches * (60%) = 300",
    "3 - 5 = -2",
]


@pytest.mark.parametrize("text", TRUE)
def test_true_equations_are_read_and_hold(text: str) -> None:
    found = judged(text)
    assert found
    assert all(holds for _, holds in found)


FALSE = {
    "so she had 50-8 = 44 bracelets left": ("50-8 = 44 bracelets left", 42),
    "in all 4+4+6 = 18 hot dogs": ("4+4+6 = 18 hot dogs", 14),
    "100/3 = 35": ("100/3 = 35", Fraction(100, 3)),
    "10/4 = 2.6": ("10/4 = 2.6", Fraction(5, 2)),
    "2 + 2 = **5**": ("2 + 2 = 5", 4),
    "2/3+1/6=5/7": ("2/3+1/6=5/7", Fraction(5, 6)),
    "5² = 26": ("5² = 26", 25),
    "a total of 3 + 4 = 8": ("3 + 4 = 8", 7),
    "50% * 40 = 25": ("50% * 40 = 25", 20),
    "2 * 3 hours = 350 minutes": ("2 * 3 hours = 350 minutes", 6),
    "5 people/vampire * 2 vampires = 11 people": ("5 people/vampire * 2 vampires = 11 people", 10),
}


@pytest.mark.parametrize("text", FALSE)
def test_false_equations_are_found_with_what_they_come_to(text: str) -> None:
    (found,) = equations(text)
    assert (found.text, found.holds, found.value) == (FALSE[text][0], False, FALSE[text][1])


@pytest.mark.parametrize(
    "text",
    [
        "4x = 40",
        "x + x - 4 + 2x = 36",
        "6*X + 2*(X*2) = $50",
        "1 + (Michael's age - 1) x 2 = 15",
        "$30 = 10*p + (20-10)*p/2",
        "B - 12 - 19 = B - 31 books",
        "3 x the height of 12 inches = 35 inches",
        "3 x the height of 12 + 2 = 38",
        "4 * their 3 + 2 = 14",
        "10 - 4 are left so the price = 30",
        "divided by 3 + 4 = 5",
        "2(3 + 4) = 13",
        "2 + 12 = 2(7)",
        "3 + 4 * 2 + ... = 11",
        "11 a.m. + 3 hours = 2 p.m.",
        "3:30 + 2 = 5:30",
        "1,5 * 2 = 3",
        "There were 10 - 4 left. The total cost = 30",
        "half of 3 + 4 = 2",
        "4*5 = 20% of 100",
        "1 hour = 60 minutes",
        "p = $2",
        "5/0 = 1",
        "9**9**9 = 3",
        "2 + 2 <= 5",
        "2 + 2 != 5",
        "5 + 5 = ten",
        "(" * 500 + "1" + ")" * 500 + " + 1 = 3",
        "__import__('os') = 3",
    ],
)
def test_what_cannot_be_read_for_certain_is_not_judged(text: str) -> None:
    assert judged(text) == []


def test_marks_are_checked_and_the_text_must_go_on_with_their_result() -> None:
    assert judged("48/2 = <<48/2=24>>24 clips") == [
        ("48/2=24", True),
        ("<<48/2=24>>24", True),
        ("48/2 = 24 clips", True),
    ]
    assert ("<<48/2=24>>25", False) in judged("he sold <<48/2=24>>25 clips")
    assert ("48/2=23", False) in judged("<<48/2=23>>23")


numbers = st.integers(0, 9999) | st.decimals(0, 999, places=2, allow_nan=False)
signs = st.sampled_from(["+", "-", "*", "/"])


@given(
    st.lists(st.tuples(signs, numbers), min_size=1, max_size=5), numbers, st.sampled_from(["", " eggs", "%", " a day"])
)
def test_what_python_computes_exactly_holds_and_its_neighbour_does_not(rest: list, first: object, unit: str) -> None:
    exact = f"Fraction('{first}')" + "".join(f" {sign} Fraction('{value}')" for sign, value in rest)
    try:
        value = eval(exact, {"Fraction": Fraction})
    except ZeroDivisionError:
        return
    written = f"{first}" + "".join(f" {sign} {one}" for sign, one in rest)
    if value.denominator == 1 and value >= 0:
        (found,) = equations(f"it is {written} = {value}{unit if unit != '%' else ''}.")
        assert (found.holds, found.value) == (True, value)
        (found,) = equations(f"it is {written} = {value + 1}.")
        assert not found.holds


@given(st.text(st.sampled_from("0123456789+-*/=().%$ ,xX<>abc\n^"), max_size=80))
def test_no_text_makes_it_fail(text: str) -> None:
    equations(text)


@given(st.fractions(0, 10**6))
def test_a_fraction_is_worth_what_it_says(value: Fraction) -> None:
    assert value_of(f"{value.numerator}/{value.denominator}") == value


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CHAINS.exists(), reason="no sample corpora beside the project")
def test_no_step_of_gsm8k_is_called_wrong_but_the_two_that_are() -> None:
    wrong = {}
    for row in map(json.loads, Path(CHAINS).read_text().splitlines()):
        for one in equations(row["chain_raw"]):
            if not one.holds:
                wrong[row["id"]] = one.text
    assert {id: text[: len(TYPOS[id])] for id, text in wrong.items()} == TYPOS
