"""Do two pictures show the same photograph? Crops, resizes, recompressions, mirror images, a watermark band.

Three ways to lay one picture over the other are tried, cheapest first: frame on frame, as their ORB key
points say (RANSAC over affine maps), and, where both fail, as a search over crops says. None of them proves
anything: two memes share a caption band, two charts their axes. So the pixels decide: the frame is cut into
cells, and the cells with texture must correlate nearly everywhere but in one band.

Frames are unit squares here: a point is a share of the width and a share of the height, and a map is an
affine one, float64 [2, 3], from shares to shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Floats = NDArray[np.float64]

SAME = 0.75
"""Least `Match.score` of the same picture."""
# Score from which no better way is looked for.
_SURE = 0.9

# Long side in pixels of the picture key points are sought in; sides of the squares pixels are compared in and
# crops are searched in.
_KEY_SIDE, _SIDE, _SEARCH_SIDE = 512, 192, 64
# Bits of 256 by which the codes of one point may differ, and points that must agree on a map.
_CODE_BITS, _LEAST_POINTS = 64, 6
# Cells across and down the square. Flat ones, so that a band across spoils few; rows of them that a band over
# 15 % of the height can touch.
_ACROSS, _DOWN, _BAND = 12, 24, 5
# Correlation from which two cells are alike. Grey levels of deviation from which a cell has texture, and by
# which the means of two cells without may differ.
_ALIKE, _TEXTURE, _LEVEL = 0.65, 5.0, 24.0
# A picture that deviates less, in grey levels, is flat: it has nothing but its colour. CIELAB units by which
# two flat ones may differ.
_FLAT, _COLOUR = 2.0, 6.0
# A plain crop is turned by at most these degrees, stretched at most so, and covered at least by this share.
# Where neither picture is one of the other, the share of the frame that must agree: the same fork turned on
# the same table agrees in the fork alone.
_TURNED, _STRETCHED, _COVERED, _FILLED = 5.0, 1.15, 0.9, 0.5
# A resize may change width over height by this much (natural logarithm).
_PROPORTIONS = 0.7
# Pictures with a shorter side have too few pixels to be laid but frame on frame: anything can be bent to fit
# them.
_LEAST_SIDE = 16


@dataclass(frozen=True, slots=True)
class KeyPoints:
    """ORB key points: `points` float64 [points, (x, y)] in shares, `codes` uint8 [points, 32]."""

    points: Floats
    codes: Gray


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What `match` needs of one picture, some 90 kB.

    `gray` is the picture squeezed to a square, uint8 [192, 192]; `colour` the same in CIELAB, float32
    [16, 16, (L, a, b)]; `plain` and `mirrored` the key points of the picture and of its mirror image.
    """

    height: int
    width: int
    gray: Gray
    colour: NDArray[np.float32]
    plain: KeyPoints
    mirrored: KeyPoints


@dataclass(frozen=True, slots=True)
class Match:
    """How well two pictures agree when the second is laid over the first.

    `score`: share of textured cells that agree, 0-1; 0 where no way to lay them was found. `inliers`: key
    points that agree with that way, 0 when it came without. `mirrored`: the second is a mirror image.
    `scale`: pixels of the second to a pixel of the first. `overlap`: share of the smaller view that the
    larger covers, 0-1.
    """

    score: float
    inliers: int
    mirrored: bool
    scale: float
    overlap: float

    @property
    def same(self) -> bool:
        """Whether they show the same picture."""
        return self.score >= SAME


@dataclass(frozen=True, slots=True)
class _Way:
    """A map from a's frame to that of b, or of b's mirror image."""

    map: Floats
    mirrored: bool
    inliers: int = 0


def same_picture(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Match:
    """Compare two upright RGB pictures, uint8 [height, width, 3]."""
    return match(describe(a), describe(b))


def describe(picture: NDArray[np.uint8]) -> Descriptors:
    """Descriptors of an upright RGB picture, uint8 [height, width, 3]; raises ValueError for others."""
    import cv2

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"picture is {picture.dtype} {picture.shape}; expected uint8 [height, width, 3]")
    settle()
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    large = _resized(gray, _sides(height, width, _KEY_SIDE))
    small = _resized(picture, (16, 16)).astype(np.float32) / 255
    return Descriptors(
        height=height,
        width=width,
        gray=_resized(gray, (_SIDE, _SIDE)),
        colour=cv2.cvtColor(small, cv2.COLOR_RGB2LAB),
        plain=_key_points(large),
        mirrored=_key_points(np.ascontiguousarray(large[:, ::-1])),
    )


