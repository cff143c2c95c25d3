from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.measures.clip_scan import ClipScan
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record, check_row
from tests.bench.figure import apart
from tests.pipeline.clip_files import FPS, WIDTH, Picture, clip_bytes, pan, plain, record_of, still, texture

CORPORA = Path(__file__).resolve().parents[4] / "shared" / "corpora"
CHAIN = itertools.chain


def scan_record(record: Record, **params: Any) -> dict[str, Any]:
    measure = ClipScan.build(params)
    assert isinstance(measure, ClipScan)
    measure.setup()
    values = measure.process(record)
    check_row(measure.columns, values)
    return dict(zip([column.name for column in measure.columns], values, strict=True))


def scan(folder: Path, frames: Iterable[Picture] | bytes, **params: Any) -> dict[str, Any]:
    path = folder / "clip"
    path.write_bytes(frames if isinstance(frames, bytes) else clip_bytes(frames))
    return scan_record(record_of(path), **params)


def test_hard_cuts_are_found_where_they_are(tmp_path: Path) -> None:
    found = scan(tmp_path, CHAIN(pan(1, 2), pan(2, 3), pan(3, 1.5)))
    assert found["cut_times"] == pytest.approx([2.0, 5.0], abs=0.001)
    assert found["cuts"] == 2
    assert (found["shot_start_s"], found["shot_end_s"]) == pytest.approx((2.0, 5.0 - 1 / FPS), abs=0.001)
    assert found["decoded_frames"] == 6.5 * FPS


def test_a_single_shot_has_no_cut(tmp_path: Path) -> None:
    found = scan(tmp_path, pan(1, 4))
    assert (found["cuts"], found["cut_times"]) == (0, [])
    assert found["shot_s"] == found["decoded_s"] == pytest.approx(4 - 1 / FPS, abs=0.001)
    assert (found["still_share"], found["black_share"], found["damaged_share"]) == (0, 0, 0)


def test_cuts_that_follow_too_closely_count_once_yet_end_shots(tmp_path: Path) -> None:
    """A flash: another picture for a tenth of a second, which PySceneDetect's least length merges away."""
    found = scan(tmp_path, CHAIN(pan(1, 2), pan(2, 0.1), pan(1, 1)))
    assert found["cuts"] == 1
    assert found["shot_end_s"] < 2.0


def test_a_strobe_is_one_cut_at_its_last_flash(tmp_path: Path) -> None:
    """Jumps that follow one another for a second are merged; the cut is told fifteen frames later."""
    flashes = CHAIN.from_iterable(pan(number % 2 + 2, 0.25) for number in range(5))
    found = scan(tmp_path, CHAIN(pan(1, 1), pan(2, 1), flashes, pan(1, 2)))
    assert found["cut_times"] == pytest.approx([1.0, 2.0, 3.25], abs=0.001)


def test_a_jump_near_the_beginning_ends_a_shot_too(tmp_path: Path) -> None:
    found = scan(tmp_path, CHAIN(pan(1, 0.25), pan(2, 2)))
    assert found["cuts"] == 0
    assert found["shot_start_s"] == pytest.approx(0.25, abs=0.001)


def test_a_still_clip_is_still(tmp_path: Path) -> None:
    found = scan(tmp_path, still(1, 3))
    assert found["still_share"] == 1.0
    assert found["repeated_share"] > 0.9
    assert found["motion"] < 0.1
    assert found["clarity"] > 50


def test_a_black_clip_is_black_and_a_grey_one_is_not(tmp_path: Path) -> None:
    assert scan(tmp_path, plain(0, 2))["black_share"] == 1.0
    assert scan(tmp_path, plain(90, 2))["black_share"] == 0.0


