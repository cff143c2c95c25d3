"""The records of `grounding`: drawn scenes whose things are counted and boxed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.embedded import objects, scenes
from pipeline.embedded.item import EXACT, KEPT, UNDERSTANDING, End, Item, described, dropped, encoded
from pipeline.embedded.picture import COLOURS, NUMBERS, Picture, seeded

_SIZES = ((512, 400), (640, 480), (400, 400), (480, 600))
_NAMES = tuple(name for name in COLOURS if name != "white")


def grounding() -> Iterator[Item]:
    """All of them, in manifest order."""
    for index in range(14):
        yield _item(objects.balls(f"found_balls_{index:02d}", _SIZES[index % 4], _colours(index, 1 + index % 8)))
    for index in range(16):
        yield _item(_shapes(index))
    for index in range(6):
        yield _item(
            scenes.harbour(f"found_boats_{index:02d}", _SIZES[index % 3], scenes.TIMES[index % 5], 2 + index % 4)
        )
    for index in range(6):
        name = f"found_trees_{index:02d}"
        yield _item(
            scenes.landscape(name, _SIZES[index % 3], scenes.TIMES[(index + 3) % 5], 2 + index % 3, 1 + index % 2)
        )
    twin = scenes.harbour("harbour_00", (640, 512), scenes.TIMES[0], 1)
    yield _item(replace(twin, name="harbour_00_again"), EXACT, near_dup_group="harbour_00")
    for index in range(2):
        unsaid = objects.balls(f"unsaid_{index}", _SIZES[index], _colours(40 + index, 3 + index))
        yield _item(replace(unsaid, caption=None), dropped("answer"))
    stuck = objects.balls("stuck", _SIZES[0], _colours(50, 4))
    yield _item(replace(stuck, caption="a ball and a ball and a ball and " * 9), dropped("repetition"))
    markup = objects.balls("markup", _SIZES[1], _colours(51, 2))
    advert = '<a href="https://balls.example/buy"><b>Two balls</b></a> &nbsp; <img src="b.png"/>'
    yield _item(replace(markup, caption=advert), dropped("markup"))


def _colours(index: int, count: int) -> list[str]:
    order = seeded(f"grounding {index}").permutation(len(_NAMES))
    return [_NAMES[place] for place in order[:count]]


def _shapes(index: int) -> Picture:
    rng = seeded(f"shapes {index}")
    kinds = rng.permutation(len(objects.OUTLINES))[: 2 + index % 2]
    wanted = [
        (colour, objects.OUTLINES[kind], int(rng.integers(1, 5)))
        for colour, kind in zip(_colours(100 + index, len(kinds)), kinds, strict=True)
    ]
    return objects.shapes(f"found_shapes_{index:02d}", _SIZES[index % 4], wanted)


def _item(picture: Picture, end: End = KEPT, **more: str) -> Item:
    data = encoded(picture.image, quality=90)
    captions = None
    if picture.caption is not None:
        count = len(picture.things)
        captions = [picture.caption, f"There {'is' if count == 1 else 'are'} {NUMBERS[count]} to count here."]
    found = [{"label": thing.label, "bbox_xywh": list(thing.box)} for thing in picture.things]
    facts = described(picture, data, ("grounding", "counting"), objects=found, counts=picture.counts, captions=captions,
                      annotation_source="drawn at these places", **more)  # fmt: skip
    return Item(f"{picture.name}.jpg", data, {UNDERSTANDING: end}, picture.origin, facts)
