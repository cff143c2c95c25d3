from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.operator import Quarantine
from pipeline.pictures import (
    FORMATS,
    PILLOW_LIMIT,
    REASONS,
    Limits,
    _verdict,
    decode_noted,
    decode_scaled,
    open_picture,
    read_info,
)
from tests.pipeline.pictures import CORPORA, cut, encode, flip_bytes, scene

SCENE = scene(96, 64)
LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_picture(data))


def outcome(look: Callable[[bytes], Any], data: bytes) -> tuple[Any, str | None, str]:
    """What looking at the bytes returns, or the reason and the message of the verdict."""
    try:
        return look(data), None, ""
    except Quarantine as verdict:
        return None, verdict.reason, str(verdict)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int) -> bytes:
    """A one-bit PNG of `side` x `side` zeros."""
    row = zlib.compressobj(9)
    line = b"\0" * (1 + side // 8)
    body = b"".join(row.compress(line) for _ in range(side)) + row.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def webp_with_canvas(side: int) -> bytes:
    """An animated WebP whose header claims a canvas of `side` x `side`."""
    frames = [Image.fromarray(scene(32, 32, seed)) for seed in (1, 2)]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert data[12:16] == b"VP8X"
    data[24:27] = data[27:30] = (side - 1).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize("format", LOSSLESS)
def test_a_lossless_picture_comes_back_as_it_was(format: str) -> None:
    assert np.array_equal(pixels(encode(SCENE, format)), SCENE)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_a_lossy_picture_comes_back_nearly_as_it_was(format: str) -> None:
    found = pixels(encode(SCENE, format, **({} if format == "GIF" else {"quality": 95})))
    assert found.shape == SCENE.shape
    assert np.abs(found.astype(int) - SCENE).mean() < 8


def test_a_jpeg_decodes_to_what_pillow_decodes() -> None:
    data = encode(scene(200, 150), "JPEG", quality=85)
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("mode", "format", "tolerance"),
    [
        ("L", "PNG", 0),
        ("1", "PNG", 0),
        ("LA", "PNG", 0),
        ("P", "PNG", 0),
        ("CMYK", "TIFF", 0),
        ("CMYK", "JPEG", 3),
        ("LAB", "TIFF", 0),
        ("L", "JPEG", 3),
        ("RGBA", "WEBP", 6),
    ],
)
def test_every_stored_mode_looks_as_pillow_shows_it(mode: str, format: str, tolerance: float) -> None:
    source = Image.fromarray(SCENE)
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.applyTransform(source, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
        assert stored is not None
    else:
        stored = source.convert(mode)
    options = {"quality": 95} if format in {"JPEG", "WEBP"} else {}
    found = pixels(encode(stored, format, **options)).astype(int)
    assert np.abs(found - np.asarray(stored.convert("RGB"))).mean() <= tolerance


def test_an_adobe_cmyk_jpeg_is_not_inverted() -> None:
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert pixels(encode(white, "JPEG")).min() > 250
    assert decode_scaled(encode(white, "JPEG"), 8).min() > 250


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_stands_upright(format: str, orientation: int) -> None:
    upright = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * 40, np.ones((16, 16, 3), np.uint8))
    # How a camera stores it: turned by the inverse of what the tag asks for.
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    exif = Image.Exif()
    exif[0x0112] = undo
    holder = Image.fromarray(upright)
    holder.info["exif"] = exif.tobytes()
    stored = ImageOps.exif_transpose(holder)
    exif[0x0112] = orientation
    options = {"quality": 100} if format in {"JPEG", "AVIF", "WEBP"} else {}
    data = encode(stored, format, exif=exif, **options)
    info = read_info(data)
    assert (info.width, info.height, info.orientation) == (48, 32, orientation)
    assert np.abs(pixels(data).astype(int) - upright).max() < 12
    assert np.abs(decode_scaled(data, 32).astype(int) - upright).max() < 12
    assert bool(info.notes) == (orientation != 1)


def test_a_picture_turned_by_its_xmp_stands_upright() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(SCENE, "JPEG", xmp=xmp)
    assert read_info(data).orientation == 6
    assert open_picture(data).size == (64, 96)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_out_of_range_counts_as_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert read_info(encode(SCENE, "JPEG", exif=exif)).orientation == 1


