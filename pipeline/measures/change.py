"""What differs between the source and the target of an edit: laid over one another, tone taken out, noise let pass.

Pictures come as RGB, uint8 [height, width, 3], and are compared at one analysis size, the proportions of the source,
in CIELAB, where a distance of 2 to 3 is just seen. A map is an affine one, float64 [2, 3], from pixels of the source
at the analysis size to those of the target. Everything is a pure function: one thread, no chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.same_picture import Descriptors, key_point_map, settle

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

SIDE = 384
"""Side of the square that has as many pixels as the analysis pictures."""
# Shorter and longer side of an analysis picture at least and at most, whatever the proportions.
_SHORTEST, _LONGEST = 32, 2048

# CIELAB distance from which a place has changed: JPEG of quality 50 and resampling stay below.
_CHANGED = 9.0
# Blur, in pixels of the analysis size, below which nothing is compared.
_BLUR = 1.2
# Share of the picture below which a spot is noise.
_SPOT = 0.0002
# A tone curve is a gain and an offset for each channel; gains outside are no tone but another picture.
_GAINS = (0.7, 1.4)
# Share of the picture that must follow a tone curve before it is one.
_LEAST_ALIKE = 0.25
# Grey levels by which a textured place may differ when the way to lay one over the other is right; gradient from
# which a place is textured; share of them that fit where no way is sought; by how much a better way must be better.
_SAME_COLOUR, _LEAST_STEEP, _FITS, _GAIN = 16, 1.0, 0.9, 0.05
# Key points that must agree on a map before it is tried; affine maps beyond these bounds are no camera's.
_POINTS, _MOST_SCALE, _MOST_SHIFT = 12, 1.5, 0.35
# Changes beyond this share of the picture have no outline of their own.
_LOCAL = 0.5

# Side of the square in which structure is compared; pixels a line may lie off; pixels around that count as near.
_FIELD, _NEAR, _AROUND = 192, 4, 12


@dataclass(frozen=True, slots=True)
class Laid:
    """The target laid over the source: float32 CIELAB [height, width, 3] each, and where both have pixels.

    `offset`: how far the corner that moves most moves, as a share of the diagonal; 0 for frame on frame.
    """

    source: Floats
    target: Floats
    inside: Mask
    offset: float

    @property
    def overlap(self) -> float:
        """Share of the source's frame that the target covers."""
        return float(self.inside.mean())


@dataclass(frozen=True, slots=True)
class Change:
    """Where and how much two laid pictures differ; distances are CIELAB.

    `mask`: bool [height, width]; `tone_shift`: mean distance that one tone curve for the whole picture explains;
    `inside` and `outside`: mean distance within and without the mask, None where there is nothing; `drift`: that
    without the mask before the tone curve. `outline_gain`: see `_outline_gain`.
    """

    mask: Mask
    share: float
    tone_shift: float
    inside: float | None
    outside: float | None
    drift: float | None
    parts: int
    compactness: float | None
    outline_gain: float | None


def analysis_size(height: int, width: int) -> tuple[int, int]:
    """Width and height at which a pair is compared."""
    scale = SIDE / math.sqrt(height * width)
    return tuple(min(_LONGEST, max(_SHORTEST, round(side * scale))) for side in (width, height))  # type: ignore[return-value]


def lay(source: Picture, target: Picture, points: tuple[Descriptors, Descriptors]) -> Laid:
    """Lay the target over the source: frame on frame, unless key points or structure show a clearly better way.

    `points` are `same_picture.describe` of the two.
    """
    settle()
    size = analysis_size(*source.shape[:2])
    one, two = _resized(source, size), _resized(target, size)
    steep = _texture(one)
    textured = steep > max(_LEAST_STEEP, float(np.quantile(steep, 0.75)))
    plain = np.eye(2, 3)
    best: Floats = plain
    best_fit = _fit(one, two, plain, textured)
    # Where nearly all agrees, no other way could be seen to be better.
    if textured.any() and best_fit < _FITS:
        for way in _ways(one, two, points, size):
            fit = _fit(one, two, way, textured)
            if fit > max(best_fit + _GAIN, best_fit * (1 + _GAIN)):
                best, best_fit = way, fit
    moved, inside = _warped(two, best, size)
    return Laid(_lab(one), _lab(moved), inside, _offset(best, size))


def change(laid: Laid) -> Change:
    """Compare two laid pictures."""
    import cv2

    settle()
    one, two = (cv2.GaussianBlur(each, (0, 0), _BLUR) for each in (laid.source, laid.target))
    toned, shift = _toned(one, two, laid.inside)
    mask, parts = _mask(toned, two, laid.inside)
    far, raw = (np.linalg.norm(each - two, axis=2) for each in (toned, one))
    rest = laid.inside & ~mask
    area = int(mask.sum())
    share = area / max(1, int(laid.inside.sum()))
    return Change(
        mask=mask,
        share=share,
        tone_shift=shift,
        inside=float(far[mask].mean()) if area else None,
        outside=float(far[rest].mean()) if rest.any() else None,
        drift=float(raw[rest].mean()) if rest.any() else None,
        parts=parts,
        compactness=_compactness(mask) if area else None,
        outline_gain=_outline_gain(one, two, mask, laid.inside) if 0 < share <= _LOCAL else None,
    )


