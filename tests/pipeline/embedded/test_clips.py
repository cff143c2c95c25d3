from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise

import av
import numpy as np
import pytest

import pipeline.embedded.clips as module
from catalog.errors import UserError
from pipeline.embedded import scenes
from pipeline.embedded.clips import FPS, SIZE, balloons, clip_bytes, clips, faded, held, pan, zoom
from pipeline.embedded.item import EXACT, EXPANDED, INTERLEAVED, Item, quarantined


@pytest.fixture(scope="module")
def made() -> dict[str, Item]:
    return {item.file: item for item in clips()}


def decoded(data: bytes) -> Iterator[np.ndarray]:
    with av.open(io.BytesIO(data)) as file:
        for frame in file.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def test_sound_clips_play_for_as_long_as_their_frames_last(made: dict[str, Item]) -> None:
    kept = {name: item for name, item in made.items() if item.expected[INTERLEAVED] == EXPANDED}
    assert len(kept) >= 5
    for name, item in kept.items():
        frames = list(decoded(item.data or b""))
        assert 5 * FPS <= len(frames) <= 15 * FPS, name
        assert frames[0].shape == (SIZE[1], SIZE[0], 3), name
        middle = [frame.astype(int) for frame in frames[:: len(frames) // 2]]
        assert np.abs(middle[0] - middle[1]).mean() > 2, name


def test_what_is_to_be_set_aside_does_not_play_to_its_end(made: dict[str, Item]) -> None:
    broken = {name for name, item in made.items() if item.expected[INTERLEAVED].state == "quarantined"}
    assert broken == {"cut_off.mkv", "no_clip.mp4", "nothing.mp4"}
    for name in broken - {"cut_off.mkv"}:
        with pytest.raises(av.error.InvalidDataError):
            list(decoded(made[name].data or b""))
    with av.open(io.BytesIO(made["cut_off.mkv"].data or b"")) as file:
        shown = sum(1 for _ in file.decode(video=0))
        assert shown < float(file.duration or 0) / 1e6 * FPS * 0.7
    assert made["cut_off.mkv"].expected[INTERLEAVED] == quarantined("truncated clip")


def test_the_view_changes_where_cuts_are_told(made: dict[str, Item]) -> None:
    told = {name: item.facts["detected_cuts_s"] for name, item in made.items() if item.facts["detected_cuts_s"]}
    assert told == {"two_shots.mkv": [3.0], "hard_cuts.mp4": [3.0, 6.0, 9.0]}
    for name, cuts in told.items():
        frames = [frame.astype(int) for frame in decoded(made[name].data or b"")]
        steps = [float(np.abs(one - two).mean()) for one, two in pairwise(frames)]
        largest = sorted(np.argsort(steps)[-len(cuts) :])
        assert [(place + 1) / FPS for place in largest] == cuts


def test_the_copy_is_the_same_bytes(made: dict[str, Item]) -> None:
    copies = [item for item in made.values() if item.expected[INTERLEAVED] == EXACT]
    assert [item.facts["near_dup_group"] for item in copies] == ["panned_meadow_0"]
    assert copies[0].data == made["panned_meadow_0.mp4"].data


def test_a_clip_has_the_same_bytes_every_time() -> None:
    """Zooms are what x264's macroblock tree gives other bytes for; Matroska has a random mark unless told not to."""
    view = scenes.skyline("near_city", (640, 480), scenes.TIMES[3])
    frames = list(zoom(view, 3))
    for container, codec in (("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4")):
        assert len({clip_bytes(frames, container, codec) for _ in range(4)}) == 1, container


def test_a_pan_turns_back_at_the_end_of_its_picture() -> None:
    view = scenes.harbour("test", (400, 240), scenes.TIMES[0], 2)
    frames = list(pan(view, 20, speed=16))
    whole = np.asarray(view.image)
    assert len(frames) == 20 * FPS
    assert np.array_equal(frames[0], whole[:, :320])
    assert np.array_equal(frames[40], whole[:, 80:])
    assert np.array_equal(frames[80], frames[0])


def test_balloons_move_and_the_rest_does_not() -> None:
    view = scenes.harbour("test", SIZE, scenes.TIMES[0], 2)
    whole = np.asarray(view.image, np.int64)
    frames = list(balloons(view, 2, ("red", "blue")))
    changed = [np.abs(frame - whole).max(axis=2) > 0 for frame in frames]
    assert all(0.01 < each.mean() < 0.2 for each in changed)
    assert (changed[0] != changed[-1]).mean() > 0.02


def test_frames_are_held_and_fade() -> None:
    frames = [np.full((2, 2, 3), 200, np.uint8)] * 3
    assert [int(frame[0, 0, 0]) for frame in faded(frames, 1, 0)] == [200, 100, 0]
    assert len(list(held(frames, 4))) == 12


def test_without_pyav_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"need PyAV: pip install 'unifactory\[demo\]'"):
        next(clips())