def match(a: Descriptors, b: Descriptors) -> Match:
    """Compare two described pictures; the first way to lay b over a that convinces ends the search."""
    settle()
    if min(a.gray.std(), b.gray.std()) < _FLAT or _is_tiny(a) or _is_tiny(b):
        return _match_colours(a, b)
    best = Match(0.0, 0, False, 1.0, 0.0)
    for way in _ways(a, b):
        found = _compare(a, b, way)
        if found.score > best.score:
            best = found
        if best.score >= _SURE:
            break
    return best


def sketch(height: int, width: int, points: Floats, codes: Gray) -> Descriptors:
    """What `agreeing` needs of its first picture: sizes and key points, no pixel of it."""
    none = KeyPoints(np.zeros((0, 2)), np.zeros((0, 32), np.uint8))
    gray, colour = np.zeros((0, 0), np.uint8), np.zeros((0, 0, 3), np.float32)
    return Descriptors(height, width, gray, colour, KeyPoints(points, codes), none)


def agreeing(a: Descriptors, b: Descriptors) -> tuple[int, bool]:
    """How many key points agree on one crop or resize from a to b, and whether b is mirrored for it.

    Weaker than `match`, since no pixel is looked at: enough to confirm a candidate by perceptual hash. A thing that
    was photographed twice mostly lies turned in one of the pictures, which no crop does.
    """
    settle()
    found = (_by_points(a, b, mirrored) for mirrored in (False, True))
    ways = [way for way in found if way is not None and _is_upright(a, b, way.map)]
    best = max(ways, key=lambda way: way.inliers, default=None)
    return (0, False) if best is None else (best.inliers, best.mirrored)


def key_point_map(a: Descriptors, b: Descriptors) -> tuple[Floats, int] | None:
    """The map from a's frame to b's that most key points agree with, and how many do; None without such a map."""
    settle()
    way = _by_points(a, b, mirrored=False)
    return None if way is None else (way.map, way.inliers)


def settle() -> None:
    """Make OpenCV a pure function: one thread, one seed."""
    import cv2

    cv2.setNumThreads(1)
    cv2.setRNGSeed(0)


def _sides(height: int, width: int, long: int) -> tuple[int, int]:
    """Width and height in the same proportion, the longer one `long`."""
    factor = long / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _resized(picture: Gray, size: tuple[int, int]) -> Gray:
    import cv2

    shrinks = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    resized: Gray = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized


def _key_points(gray: Gray) -> KeyPoints:
    import cv2

    # A low threshold and a small edge: dull pictures need points too, and crops cut the rim.
    finder = cv2.ORB.create(nfeatures=500, edgeThreshold=16, fastThreshold=8)
    # Within two edges nothing can be found, and a line of pixels has no smaller pyramid.
    found, codes = finder.detectAndCompute(gray, None) if min(gray.shape) > 32 else ((), None)
    if codes is None:
        return KeyPoints(np.zeros((0, 2)), np.zeros((0, 32), np.uint8))
    points = (np.array([point.pt for point in found]) + 0.5) / gray.shape[::-1]
    return KeyPoints(points, codes)


def _is_tiny(picture: Descriptors) -> bool:
    return min(picture.height, picture.width) < _LEAST_SIDE


def _match_colours(a: Descriptors, b: Descriptors) -> Match:
    """Pictures with nothing but colours to compare. A flat one is like flat ones only."""
    scale = max(b.height, b.width) / max(a.height, a.width)
    if (a.gray.std() < _FLAT) != (b.gray.std() < _FLAT):
        return Match(0.0, 0, False, scale, 0.0)
    apart = [float(np.abs(a.colour - colour).mean(axis=(0, 1)).max()) for colour in (b.colour, b.colour[:, ::-1])]
    same = min(apart) < _COLOUR
    return Match(float(same), 0, same and apart[1] < apart[0], scale, float(same))


def _ways(a: Descriptors, b: Descriptors) -> Iterator[_Way]:
    """Ways to lay b over a worth looking at, cheapest first."""
    if abs(math.log(a.width * b.height / (a.height * b.width))) < _PROPORTIONS:
        yield _Way(np.eye(2, 3), mirrored=False)
        yield _Way(np.eye(2, 3), mirrored=True)
    for find in (_by_points, _by_search):
        for mirrored in (False, True):
            if (way := find(a, b, mirrored)) is not None:
                yield way


