"""Broken, odd and malicious files, each with what should become of it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from pipeline.embedded.item import GENERATION, KEPT, End, Item, dropped, encoded, quarantined
from pipeline.embedded.picture import Origin, Picture

_HTML = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested picture was not found on this server.</p></body></html>
"""
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480"><circle cx="320" cy="240" r="99"/></svg>\n'


def hostile(good: list[Picture]) -> Iterator[Item]:
    """The records of `hostile`, made of six sound pictures of 256 pixels a side or more that stand nowhere else."""
    whole = encoded(good[0].image, quality=98)
    jpeg = [encoded(picture.image.convert("RGB"), quality=92) for picture in good]
    png = encoded(good[0].image, "PNG")
    webp = encoded(good[0].image, "WEBP")
    broken, cut, alien = quarantined("broken image"), quarantined("truncated image"), quarantined("not an image")

    def item(file: str, data: bytes | None, tests: str, end: End, derived: str = "generated") -> Item:
        facts = {"purpose": ["robustness"], "tests": tests, "derived": derived}
        return Item(file, data, {GENERATION: end}, Origin(path="pipeline/embedded/damage.py"), facts)

    yield item("truncated_a.jpg", whole[: len(whole) * 2 // 5], "JPEG cut at 40 %", cut, "first 40 % of the bytes")
    yield item("truncated_b.jpg", jpeg[1][:-200], "JPEG without its last 200 bytes", cut, "last 200 bytes cut off")
    yield item("header_only.jpg", jpeg[2][:40], "JPEG of 40 bytes", cut, "first 40 bytes")
    yield item("truncated.png", png[: len(png) // 2], "PNG cut in the middle", cut, "first half of the bytes")
    yield item("truncated.webp", webp[: len(webp) // 2], "WebP cut in the middle", cut, "first half of the bytes")
    yield item("bad_checksum.png", flipped(png, png.index(b"IDAT") + 900), "PNG with a broken checksum", broken,
               "one bit flipped")  # fmt: skip
    yield item("empty.jpg", b"", "zero-byte file", quarantined("empty file"))
    yield item("html_error_page.jpg", _HTML, "HTML error page under a picture name", alien)
    yield item("error.json.png", b'{"error": "rate limit exceeded", "retry_after": 60}\n', "JSON answer as .png", alien)
    yield item("bad_utf8.txt", b"caf\xe9 \xff\xfe\x00 \xe2\x80\xae gnp.exe\n", "text that is not UTF-8", alien)
    yield item("zeros.jpg", bytes(4096), "only zero bytes", alien)
    yield item("archive.jpg", b"PK\x03\x04" + bytes(200), "a ZIP archive under a picture name", alien)
    yield item("film.jpg", b"\x00\x00\x00\x18ftypisom" + bytes(400), "a video under a picture name", alien)
    yield item("drawing.svg", _SVG, "vector picture", quarantined("unsupported format"))
    yield item("png_bomb_30000.png", png_bomb(30000), "30000 x 30000 one-bit PNG (decompression bomb)",
               quarantined("too many pixels"))  # fmt: skip
    yield item("gif_bomb.gif", gif_bomb(), "GIF that declares 65535 x 65535 pixels", quarantined("too many pixels"))
    yield item("one_pixel.gif", encoded(Image.new("L", (1, 1), 128), "GIF"), "tracking pixel", dropped("side"))
    yield item("wrong_extension.png", jpeg[3], "JPEG bytes named .png", KEPT, "copy under a wrong extension")
    yield item("it's a \"fine\" day, n\u00e4chste Stra\u00dfe \u6771\u4eac.jpg", jpeg[4],
               "a good picture under a name with blanks, quotes and letters beyond ASCII", KEPT,
               "copy under an odd name")  # fmt: skip
    yield item(
        "trailing_junk.jpg", jpeg[5] + b"\x00\xffjunk" * 50, "JPEG with junk after its end", KEPT, "junk appended"
    )
    yield item("not_there.jpg", None, "a line whose file is missing", quarantined("missing file"), "never written")


def flipped(data: bytes, place: int) -> bytes:
    """The bytes with one bit turned."""
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def png_bomb(side: int) -> bytes:
    """A one-bit PNG of side x side white pixels: some hundred kilobytes that decode to very much more."""
    row = b"\x00" + b"\xff" * -(-side // 8)
    squeeze = zlib.compressobj(9)
    block = row * 100
    packed = b"".join([squeeze.compress(block) for _ in range(side // 100)] + [squeeze.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def gif_bomb() -> bytes:
    """A GIF whose header declares the largest canvas there is."""
    small = encoded(Image.new("P", (2, 2)), "GIF")
    return small[:6] + struct.pack("<HH", 65535, 65535) + small[10:]


def pdf(lines: list[str]) -> bytes:
    """A one-page PDF with some lines of text."""
    shown = "".join(f"({line}) Tj 0 -18 Td " for line in lines)
    stream = f"BT /F1 12 Tf 60 780 Td {shown}ET".encode("latin-1")
    bodies = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(bodies) + 1, table)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, start)
