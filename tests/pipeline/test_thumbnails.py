"""Thumbnails: upright, small, of the very bytes that were judged; whatever is wrong with a file becomes a tile."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog.report_page import Thumbnail
from pipeline import thumbnails as module
from pipeline.media import MediaReader, MediaRef
from pipeline.thumbnails import LONGEST_SIDE, thumbnail, thumbnails
from tests.pipeline.clip_files import clip_bytes


class TroubleReader(MediaReader):
    """Does what the name of a file says, as a hostile file does it to a decoder."""

    def read(self, ref: MediaRef, limit: int | None = None) -> bytes:
        """End the process, sleep, raise, or read."""
        if ref.path == "exit":
            os._exit(11)
        if ref.path == "sleep":
            time.sleep(60)
        if ref.path == "raise":
            raise ValueError("a fault of ours")
        return super().read(ref, limit)


def media(root: Path, name: str, data: bytes) -> dict[str, Any]:
    (root / name).write_bytes(data)
    return MediaRef("image", "file", name, digest=hashlib.sha256(data).hexdigest()).to_row()


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def decoded(thumb: Thumbnail) -> Image.Image:
    assert thumb.uri is not None
    head, _, body = thumb.uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("size", [(1000, 500), (300, 900), (193, 100), (192, 192), (40, 30), (5000, 3)])
def test_a_thumbnail_is_small_and_keeps_the_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    row = media(tmp_path, "a.png", encoded(Image.new("RGB", size, (200, 30, 30))))
    found = thumbnail(MediaRef(**row), MediaReader(str(tmp_path)))
    assert (found.width, found.height) == decoded(found).size
    assert max(decoded(found).size) == min(LONGEST_SIDE, max(size))
    assert found.height == max(1, round(found.width * size[1] / size[0]))
    assert decoded(found).format == "JPEG"


def test_a_picture_stands_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (400, 200), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0, 100, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    row = media(tmp_path, "a.jpg", encoded(picture, "JPEG", exif=exif))
    found = decoded(thumbnail(MediaRef(**row), MediaReader(str(tmp_path)))).convert("L")
    assert found.size == (96, 192)
    assert found.getpixel((48, 10)) < 60
    assert found.getpixel((48, 180)) > 200


def test_a_clip_shows_its_first_frame(tmp_path: Path) -> None:
    frames = [np.full((96, 160, 3), (value, 30, 200 - value), np.uint8) for value in (200, 10, 10)]
    row = {**media(tmp_path, "a.mp4", clip_bytes(frames)), "role": "video"}
    found = thumbnail(MediaRef(**row), MediaReader(str(tmp_path)))
    assert (found.width, found.height) == (160, 96)
    red, _, blue = decoded(found).convert("RGB").getpixel((80, 48))
    assert red > 160 > 60 > blue


def test_what_cannot_be_shown_says_why(tmp_path: Path) -> None:
    good = media(tmp_path, "good.png", encoded(Image.new("RGB", (50, 50))))
    changed = media(tmp_path, "changed.png", encoded(Image.new("RGB", (50, 50))))
    (tmp_path / "changed.png").write_bytes(encoded(Image.new("RGB", (60, 50))))
    cut = encoded(Image.effect_noise((300, 300), 90), "JPEG")[:5000]
    rows = {
        "good": good,
        "changed": changed,
        "gone": {**good, "path": "gone.png"},
        "cut": media(tmp_path, "cut.jpg", cut),
        "text": media(tmp_path, "text.jpg", b"<html>404</html>"),
        "empty": media(tmp_path, "empty.jpg", b""),
        "bomb": media(tmp_path, "bomb.png", encoded(Image.new("1", (30000, 30000)))),
        "none": None,
        "exit": {**good, "path": "exit"},
        "raise": {**good, "path": "raise"},
        "unread": {**good, "digest": None},
    }
    found = thumbnails(rows, TroubleReader(str(tmp_path)))
    assert {key for key, thumb in found.items() if thumb.uri} == {"good", "unread"}
    assert {key: thumb.why for key, thumb in found.items() if not thumb.uri} == {
        "changed": "its file has changed since",
        "gone": "its file is not there",
        "cut": "truncated image",
        "text": "not an image",
        "empty": "empty file",
        "bomb": "too many pixels",
        "none": "it has no picture",
        "exit": "decoding it ends the process",
        "raise": "ValueError: a fault of ours",
    }


def test_a_picture_that_takes_too_long_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 3.0)
    good = media(tmp_path, "good.png", encoded(Image.new("RGB", (50, 50))))
    found = thumbnails({"a": {**good, "path": "sleep"}, "b": good, "c": good}, TroubleReader(str(tmp_path)))
    assert found["a"] == Thumbnail(None, why="decoding takes more than 3 s")
    assert found["b"].uri
    assert found["c"].uri


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    row = media(tmp_path, "a.png", encoded(Image.effect_noise((400, 300), 60)))
    reader = MediaReader(str(tmp_path))
    alone = thumbnail(MediaRef(**row), reader)
    assert thumbnails({"x": row, "y": row}, reader) == {"x": alone, "y": alone}


def test_no_picture_at_all_starts_no_process() -> None:
    assert thumbnails({}, MediaReader("/nowhere")) == {}
    assert thumbnails({"a": None}, MediaReader("/nowhere")) == {"a": Thumbnail(None, why="it has no picture")}
