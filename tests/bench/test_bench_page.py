"""The list of figures."""

from __future__ import annotations

from tests.bench.__main__ import replaced
from tests.bench.figure import Figure, figure


def one(name: str, value: float) -> Figure:
    return figure(name, [value], "x", 1.0, 1, "none")


def test_a_figure_measured_again_takes_the_place_of_the_older_one() -> None:
    old = [one("a", 1.0), one("b", 2.0)]
    assert replaced(old, [one("b", 3.0), one("c", 4.0)]) == [one("a", 1.0), one("b", 3.0), one("c", 4.0)]
