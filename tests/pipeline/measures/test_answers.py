from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures.answers import final_answer, last_values, read_options, same_answer

OPTIONS = ["0.75 m", "Soleus", "the left leg", "E1 + E2"]


@pytest.mark.parametrize(
    ("chain", "answer"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        (r"so \boxed{3} no, \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        ("The answer is 7.", "7."),
        ("Answer: A\nwait\nFinal Answer: $B$", "$B$"),
        ("**Answer:** 12 apples", "12 apples"),
        ("the most fitting choice is:\n\nAnswer: H", "H"),
        ("<think>2</think><answer> 9 </answer>", "9"),
        ("She has 4 apples.", None),
        ("", None),
    ],
)
def test_the_answer_a_chain_states(chain: str, answer: str | None) -> None:
    assert final_answer(chain) == answer


@pytest.mark.parametrize(
    ("chain", "values"),
    [
        ("a 1\nso 48+24 = 72 clips in 2 months", ["72", "2"]),
        ("He had 33 more.\nDone.", ["33"]),
        ("He won 404 because 404 > 400", ["400", "404"]),
        ("no number", []),
    ],
)
def test_what_a_chain_ends_on(chain: str, values: list[str]) -> None:
    assert last_values(chain) == values


@pytest.mark.parametrize(
    ("stated", "truth"),
    [
        ("$3,888", "3888"),
        ("1/2", "0.5"),
        ("1 1/2", "1.5"),
        ("50%", "0.5"),
        ("50%", "50"),
        (r"\boxed{\frac{1}{2}}", ".5"),
        (r"\frac{3}{4}", "3/4"),
        ("5 cm", "5"),
        ("12 apples", "12"),
        ("x = 5", "5"),
        ("The Soleus.", "soleus"),
        ("-3", "\u22123"),
        ("3.0", "3"),
        ("$A$", "A"),
    ],
)
def test_answers_that_are_the_same(stated: str, truth: str) -> None:
    assert same_answer(stated, truth)
    assert same_answer(truth, stated)


@pytest.mark.parametrize(
    ("stated", "truth"),
    [
        ("72", "73"),
        ("-3", "3"),
        ("5", "50%"),
        ("1/2", "2"),
        ("Paris", "London"),
        ("3 apples and 4 pears", "3"),
        ("", "0"),
    ],
)
def test_answers_that_are_not(stated: str, truth: str) -> None:
    assert not same_answer(stated, truth)
    assert not same_answer(truth, stated)


@pytest.mark.parametrize(
    ("stated", "truth", "same"),
    [
        ("(B)", "B", True),
        ("B. Soleus", "B", True),
        ("Soleus", "B", True),
        ("option c", "The left leg", True),
        ("$A$", "B", False),
        ("Soleus", "A", False),
        ("E1 + E2", "D", True),
    ],
)
def test_an_option_is_its_letter_or_its_text(stated: str, truth: str, same: bool) -> None:
    assert same_answer(stated, truth, OPTIONS) is same


def test_options_come_as_a_list_or_as_the_text_of_one() -> None:
    assert read_options("['a', 'b']") == read_options(["a", "b"]) == ["a", "b"]
    assert read_options(None) == read_options("__import__('os')") == read_options("3") == []


@given(st.fractions(-(10**9), 10**9))
def test_a_number_is_the_same_however_it_is_written(value: Fraction) -> None:
    ways = [f"{value.numerator}/{value.denominator}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"]
    if value.denominator == 1:
        ways += [f"{value.numerator:,}", f"{value.numerator}.00", rf"\boxed{{{value.numerator}}}"]
    assert all(same_answer(one, two) for one in ways for two in ways)


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_makes_it_fail(one: str, two: str) -> None:
    assert isinstance(same_answer(one, two, [two, "x"]), bool)
    final_answer(one)
    last_values(one)
