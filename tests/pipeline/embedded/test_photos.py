from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from catalog.errors import UserError
from pipeline.embedded import photos
from pipeline.embedded.photos import EXTRA, PHOTOS, photographs, shipped, stored


def test_every_picture_is_in_the_wheel_and_has_terms_and_words() -> None:
    found = list(photographs((*PHOTOS, *EXTRA)))
    assert len(found) == len({picture.name for picture in found}) == 28
    for picture in found:
        assert picture.caption
        assert picture.caption.endswith(".")
        assert picture.origin.licence in {"CC0-1.0", "CC-PDM-1.0", "BSD-3-Clause"}


def test_a_jpeg_is_kept_as_shipped_and_its_parts_are_not() -> None:
    by_name = {picture.name: picture for picture in photographs()}
    assert stored(by_name["rocket"]) == shipped("rocket.jpg")
    assert stored(by_name["rocket_part0"]) is None
    assert stored(by_name["coffee"]) is None


def test_parts_lie_inside_their_picture() -> None:
    whole = {picture.name: picture.image.size for picture in photographs()}
    for photo in PHOTOS:
        width, height = whole[photo.file.partition(".")[0]]
        for (left, top, right, bottom), _ in photo.parts:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height


def test_without_scikit_image_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        return None

    monkeypatch.setattr(photos, "find_spec", none)
    with pytest.raises(UserError, match=r"pip install 'unifactory\[demo\]'"):
        shipped("coffee.png")


def test_a_missing_picture_names_the_version() -> None:
    assert importlib.util.find_spec("skimage") is not None
    with pytest.raises(UserError, match=r"scikit-image \d.* ships no nothing.png"):
        shipped("nothing.png")
