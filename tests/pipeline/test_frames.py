from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.clip_decord import read_frames
from pipeline.frames import Frames, sample_times
from pipeline.measures.clip_scan import ClipScan
from pipeline.operator import Child, Quarantine, Record
from pipeline.pictures import open_picture
from tests.conftest import SAMPLES
from tests.pipeline.clip_files import FPS, HEIGHT, WIDTH, clip_bytes, pan, record_of


def scanned(path: Path) -> Record:
    """A record of the clip with what the scan says of its longest shot."""
    scan = ClipScan.build({})
    assert isinstance(scan, ClipScan)
    values = dict(zip([column.name for column in scan.columns], scan.process(record_of(path)), strict=True))
    wanted: dict[str, object] = {name: values[name] for name in ("shot_start_s", "shot_end_s", "cut_times")}
    return record_of(path, wanted, str(path.parent / "store"))


def frames_of(record: Record, **params: Any) -> list[Child]:
    operator = Frames.build(params)
    assert isinstance(operator, Frames)
    return list(operator.expand(record))


@pytest.mark.parametrize(("seconds", "count"), [(10, 2), (14.9, 3), (15.1, 4), (20, 4), (25, 5), (30, 6), (300, 6)])
def test_clips_of_ten_to_thirty_seconds_give_two_to_six_frames(seconds: float, count: int) -> None:
    assert len(sample_times(0.0, seconds - 0.04)) == count


def test_frames_stand_in_the_middle_of_the_shot() -> None:
    assert sample_times(3.0, 15.0) == [4.0, 9.0, 14.0]
    assert sample_times(0.0, 5.0) == [0.0, 5.0]
    assert sample_times(0.0, 4.99) == []
    assert sample_times(0.0, 100.0, most=2) == [47.5, 52.5]


@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0.05, 20),
    st.integers(1, 6),
    st.integers(0, 6),
)
def test_times_lie_in_the_shot_evenly_or_there_are_none(
    start: float, seconds: float, every: float, least: int, more: int
) -> None:
    end = start + seconds
    found = sample_times(start, end, every, least, least + more)
    assert found == sample_times(start, end, every, least, least + more)
    if not found:
        assert end - start < (least - 1) * every + 1e-6
        return
    assert least <= len(found) <= least + more
    assert all(start <= time <= end for time in found)
    assert all(later - earlier == pytest.approx(every, abs=1e-6) for earlier, later in itertools.pairwise(found))


def test_frames_are_pictures_of_the_store_with_the_fields_of_their_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(pan(1, 6)))
    record = scanned(path)
    children = frames_of(record, every=2)
    assert [child.role for child in children] == ["frame"] * 3
    assert [child.fields["time_s"] for child in children] == pytest.approx([1.0, 3.0, 5.0], abs=1 / FPS)
    for number, child in enumerate(children):
        assert child.fields["id"] == "a"
        assert child.fields["licence"] == "MIT"
        assert (child.fields["clip"], child.fields["frame"], child.fields["frames"]) == (record.key, number, 3)
        (ref,) = child.media
        data = record.reader.read(ref)
        assert (ref.role, ref.container, ref.digest, ref.length) == (
            "image",
            "store",
            hashlib.sha256(data).hexdigest(),
            len(data),
        )
        assert open_picture(data).size == (WIDTH, HEIGHT)


