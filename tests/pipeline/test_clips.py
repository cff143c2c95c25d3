from __future__ import annotations

import io
import itertools
import re
import tarfile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.storage import open_storage
from pipeline.clips import DEFAULT_CLIP_LIMITS, REASONS, Clip, ClipLimits, container_of, open_clip, upright_rgb
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine
from tests.pipeline.clip_files import FPS, HEIGHT, WIDTH, clip_bytes, pan, plain, sound_bytes, still, texture

VIDEO = MediaRef("video", "file", "clip")


def write(folder: Path, data: bytes) -> MediaReader:
    (folder / "clip").write_bytes(data)
    return MediaReader(str(folder))


def times(folder: Path, data: bytes, limits: ClipLimits = DEFAULT_CLIP_LIMITS) -> list[float]:
    with open_clip(write(folder, data), VIDEO, limits) as clip:
        return [shown.time for shown in clip.frames()]


def decode_whole(reader: MediaReader, limits: ClipLimits) -> list[float]:
    with open_clip(reader, VIDEO, limits) as clip:
        seen = [shown.time for shown in clip.frames()]
        if not seen:
            raise Quarantine("no frames")
        clip.check_whole(seen[-1])
    return seen


def refused(folder: Path, data: bytes, limits: ClipLimits = DEFAULT_CLIP_LIMITS) -> tuple[str, str]:
    """Reason and message of a clip that does not open, or does not decode to its end."""
    with pytest.raises(Quarantine) as caught:
        decode_whole(write(folder, data), limits)
    assert caught.value.reason in REASONS
    assert str(folder) not in str(caught.value)
    return caught.value.reason, str(caught.value)


@pytest.fixture(scope="module")
def good() -> bytes:
    return clip_bytes(pan(1, 2))


def test_frames_come_in_order_with_times_from_zero(tmp_path: Path, good: bytes) -> None:
    found = times(tmp_path, good)
    assert found == pytest.approx([number / FPS for number in range(2 * FPS)], abs=1e-4)


@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [
        ("mp4", "libx264", "mov"),
        ("mov", "mpeg4", "mov"),
        ("avi", "mpeg4", "avi"),
        ("matroska", "libx264", "matroska"),
        ("webm", "libvpx-vp9", "matroska"),
        ("mpegts", "libx264", "mpegts"),
        ("flv", "flv1", "flv"),
    ],
)
def test_the_container_is_found_in_the_bytes(tmp_path: Path, container: str, codec: str, name: str) -> None:
    data = clip_bytes(pan(1, 0.5), container=container, codec=codec)
    assert container_of(data[:4096]) == name
    with open_clip(write(tmp_path, data), VIDEO) as clip:
        assert clip.info().container == name
    assert len(times(tmp_path, data)) == FPS // 2


def test_a_rate_that_varies_gives_the_frames_own_times(tmp_path: Path) -> None:
    shown = [0.0, 0.1, 0.5, 0.6, 1.4]
    data = clip_bytes(list(pan(1, 1))[:5], container="matroska", seconds_of_frames=shown)
    assert times(tmp_path, data) == pytest.approx(shown, abs=0.002)


def test_times_increase_whatever_the_frames_say() -> None:
    """Frames without a time, or with an earlier one, follow at the clip's rate."""
    told = [5.0, 5.1, None, 5.1, 4.0, 7.0]
    frames = [SimpleNamespace(time=time, width=8, height=8, is_corrupt=False) for time in told]
    packets = [SimpleNamespace(decode=lambda frame=frame: [frame]) for frame in frames]
    stream = SimpleNamespace(
        duration=None, time_base=None, average_rate=Fraction(10), codec_context=SimpleNamespace(width=8, height=8)
    )
    container = SimpleNamespace(duration=None, demux=lambda stream: packets)
    clip = Clip(cast(Any, container), cast(Any, stream), 1, DEFAULT_CLIP_LIMITS)
    assert [shown.time for shown in clip.frames()] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 2.0])