def structure(source: Picture, target: Picture) -> float:
    """How far the lines of two pictures agree where they lie, in standard deviations over all other places; >= 0.

    The direction of the strongest gradient, its sign left out, is correlated at every cyclic shift of one field
    over the other. So a drawing, a mosaic or an edge map of a picture agrees with it, whatever its colours: seen
    are 7 and more. Of 896 pairs of unrelated photographs none passes 5; of drawn lakes with one horizon, 9.
    A shift of 2 % is allowed for.
    """
    settle()
    one, two = _field(source), _field(target)
    if one is None or two is None:
        return 0.0
    fits = np.fft.ifft2(np.fft.fft2(one) * np.conj(np.fft.fft2(two))).real
    fits = np.roll(fits, (_FIELD // 2, _FIELD // 2), (0, 1))
    middle = _FIELD // 2
    near = fits[middle - _NEAR : middle + _NEAR + 1, middle - _NEAR : middle + _NEAR + 1].max()
    apart = np.ones_like(fits, bool)
    apart[middle - _AROUND : middle + _AROUND + 1, middle - _AROUND : middle + _AROUND + 1] = False
    spread = float(fits[apart].std())
    return max(0.0, float(near - fits[apart].mean()) / spread) if spread > 1e-12 else 0.0


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    import cv2

    shrinks = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    resized: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized


def _lab(picture: Picture) -> Floats:
    import cv2

    lab: Floats = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab


def _texture(picture: Picture) -> Floats:
    """Length of the grey gradient, in grey levels a pixel."""
    import cv2

    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *way, scale=0.25) for way in ((1, 0), (0, 1)))
    texture: Floats = np.hypot(across, down)
    return texture


def _ways(
    one: Picture, two: Picture, points: tuple[Descriptors, Descriptors], size: tuple[int, int]
) -> Sequence[Floats]:
    """Maps worth trying: what key points say, refined by gradient (Evangelidis and Psarakis 2008), and as it is."""
    import cv2

    found = key_point_map(*points)
    if found is None or found[1] < _POINTS:
        return ()
    scale = np.array(size, np.float64)
    shares = found[0]
    start = np.column_stack([shares[:, :2] * scale[:, None] / scale, shares[:, 2] * scale])
    large, small = np.linalg.svd(start[:, :2], compute_uv=False)
    if large > _MOST_SCALE or small < 1 / _MOST_SCALE or _offset(start, size) > _MOST_SHIFT:
        return ()
    # From corners of pixels to their centres.
    start[:, 2] += 0.5 * (start[:, :2].sum(axis=1) - 1)
    first, second = (cv2.GaussianBlur(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), (0, 0), 1.5) for each in (one, two))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        _, refined = cv2.findTransformECC(first, second, start.astype(np.float32), cv2.MOTION_AFFINE, stop)
    except cv2.error:
        return (start,)
    return (start, refined.astype(np.float64))


