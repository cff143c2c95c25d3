"""Small pictures for the report, decoded where a hostile file can do no harm: in processes of their own."""

from __future__ import annotations

import base64
import hashlib
import io
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import TimeoutError as TooSlow
from typing import TYPE_CHECKING, Any

from catalog.report_page import Thumbnail
from pipeline.clock import start_worker
from pipeline.media import MediaReader, MediaRef

if TYPE_CHECKING:
    from PIL import Image

LONGEST_SIDE = 192
"""Pixels."""
QUALITY = 80
SECONDS = 20.0
"""What one picture may take."""


def thumbnails(
    media: Mapping[str, Mapping[str, Any] | None], reader: MediaReader, workers: int = 2
) -> dict[str, Thumbnail]:
    """A thumbnail for every key of `media` (rows of catalog.schemas.MEDIA); never raises for a picture's sake."""
    from pebble import ProcessExpired, ProcessPool

    found = {key: Thumbnail(None, why="it has no picture") for key, row in media.items() if row is None}
    refs = {key: MediaRef(**row) for key, row in sorted(media.items()) if row is not None}
    if not refs:
        return found
    context = multiprocessing.get_context("spawn")
    with ProcessPool(workers, initializer=start_worker, initargs=(os.getpid(),), context=context) as pool:
        futures = {key: pool.schedule(thumbnail, args=(ref, reader), timeout=SECONDS) for key, ref in refs.items()}
        for key, future in futures.items():
            try:
                found[key] = future.result()
            except TooSlow:
                found[key] = Thumbnail(None, why=f"decoding takes more than {SECONDS:g} s")
            except ProcessExpired:
                found[key] = Thumbnail(None, why="decoding it ends the process")
            except Exception as error:
                # A report of a finished run must not fail for one picture; the tile says what went wrong.
                found[key] = Thumbnail(None, why=f"{type(error).__name__}: {error}")
    return found


def thumbnail(ref: MediaRef, reader: MediaReader) -> Thumbnail:
    """A picture or a clip's first frame, upright, at most LONGEST_SIDE pixels, as a JPEG data URI; or why not."""
    from PIL import Image

    from pipeline.operator import Quarantine
    from pipeline.pictures import decode_scaled

    try:
        data = reader.read(ref)
    except OSError:
        return Thumbnail(None, why="its file is not there")
    if ref.digest is not None and hashlib.sha256(data).hexdigest() != ref.digest:
        return Thumbnail(None, why="its file has changed since")
    try:
        image = Image.fromarray(decode_scaled(data, LONGEST_SIDE))
    except Quarantine as verdict:
        frame = _first_frame(ref, reader) if verdict.reason == "not an image" else None
        if frame is None:
            return Thumbnail(None, why=verdict.reason)
        image = frame
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(uri, image.width, image.height)


def _first_frame(ref: MediaRef, reader: MediaReader) -> Image.Image | None:
    """The first frame of a clip, upright, in square pixels; None where there is none or nothing to decode it with."""
    from PIL import Image

    from pipeline.clips import open_clip, upright_rgb
    from pipeline.operator import Quarantine

    try:
        with open_clip(reader, ref) as clip:
            shown = next(clip.frames(), None)
            return None if shown is None else Image.fromarray(upright_rgb(shown.frame, clip.square_pixels))
    except (Quarantine, ImportError):
        return None