def test_a_turned_clip_stands_upright(tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, : WIDTH // 2] = 255  # the left half is white
    with open_clip(write(tmp_path, clip_bytes([picture] * 3, rotation=90)), VIDEO) as clip:
        rgb = upright_rgb(next(clip.frames()).frame, clip.square_pixels)
    assert rgb.shape == (WIDTH, HEIGHT, 3)
    # Turned a quarter counterclockwise, left becomes bottom.
    assert rgb[: WIDTH // 2 - 4].mean() < 5
    assert rgb[WIDTH // 2 + 4 :].mean() > 250


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    data = clip_bytes(still(1, 0.2), container="matroska", pixel_aspect=Fraction(3, 2))
    with open_clip(write(tmp_path, data), VIDEO) as clip:
        info = clip.info()
    assert (info.width, info.height) == (WIDTH * 3 // 2, HEIGHT)


def test_a_part_of_a_tar_and_an_object_of_a_store_give_the_same_frames(tmp_path: Path, good: bytes) -> None:
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        for name, data in (("before", b"x" * 777), ("clip", good), ("after", b"y" * 5000)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(tmp_path / "clips.tar") as tar:
        place = tar.getmember("clip").offset_data
    open_storage(str(tmp_path / "store")).write("media/aa/clip", good)
    reader = MediaReader(str(tmp_path), str(tmp_path / "store"))
    write(tmp_path, good)
    sums = []
    for ref in (
        VIDEO,
        MediaRef("video", "tar", "clips.tar", "clip", place, len(good)),
        MediaRef("video", "store", "media/aa/clip"),
    ):
        with open_clip(reader, ref) as clip:
            sums.append([int(shown.frame.to_ndarray(format="rgb24").sum()) for shown in clip.frames()])
    assert sums[0] == sums[1] == sums[2]
    assert len(sums[0]) == 2 * FPS


def test_what_is_no_clip_says_so(tmp_path: Path) -> None:
    assert refused(tmp_path, b"")[0] == "empty file"
    assert refused(tmp_path, b"this is no video, it is a line of text")[0] == "not a video"
    assert refused(tmp_path, b"\xff\xd8\xff\xe0" + bytes(2000))[0] == "not a video"
    assert refused(tmp_path, b"\x00\x00\x00\x1cftypavif" + bytes(2000))[0] == "not a video"
    assert refused(tmp_path, sound_bytes())[0] == "no video stream"
    assert refused(tmp_path, b"\x1aE\xdf\xa3" + bytes(range(256)) * 8)[0] == "broken clip"


@pytest.mark.parametrize(
    "text",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"<?xml version='1.0'?><MPD><BaseURL>file:///etc/hostname</BaseURL></MPD>",
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, text: bytes) -> None:
    assert refused(tmp_path, text)[0] == "not a video"


def test_a_cut_clip_says_how_far_it_goes(tmp_path: Path) -> None:
    data = clip_bytes(pan(1, 6))
    reason, message = refused(tmp_path, data[: len(data) // 2])
    assert (reason, message.split(":")[0]) == ("truncated clip", "mov")
    streamed = clip_bytes(pan(1, 6), container="matroska")
    reason, message = refused(tmp_path, streamed[: len(streamed) // 2])
    assert reason == "truncated clip"
    assert re.fullmatch(r"frames end at [1-4]\.\d\d s of 6\.00 s", message)


def test_limits_are_kept_before_anything_is_decoded(tmp_path: Path, good: bytes) -> None:
    assert refused(tmp_path, good, ClipLimits(max_seconds=1.5))[0] == "clip too long"
    assert refused(tmp_path, good, ClipLimits(max_pixels=WIDTH * HEIGHT - 1)) == (
        "too many pixels",
        f"{WIDTH}x{HEIGHT} pixels a frame, at most {WIDTH * HEIGHT - 1} are decoded",
    )
    assert refused(tmp_path, good, ClipLimits(max_bytes=len(good) - 1))[0] == "file too large"
    assert len(times(tmp_path, good, ClipLimits(len(good), WIDTH * HEIGHT, 2.1))) == 2 * FPS


def test_the_size_of_the_stream_counts_and_not_that_of_the_container(tmp_path: Path) -> None:
    """The container's size is patched to 16 x 16; the stream keeps its own."""
    data = clip_bytes(pan(1, 0.5), container="mp4")
    size = WIDTH.to_bytes(2, "big") + HEIGHT.to_bytes(2, "big")
    assert data.count(size) == 1
    lying = data.replace(size, (16).to_bytes(2, "big") * 2)
    assert refused(tmp_path, lying, ClipLimits(max_pixels=WIDTH * HEIGHT - 1))[0] == "too many pixels"
    assert len(times(tmp_path, lying)) == FPS // 2


def test_words_in_a_clip_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    data = clip_bytes(pan(1, 0.5))
    assert data.count(b"Lavf") == 1
    assert len(times(tmp_path, data.replace(b"Lavf", b"\xff\xfe\xfd\xfc"))) == FPS // 2


def test_a_codec_that_is_not_there_says_so(tmp_path: Path) -> None:
    data = clip_bytes(pan(1, 0.5))
    before, _, after = data.rpartition(b"avc1")
    assert refused(tmp_path, before + b"zzzz" + after)[0] == "unsupported codec"


def test_a_clip_that_does_not_state_its_length_is_stopped_on_the_way(tmp_path: Path) -> None:
    data = clip_bytes(plain(40, 3), container="flv", codec="flv1")
    assert refused(tmp_path, data, ClipLimits(max_seconds=2.5))[0] == "clip too long"
    assert refused(tmp_path, data, ClipLimits(max_seconds=3.5, max_fps=10))[0] == "clip too long"


def test_a_garbled_clip_keeps_what_decodes_and_counts_the_rest(tmp_path: Path) -> None:
    data = bytearray(clip_bytes(pan(1, 4)))
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    with open_clip(write(tmp_path, bytes(data)), VIDEO) as clip:
        shown = list(clip.frames())
        bad = clip.lost + sum(frame.is_corrupt for frame in shown)
    assert bad > 0
    assert len(shown) > 2 * FPS


@settings(max_examples=60)
@given(st.data())
def test_no_damage_ends_in_anything_but_frames_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    container = data.draw(st.sampled_from(["mp4", "matroska", "avi"]))
    whole = bytearray(clip_bytes([texture(3, 64, 48)] * 6, container=container, codec="mpeg4"))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=12)):
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    limits = ClipLimits(max_pixels=10**6, max_seconds=60)
    reader = write(folder, bytes(whole[:cut]))
    try:
        seen = decode_whole(reader, limits)
    except Quarantine as verdict:
        seen = []
        reason: str | None = verdict.reason
    else:
        reason = None
    assert reason is None or reason in REASONS
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))
