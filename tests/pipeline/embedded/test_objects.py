from __future__ import annotations

import numpy as np
import pytest

from pipeline.embedded import objects
from pipeline.embedded.picture import COLOURS, Picture, Thing

VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


def around(picture: Picture, thing: Thing) -> np.ndarray:
    """The median colour in the middle of a thing's box."""
    x, y, width, height = thing.box
    pixels = np.asarray(picture.image, np.float32)
    part = pixels[int(y + height * 0.4) : int(y + height * 0.65), int(x + width * 0.4) : int(x + width * 0.65)]
    return np.median(part.reshape(-1, 3), axis=0)


def nearest(colour: np.ndarray) -> str:
    """The name of the colour with the most similar direction: shading changes brightness."""

    def angle(name: str) -> float:
        other = np.array(COLOURS[name], np.float32)
        return float(colour @ other / (np.linalg.norm(colour) * np.linalg.norm(other)))

    return max(VIVID, key=angle)


@pytest.mark.parametrize("count", range(1, 8))
def test_each_box_holds_a_ball_of_the_colour_it_is_labelled(count: int) -> None:
    picture = objects.balls(f"test {count}", (640, 512), VIVID[:count])
    assert sorted(thing.label for thing in picture.things) == sorted(f"{name} ball" for name in VIVID[:count])
    for thing in picture.things:
        assert nearest(around(picture, thing)) == thing.label.split()[0]


@pytest.mark.parametrize("kind", objects.OUTLINES)
def test_each_box_holds_a_shape_of_the_colour_it_is_labelled(kind: str) -> None:
    wanted = [("red", kind, 3), ("blue", "circle" if kind != "circle" else "star", 2)]
    picture = objects.shapes(f"test {kind}", (512, 400), wanted)
    assert picture.counts == {f"red {kind}": 3, f"blue {wanted[1][1]}": 2}
    for thing in picture.things:
        assert nearest(around(picture, thing)) == thing.label.split()[0]


def test_captions_count_in_words() -> None:
    picture = objects.shapes("test words", (512, 400), [("red", "star", 3), ("blue", "circle", 1)])
    assert picture.caption == "Paper shapes on a sheet of paper: three red stars and a blue circle."
    assert objects.balls("one", (400, 400), ["orange"]).caption == f"A drawing of an orange ball on a {floor('one')}."


def floor(name: str) -> str:
    caption = objects.balls(name, (400, 400), ["orange"]).caption or ""
    return next(kind for kind in ("tiled floor", "wooden floor", "sandy floor") if kind in caption)


def test_a_picture_hangs_on_its_name_alone() -> None:
    one = objects.balls("a", (320, 288), ["red"])
    objects.balls("b", (320, 288), ["red"])
    again = objects.balls("a", (320, 288), ["red"])
    other = objects.balls("b", (320, 288), ["red"])
    assert one.image.tobytes() == again.image.tobytes() != other.image.tobytes()


def test_too_many_things_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit into 60 x 60 pixels"):
        objects.shapes("crowd", (60, 60), [("red", "square", 200)])
