from __future__ import annotations

import io
import re
import struct
import zlib

import pytest
from PIL import Image

from pipeline.embedded.damage import flipped, gif_bomb, pdf, png_bomb


def test_a_png_bomb_is_whole_and_far_larger_than_its_file() -> None:
    data = png_bomb(3000)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.size, image.mode) == ((3000, 3000), "1")
        assert image.getextrema() == (255, 255)
    assert len(data) * 100 < 3000 * 3000 // 8
    assert len(png_bomb(30000)) < 300_000


def test_a_gif_bomb_declares_the_largest_canvas() -> None:
    assert struct.unpack("<HH", gif_bomb()[6:10]) == (65535, 65535)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(gif_bomb()))


def test_one_bit_is_turned() -> None:
    assert flipped(b"\x00\x00\x00", 1) == b"\x00\x10\x00"
    assert zlib.crc32(flipped(b"abc", 2)) != zlib.crc32(b"abc")


def test_the_objects_of_a_pdf_stand_where_its_table_says() -> None:
    data = pdf(["one", "two"])
    start = int(re.findall(rb"startxref\n(\d+)\n", data)[0])
    assert data[start:].startswith(b"xref\n0 6\n")
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n", data)]
    assert len(places) == 5
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(b"%d 0 obj" % number)
    assert b"(one) Tj" in data
