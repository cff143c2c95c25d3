"""The one place where a picture's bytes are opened and decoded: safely, upright, in RGB.

Everything that looks at pixels goes through here, so that measures, encoders and the report see the same
picture: turned as its EXIF orientation says, alpha on white, 16 bits scaled to 8, CMYK and palette converted,
an animation's first frame. ICC profiles are not applied. Bytes that cannot be decoded end in a `Quarantine`
whose reason is one of `REASONS`; its message holds no memory address and no path, so that it may be stored.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.operator import Quarantine

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Pillow formats that are opened at all; MPO, a JPEG with further pictures, comes with JPEG."""

PILLOW_LIMIT = 178_956_970
"""Pixels beyond which Pillow itself refuses to open a picture."""

REASONS = (
    "empty file",
    "not an image",
    "unsupported format",
    "unsupported pixel format",
    "too many pixels",
    "truncated image",
    "broken image",
    "out of memory",
)

_SIXTEEN_BIT = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before a pixel is decoded.

    The default is the size at which Pillow begins to warn of decompression bombs: in Pillow such a picture
    takes 360 MB, with alpha twice that while it is put on white, which a worker bears; Pillow refuses twice
    as many pixels in any case.
    """

    max_pixels: int = 89_478_485


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What the header says; `width`, `height` are those of the upright picture, `frames` counts pages too."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    frames: int
    bit_depth: int | None
    has_alpha: bool
    has_icc: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A decoded picture.

    `rgb`: uint8 [height, width, 3]; `damage`: what the decoder complained of, None when of nothing.
    """

    rgb: NDArray[np.uint8]
    damage: str | None


def read_info(data: bytes, limits: Limits = DEFAULT_LIMITS) -> PictureInfo:
    """What a picture's header says, without decoding; raises Quarantine.

    `data` may be the beginning of a file only, for formats in which the header comes first (`header_first`).
    """
    with _opened(data, limits) as image:
        if image.format in {"JPEG", "MPO"} and not getattr(image, "tile", ()):
            raise Quarantine("truncated image", "JPEG: the data end before the first scan")
        orientation = _orientation(image)
        width, height = _upright_size(image, orientation)
        frames, notes = _frames(image)
        bit_depth = _bit_depth(image, data)
        has_alpha = image.has_transparency_data
        changes = _changes(image, orientation, bit_depth, has_alpha)
        return PictureInfo(
            format=image.format or "",
            mode=image.mode,
            width=width,
            height=height,
            orientation=orientation,
            frames=frames,
            bit_depth=bit_depth,
            has_alpha=has_alpha,
            has_icc="icc_profile" in image.info,
            notes=(*changes, *notes),
        )


def header_first(head: bytes) -> bool:
    """Whether the first kilobytes of such a file hold all that `read_info` reads."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"))


def open_picture(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image:
    """The whole picture as a Pillow image in RGB, upright; raises Quarantine."""
    image: Image = _pillow().fromarray(decode_noted(data, None, limits).rgb)
    return image


def decode_scaled(data: bytes, min_side: int, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """The picture with `min_side` pixels or some more on its shorter side: uint8 [height, width, 3].

    A JPEG is scaled while it is decoded (by eighths), other formats by whole factors afterwards; a picture
    that is smaller keeps its size. The result is not scaled to `min_side` exactly. Raises Quarantine.
    """
    return decode_noted(data, min_side, limits).rgb


def decode_noted(data: bytes, min_side: int | None, limits: Limits = DEFAULT_LIMITS) -> DecodedPicture:
    """As `decode_scaled`, with the decoder's complaint about data that it decoded nevertheless.

    Without `min_side` the picture comes at its full size.
    """
    with _opened(data, limits) as image:
        orientation = 1 if _turned_by_pillow(image) else _orientation(image)
        is_jpeg = image.format in {"JPEG", "MPO"}
        damage = None
        if is_jpeg and image.mode in {"RGB", "L"}:
            try:
                return DecodedPicture(_turn(_decode_jpeg(data, min_side or 0), orientation), None)
            except ValueError as error:
                damage = str(error)
                if "premature end of data" in damage:
                    # An end was put to a file that had been cut: Pillow would fill the rest with grey.
                    raise Quarantine("truncated image", f"JPEG: {damage}") from error
                # The strict decoder minds every flaw; Pillow decides whether the pixels are all there.
        if is_jpeg and min_side:
            image.draft(None, (min_side, min_side))
        image.load()
        plain = _plain(image)
        factor = min(plain.size) // min_side if min_side else 1
        rgb = _on_white(plain.reduce(factor) if factor > 1 else plain)
        return DecodedPicture(_turn(np.asarray(rgb), orientation), damage)


def _decode_jpeg(data: bytes, min_side: int) -> NDArray[np.uint8]:
    import simplejpeg

    # strict: without it a picture that was cut off comes back grey where the data are missing.
    rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=min_side, min_width=min_side, strict=True)
    return rgb


@cache
def _pillow() -> Any:
    """Pillow's Image module with our formats loaded, and silent: what it says goes into a Quarantine."""
    import logging
    import warnings

    from PIL import AvifImagePlugin, Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401 - they register

    Image.preinit()
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


@contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[Image]:
    """The lazily opened picture, its size checked; whatever goes wrong inside becomes a Quarantine."""
    if not data:
        raise Quarantine("empty file", "the file has no bytes")
    try:
        if data.startswith(b"RIFF"):
            _check_size(_webp_canvas(data), limits)
        image = _pillow().open(io.BytesIO(data), formats=FORMATS)
        _check_size(image.size, limits)
        yield image
    except Quarantine:
        raise
    except Exception as error:
        raise _verdict(error, data, limits) from error


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise Quarantine("too many pixels", f"{size[0]}x{size[1]} pixels, {_most(limits)}")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Canvas of an extended WebP file, else 0 x 0: Pillow makes room for two before it tells the size."""
    if data[8:16] != b"WEBPVP8X" or len(data) < 30:
        return 0, 0
    return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1


def _most(limits: Limits) -> str:
    return f"at most {limits.max_pixels} are decoded"


def _verdict(error: Exception, data: bytes, limits: Limits) -> Quarantine:
    from PIL import UnidentifiedImageError
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    kind = _kind(data)
    message = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the data", f"{type(error).__name__}: {error}")
    if isinstance(error, (DecompressionBombError, DecompressionBombWarning)):
        stated = re.search(r"\d+", str(error))
        return Quarantine("too many pixels", f"{stated[0] if stated else 'too many'} pixels, {_most(limits)}")
    if isinstance(error, MemoryError):
        return Quarantine("out of memory", f"{kind}: no memory to decode it")
    if kind in FORMATS:
        if isinstance(error, UnidentifiedImageError):
            message = "the header cannot be read"
        lower = message.lower()
        cut = "truncated" in lower or "not enough data" in lower or _is_cut(data)
        return Quarantine("truncated image" if cut else "broken image", f"{kind}: {message}")
    if kind.startswith("unsupported"):
        return Quarantine("unsupported format", kind.removeprefix("unsupported "))
    return Quarantine("not an image", f"{kind}; it begins with {data[:8].hex(' ')}")


_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"8BPS", "unsupported Photoshop document"),
    (b"\x00\x00\x00\x0cjP  ", "unsupported JPEG 2000"),
    (b"\xff\x4f\xff\x51", "unsupported JPEG 2000"),
    (b"\xff\x0a", "unsupported JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "unsupported JPEG XL"),
    (b"\x00\x00\x01\x00", "unsupported Windows icon"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "unsupported HEIF"),
}


def _kind(data: bytes) -> str:
    """What the bytes look like: a name of FORMATS, `unsupported ...`, or words for the message."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if re.match(rb"P[1-6]\s", data):
        return "PPM"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "an MP4 or similar video")
    return _kind_of_text(data[:1024])


