"""Copies of a picture as the web makes them; shared by the tests and the benchmark of near-duplicates."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Picture = np.ndarray
"""uint8 [height, width, 3], RGB."""


def recompressed(picture: Picture, quality: int = 30) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def resized(picture: Picture, share: float = 0.25) -> Picture:
    height, width = picture.shape[:2]
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def cropped(picture: Picture, share: float) -> Picture:
    """That share cut off on every side."""
    height, width = picture.shape[:2]
    top, left = round(height * share), round(width * share)
    return picture[top : height - top, left : width - left]


def captioned(picture: Picture, text: str = "SAMPLE PICTURES  www.example.org", top: bool = False) -> Picture:
    """An opaque band with text over 15 % of the height."""
    height, width = picture.shape[:2]
    high = max(1, round(height * 0.15))
    band = Image.new("RGB", (width, high), (20, 20, 20))
    font = ImageFont.load_default(max(6, int(high * 0.6)))
    ImageDraw.Draw(band).text((width // 20, high // 8), text, fill="white", font=font)
    copy = picture.copy()
    copy[:high] = band if top else copy[:high]
    copy[height - high :] = copy[height - high :] if top else band
    return copy


def mirrored(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture[:, ::-1])


COPIES = {
    "jpeg30": recompressed,
    "resize25": resized,
    "crop2": lambda picture: cropped(picture, 0.02),
    "crop5": lambda picture: cropped(picture, 0.05),
    "crop10": lambda picture: cropped(picture, 0.10),
    "band": captioned,
    "mirror": mirrored,
}