def test_transparent_pixels_are_white() -> None:
    layered = np.dstack([SCENE, np.zeros(SCENE.shape[:2], np.uint8)])
    layered[:, 48:, 3] = 255
    found = pixels(encode(layered))
    assert (found[:, :48] == 255).all()
    assert np.array_equal(found[:, 48:], SCENE[:, 48:])


def test_half_transparent_pixels_are_mixed_with_white_also_when_scaled() -> None:
    layered = np.zeros((400, 400, 4), np.uint8)
    layered[..., 3] = 128
    assert np.abs(decode_scaled(encode(layered), 100).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_a_transparent_colour_becomes_white(mode: str) -> None:
    image = Image.new(mode, (8, 8), 0)
    data = encode(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert (pixels(data) == 255).all()
    assert read_info(data).has_alpha
    assert "alpha on white" in read_info(data).notes


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    data = encode(ramp)
    info = read_info(data)
    assert (info.mode, info.bit_depth) == ("I;16", 16)
    assert "16-bit scaled" in info.notes
    assert np.array_equal(pixels(data)[..., 0], np.round(ramp / 257).astype(np.uint8))


def test_samples_without_a_known_range_are_refused() -> None:
    for samples in (np.full((4, 4), 1e6, np.float32), np.full((4, 4), -5, np.int32)):
        with pytest.raises(Quarantine) as caught:
            open_picture(encode(samples, "TIFF"))
        assert caught.value.reason == "unsupported pixel format"


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_stands_for_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    info = read_info(data)
    assert info.frames == 3
    assert any(note.startswith("first of 3") for note in info.notes)
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize(("width", "height"), [(64, 64), (500, 300), (300, 500), (1200, 900), (2000, 40)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_scaled_decode_keeps_the_shorter_side(format: str, width: int, height: int) -> None:
    rgb = decode_scaled(encode(scene(width, height), format), 100)
    assert min(rgb.shape[:2]) >= min(100, width, height)
    if min(width, height) >= 200:
        assert min(rgb.shape[:2]) < 250
    assert rgb.shape[1] / rgb.shape[0] == pytest.approx(width / height, rel=0.06)


@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 90, "progressive": True}])
@given(share=st.floats(0, 0.999))
@settings(max_examples=60, deadline=None)
def test_a_cut_jpeg_is_found_or_whole(options: dict[str, object], share: float) -> None:
    whole = encode(SCENE, "JPEG", **options)
    for decode in (pixels, lambda data: decode_scaled(data, 16)):
        found, reason, _ = outcome(decode, cut(whole, share))
        assert reason in REASONS or np.array_equal(found, decode(whole))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_half_a_file_is_called_truncated(format: str) -> None:
    with pytest.raises(Quarantine) as caught:
        decode_scaled(cut(encode(scene(300, 200), format), 0.5), 64)
    assert caught.value.reason in {"truncated image", "broken image"}
    if format not in {"AVIF", "TIFF"}:
        assert caught.value.reason == "truncated image"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_jpeg_with_an_end_put_to_it_is_still_truncated(share: float) -> None:
    data = cut(encode(scene(300, 200), "JPEG", quality=90), share) + b"\xff\xd9"
    for decode in (open_picture, lambda data: decode_scaled(data, 64)):
        with pytest.raises(Quarantine) as caught:
            decode(data)
        assert caught.value.reason == "truncated image"


def test_a_jpeg_with_stray_bytes_is_whole_but_damaged() -> None:
    whole = encode(SCENE, "JPEG", quality=90)
    table = whole.index(b"\xff\xdb")
    stray = whole[:table] + b"\x01\x02\x03" + whole[table:]
    for min_side in (None, 16):
        found = decode_noted(stray, min_side)
        assert found.damage == "Corrupt JPEG data: 3 extraneous bytes before marker 0xdb"
        assert found.rgb.shape == decode_noted(whole, min_side).rgb.shape
        assert decode_noted(whole, min_side).damage is None
    assert np.array_equal(pixels(stray), pixels(whole))


@given(st.sampled_from(FORMATS), st.integers(1, 30), st.integers(0, 2**32))
@settings(max_examples=250, deadline=None)
def test_damaged_bytes_end_in_pixels_or_a_verdict_that_can_be_stored(format: str, count: int, seed: int) -> None:
    data = flip_bytes(encode(SCENE, format), count, seed)
    for look in (read_info, pixels, lambda damaged: decode_noted(damaged, 32)):
        _, reason, message = outcome(look, data)
        assert reason is None or reason in REASONS
        assert (reason, message) == outcome(look, data)[1:]
        assert " at 0x" not in message
        assert "BytesIO" not in message


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes_of_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(Quarantine) as caught:
        read_info(data)
    assert caught.value.reason in REASONS


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (b"", "empty file", "the file has no bytes"),
        (b"<!DOCTYPE html><p>404", "not an image", "an HTML page; it begins with 3c 21 44 4f 43 54 59 50"),
        (b"{}", "not an image", "text; it begins with 7b 7d"),
        (b"\0" * 99, "not an image", "zero bytes; it begins with 00 00 00 00 00 00 00 00"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 40, "not an image",
         "an MP4 or similar video; it begins with 00 00 00 20 66 74 79 70"),
        (b"%PDF-1.7", "not an image", "a PDF document; it begins with 25 50 44 46 2d 31 2e 37"),
        (b"8BPS\0\1", "unsupported format", "Photoshop document"),
        (b"\0\0\0\x20ftypheic" + b"\0" * 40, "unsupported format", "HEIF"),
        (b'<svg xmlns="x"/>', "unsupported format", "SVG"),
        (b"\x89PNG\r\n\x1a\n1234", "broken image", "PNG: the header cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_named(data: bytes, reason: str, message: str) -> None:
    with pytest.raises(Quarantine) as caught:
        read_info(data)
    assert (caught.value.reason, str(caught.value)) == (reason, message)


def test_an_address_in_an_error_is_not_stored() -> None:
    error = ValueError("cannot read <_io.BytesIO object at 0x7fc88eda5fd0> twice")
    verdict = _verdict(error, encode(SCENE, "JPEG"), Limits())
    assert (verdict.reason, str(verdict)) == ("broken image", "JPEG: ValueError: cannot read the data twice")


def test_formats_outside_the_list_are_not_opened() -> None:
    for format in ("TGA", "ICO", "PCX", "JPEG2000"):
        data = encode(SCENE, format)
        assert Image.open(io.BytesIO(data)).format == format
        with pytest.raises(Quarantine) as caught:
            open_picture(data)
        assert caught.value.reason in {"unsupported format", "not an image"}


def test_the_pixel_limit_holds_for_every_way_in() -> None:
    data = encode(SCENE)
    exact, tight = Limits(SCENE.shape[0] * SCENE.shape[1]), Limits(SCENE.shape[0] * SCENE.shape[1] - 1)
    for look in (read_info, open_picture, lambda data, limits: decode_scaled(data, 8, limits)):
        look(data, exact)
        with pytest.raises(Quarantine) as caught:
            look(data, tight)
        assert caught.value.reason == "too many pixels"
        assert str(caught.value) == "96x64 pixels, at most 6143 are decoded"


def test_pillow_still_refuses_what_its_limit_is_said_to_be() -> None:
    assert 2 * int(Image.MAX_IMAGE_PIXELS or 0) <= PILLOW_LIMIT <= 2 * int(Image.MAX_IMAGE_PIXELS or 0) + 1


BOMB_RUN = """
import resource, sys
from pipeline.operator import Quarantine
from pipeline.pictures import decode_scaled, open_picture, read_info
import cv2, simplejpeg
read_info(open(sys.argv[1], "rb").read())
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, used + 200_000_000))
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    for look in (read_info, open_picture, lambda d: decode_scaled(d, 384)):
        try:
            look(data)
            print("decoded")
        except Quarantine as verdict:
            print(verdict.reason)
"""


def test_bombs_are_refused_in_bounded_memory_and_silence(tmp_path: Path) -> None:
    fine = tmp_path / "fine"
    fine.write_bytes(encode(SCENE))
    bombs = {
        "png": png_bomb(30_000),
        "webp": webp_with_canvas(12_000),
        "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff",
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 256, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 99999 99999 255 ",
    }
    for name, data in bombs.items():
        tmp_path.joinpath(name).write_bytes(data)
    paths = [str(tmp_path / name) for name in bombs]
    done = subprocess.run(
        [sys.executable, "-c", BOMB_RUN, str(fine), *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert set(done.stdout.split("\n")[:-1]) <= {"too many pixels", "broken image"}
    assert done.stdout.split("\n")[:6] == ["too many pixels"] * 6
    assert done.stderr == ""


def test_what_pillow_grumbles_about_does_not_reach_the_screen() -> None:
    odd = encode(Image.new("RGB", (8, 8)), "TIFF")
    broken = odd.replace(struct.pack("<HHI", 277, 3, 1), struct.pack("<HHI", 277, 3, 9))
    assert broken != odd
    script = (
        "import sys\nfrom pipeline.operator import Quarantine\nfrom pipeline.pictures import open_picture\n"
        "for hexed in sys.argv[1:]:\n"
        "    try:\n        open_picture(bytes.fromhex(hexed))\n"
        "    except Quarantine as verdict:\n        print(verdict.reason)\n"
    )
    warned = encode(Image.new("P", (4, 4)), "PNG", transparency=b"\0\1")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "always",
            "-c",
            script,
            broken.hex(),
            odd[: len(odd) - 20].hex(),
            warned.hex(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""


HOSTILE = {
    # Files that do not end as "whole": the reason at the header (None when it passes), and at the decode.
    "pillow__truncated_jpeg.jpg": (None, "truncated image"),
    "pillow__ultrahdr.jpg": (None, "truncated image"),
    "pillow__truncated_image.png": (None, "truncated image"),
    "pillow__truncated_end_chunk.png": (None, "truncated image"),
    "pillow__broken.png": ("broken image", "broken image"),
    "pillow__broken_data_stream.png": (None, "broken image"),
    "pillow__decompression_bomb.gif": ("too many pixels", "too many pixels"),
    "pillow__zero_width.gif": ("broken image", "broken image"),
    "pillow__libtiff_segfault.tif": ("broken image", "broken image"),
    "pillow__oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": ("broken image", "broken image"),
    "pillow__seek_too_large.tif": ("broken image", "broken image"),
    "pillow__bmp_b_badwidth.bmp": ("too many pixels", "too many pixels"),
    "pillow__unknown_compression_method.png": ("broken image", "broken image"),
    "torchcodec__corrupt.jpg": (None, "broken image"),
    "torchcodec__heapbof.png": ("not an image", "not an image"),
    "torchcodec__sigsegv.png": ("truncated image", "truncated image"),
    "imagededup__ukbench09268_corrupt.jpg": ("not an image", "not an image"),
    "derived__truncated_video_a.mp4": ("not an image", "not an image"),
    "derived__garbled_video_a.mp4": ("not an image", "not an image"),
    "derived__truncated_photo_a.jpg": (None, "truncated image"),
    "derived__empty_a.jpg": ("empty file", "empty file"),
    "derived__html_error_page_a.jpg": ("not an image", "not an image"),
    "derived__png_bomb_30000_a.png": ("too many pixels", "too many pixels"),
    "derived__bad_manifest_a.jsonl": ("not an image", "not an image"),
    "derived__bad_utf8_a.txt": ("not an image", "not an image"),
}
DAMAGED = {
    "pillow__junk_jpeg_header.jpg",
    "pillow__jpeg_ff00_header.jpg",
    "pillow__truncated_app14.jpg",
    "pillow__hopper_bad_exif.jpg",
    "pillow__icc-after-SOF.jpg",
    "torchcodec__bad_huffman.jpg",
}


@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
def test_every_hostile_file_ends_as_the_table_says() -> None:
    manifest = (CORPORA / "hostile" / "manifest.jsonl").read_text().splitlines()
    seen = set()
    for line in map(json.loads, manifest):
        path = CORPORA / "hostile" / line["file"]
        header, decoded = (outcome(look, path.read_bytes()) for look in (read_info, lambda d: decode_noted(d, 384)))
        seen.add(path.name)
        assert (header[1], decoded[1]) == HOSTILE.get(path.name, (None, None)), path.name
        assert (getattr(decoded[0], "damage", None) is not None) == (path.name in DAMAGED), path.name
    assert seen >= set(HOSTILE) | DAMAGED


@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
def test_header_and_decode_agree_on_real_pictures() -> None:
    for line in map(json.loads, (CORPORA / "images" / "manifest.jsonl").read_text().splitlines()):
        data = (CORPORA / "images" / line["file"]).read_bytes()
        info, said = read_info(data), line["image"]
        assert (info.format, info.mode, info.frames) == (said["format"], said["mode"], said["frames"]), line["file"]
        assert {info.width, info.height} == {said["width"], said["height"]}
        assert open_picture(data).size == (info.width, info.height)
        rgb = decode_scaled(data, 64)
        assert (rgb.shape[1] > rgb.shape[0]) == (info.width > info.height) or rgb.shape[0] == rgb.shape[1]
