"""Identity: what two runs on two machines must agree on.

Every key is the first 128 bits of a BLAKE2b over length-prefixed parts, written as 32 hex characters. A key's leading
characters name the bucket in which its rows are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

KEY_CHARS = 32


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8; NaN and infinity are null, as JSON has neither.

    Raises TypeError for what JSON cannot hold: other types, names that are no text, integers beyond 64 bits.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def key_of(*parts: bytes) -> str:
    """The key of a sequence of byte strings; no two different sequences share an encoding."""
    measured = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)])
    return hashlib.blake2b(measured, digest_size=KEY_CHARS // 2).hexdigest()


def fingerprint(value: Any) -> str:
    """The key of a JSON value: recipes, parameters, prompts, vocabularies."""
    return key_of(b"fingerprint", canonical(value))


def media_digest(data: bytes | memoryview) -> str:
    """sha256 of a medium's bytes, 64 hex characters."""
    return hashlib.sha256(data).hexdigest()


def record_key(source: str, fields_json: bytes, digests: Iterable[str], ordinal: int) -> str:
    """The key of one input row: its source, canonical fields, media digests, and its ordinal among identical rows."""
    return key_of(b"record", source.encode(), fields_json, *(digest.encode() for digest in digests), b"#%d" % ordinal)


def derived_key(
    step: str, parents: Iterable[str], role: str, ordinal: int, fields_json: bytes, digests: Iterable[str]
) -> str:
    """The key of a record born from others by one step of a recipe."""
    return key_of(
        b"derived",
        step.encode(),
        role.encode(),
        b"#%d" % ordinal,
        fields_json,
        b"".join(sorted(parent.encode() for parent in parents)),
        *(digest.encode() for digest in digests),
    )


def sample_key(record: str, task: str, resolution: int, template: str, variant: str) -> str:
    """The key of what a trainer reads; it fixes the shard the sample lies in."""
    return key_of(b"sample", record.encode(), task.encode(), b"%d" % resolution, template.encode(), variant.encode())
