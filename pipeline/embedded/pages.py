"""Rendered text with its reference: pages, receipts and signs; and charts drawn from known numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.embedded.picture import (
    COLOURS,
    Colour,
    Origin,
    Picture,
    finished,
    listed,
    noise,
    paint,
    rectangle,
    seeded,
)

_PATH = "pipeline/embedded/pages.py"
_INK = (34, 34, 38)

PARAGRAPHS = (
    "The mill stands where the two streams meet. In spring the water rises to the second step, "
    "and the miller moves his sacks to the upper floor.",
    "Bees fly up to three kilometres from the hive. They tell each other where the flowers are "
    "by a dance whose angle points away from the sun.",
    "Copper turns green in the rain. The green coat is thin, but it keeps the metal below from "
    "turning further, so a roof of copper can last for centuries.",
    "To bake a plain loaf, mix 500 grams of flour, 350 grams of water, 10 grams of salt and a "
    "little yeast. Let the dough rest until it has doubled.",
    "The lighthouse was built in 1868 and has been tended by four families. Its lamp can be seen "
    "from a distance of 27 kilometres.",
    "A sextant measures the height of the sun above the horizon. With a clock and an almanac this "
    "is enough to find your place on the sea.",
    "Old maps show a bridge at this bend of the river. Nothing is left of it but two stone piers "
    "and the name of the inn.",
    "Snow is a good blanket. Under half a metre of it the soil hardly freezes, even when the air "
    "is twenty degrees below zero.",
    "The first train of the day leaves at 5:12. It carries the post, the bread and those who work in the harbour.",
    "Glass is made of sand, soda and lime. The sand melts more easily with the soda, and the lime "
    "keeps water from dissolving the glass.",
)

SIGNS = (
    ("OPEN", "7 DAYS A WEEK"),
    ("BAKERY", "FRESH BREAD DAILY"),
    ("NO PARKING", "8 AM - 6 PM"),
    ("PLATFORM 4", "TRAINS TO THE COAST"),
    ("CAUTION", "WET FLOOR"),
    ("LIBRARY", "SILENCE PLEASE"),
    ("EXIT 27", "HARBOUR ROAD"),
    ("TICKETS", "ADULTS 6.50  CHILDREN 3.00"),
    ("WELCOME", "MIND THE STEP"),
    ("BICYCLES ONLY", "KEEP LEFT"),
)

_GOODS = (
    ("BREAD", 290), ("MILK 1L", 119), ("APPLES", 245), ("BUTTER", 279), ("COFFEE", 649), ("RICE 1KG", 219),
    ("TOMATOES", 315), ("SOAP", 175), ("HONEY", 520), ("PASTA", 149), ("TEA", 385), ("EGGS 10", 329),
)  # fmt: skip

SHOPS = ("CORNER SHOP", "GREEN GROCER", "HILL STORE", "MARKET HALL", "STATION KIOSK")


def font(size: int) -> ImageFont.FreeTypeFont:
    """The typeface that comes with Pillow; raises OSError when Pillow was built without FreeType."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise OSError("Pillow was built without FreeType, which draws the embedded text pages")
    return found


def page(name: str, size: tuple[int, int], title: str, paragraphs: Sequence[str], letters: int = 20) -> Picture:
    """A printed page: a title and paragraphs. The reference has the lines as they are broken on the page."""
    rng = seeded(name)
    width, height = size
    sheet = _paper(rng, size, (250, 248, 240))
    draw = ImageDraw.Draw(sheet)
    margin = width // 10
    body, head = font(letters), font(int(letters * 1.6))
    y = margin * 0.8
    draw.text((margin, y), title, fill=_INK, font=head)
    y += letters * 2.6
    lines = [title]
    for paragraph in paragraphs:
        columns = int((width - 2 * margin) / body.getlength(paragraph) * len(paragraph))
        for line in textwrap.wrap(paragraph, columns):
            if y + letters * 1.4 > height - margin * 0.5:
                break
            draw.text((margin, y), line, fill=_INK, font=body)
            lines.append(line)
            y += letters * 1.4
        y += letters * 0.8
    return Picture(name, _printed(rng, sheet), None, ("document", "page"), "\n".join(lines), origin=_origin("page"))


def receipt(name: str, shop: str, items: int) -> Picture:
    """A till receipt whose total is the sum of its lines."""
    rng = seeded(name)
    picked = sorted(rng.choice(len(_GOODS), items, replace=False).tolist())
    rows = [(_GOODS[index][0], int(rng.integers(1, 4)), _GOODS[index][1]) for index in picked]
    total = sum(count * cents for _, count, cents in rows)
    day, month = int(rng.integers(1, 29)), int(rng.integers(1, 13))
    number = f"{int(rng.integers(1000, 9999))}"
    left = [shop, f"RECEIPT {number}", f"DATE {day:02d}/{month:02d}/2024"]
    left += [f"{count} x {goods}" for goods, count, _ in rows] + ["TOTAL", "THANK YOU"]
    right = ["", "", "", *(f"{count * cents / 100:.2f}" for _, count, cents in rows), f"{total / 100:.2f}", ""]
    width, step = 380, 34
    height = 60 + step * len(left)
    sheet = _paper(rng, (width, height), (246, 244, 238))
    draw = ImageDraw.Draw(sheet)
    typeface = font(21)
    text = []
    for row, (name_, amount) in enumerate(zip(left, right, strict=True)):
        y = 30 + row * step
        draw.text((34, y), name_, fill=_INK, font=typeface)
        if amount:
            draw.text((width - 34 - typeface.getlength(amount), y), amount, fill=_INK, font=typeface)
        text.append(f"{name_}\n{amount}" if amount else name_)
    tags = ("document", "receipt")
    return Picture(name, _printed(rng, sheet), None, tags, "\n".join(text), origin=_origin("receipt"))