def test_half_a_black_shot_is_half(tmp_path: Path) -> None:
    """A fade that takes so long that no frame of it is a jump; the middle of it is as dark as black may be."""
    faded = CHAIN.from_iterable(plain(24 - number, 0.125) for number in range(24))
    assert scan(tmp_path, faded)["black_share"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("speed", [10.0, 20.0, 40.0])
def test_motion_is_the_share_of_the_diagonal_that_pixels_travel_a_second(tmp_path: Path, speed: float) -> None:
    found = scan(tmp_path, pan(1, 3, speed))
    diagonal = math.hypot(160, 96)
    assert found["motion"] == pytest.approx(100 * speed / diagonal, rel=0.2)


def test_a_slow_pan_moves_and_is_not_still(tmp_path: Path) -> None:
    found = scan(tmp_path, pan(1, 3, speed=2))
    assert found["still_share"] == 0.0
    assert 0.5 < found["motion"] < 2


def test_motion_does_not_hang_on_the_size_of_the_clip(tmp_path: Path) -> None:
    small, large = (scan(tmp_path, pan(1, 2, 20 * times, 160 * times, 96 * times)) for times in (1, 4))
    assert large["motion"] == pytest.approx(small["motion"], rel=0.2)


def test_a_blurred_clip_is_less_clear(tmp_path: Path) -> None:
    import cv2

    sharp = scan(tmp_path, pan(1, 2))
    blurred = scan(tmp_path, (cv2.GaussianBlur(frame, (0, 0), 4) for frame in pan(1, 2)))  # type: ignore[misc]
    assert sharp["clarity"] > 50 > blurred["clarity"]


def test_repeated_frames_are_counted(tmp_path: Path) -> None:
    halved = [frame for frame in itertools.islice(pan(1, 4, FPS), None, None, 2) for _ in range(2)]
    assert scan(tmp_path, halved)["repeated_share"] == pytest.approx(0.5, abs=0.1)
    assert scan(tmp_path, pan(1, 2, FPS))["repeated_share"] == 0


def test_a_clip_of_one_frame_has_no_motion_to_tell(tmp_path: Path) -> None:
    found = scan(tmp_path, [texture(1, WIDTH)])
    assert (found["decoded_frames"], found["shot_s"], found["motion"], found["still_share"]) == (1, 0.0, None, None)


def test_damage_is_told_and_truncation_sets_aside(tmp_path: Path) -> None:
    data = bytearray(clip_bytes(pan(1, 4)))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    assert 0 < scan(tmp_path, bytes(data))["damaged_share"] < 0.5
    whole = clip_bytes(pan(1, 4), container="matroska")
    with pytest.raises(Quarantine) as caught:
        scan(tmp_path, whole[: len(whole) // 2])
    assert caught.value.reason == "truncated clip"


def test_a_scan_is_the_same_every_time(tmp_path: Path) -> None:
    frames = list(CHAIN(pan(1, 1.5), pan(2, 1.5)))
    assert scan(tmp_path, frames) == scan(tmp_path, frames)


def memory_of_scan(path: str) -> dict[str, Any]:
    """What a process of its own calls."""
    return {"frames": scan_record(record_of(Path(path)))["decoded_frames"]}


def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path: Path) -> None:
    peaks = []
    for seconds in (10, 60):
        path = tmp_path / f"{seconds}.mp4"
        path.write_bytes(clip_bytes(pan(1, seconds)))
        found = apart("tests.pipeline.measures.test_clip_scan", "memory_of_scan", str(path))
        assert found["frames"] == seconds * FPS
        peaks.append(found["own_peak_mb"])
    assert peaks[1] < 1.15 * peaks[0]


# -- real clips -------------------------------------------------------------------------------------------------------


def real(manifest: str) -> list[dict[str, Any]]:
    path = CORPORA / manifest
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.parametrize(
    "entry", [e for e in real("video/manifest.jsonl") if "expected_cuts_s" in e], ids=lambda e: e["id"]
)
def test_known_cuts_of_real_clips_are_found_and_no_other(entry: dict[str, Any]) -> None:
    ref = MediaRef("video", "file", entry["file"])
    found = scan_record(Record("0" * 32, (ref,), b"{}", {}, MediaReader(str(CORPORA / "video"))))
    assert found["cut_times"] == pytest.approx(entry["expected_cuts_s"], abs=0.2)


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not real("hostile/manifest.jsonl"), reason="no sample corpora beside the project")
def test_hostile_clips_end_as_they_should() -> None:
    reader = MediaReader(str(CORPORA / "hostile"))
    named = {e["id"]: MediaRef("video", "file", e["file"]) for e in real("hostile/manifest.jsonl")}
    with pytest.raises(Quarantine) as caught:
        scan_record(Record("0" * 32, (named["hostile/derived__truncated_video_a.mp4"],), b"{}", {}, reader))
    assert (caught.value.reason, str(caught.value)) == ("truncated clip", "frames end at 2.64 s of 9.58 s")
    found = scan_record(Record("0" * 32, (named["hostile/derived__garbled_video_a.mp4"],), b"{}", {}, reader))
    assert 0.01 < found["damaged_share"] < 0.1