def _by_points(a: Descriptors, b: Descriptors, mirrored: bool) -> _Way | None:
    """The map that most key points agree with, if a crop, a resize or a turn could be one."""
    import cv2

    one, two = a.plain, b.mirrored if mirrored else b.plain
    if min(len(one.codes), len(two.codes)) < _LEAST_POINTS:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(one.codes, two.codes)
    pairs = [pair for pair in pairs if pair.distance <= _CODE_BITS]
    if len(pairs) < _LEAST_POINTS:
        return None
    size_a, size_b = (np.array(_sides(each.height, each.width, _KEY_SIDE)) for each in (a, b))
    points_a = one.points[[pair.queryIdx for pair in pairs]] * size_a
    points_b = two.points[[pair.trainIdx for pair in pairs]] * size_b
    found, inliers = cv2.estimateAffine2D(points_a, points_b, ransacReprojThreshold=4.0, maxIters=500)
    if found is None or inliers.sum() < _LEAST_POINTS:
        return None
    large, small = np.linalg.svd(found[:, :2], compute_uv=False)
    if np.linalg.det(found[:, :2]) <= 0 or large > 4 or small < 0.25 or large > 1.6 * small:
        return None
    return _Way(found * np.append(size_a, 1) / size_b[:, None], mirrored, int(inliers.sum()))


def _by_search(a: Descriptors, b: Descriptors, mirrored: bool) -> _Way | None:
    """The map of the crop, of a from b or of b from a, that correlates best, refined."""
    import cv2

    gray = _mirror(b.gray) if mirrored else b.gray
    one, two = _search_picture(a, a.gray), _search_picture(b, gray)
    found, fit = _crop_of(one, two)
    other, other_fit = _crop_of(two, one)
    if other is not None and other_fit > fit:
        found = _inverse(other)
    if found is None:
        return None
    # Aligning by gradient (Evangelidis and Psarakis 2008) from there; a start that does not converge is kept.
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    smooth = [cv2.GaussianBlur(each, (0, 0), 2) for each in (a.gray, gray)]
    try:
        start = _to_pixels(found).astype(np.float32)
        _, refined = cv2.findTransformECC(smooth[0], smooth[1], start, cv2.MOTION_AFFINE, stop)
    except cv2.error:
        return _Way(found, mirrored)
    return _Way(_to_shares(refined.astype(np.float64)), mirrored)


def _search_picture(picture: Descriptors, gray: Gray) -> Gray:
    import cv2

    width, height = _sides(picture.height, picture.width, _SEARCH_SIDE)
    blurred: Gray = cv2.GaussianBlur(_resized(gray, (max(5, width), max(5, height))), (0, 0), 1)
    return blurred


def _crop_of(large: Gray, part: Gray) -> tuple[Floats | None, float]:
    """Where in `large` the picture `part` fits as a crop of 3/4 or more: map from large to part."""
    import cv2

    height, width = large.shape
    ratio = part.shape[1] / part.shape[0]
    best, best_fit = None, 0.7
    for step in range(13):
        across = min(width, height * ratio) * (1 - 0.02 * step)
        size = min(width, round(across)), min(height, round(across / ratio))
        if min(size) < 5:
            continue
        fits = cv2.matchTemplate(large, _resized(part, size), cv2.TM_CCOEFF_NORMED)
        _, fit, _, (x, y) = cv2.minMaxLoc(fits)
        if fit > best_fit:
            inner = np.array([[size[0] / width, 0, x / width], [0, size[1] / height, y / height]])
            best, best_fit = _inverse(inner), fit
    return best, best_fit


def _compare(a: Descriptors, b: Descriptors, way: _Way) -> Match:
    """Lay one picture over the other, the smaller view as the frame, and compare cell by cell."""
    scale = math.sqrt(abs(np.linalg.det(way.map[:, :2])) * b.width * b.height / (a.width * a.height))
    inner, outer, to_outer = a, b, way.map
    inner_gray, outer_gray = a.gray, _mirror(b.gray) if way.mirrored else b.gray
    if abs(np.linalg.det(way.map[:, :2])) > 1:
        inner, outer, to_outer = b, a, _inverse(way.map)
        inner_gray, outer_gray = outer_gray, inner_gray
    one, two, inside = _laid(inner, outer, inner_gray, outer_gray, to_outer)
    score, filled = _agreement(one, two, inside)
    overlap = float(inside.mean())
    if not (overlap >= _COVERED and _is_upright(inner, outer, to_outer)):
        score = score if way.inliers and filled >= _FILLED else 0.0
    return Match(score, way.inliers, way.mirrored, scale, overlap)


