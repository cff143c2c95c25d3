"""The pictures that go with a question: which of a record's, in which order, and as which bytes."""

from __future__ import annotations

import base64
from typing import Any

from catalog.keys import media_digest
from pipeline.annotations.params import OpenAIParams
from pipeline.media import MediaRef
from pipeline.operator import Quarantine, Record
from pipeline.pictures import decode_scaled, read_info

_PICTURE = 1
"""Version of how pictures are made ready; raise it when the bytes that are sent change."""


def asked_about(record: Record, params: OpenAIParams) -> tuple[MediaRef, ...]:
    """The media that are sent, in order.

    `role` means the first medium of that role, `roles` all of each in the record's order; then come all of the optional
    ones. Raises Quarantine for a record that lacks a role.
    """
    firsts = tuple(record.ref(role) for role in params.required_roles)
    required = _of(record, params.roles) if params.roles else firsts
    return (*required, *_of(record, params.optional_roles))


def _of(record: Record, roles: tuple[str, ...]) -> tuple[MediaRef, ...]:
    return tuple(ref for role in roles for ref in record.media if ref.role == role)


def digest_of(record: Record, ref: MediaRef) -> str:
    """The sha256 of a medium as it lies in the source; what ingest did not note is read."""
    return ref.digest or media_digest(record.reader.read(ref))


def made_ready(params: OpenAIParams, pictures: int) -> dict[str, Any]:
    """How pictures are made ready, as the key of a question holds it; nothing where none is sent."""
    return {"version": _PICTURE, "max_side": params.max_side, "quality": params.quality} if pictures else {}


def picture_part(record: Record, ref: MediaRef, digest: str, params: OpenAIParams) -> dict[str, Any]:
    """A picture as a part of a message; raises Quarantine when it cannot be read or is another one by now."""
    data = record.reader.read(ref)
    if media_digest(data) != digest:
        raise Quarantine("changed since ingest", "the picture is not the one whose digest the catalog holds")
    jpeg = sent_jpeg(data, params.max_side, params.quality)
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    return {"type": "image_url", "image_url": {"url": url}}


def sent_jpeg(data: bytes, max_side: int, quality: int) -> bytes:
    """The picture as it is sent: upright RGB JPEG, longer side `max_side` pixels at most. Raises Quarantine."""
    import cv2
    import simplejpeg

    info = read_info(data)
    scale = min(1.0, max_side / max(info.width, info.height))
    width, height = max(1, round(info.width * scale)), max(1, round(info.height * scale))
    rgb = decode_scaled(data, min(width, height))
    if rgb.shape[:2] != (height, width):
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    jpeg: bytes = simplejpeg.encode_jpeg(rgb, quality=quality, colorspace="RGB", colorsubsampling="420")
    return jpeg
