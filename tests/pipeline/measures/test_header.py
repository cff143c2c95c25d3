from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.measures.header import HEAD_BYTES
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, encode, flip_bytes, measure, record, scene


@dataclass(frozen=True)
class CountingReader(MediaReader):
    """Says how much was asked for."""

    asked: list[int | None] = field(default_factory=list)

    def read(self, ref: MediaRef, limit: int | None = None) -> bytes:
        self.asked.append(limit)
        return super().read(ref, limit)


def header_of(tmp_path: Path, data: bytes, **params: Any) -> dict[str, Any]:
    made = measure("header", **params)
    given_record = record(tmp_path, data)
    check_row(made.columns, made.process(given_record))
    return columns_of(made, given_record)


def test_all_columns_of_a_plain_jpeg(tmp_path: Path) -> None:
    data = encode(scene(90, 60), "JPEG")
    assert header_of(tmp_path, data) == {
        "format": "JPEG",
        "mode": "RGB",
        "width": 90,
        "height": 60,
        "short_side": 60,
        "long_side": 90,
        "aspect": 1.5,
        "pixels": 5400,
        "file_bytes": len(data),
        "bytes_per_pixel": len(data) / 5400,
        "frames": 1,
        "animated": False,
        "orientation": 1,
        "has_alpha": False,
        "has_icc": False,
        "bit_depth": 8,
        "handled": "",
    }


def test_sides_are_those_of_the_upright_picture_and_what_was_handled_is_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(scene(90, 60, seed)) for seed in (1, 2)]
    found = header_of(tmp_path, encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], exif=exif))
    assert (found["width"], found["height"], found["orientation"]) == (60, 90, 6)
    assert (found["frames"], found["animated"]) == (2, True)
    assert found["handled"] == "turned upright (exif 6); first of 2 frames"


@pytest.mark.parametrize(
    ("mode", "format", "handled", "bit_depth"),
    [
        ("CMYK", "JPEG", "cmyk converted", 8),
        ("P", "PNG", "palette expanded", 8),
        ("RGBA", "PNG", "alpha on white", 8),
        ("I;16", "PNG", "16-bit scaled", 16),
        ("1", "PNG", "", 1),
        ("L", "JPEG", "", 8),
        ("RGB", "AVIF", "", None),
    ],
)
def test_stored_modes_are_said(tmp_path: Path, mode: str, format: str, handled: str, bit_depth: int | None) -> None:
    stored = Image.fromarray(scene(40, 30)).convert(mode) if mode != "I;16" else Image.new(mode, (40, 30))
    found = header_of(tmp_path, encode(stored, format))
    assert (found["mode"], found["handled"], found["bit_depth"]) == (mode, handled, bit_depth)


def test_pages_are_not_an_animation(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    found = header_of(tmp_path, encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (found["frames"], found["animated"]) == (2, False)


def test_an_icc_profile_is_seen(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert header_of(tmp_path, encode(scene(40, 30), "JPEG", icc_profile=profile))["has_icc"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP"])
def test_only_the_head_of_a_long_file_is_read(tmp_path: Path, format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    data = encode(noise, format, **({"quality": 100} if format == "JPEG" else {}))
    assert len(data) > HEAD_BYTES
    (tmp_path / "x").write_bytes(data)
    reader = CountingReader(str(tmp_path))
    given_record = Record("0" * 32, (MediaRef("image", "file", "x"),), b"{}", {}, reader)
    found = columns_of(measure("header"), given_record)
    assert (found["width"], found["height"], found["file_bytes"]) == (300, 300, len(data))
    assert reader.asked == [HEAD_BYTES]


def test_a_long_png_is_not_decoded_for_its_orientation(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="8"/></x:xmpmeta>')
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    (tmp_path / "x").write_bytes(encode(noise, "PNG", pnginfo=xmp))
    reader = CountingReader(str(tmp_path))
    found = columns_of(measure("header"), Record("0" * 32, (MediaRef("image", "file", "x"),), b"{}", {}, reader))
    assert (found["orientation"], found["width"], found["height"]) == (8, 200, 300)
    assert reader.asked == [HEAD_BYTES]


@pytest.mark.parametrize("format", ["WEBP", "TIFF", "GIF"])
def test_formats_whose_header_is_not_first_are_read_whole(tmp_path: Path, format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    data = encode(noise, format, **({"lossless": True} if format == "WEBP" else {}))
    assert len(data) > HEAD_BYTES
    found = header_of(tmp_path, data)
    assert (found["format"], found["width"], found["file_bytes"]) == (format, 300, len(data))


@pytest.mark.parametrize("preview", [HEAD_BYTES - 2000, HEAD_BYTES * 2])
def test_a_jpeg_with_a_long_preamble_is_measured_all_the_same(tmp_path: Path, preview: int) -> None:
    comments = [b"\xff\xfe" + (50_002).to_bytes(2, "big") + b"c" * 50_000] * (preview // 50_000 + 1)
    plain = encode(scene(90, 60), "JPEG")
    data = plain[:2] + b"".join(comments) + plain[2:]
    found = header_of(tmp_path, data)
    assert (found["width"], found["height"], found["file_bytes"]) == (90, 60, len(data))


def test_a_file_of_exactly_the_head_is_read_once(tmp_path: Path) -> None:
    plain = encode(scene(90, 60), "JPEG")
    data = plain + b"\0" * (HEAD_BYTES - len(plain))
    assert header_of(tmp_path, data)["file_bytes"] == HEAD_BYTES


def test_the_size_of_a_tar_member_is_its_own(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    data = encode(noise, "PNG")
    (tmp_path / "x.tar").write_bytes(b"j" * 512 + data + b"j" * 5000)
    ref = MediaRef("image", "tar", "x.tar", offset=512, length=len(data))
    found = columns_of(measure("header"), Record("0" * 32, (ref,), b"{}", {}, MediaReader(str(tmp_path))))
    assert (found["file_bytes"], found["width"]) == (len(data), 300)


def test_limits_of_bytes_and_pixels_are_parameters(tmp_path: Path) -> None:
    data = encode(scene(90, 60), "PNG")
    for params, reason in (({"max_pixels": 5399}, "too many pixels"), ({"max_bytes": 100}, "file too large")):
        with pytest.raises(Quarantine) as caught:
            header_of(tmp_path, data, **params)
        assert caught.value.reason == reason
    with pytest.raises(ValueError, match="max_pixels"):
        measure("header", max_pixels=10**9)


def test_a_record_without_a_picture_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(Quarantine) as caught:
        measure("header").process(record(tmp_path))
    assert caught.value.reason == "no image"


def test_a_file_that_is_gone_is_no_verdict_on_the_picture(tmp_path: Path) -> None:
    given_record = record(tmp_path, b"x")
    (tmp_path / "medium").unlink()
    with pytest.raises(FileNotFoundError):
        measure("header").process(given_record)


@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]), st.integers(1, 12), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_whatever_a_damaged_header_says_lies_within_the_contract(
    tmp_path_factory: pytest.TempPathFactory, format: str, count: int, seed: int
) -> None:
    data = encode(scene(40, 30), format)
    data = flip_bytes(data[:200], count, seed) + data[200:]
    made = measure("header")
    try:
        values = made.process(record(tmp_path_factory.getbasetemp(), data))
    except Quarantine:
        return
    check_row(made.columns, values)
