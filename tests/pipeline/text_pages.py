"""Pages of known text for tests of reading, drawn with the typeface that comes with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LINES = ("The mill stands where two streams meet.", "Its wheel was built in 1868 by four families.", "Bread 2.90")
OTHER = ("Copper turns green in the rain.", "Glass is made of sand, soda and lime.", "Tea 3.85")


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def page(lines: Sequence[str] = LINES, size: int = 20, width: int = 560) -> np.ndarray:
    """Dark letters on pale paper: uint8 [height, width, 3]."""
    sheet = Image.new("RGB", (width, 40 + 2 * size * max(1, len(lines))), (246, 244, 238))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        draw.text((30, 30 + 2 * size * row), line, fill=(34, 34, 38), font=font(size))
    return np.asarray(sheet)


def spoilt(picture: np.ndarray, blur: float, noise: float) -> np.ndarray:
    """The picture out of focus and grainy: `blur` pixels and `noise` grey levels of deviation."""
    import cv2

    soft = cv2.GaussianBlur(picture, (0, 0), blur).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, noise, soft.shape)
    return np.clip(soft + grain, 0, 255).astype(np.uint8)