def _warped(picture: Picture, way: Floats, size: tuple[int, int]) -> tuple[Picture, Mask]:
    """The target's pixels in the source's frame, and where there are any."""
    import cv2

    if (way == np.eye(2, 3)).all():
        return picture, np.ones(picture.shape[:2], bool)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved: Picture = cv2.warpAffine(picture, way, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    full = np.full(picture.shape[:2], 255, np.uint8)
    inside = cv2.warpAffine(full, way, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    return moved, cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0


def _fit(one: Picture, two: Picture, way: Floats, textured: Mask) -> float:
    """Share of the textured places of the source at which the target, laid so, has the same colour."""
    import cv2

    if not textured.any():
        return 0.0
    moved, inside = _warped(two, way, (one.shape[1], one.shape[0]))
    apart = cv2.absdiff(cv2.GaussianBlur(one, (0, 0), 1), cv2.GaussianBlur(moved, (0, 0), 1)).max(axis=2)
    return float(((apart < _SAME_COLOUR) & inside)[textured].mean())


def _offset(way: Floats, size: tuple[int, int]) -> float:
    corners = np.array([(0, 0), (size[0], 0), (0, size[1]), size], np.float64)
    moved = corners @ way[:, :2].T + way[:, 2]
    return float(np.linalg.norm(moved - corners, axis=1).max() / math.hypot(*size))


def _toned(one: Floats, two: Floats, inside: Mask) -> tuple[Floats, float]:
    """The source under the one tone curve that explains most of the target, and how far that moves it.

    What counts is texture that both have: a sky that became a blank wall follows any curve.
    """
    covered = int(inside.sum())
    weight = np.minimum(_steepness(one), _steepness(two))
    starts = [one]
    if covered:
        # An edit may hold most of the picture, and then the median is its own: tried, not trusted.
        starts.append(one + np.median((two - one)[inside], axis=0))
    best, explained = one, float(weight[_alike(one, two, inside)].sum())
    for start in starts:
        toned = start
        for _ in range(2):
            alike = _alike(toned, two, inside)
            if alike.sum() < _LEAST_ALIKE * covered:
                break
            curves = [_curve(one[..., c][alike], two[..., c][alike]) for c in range(3)]
            toned = np.stack([one[..., c] * gain + offset for c, (gain, offset) in enumerate(curves)], axis=2)
            now = float(weight[_alike(toned, two, inside)].sum())
            if now > explained:
                best, explained = toned.astype(np.float32), now
    return best, float(np.linalg.norm(best - one, axis=2)[inside].mean()) if covered else 0.0


def _steepness(lab: Floats) -> Floats:
    """Length of the gradient over all channels, in CIELAB a pixel."""
    import cv2

    across, down = (cv2.Sobel(lab, cv2.CV_32F, *way, scale=0.25) for way in ((1, 0), (0, 1)))
    steep: Floats = np.sqrt((across**2 + down**2).sum(axis=2))
    return steep


def _alike(one: Floats, two: Floats, inside: Mask) -> Mask:
    alike: Mask = inside & (np.linalg.norm(one - two, axis=2) < _CHANGED)
    return alike


def _curve(before: Floats, after: Floats) -> tuple[float, float]:
    """Gain and offset by least squares; a channel without spread has an offset only."""
    variance = float(before.var(dtype=np.float64))
    middle, wanted = float(before.mean(dtype=np.float64)), float(after.mean(dtype=np.float64))
    gain = 1.0
    if variance > 4:
        gain = float(((before - middle) * (after - wanted)).mean(dtype=np.float64)) / variance
        gain = min(_GAINS[1], max(_GAINS[0], gain))
    return gain, wanted - gain * middle


def _mask(one: Floats, two: Floats, inside: Mask) -> tuple[Mask, int]:
    """Where the pictures differ beyond noise, and in how many pieces."""
    import cv2

    near = np.ones((3, 3), np.uint8)
    # What lies between the least and the greatest neighbour may be a line half a pixel off.
    parts = []
    for a, b in ((one, two), (two, one)):
        high, low = cv2.dilate(a, near), cv2.erode(a, near)
        parts.append(np.linalg.norm(np.maximum(0, np.maximum(b - high, low - b)), axis=2))
    changed = (np.maximum(*parts) > _CHANGED) & inside
    joined = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    joined = joined * inside.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    least = max(8, _SPOT * inside.size)
    kept = np.array([label > 0 and stats[label, cv2.CC_STAT_AREA] >= least for label in range(count)])
    return kept[labels], int(kept.sum())


def _compactness(mask: Mask) -> float:
    """Share of the mask's bounding box that it fills."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(mask.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)))


def _outline_gain(one: Floats, two: Floats, mask: Mask, inside: Mask) -> float | None:
    """(T - S) / (T + S) of the mean gradients S and T of source and target along the rim of the mask."""
    import cv2

    wide = np.ones((5, 5), np.uint8)
    solid = mask.astype(np.uint8)
    rim = (cv2.dilate(solid, wide) > 0) & (cv2.erode(solid, wide, borderValue=1) == 0) & inside
    if rim.sum() < 16:
        return None
    steep = [float(_steepness(each)[rim].mean()) for each in (one, two)]
    return (steep[1] - steep[0]) / (steep[0] + steep[1] + 1e-6)


def _field(picture: Picture) -> NDArray[np.complex64] | None:
    """Directions of lines as unit-like complex numbers of twice the angle [192, 192]; None without any line."""
    import cv2

    small = cv2.GaussianBlur(_resized(picture, (_FIELD, _FIELD)).astype(np.float32), (0, 0), 1.5)
    across, down = (cv2.Sobel(small, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
    steepest = (across**2 + down**2).argmax(axis=2)[..., None]
    across, down = (np.take_along_axis(each, steepest, axis=2)[..., 0] for each in (across, down))
    length = np.hypot(across, down)
    around = np.sqrt(cv2.GaussianBlur(length * length, (0, 0), 12))
    field = (across + 1j * down) ** 2 / (length * (length + 0.5 * around + 8) + 1e-6)
    # Fading towards the rim, since the shifts are cyclic; no mean direction, which any two cities share.
    window = np.sqrt(np.sqrt(np.outer(np.hanning(_FIELD), np.hanning(_FIELD))))
    field = field * window
    field = field - field.mean() * (window / window.mean())
    energy = float(np.sqrt((np.abs(field) ** 2).sum()))
    return (field / energy).astype(np.complex64) if energy > 1e-3 else None