def sign(name: str, size: tuple[int, int], lines: Sequence[str]) -> Picture:
    """An enamel sign on a wall of bricks."""
    rng = seeded(name)
    width, height = size
    pixels = _bricks(rng, width, height)
    colour = ("blue", "green", "red", "black")[int(rng.integers(4))]
    left, top = width * 0.12, height * 0.22
    wide, tall = width * 0.76, height * 0.56
    paint(pixels, rectangle(left + 5, top + 7, wide, tall), (40, 34, 32))
    enamel = 0.92 + 0.12 * noise(rng, 64, 64, (16, 16), 3)
    paint(pixels, rectangle(left, top, wide, tall), (242, 238, 228), enamel)
    paint(pixels, rectangle(left + 7, top + 7, wide - 14, tall - 14), COLOURS[colour], enamel)
    board = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(board)
    room = tall / (len(lines) + 0.6)
    for row, line in enumerate(lines):
        letters = int(min(room * 0.66, (wide - 50) / max(font(100).getlength(line), 1) * 100))
        typeface = font(letters)
        x = left + (wide - typeface.getlength(line)) / 2
        draw.text((x, top + room * (row + 0.42)), line, fill=(246, 244, 236), font=typeface)
    image = finished(rng, np.asarray(board, np.float32), 4)
    caption = f'A {colour} sign on a brick wall that says "{" ".join(lines)}".'
    return Picture(name, image, caption, ("scene-text", "sign"), "\n".join(lines), origin=_origin("sign"))


def chart(name: str, size: tuple[int, int], title: str, labels: Sequence[str], values: Sequence[int]) -> Picture:
    """A bar chart. The reference text is the title, then each label with its value, which stands above its bar."""
    rng = seeded(name)
    width, height = size
    sheet = Image.new("RGB", size, (252, 252, 250))
    draw = ImageDraw.Draw(sheet)
    big, small = font(26), font(17)
    draw.text(((width - big.getlength(title)) / 2, 16), title, fill=_INK, font=big)
    left, right, top, bottom = 24, width - 24, 70, height - 52
    for line in range(5):
        y = bottom - (bottom - top) * line / 4
        draw.line((left, y, right, y), fill=(220, 220, 216), width=1)
    names = list(COLOURS)[:7]
    rng.shuffle(names)
    step = (right - left) / len(values)
    for index, (label, value) in enumerate(zip(labels, values, strict=True)):
        x0, x1 = left + step * (index + 0.18), left + step * (index + 0.82)
        y = bottom - (bottom - top) * value / max(values)
        draw.rectangle((x0, y, x1, bottom), fill=COLOURS[names[index % 7]])
        middle = (x0 + x1) / 2
        draw.text((middle - small.getlength(str(value)) / 2, y - 22), str(value), fill=_INK, font=small)
        draw.text((middle - small.getlength(label) / 2, bottom + 10), label, fill=_INK, font=small)
    draw.line((left, bottom, right, bottom), fill=_INK, width=2)
    stated = listed([f"{label} {value}" for label, value in zip(labels, values, strict=True)])
    caption = f'A bar chart titled "{title}": {stated}.'
    text = "\n".join([title, *(f"{label} {value}" for label, value in zip(labels, values, strict=True))])
    return Picture(name, sheet, caption, ("chart",), text, origin=_origin("chart"))


def notice(size: tuple[int, int]) -> Image.Image:
    """The picture that a host serves in place of one that is gone."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    stripes = (np.sin((rows + columns) / 5) > 0)[..., None]
    pixels = np.where(stripes, (206, 210, 216), (176, 182, 192)).astype(np.float32)
    paint(pixels, rectangle(width * 0.14, height * 0.36, width * 0.72, height * 0.28), (244, 244, 246))
    sheet = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(sheet)
    typeface = font(height // 15)
    for row, line in enumerate(("This photo is", "no longer available")):
        x = (width - typeface.getlength(line)) / 2
        draw.text((x, height * (0.41 + 0.1 * row)), line, fill=(90, 94, 104), font=typeface)
    return sheet


def _origin(function: str) -> Origin:
    return Origin(path=f"{_PATH}:{function}")


def _paper(rng: np.random.Generator, size: tuple[int, int], colour: Colour) -> Image.Image:
    width, height = size
    fibre = 0.95 + 0.06 * noise(rng, height, width, (60, 60), 5)
    return Image.fromarray(np.clip(np.array(colour, np.float32) * fibre[..., None], 0, 255).astype(np.uint8))


def _printed(rng: np.random.Generator, sheet: Image.Image) -> Image.Image:
    return finished(rng, np.asarray(sheet, np.float32), 3)


def _bricks(rng: np.random.Generator, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tone = np.array(((156, 82, 62), (130, 116, 102), (170, 122, 88))[int(rng.integers(3))], np.float32)
    tall, wide = 26, 66
    rows, columns = np.mgrid[0:height, 0:width]
    course = rows // tall
    shifted = columns + (course % 2) * (wide // 2)
    joint = (rows % tall < 4) | (shifted % wide < 4)
    shade = ((course * 37 + shifted // wide * 91) % 17) / 17
    rough = noise(rng, height, width, (7, 7), 3)
    bricks = tone * (0.62 + 0.34 * shade + 0.3 * rough)[..., None]
    mortar = np.array((192, 184, 170), np.float32) * (0.72 + 0.3 * rough)[..., None]
    return np.where(joint[..., None], mortar, bricks).astype(np.float32)