def _kind_of_text(start: bytes) -> str:
    trimmed = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if trimmed.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if b"<svg" in trimmed:
        return "unsupported SVG"
    if not any(start):
        return "zero bytes"
    return "text" if all(byte >= 0x20 or byte in b"\t\r\n" for byte in start) else "unknown data"


def _is_cut(data: bytes) -> bool:
    """Whether a container that states its own length holds fewer bytes."""
    return data[:4] == b"RIFF" and len(data) < 12 + struct.unpack("<I", data[4:8].ljust(4, b"\0"))[0] - 4


def _orientation(image: Image) -> int:
    """The EXIF (or XMP) orientation, 1 to 8; an unreadable one counts as 1."""
    if image.format != "TIFF" and _ORIENTATION_KEYS.isdisjoint(image.info):
        return 1
    try:
        # Not image.getexif(): for a PNG that one decodes the whole picture, to find chunks behind the pixels.
        value = _pillow().Image.getexif(image).get(0x0112, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_ORIENTATION_KEYS = frozenset({"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"})


def _turned_by_pillow(image: Image) -> bool:
    """Pillow turns a TIFF by itself, and says its upright size."""
    return image.format == "TIFF"


def _upright_size(image: Image, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation >= 5 and not _turned_by_pillow(image) else (width, height)


def _frames(image: Image) -> tuple[int, tuple[str, ...]]:
    """How many frames or pages, and what is to be said of them."""
    try:
        frames = max(1, int(getattr(image, "n_frames", 1)))
    except Exception:
        return 1, ("later frames unreadable",)
    if frames == 1:
        return 1, ()
    return frames, (f"first of {frames} {'pages' if image.format in {'TIFF', 'MPO'} else 'frames'}",)


def _bit_depth(image: Image, data: bytes) -> int | None:
    """Bits of one stored sample or palette index; None where the library does not say."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        stored = getattr(image, "tag_v2", {}).get(258, (1,))
        # A damaged tag may say anything.
        sane = [bits for bits in stored if isinstance(bits, int) and 1 <= bits <= 64]
        return max(sane, default=None)
    if image.format == "AVIF":
        return None
    if image.mode == "1":
        return 1
    return 16 if image.mode in _SIXTEEN_BIT else 8


def _changes(image: Image, orientation: int, bit_depth: int | None, has_alpha: bool) -> Iterator[str]:
    """What decoding will change, in words."""
    if orientation != 1:
        yield f"turned upright (exif {orientation})"
    if image.mode in {"CMYK", "LAB", "YCbCr"}:
        yield f"{image.mode.lower()} converted"
    if image.mode in {"P", "PA"}:
        yield "palette expanded"
    if bit_depth is not None and bit_depth > 8:
        yield f"{bit_depth}-bit scaled"
    if has_alpha:
        yield "alpha on white"


def _plain(image: Image) -> Image:
    """The picture as L, RGB or RGBA; raises Quarantine for samples without a known range."""
    if image.mode in _SIXTEEN_BIT:
        return _scale_sixteen_bit(image)
    if image.mode == "F":
        raise Quarantine("unsupported pixel format", "floating-point samples have no known range")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _on_white(plain: Image) -> Image:
    """RGB of what `_plain` returns."""
    if plain.mode != "RGBA":
        return plain.convert("RGB")
    white: Image = _pillow().new("RGB", plain.size, (255, 255, 255))
    white.paste(plain, mask=plain.getchannel("A"))
    return white


def _scale_sixteen_bit(image: Image) -> Image:
    samples = np.asarray(image)
    if samples.min() < 0 or samples.max() > 65535:
        raise Quarantine("unsupported pixel format", "32-bit samples have no known range")
    scaled = np.empty(samples.shape, np.uint8)
    rows = max(1, 2**20 // samples.shape[1])
    for start in range(0, len(samples), rows):
        # In slices: the products take eight times the room of the result.
        part = slice(start, start + rows)
        scaled[part] = (samples[part].astype(np.int64) * 255 + 32767) // 65535
    grey: Image = _pillow().fromarray(scaled)
    return grey


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """[height, width, 3] turned from its EXIF orientation to upright."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
