"""The records of `ocr`: pages, receipts, signs and charts with the text that stands on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from pipeline.embedded import pages
from pipeline.embedded.damage import pdf
from pipeline.embedded.item import KEPT, NEAR, UNDERSTANDING, End, Item, described, dropped, encoded, quarantined
from pipeline.embedded.picture import Origin, Picture

_TITLES = (
    "The mill",
    "Of bees",
    "Copper roofs",
    "A plain loaf",
    "The lighthouse",
    "Finding a place at sea",
    "A lost bridge",
    "Snow",
    "The first train",
    "Glass",
)


def reading() -> Iterator[Item]:
    """All of them, in manifest order."""
    for index, title in enumerate(_TITLES):
        yield _item(_page(index, title), "png" if index % 3 else "jpg")
    for index in range(9):
        yield _item(pages.receipt(f"receipt_{index:02d}", pages.SHOPS[index % 5], 3 + index % 6), "jpg")
    for index, lines in enumerate(pages.SIGNS[5:]):
        yield _item(pages.sign(f"street_{index:02d}", ((480, 360), (640, 400))[index % 2], lines), "jpg")
    years = ("2020", "2021", "2022", "2023")
    for index, values in enumerate(((4, 9, 7, 12), (31, 22, 18, 40), (105, 95, 130, 88))):
        title = ("New bridges", "Storm days", "Boats in the harbour")[index]
        yield _item(pages.chart(f"table_{index:02d}", (560, 420), title, years, values), "png")
    yield from _special()


def _page(index: int, title: str) -> Picture:
    size = ((600, 800), (520, 720), (720, 520))[index % 3]
    paragraphs = [pages.PARAGRAPHS[(index + step) % len(pages.PARAGRAPHS)] for step in range(2 + index % 3)]
    return pages.page(f"page_{index:02d}", size, title, paragraphs, (18, 20, 22)[index % 3])


def _special() -> Iterator[Item]:
    scan = _page(1, _TITLES[1])
    small = scan.image.resize((scan.image.width * 3 // 4, scan.image.height * 3 // 4), Image.Resampling.LANCZOS)
    copy = replace(scan, name="page_01_rescanned", image=small)
    yield _item(copy, "jpg", NEAR, near_dup_group="page_01", derived="resized to 75 %")
    turned = pages.page("page_turned", (560, 640), "Turned", pages.PARAGRAPHS[4:7], 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(turned.image.transpose(Image.Transpose.ROTATE_90), quality=88, exif=exif)
    yield _file("page_turned.jpg", turned, data, KEPT)
    bilevel = pages.page("page_bilevel", (640, 600), "In black and white", pages.PARAGRAPHS[6:9], 20)
    yield _file("page_bilevel.tif", bilevel, encoded(_bilevel(bilevel.image), "TIFF", compression="group4"), KEPT)
    for index in range(2):
        unread = replace(pages.receipt(f"unread_{index}", pages.SHOPS[index], 5 + index), text=None)
        yield _item(unread, "jpg", dropped("answer"))
    stutter = pages.page("stutter", (560, 560), "Stutter", ["the end of the line " * 30], 20)
    yield _item(stutter, "png", dropped("repetition"))
    links = [
        "https://mill.example/a https://mill.example/b https://mill.example/list?page=2 https://bees.example/dance"
    ]
    yield _item(pages.page("links", (760, 300), "www.mill.example", links, 20), "png", dropped("links"))
    for index in range(2):
        lines = ["Minutes of the meeting", f"Item {index + 1}: the roof of the mill"]
        facts = {"purpose": ["document ingestion from PDF"], "media": "pdf", "tags": ["pdf"], "text": "\n".join(lines)}
        origin = Origin(path="pipeline/embedded/damage.py:pdf")
        yield Item(f"minutes_{index}.pdf", pdf(lines), {UNDERSTANDING: quarantined("not an image")}, origin, facts)


def _bilevel(image: Image.Image) -> Image.Image:
    return image.convert("L").point([0] * 150 + [255] * 106).convert("1")


def _item(picture: Picture, ending: str, end: End = KEPT, **more: str) -> Item:
    data = encoded(picture.image, "JPEG" if ending == "jpg" else "PNG", 88)
    return _file(f"{picture.name}.{ending}", picture, data, end, **more)


def _file(file: str, picture: Picture, data: bytes, end: End, **more: str) -> Item:
    known = {"text_source": "drawn from this text"} if picture.text else {}
    facts = described(picture, data, ("ocr", *picture.tags[:1]), lang="en", text=picture.text, **known, **more)
    return Item(file, data, {UNDERSTANDING: end}, picture.origin, facts)
