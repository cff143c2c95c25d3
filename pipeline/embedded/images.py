"""The records of `images`: sound pictures, copies of them, every format, and pictures with a reason to be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from pipeline.embedded import objects, pages, patterns, scenes
from pipeline.embedded.item import EXACT, KEPT, NEAR, End, Item, both, described, dropped, encoded
from pipeline.embedded.pages import font
from pipeline.embedded.photos import EXTRA, photographs, stored
from pipeline.embedded.picture import COLOURS, Picture, seeded

_NAMES = tuple(COLOURS)
_SIZES = ((640, 512), (768, 576), (512, 640), (600, 450), (448, 336), (384, 384))
_SOFT = {"retina": dropped("compression"), "retina_part0": dropped("sharpness")}
"""Photographs that the generation recipe has a reason to drop."""
_TABLES = (
    ("Apples picked", ("Mon", "Tue", "Wed", "Thu"), (12, 30, 25, 8)),
    ("Visitors to the mill", ("May", "June", "July"), (140, 260, 310)),
    ("Trains per day", ("North", "East", "South", "West"), (18, 7, 22, 11)),
    ("Books lent", ("2019", "2020", "2021", "2022"), (820, 410, 530, 905)),
    ("Rain in mm", ("Jan", "Feb", "Mar", "Apr", "May"), (61, 48, 52, 39, 70)),
)


def images() -> Iterator[Item]:
    """All of them, in manifest order."""
    sound = list(_sound())
    yield from (_item(f"{picture.name}.jpg", picture, encoded(_rgb(picture), quality=90)) for picture in sound)
    for picture in photographs():
        data = stored(picture) or encoded(picture.image, quality=93)
        yield _item(f"photo_{picture.name}.jpg", picture, data, both(_SOFT.get(picture.name, KEPT), KEPT))
    for index, (title, labels, values) in enumerate(_TABLES):
        chart = pages.chart(f"chart_{index}", (640, 480), title, labels, values)
        yield _item(f"{chart.name}.png", chart, encoded(chart.image, "PNG"), both(dropped("compression"), KEPT))
    yield from _copies(sound)
    yield from _formats()
    yield from _unfit()
    yield from _terms()


def _sound() -> Iterator[Picture]:
    """Drawn pictures that both recipes keep."""
    for index in range(20):
        time = scenes.TIMES[index % 5]
        yield scenes.landscape(f"landscape_{index:02d}", _SIZES[index % 6], time, 1 + index * 3 % 5, index % 3)
    for index in range(14):
        yield scenes.harbour(f"harbour_{index:02d}", _SIZES[index % 5], scenes.TIMES[(index * 2) % 5], 1 + index % 5)
    for index in range(10):
        yield scenes.skyline(f"skyline_{index:02d}", _SIZES[index % 4], scenes.TIMES[(index + 1) % 5])
    for index in range(12):
        yield objects.balls(f"balls_{index:02d}", _SIZES[index % 6], _some(f"balls {index}", 1 + index % 7))
    for index in range(6):
        yield patterns.julia(f"julia_{index:02d}", _SIZES[index % 3], index)
    for index in range(5):
        yield patterns.glass(f"glass_{index:02d}", _SIZES[index % 3], 28 + 12 * index)
    for index in range(6):
        yield objects.clock(f"clock_{index:02d}", (512, 400, 320)[index % 3], 1 + 2 * index, (7 + 13 * index) % 60)
    for index, lines in enumerate(pages.SIGNS[:5]):
        yield pages.sign(f"sign_{index:02d}", _SIZES[index % 2], lines)


def _some(name: str, count: int) -> list[str]:
    """Different colour names."""
    return [_NAMES[index] for index in seeded(name).permutation(len(_NAMES))[:count]]


def _rgb(picture: Picture) -> Image.Image:
    return picture.image.convert("RGB")


def _item(
    file: str,
    picture: Picture,
    data: bytes,
    expected: dict[str, End] | None = None,
    **more: Any,
) -> Item:
    fields = {
        "caption": picture.caption,
        "caption_source": picture.caption and "written with the picture",
        "source_url": f"https://pictures.example/{file}",
        **more,
    }
    facts = described(picture, data, ("understanding", "generation"), **fields)
    return Item(file, data, expected or both(KEPT, KEPT), picture.origin, facts)


# -- copies -----------------------------------------------------------------------------------------------------------


def _copies(sound: list[Picture]) -> Iterator[Item]:
    """Copies of sound pictures of the 512 stage; the copy always has fewer pixels or bytes than its original."""
    large = [picture for picture in sound if min(picture.image.size) >= 512]
    originals = iter(large)

    def copy(picture: Picture, kind: str, data: bytes, expected: dict[str, End], derived: str) -> Item:
        made = replace(picture, tags=(*picture.tags, "copy"))
        return _item(f"{picture.name}_{kind}.jpg", made, data, expected, derived=derived, near_dup_group=picture.name)

    for _ in range(4):
        picture = next(originals)
        yield copy(picture, "exact", encoded(_rgb(picture), quality=90), both(EXACT, EXACT), "the same bytes")
    for _ in range(4):
        picture = next(originals)
        data = encoded(_rgb(picture), quality=30)
        yield copy(picture, "q30", data, both(dropped("compression"), NEAR), "saved with JPEG quality 30")
    for _ in range(4):
        picture = next(originals)
        width, height = picture.image.size
        small = _rgb(picture).resize((width * 3 // 5, height * 3 // 5), Image.Resampling.LANCZOS)
        yield copy(picture, "resized", encoded(small, quality=90), both(NEAR, NEAR), "resized to 60 %")
    for percent in (2, 4, 6, 8, 10):
        picture = next(originals)
        width, height = picture.image.size
        x, y = round(width * percent / 100), round(height * percent / 100)
        cut = _rgb(picture).crop((x, y, width - x, height - y))
        yield copy(
            picture, f"cropped{percent}", encoded(cut, quality=90), both(NEAR, NEAR), f"{percent} % cut off a side"
        )
    for _ in range(3):
        picture = next(originals)
        data = encoded(ImageOps.mirror(_rgb(picture)), quality=84)
        yield copy(picture, "mirrored", data, both(NEAR, NEAR), "mirrored left to right")
    for _ in range(3):
        picture = next(originals)
        data = encoded(_watermarked(_rgb(picture)), quality=80)
        yield copy(picture, "watermark", data, both(NEAR, NEAR), "a watermark band over 12 % of the height")


def _watermarked(image: Image.Image) -> Image.Image:
    width, height = image.size
    band = Image.new("RGB", (width, height * 12 // 100), (24, 24, 26))
    ImageDraw.Draw(band).text((20, 12), "stock.example  preview", fill=(230, 230, 230), font=font(height // 20))
    marked = image.copy()
    marked.paste(band, (0, height - band.height))
    return marked


# -- formats ----------------------------------------------------------------------------------------------------------


def _formats() -> Iterator[Item]:
    """Sound pictures in every way a file can hold them, and animations."""
    for index, turn in enumerate((3, 6, 8, 5)):
        picture = scenes.landscape(f"turned_{turn}", (576, 512), scenes.TIMES[index], 3 + index % 2, 1)
        exif = Image.Exif()
        exif[0x0112] = turn
        stored = _rgb(picture).transpose(_UNDO[turn])
        data = encoded(stored, quality=90, exif=exif)
        yield _item(f"{picture.name}.jpg", _tagged(picture, "exif-rotated"), data)
    small = [
        objects.balls(f"format_{index}", (320, 288), _some(f"format {index}", 2 + index % 4)) for index in range(8)
    ]
    yield _item("cmyk_0.jpg", _tagged(small[0], "cmyk"), encoded(small[0].image.convert("CMYK"), quality=90))
    yield _item(
        "palette_0.png",
        _tagged(small[1], "palette"),
        encoded(small[1].image.quantize(256, Image.Quantize.FASTOCTREE), "PNG"),
    )
    yield _item(
        "gif_0.gif",
        _tagged(small[2], "palette"),
        encoded(small[2].image.quantize(256, Image.Quantize.FASTOCTREE), "GIF"),
    )
    yield _item("alpha_0.png", _tagged(small[3], "alpha"), encoded(_rounded(small[3].image), "PNG"))
    yield _item("webp_0.webp", small[4], encoded(small[4].image, "WEBP", 90))
    yield _item("avif_0.avif", _tagged(small[5], "avif"), encoded(small[5].image, "AVIF", 90, max_threads=1, speed=8))
    yield _item("tiff_0.tif", small[6], encoded(small[6].image, "TIFF"))
    yield _item("bmp_0.bmp", small[7], encoded(small[7].image, "BMP"))
    grey = scenes.skyline("deep_0", (400, 320), "at sunset")
    deep = Image.fromarray(np.asarray(grey.image.convert("L"), np.uint16) * 257)
    yield _item("deep_0.png", _tagged(grey, "16bit"), encoded(deep, "PNG"))
    for index, (kind, ending) in enumerate((("GIF", "gif"), ("WEBP", "webp"))):
        first = objects.clock(f"animated_{index}", 288, 9, 10 * index)
        later = [objects.clock(f"animated_{index}", 288, 9, 10 * index + minutes).image for minutes in (15, 30)]
        data = encoded(first.image, kind, save_all=True, append_images=later, duration=400)
        made = _tagged(first, "animated")
        yield _item(f"{first.name}.{ending}", made, data, both(dropped("still"), dropped("still")))


_UNDO = {
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> how an upright picture is stored under it."""


