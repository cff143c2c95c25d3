"""Word problems with their chains of thought: every number follows from the first two, so that all of it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Story:
    """A question, the steps that lead to its answer, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: int


def _bakery(a: int, b: int) -> Story:
    return Story(
        f"A bakery sets out {a} rolls on each of {b} trays and sells all but 7. How many rolls are sold?",
        (f"On the trays lie {a} * {b} = {a * b} rolls.", f"Of these {a * b} - 7 = {a * b - 7} rolls are sold."),
        a * b - 7,
    )


def _train(a: int, b: int) -> Story:
    return Story(
        f"A train has {a} passengers. At the mill {b} more get on, and at the lake half of all get off. "
        "How many stay on the train?",
        (f"After the mill there are {a} + {b} = {a + b} passengers.", f"Half of them is {a + b}/2 = {(a + b) // 2}.",
         f"So {a + b} - {(a + b) // 2} = {(a + b) // 2} passengers stay."),
        (a + b) // 2,
    )  # fmt: skip


def _garden(a: int, b: int) -> Story:
    return Story(
        f"Ines plants a bed of {a} by {b} metres. A metre of fence costs 3 euros. What does a fence around it cost?",
        (f"The way around the bed is 2 * ({a} + {b}) = {2 * (a + b)} metres.",
         f"The fence costs {2 * (a + b)} * 3 = {6 * (a + b)} euros."),
        6 * (a + b),
    )  # fmt: skip


def _books(a: int, b: int) -> Story:
    return Story(
        f"Ruben reads {a} pages every evening. His book has {a * b} pages, and he has read it for 2 evenings. "
        "How many more evenings does he need?",
        (f"In two evenings he has read 2 * {a} = {2 * a} pages.",
         f"There are {a * b} - {2 * a} = {a * b - 2 * a} left.",
         f"That takes {a * b - 2 * a}/{a} = {b - 2} evenings."),
        b - 2,
    )  # fmt: skip


def _apples(a: int, b: int) -> Story:
    return Story(
        f"Three sisters pick {a} apples each, their brother picks {b}. They fill crates of 10. "
        "How many apples are left over when every crate is full?",
        (f"The sisters pick 3 * {a} = {3 * a} apples.", f"All together that is {3 * a} + {b} = {3 * a + b}.",
         f"Full crates hold 10 * {(3 * a + b) // 10} = {(3 * a + b) // 10 * 10} apples.",
         f"Left over are {3 * a + b} - {(3 * a + b) // 10 * 10} = {(3 * a + b) % 10}."),
        (3 * a + b) % 10,
    )  # fmt: skip


def _boats(a: int, b: int) -> Story:
    return Story(
        f"A ferry crosses the bay {b} times a day with {a} people on board. How many people does it carry in a week?",
        (f"In a day it carries {a} x {b} = {a * b} people.", f"In seven days it carries 7 x {a * b} = {7 * a * b}."),
        7 * a * b,
    )


def _water(a: int, b: int) -> Story:
    return Story(
        f"A tank holds {a * 10} litres. It loses {b} litres an hour. How much water is in it after six hours?",
        (f"Six hours cost 6 * {b} = {6 * b} litres.", f"What remains is {a * 10} - {6 * b} = {a * 10 - 6 * b} litres."),
        a * 10 - 6 * b,
    )


def _choir(a: int, b: int) -> Story:
    return Story(
        f"In a choir of {a + b} singers there are {a} who sing high. A quarter of {4 * b} new ones sings low. "
        "How many sing low now?",
        (f"Before, {a + b} - {a} = {b} sang low.", f"Of the new ones {4 * b}/4 = {b} sing low.",
         f"Together they are {b} + {b} = {2 * b}."),
        2 * b,
    )  # fmt: skip


def _wool(a: int, b: int) -> Story:
    return Story(
        f"A scarf takes {a} grams of wool and a hat {b}. How many grams do two scarves and five hats take?",
        (f"Two scarves take 2 * {a} = {2 * a} grams.", f"Five hats take 5 * {b} = {5 * b} grams.",
         f"That makes {2 * a} + {5 * b} = {2 * a + 5 * b} grams."),
        2 * a + 5 * b,
    )  # fmt: skip


def _steps(a: int, b: int) -> Story:
    return Story(
        f"The tower has {b} floors with {a} stairs each. Olga stops 12 stairs below the top. How many did she climb?",
        (f"To the top there are {b} * {a} = {a * b} stairs.", f"She climbed {a * b} - 12 = {a * b - 12} of them."),
        a * b - 12,
    )


def _cinema(a: int, b: int) -> Story:
    return Story(
        f"A cinema sells {a} tickets for 8 euros and {b} for 5 euros. It pays 60 euros for the film. What is left?",
        (f"The first tickets bring {a} * 8 = {8 * a} euros.", f"The others bring {b} * 5 = {5 * b} euros.",
         f"Together that is {8 * a} + {5 * b} = {8 * a + 5 * b}.",
         f"After the film {8 * a + 5 * b} - 60 = {8 * a + 5 * b - 60} euros are left."),
        8 * a + 5 * b - 60,
    )  # fmt: skip


def _birds(a: int, b: int) -> Story:
    return Story(
        f"On a wire sit {a + b} swallows. First {b} fly away, then twice as many as are left come to join them. "
        "How many sit there in the end?",
        (f"There remain {a + b} - {b} = {a} swallows.", f"Twice as many are 2 * {a} = {2 * a}.",
         f"In the end {a} + {2 * a} = {3 * a} swallows sit there."),
        3 * a,
    )  # fmt: skip


STORIES: dict[str, Callable[[int, int], Story]] = {
    "bakery": _bakery,
    "train": _train,
    "garden": _garden,
    "books": _books,
    "apples": _apples,
    "boats": _boats,
    "water": _water,
    "choir": _choir,
    "wool": _wool,
    "steps": _steps,
    "cinema": _cinema,
    "birds": _birds,
}
"""Each takes two whole numbers; both even, and the first at least as large as the second."""