def _laid(
    inner: Descriptors, outer: Descriptors, inner_gray: Gray, outer_gray: Gray, to_outer: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Both pictures in the inner one's frame, equally sharp, and where it is covered; [192, 192]."""
    import cv2

    def warped(gray: Gray, how: int) -> Any:
        flags = how | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_REPLICATE if how == cv2.INTER_LINEAR else cv2.BORDER_CONSTANT
        return cv2.warpAffine(gray, _to_pixels(to_outer), (_SIDE, _SIDE), flags=flags, borderMode=border)

    # Neither may be sharper than the pixels that the poorer one has.
    wide = min(inner.width, outer.width * math.hypot(to_outer[0, 0], to_outer[1, 0]))
    high = min(inner.height, outer.height * math.hypot(to_outer[0, 1], to_outer[1, 1]))
    blur = [max(1.2, 0.6 * _SIDE / max(1.0, pixels)) for pixels in (wide, high)]
    one, two = (
        cv2.GaussianBlur(each.astype(np.float64), (0, 0), sigmaX=blur[0], sigmaY=blur[1])
        for each in (inner_gray, warped(outer_gray, cv2.INTER_LINEAR))
    )
    inside = warped(np.full((_SIDE, _SIDE), 255, np.uint8), cv2.INTER_NEAREST) > 0
    return one, two, inside


def _agreement(one: Floats, two: Floats, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the textured cells that agree, the worst band left out; and share of all cells that agree."""
    if not inside.any():
        return 0.0, 0.0
    whole = _cells(inside) > 0.75
    mean_one, mean_two = _cells(one), _cells(two)
    variance_one = _cells(one * one) - mean_one**2
    variance_two = _cells(two * two) - mean_two**2
    # A dull picture has its texture in fewer grey levels.
    texture = max(_FLAT, min(_TEXTURE, min(one[inside].std(), two[inside].std()) / 4)) ** 2
    textured = whole & (np.maximum(variance_one, variance_two) > texture)
    spread = np.maximum(variance_one, texture / 4) * np.maximum(variance_two, texture / 4)
    alike = textured & (_cells(one * two) - mean_one * mean_two > _ALIKE * np.sqrt(spread))
    other = whole & ~alike & (textured | (np.abs(mean_one - mean_two) > _LEVEL))

    good, bad = alike.sum(axis=1), other.sum(axis=1)
    score = 0.0
    for start in range(_DOWN - _BAND + 1):
        rest = np.r_[0:start, start + _BAND : _DOWN]
        if good[rest].any():
            score = max(score, float(good[rest].sum() / (good[rest].sum() + bad[rest].sum())))
    return score, float(alike.mean())


def _cells(values: NDArray[Any]) -> Floats:
    """Means over the cells [24, 12] of a square [192, 192]."""
    split = values.reshape(_DOWN, _SIDE // _DOWN, _ACROSS, _SIDE // _ACROSS)
    means: Floats = split.mean(axis=(1, 3), dtype=np.float64)
    return means


def _is_upright(inner: Descriptors, outer: Descriptors, to_outer: Floats) -> bool:
    """Whether the outer picture is neither turned nor stretched, but for a resize to other proportions."""
    pixels = to_outer[:, :2] * [[outer.width], [outer.height]] / [inner.width, inner.height]
    (xx, xy), (yx, yy) = pixels
    turned = abs(math.degrees(math.atan2(yx - xy, xx + yy)))
    sides = (np.linalg.svd(each, compute_uv=False) for each in (pixels, to_outer[:, :2]))
    stretched = min(float(long / max(short, 1e-9)) for long, short in sides)
    return turned <= _TURNED and stretched <= _STRETCHED


def _mirror(gray: Gray) -> Gray:
    return np.ascontiguousarray(gray[:, ::-1])


def _inverse(affine: Floats) -> Floats:
    inverse: Floats = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]
    return inverse


def _to_pixels(affine: Floats) -> Floats:
    """A map of shares as one of pixel centres of the square."""
    moved = affine.copy()
    moved[:, 2] = _SIDE * affine[:, 2] + 0.5 * affine[:, :2].sum(axis=1) - 0.5
    return moved


def _to_shares(affine: Floats) -> Floats:
    """The reverse of `_to_pixels`."""
    moved = affine.copy()
    moved[:, 2] = (affine[:, 2] + 0.5 - 0.5 * affine[:, :2].sum(axis=1)) / _SIDE
    return moved