def _tagged(picture: Picture, *tags: str) -> Picture:
    return replace(picture, tags=(*picture.tags, "format", *tags))


def _rounded(image: Image.Image) -> Image.Image:
    """With transparent corners."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, image.width - 1, image.height - 1), 48, fill=255)
    layered = image.convert("RGBA")
    layered.putalpha(mask)
    return layered


# -- unfit ------------------------------------------------------------------------------------------------------------


_EXTRA_ENDS = {
    "logo": KEPT,
    "horse": dropped("compression"),
    "color": dropped("sharpness"),
    "moon": KEPT,
    "cell": dropped("sharpness"),
    "clock_motion": dropped("flat"),
    "microaneurysms": dropped("side"),
}


def _unfit() -> Iterator[Item]:
    """Pictures that the generation recipe drops, by rule."""
    for picture in photographs(EXTRA):
        end = _EXTRA_ENDS[picture.name]
        yield _item(f"photo_{picture.name}.png", picture, encoded(picture.image, "PNG"), both(end, KEPT))
    for index, side in enumerate((32, 48, 96, 128, 200)):
        picture = objects.balls(f"small_{index}", (640, 512), _some(f"small {index}", 2 + index))
        small = picture.image.resize((side * 5 // 4, side), Image.Resampling.LANCZOS)
        ends = both(dropped("side"), KEPT if side >= 64 else dropped("side"))
        yield _item(f"{picture.name}.jpg", replace(picture, tags=("too-small",)), encoded(small, quality=95), ends)
    for index, size in enumerate(((1200, 260), (260, 1100), (2600, 256))):
        picture = scenes.harbour(f"banner_{index}", size, scenes.TIMES[index], 1 + index)
        ends = both(dropped("aspect"), KEPT if index < 2 else dropped("aspect"))
        yield _item(f"{picture.name}.jpg", picture, encoded(picture.image, quality=93), ends)
    for index in range(5):
        picture = scenes.skyline(f"squeezed_{index}", (640, 512), scenes.TIMES[index])
        data = encoded(picture.image, quality=6 + 2 * index)
        yield _item(
            f"{picture.name}.jpg", replace(picture, tags=("compressed",)), data, both(dropped("compression"), KEPT)
        )
    for index in range(5):
        picture = scenes.landscape(f"blurred_{index}", (560, 512), scenes.TIMES[index], 2 + index % 3, index % 2)
        soft = picture.image.filter(ImageFilter.GaussianBlur(7 + index))
        data = encoded(soft, "PNG")
        yield _item(f"{picture.name}.png", replace(picture, tags=("blurred",)), data, both(dropped("sharpness"), KEPT))
    for index in range(4):
        picture = scenes.harbour(f"faded_{index}", (480, 384), scenes.TIMES[index], 2 + index)
        faded = Image.blend(picture.image, Image.new("RGB", picture.image.size, (168, 168, 170)), 0.93)
        data = encoded(faded, quality=99)
        yield _item(
            f"{picture.name}.jpg", replace(picture, tags=("faded",)), data, both(dropped("contrast"), dropped("blank"))
        )
    for index in range(5):
        picture = patterns.smooth(f"gradient_{index}", (320, 300))
        data = encoded(picture.image, "BMP")
        yield _item(f"{picture.name}.bmp", picture, data, both(dropped("sharpness"), KEPT))
    for index in range(2):
        picture = patterns.dot(f"dot_{index}", (320, 300), _NAMES[index * 4])
        data = encoded(picture.image, "BMP")
        yield _item(f"{picture.name}.bmp", picture, data, both(dropped("flat"), KEPT))
    for index in range(4):
        picture = scenes.skyline(f"framed_{index}", (560, 384), scenes.TIMES[index + 1])
        framed = ImageOps.expand(
            picture.image, (0, 110) if index % 2 else (130, 60), ((8, 8, 8), (255, 255, 255))[index % 2]
        )
        data = encoded(framed, quality=95)
        yield _item(f"{picture.name}.jpg", replace(picture, tags=("framed",)), data, both(dropped("border"), KEPT))


def _terms() -> Iterator[Item]:
    """Pictures whose terms forbid their use, without captions, and one placeholder under many addresses."""
    for index, licence in enumerate(("CC-BY-NC-4.0", "CC-BY-NC-SA-2.0", "CC-BY-ND-4.0", "All rights reserved", None)):
        picture = scenes.landscape(f"terms_{index}", (600, 512), scenes.TIMES[index], 1 + index, 1)
        picture = replace(picture, origin=replace(picture.origin, licence=licence, note="stated for the test"))
        end = dropped("licence") if licence else dropped("no licence")
        yield _item(f"{picture.name}.jpg", picture, encoded(picture.image, quality=90), both(end, end))
    for index in range(3):
        picture = replace(scenes.skyline(f"untold_{index}", (576, 512), scenes.TIMES[index]), caption=None)
        yield _item(f"{picture.name}.jpg", picture, encoded(picture.image, quality=90), both(KEPT, dropped("answer")))
    data = encoded(pages.notice((512, 512)), quality=95)
    for index in range(5):
        picture = Picture(f"gone_{index}", pages.notice((512, 512)), f"Harbour wall in the evening, view {index + 1}.")
        yield _item(f"{picture.name}.jpg", picture, data, both(dropped("placeholder"), dropped("placeholder")))
