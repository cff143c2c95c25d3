"""What differs between source and target: the changed area, and not JPEG noise, tone or a shifted frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embedded.scenes import skyline
from pipeline.measures.change import Change, Laid, analysis_size, change, lay, structure
from pipeline.measures.same_picture import describe
from tests.pipeline.measures.copies import cropped, mirrored, recompressed, resized
from tests.pipeline.pictures import scene

SCENE = scene(640, 480, 1)


def laid(source: np.ndarray, target: np.ndarray) -> Laid:
    return lay(source, target, (describe(source), describe(target)))


def changed(source: np.ndarray, target: np.ndarray) -> Change:
    return change(laid(source, target))


def with_disc(picture: np.ndarray, x: int = 200, y: int = 160, radius: int = 40) -> np.ndarray:
    return cv2.circle(picture.copy(), (x, y), radius, (250, 40, 30), -1, cv2.LINE_AA)


def toned(picture: np.ndarray, gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
    return np.clip(picture.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)


COPIES = {
    "itself": lambda picture: picture,
    "jpeg": lambda picture: recompressed(picture, 50),
    "smaller": lambda picture: recompressed(resized(picture, 0.7), 80),
    "larger": lambda picture: resized(picture, 1.6),
    "toned": lambda picture: recompressed(toned(picture, 0.95, 5), 80),
    "blurred": lambda picture: cv2.GaussianBlur(picture, (0, 0), 0.7),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_no_change(copy: str) -> None:
    found = changed(SCENE, COPIES[copy](SCENE))
    assert (found.share, found.parts) == (0, 0)
    assert found.inside is found.compactness is found.outline_gain is None
    assert found.outside is not None
    assert found.outside < 3


@pytest.mark.parametrize("copy", COPIES)
def test_a_disc_on_a_copy_is_the_only_change_and_has_its_size(copy: str) -> None:
    found = changed(SCENE, COPIES[copy](with_disc(SCENE)))
    assert found.share == pytest.approx(np.pi * 40**2 / (640 * 480), rel=0.2)
    assert found.parts == 1
    assert found.compactness == pytest.approx(np.pi / 4, rel=0.1)
    assert found.inside is not None
    assert found.inside > 20
    rows, columns = np.nonzero(found.mask)
    height, width = found.mask.shape
    assert (columns.mean() / width, rows.mean() / height) == pytest.approx((200 / 640, 160 / 480), abs=0.01)


def test_two_discs_are_two_parts() -> None:
    assert changed(SCENE, with_disc(with_disc(SCENE), 450, 300, 30)).parts == 2


def test_what_comes_brings_outlines_and_what_goes_takes_them_along() -> None:
    came, went = changed(SCENE, with_disc(SCENE)), changed(with_disc(SCENE), SCENE)
    assert came.outline_gain is not None
    assert went.outline_gain is not None
    assert came.outline_gain > 0.3
    assert went.outline_gain == pytest.approx(-came.outline_gain, abs=0.05)


def test_another_tone_is_told_as_tone_and_drift_not_as_change() -> None:
    found = changed(SCENE, toned(SCENE, 0.8, 10))
    assert found.share < 0.02
    assert found.tone_shift > 4
    assert found.outside is not None
    assert found.drift is not None
    assert found.outside < 1.5 < 4 < found.drift


def test_a_blank_background_is_a_change_and_no_tone() -> None:
    target = np.full_like(SCENE, 255)
    target[120:360, 160:480] = SCENE[120:360, 160:480]
    found = changed(SCENE, target)
    assert found.share == pytest.approx(0.75, abs=0.02)
    assert found.tone_shift < 1
    assert found.outside is not None
    assert found.outside < 1


def test_a_picture_of_another_colour_everywhere_has_no_outside() -> None:
    found = changed(np.zeros((200, 200, 3), np.uint8), np.full((200, 200, 3), (255, 0, 0), np.uint8))
    assert (found.share, found.outside, found.drift, found.outline_gain) == (1, None, None, None)


@pytest.mark.parametrize("share", [0.02, 0.04])
def test_a_cropped_target_is_laid_over_its_place(share: float) -> None:
    target = cropped(with_disc(SCENE), share)
    found = laid(SCENE, target)
    assert found.overlap == pytest.approx((1 - 2 * share) ** 2, abs=0.02)
    assert 0.5 * share < found.offset < 2 * share
    difference = change(found)
    assert difference.share == pytest.approx(np.pi * 40**2 / (640 * 480), rel=0.4)
    assert difference.parts <= 2


def test_frame_on_frame_stays_where_nothing_better_is_found() -> None:
    for target in (with_disc(SCENE), scene(640, 480, 2), np.full_like(SCENE, 90)):
        assert laid(SCENE, target).offset == 0


def test_structure_holds_through_styles_and_not_for_other_pictures() -> None:
    town, other = (np.asarray(skyline(name, (512, 384), "at sunset").image) for name in ("one", "another"))
    edges = cv2.Canny(cv2.cvtColor(town, cv2.COLOR_RGB2GRAY), 60, 160)
    drawn = np.repeat(edges[..., None], 3, axis=2)
    for styled in (drawn, 255 - town, toned(town, 0.3), resized(town, 0.4), np.ascontiguousarray(town[..., ::-1])):
        assert structure(town, styled) > 12
    for wrong in (other, mirrored(town), SCENE):
        assert structure(town, wrong) < 6


def test_a_flat_picture_has_no_structure() -> None:
    flat = np.full((50, 80, 3), 128, np.uint8)
    assert structure(flat, flat) == structure(flat, SCENE) == 0


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 2**16),
)
def test_figures_lie_in_their_ranges_for_any_two_pictures(
    one: tuple[int, int], two: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source, target = (rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in (one, two))
    placed = laid(source, target)
    found = change(placed)
    assert placed.source.shape[:2] == analysis_size(*one)[::-1]
    assert 0 <= found.share <= 1
    assert 0 <= placed.overlap <= 1
    assert found.compactness is None or 0 < found.compactness <= 1
    assert found.outline_gain is None or -1 <= found.outline_gain <= 1
    values = (found.tone_shift, found.inside, found.outside, found.drift, structure(source, target))
    assert all(value is None or (np.isfinite(value) and value >= 0) for value in values)
    assert changed(source, source).share == 0


def test_nothing_that_ran_before_changes_the_answer() -> None:
    target = cropped(with_disc(SCENE), 0.03)
    first, placed = changed(SCENE, target), laid(SCENE, target).offset
    cv2.setRNGSeed(99)
    cv2.setNumThreads(2)
    again = changed(SCENE, target)
    assert (again.share, again.outside, laid(SCENE, target).offset) == (first.share, first.outside, placed)
