from __future__ import annotations

import numpy as np
import pytest

from pipeline.embedded import scenes


@pytest.mark.parametrize("time", scenes.TIMES)
def test_a_landscape_has_as_many_trees_and_houses_as_it_says(time: str) -> None:
    picture = scenes.landscape("test", (448, 336), time, 3, 2)
    assert picture.counts == {"tree": 3, "house": 2}
    assert picture.caption == f"A drawn landscape {time}: mountains behind a meadow with three trees and two houses."
    assert picture.image.size == (448, 336)


@pytest.mark.parametrize("boats", [1, 4])
def test_a_lake_has_as_many_boats_as_it_says(boats: int) -> None:
    picture = scenes.harbour("test", (448, 336), "at sunset", boats)
    assert picture.counts == {"boat": boats}
    assert ("a sailing boat" if boats == 1 else "four sailing boats") in (picture.caption or "")


def test_each_box_holds_a_boat() -> None:
    picture = scenes.harbour("test", (448, 336), "on a clear day", 3)
    pixels = np.asarray(picture.image, np.int64)
    for thing in picture.things:
        x, y, width, height = (int(value) for value in thing.box)
        inside = pixels[y + height // 4 : y + height // 2, x + width // 4 : x + 3 * width // 4]
        beside = pixels[y + height // 4 : y + height // 2, x - 12 : x - 2]
        # White cloth beside coloured cloth differs more from column to column than water does.
        assert np.ptp(inside.mean(axis=0)) > 2 * np.ptp(beside.mean(axis=0))
