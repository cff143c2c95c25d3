from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.measures.clip_probe import ClipProbe
from pipeline.operator import Quarantine, check_row, load_operator
from tests.pipeline.clip_files import FPS, HEIGHT, WIDTH, clip_bytes, pan, record_of, sound_bytes


def probe(path: Path, **params: Any) -> dict[str, Any]:
    measure = ClipProbe.build(params)
    assert isinstance(measure, ClipProbe)
    values = measure.process(record_of(path))
    check_row(measure.columns, values)
    return dict(zip([column.name for column in measure.columns], values, strict=True))


def test_the_header_is_told(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(pan(1, 2)))
    assert probe(path) == {
        "container": "mov",
        "codec": "h264",
        "pixel_format": "yuv420p",
        "width": WIDTH,
        "height": HEIGHT,
        "short_side": HEIGHT,
        "aspect": WIDTH / HEIGHT,
        "rotation": 0,
        "fps": float(FPS),
        "duration_s": pytest.approx(2.0),
        "frame_count": 2 * FPS,
        "has_audio": False,
        "file_bytes": path.stat().st_size,
    }


def test_sides_are_those_of_the_upright_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(pan(1, 0.5), rotation=-90))
    found = probe(path)
    assert (found["width"], found["height"], found["rotation"]) == (HEIGHT, WIDTH, 270)


def test_what_is_not_stated_is_null(tmp_path: Path) -> None:
    path = tmp_path / "clip.webm"
    path.write_bytes(clip_bytes(pan(1, 1), container="webm", codec="libvpx-vp9"))
    found = probe(path)
    assert found["frame_count"] is None
    assert found["duration_s"] == pytest.approx(1.0, abs=0.1)


def test_limits_of_the_recipe_count(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(pan(1, 2)))
    for params, reason in (
        ({"max_seconds": 1}, "clip too long"),
        ({"max_pixels": 100}, "too many pixels"),
        ({"max_bytes": 100}, "file too large"),
    ):
        with pytest.raises(Quarantine) as caught:
            probe(path, **params)
        assert caught.value.reason == reason


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    path.write_bytes(sound_bytes())
    with pytest.raises(Quarantine) as caught:
        probe(path)
    assert caught.value.reason == "no video stream"


def test_the_short_names_lead_to_the_operators() -> None:
    names = [load_operator(name).name for name in ("clip_probe", "clip_scan", "frames")]
    assert names == ["clip_probe", "clip_scan", "frames"]