def test_a_frame_is_the_one_shown_at_its_time(tmp_path: Path) -> None:
    """Each second has a grey value of its own."""
    shades = [np.full((HEIGHT, WIDTH, 3), 60 + 10 * (number // FPS), np.uint8) for number in range(6 * FPS)]
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(shades))
    record = scanned(path)
    for child in frames_of(record, every=1.5):
        grey = np.asarray(open_picture(record.reader.read(child.media[0]))).mean()
        assert grey == pytest.approx(60 + 10 * int(child.fields["time_s"]), abs=2)


def test_a_turned_clip_gives_upright_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(pan(1, 3), rotation=90))
    record = scanned(path)
    for child in frames_of(record, every=1):
        assert open_picture(record.reader.read(child.media[0])).size == (HEIGHT, WIDTH)


def test_running_it_again_gives_the_same_children(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(itertools.chain(pan(1, 3), pan(2, 5))))
    record = scanned(path)
    once = frames_of(record, every=2)
    objects = sorted(path.name for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert frames_of(record, every=2) == once
    assert sorted(path.name for path in (tmp_path / "store").rglob("*") if path.is_file()) == objects
    assert len(objects) == len(once) == 3


def test_a_shot_that_is_too_short_sets_the_clip_aside(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(itertools.chain(pan(1, 4), pan(2, 4))))
    with pytest.raises(Quarantine) as caught:
        frames_of(scanned(path))
    assert caught.value.reason == "shot too short"
    assert str(caught.value) == "the longest shot lasts 3.96 s, 2 frames one every 5 s need 5 s"


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(2, 60)), min_size=1, max_size=5), st.floats(0.2, 1.5))
def test_no_frames_of_a_clip_have_a_cut_between_them(
    tmp_path_factory: pytest.TempPathFactory, shots: list[tuple[int, int]], every: float
) -> None:
    """Cuts at known places, some so close that the scan's list leaves them out: every frame shows one scene."""
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 220), (230, 230, 40)]
    frames, scene_of = [], []
    for scene, length in shots:
        for picture in itertools.islice(pan(scene, 10), length):
            frames.append((picture // 3 + (np.array(colours[scene]) * 2 // 3).astype(np.uint8)).astype(np.uint8))
            scene_of.append(scene)
    path = tmp_path_factory.mktemp("cuts") / "clip.mp4"
    path.write_bytes(clip_bytes(frames))
    record = scanned(path)
    if record.values["shot_end_s"] - record.values["shot_start_s"] < every:
        with pytest.raises(Quarantine, match="the longest shot lasts"):
            frames_of(record, every=every)
        return
    children = frames_of(record, every=every)
    assert 2 <= len(children) <= 6
    places = [round(child.fields["time_s"] * FPS) for child in children]
    assert len(set(scene_of[min(places) : max(places) + 1])) == 1
    assert len(set(places)) == len(places)


def test_a_gap_in_the_clip_never_moves_a_frame_beyond_the_shot(tmp_path: Path) -> None:
    """Nothing is shown between 0.1 s and 1 s, where a frame is wanted, and the shot ends at 1 s."""
    times = [0.0, 0.1, 1.0, 1.1, 1.2, 1.3]
    path = tmp_path / "clip.mkv"
    path.write_bytes(clip_bytes(list(pan(1, 1))[:6], container="matroska", seconds_of_frames=times))
    record = record_of(path, {"shot_start_s": 0.0, "shot_end_s": 1.0}, str(tmp_path / "store"))
    assert [child.fields["time_s"] for child in frames_of(record, every=0.5)] == pytest.approx([0.0, 1.0], abs=0.002)
    with pytest.raises(Quarantine, match="2 frames where 3 were wanted"):
        frames_of(record, every=0.5, least=3)


def test_a_clip_that_was_not_scanned_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip_bytes(pan(1, 1)))
    with pytest.raises(Quarantine) as caught:
        frames_of(record_of(path, {"shot_start_s": None, "shot_end_s": None}))
    assert caught.value.reason == "no shot"


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValidationError, match="least 4 is more than most 3"):
        Frames.build({"least": 4, "most": 3})


CLIPS: dict[str, tuple[dict[str, Any], bool]] = {
    "plain": ({}, True),
    "matroska": ({"container": "matroska"}, True),
    "turned": ({"rotation": 90}, False),
    "avi": ({"container": "avi", "codec": "mpeg4"}, False),
}


@pytest.mark.parametrize(("made", "by_decord"), CLIPS.values(), ids=list(CLIPS))
def test_what_is_stored_does_not_depend_on_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, Any], by_decord: bool
) -> None:
    pytest.importorskip("decord")
    path = tmp_path / "clip"
    path.write_bytes(clip_bytes(pan(3, 6), **made))
    asked: list[str] = []
    monkeypatch.setattr("pipeline.frames.read_frames", lambda *given: asked.append(given[0]) or read_frames(*given))
    one, other = (frames_of(scanned(path), every=2, decoder=name) for name in ("decord", "pyav"))
    assert len(one) >= 2
    assert [(child.fields, child.media) for child in one] == [(child.fields, child.media) for child in other]
    assert asked == ([str(path)] if by_decord else [])


def test_a_clip_in_which_decord_counts_other_frames_is_left_to_pyav(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = tmp_path / "clip"
    path.write_bytes(clip_bytes(pan(3, 2)))
    assert read_frames(str(path), 2 * FPS, [0]) is not None
    assert read_frames(str(path), 2 * FPS + 1, [0]) is None
    path.write_bytes(b"no clip")
    assert read_frames(str(path), 1, [0]) is None


@pytest.mark.corpora
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample corpora beside the project")
def test_the_sample_clips_give_the_same_frames_by_both_decoders(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    taken = []
    for path in sorted((SAMPLES / "video" / "files").iterdir()):
        record = record_of(path, {"shot_start_s": 0.0, "shot_end_s": 2.0}, str(tmp_path / "store"))
        found = []
        for name in ("decord", "pyav"):
            try:
                found.append([(child.fields, child.media) for child in frames_of(record, every=0.5, decoder=name)])
            except Quarantine as verdict:
                found.append([(verdict.reason, str(verdict))])
        assert found[0] == found[1], path.name
        taken.append(len(found[0]) > 1)
    assert sum(taken) >= 15
