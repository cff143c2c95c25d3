"""One record of the embedded corpus: its bytes or its line, truths, and what the shipped recipes should make of it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pipeline.embedded.picture import Origin, Picture

GENERATION, UNDERSTANDING = "generation", "understanding"
EDITING, INTERLEAVED, REASONING, TEXT = "editing", "interleaved", "reasoning", "text"


@dataclass(frozen=True)
class End:
    """A final state in the books of a corpus, and its reason."""

    state: str
    reason: str | None = None


KEPT, EXPANDED = End("kept"), End("expanded")
EXACT, NEAR = End("duplicate", "exact"), End("duplicate", "near")


def dropped(rule: str) -> End:
    """Dropped by a rule."""
    return End("dropped", rule)


def quarantined(reason: str) -> End:
    """Set aside for a reason."""
    return End("quarantined", reason)


@dataclass(frozen=True)
class Item:
    """A file of the corpus with its manifest line.

    `data` None: the line names a file that is not there. `expected` says per corpus how the record ends, for the
    corpora whose recipe reads the folder. `facts` are further fields of the line.
    """

    file: str
    data: bytes | None
    expected: Mapping[str, End]
    origin: Origin
    facts: Mapping[str, Any] = field(default_factory=dict)

    def line(self, folder: str) -> dict[str, Any]:
        """The manifest line, in the field order of the sample corpora."""
        data = self.data
        found: dict[str, Any] = {"id": f"{folder}/{self.file}", "file": f"files/{self.file}"}
        if data is not None:
            found |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        found["origin"] = {"repo": self.origin.repo, "path": self.origin.path}
        if self.origin.licence is not None:
            found["licence"] = self.origin.licence
        found["licence_note"] = self.origin.note
        found |= self.facts
        return {**found, "kind": "file", "expected": told(self.expected)}


@dataclass(frozen=True)
class Row:
    """A line of an index that lies beside the manifest: a document, a chain, a pair.

    `index` is the file, `content` the line. A `listed` row has a manifest line of its own, with `facts`; one that is
    not carries its answer in `content`.
    """

    index: str
    name: str
    content: Mapping[str, Any]
    expected: Mapping[str, End]
    origin: Origin
    facts: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = True

    @property
    def data(self) -> bytes:
        """The line with its end."""
        return (json.dumps(self.content, ensure_ascii=False) + "\n").encode()

    def line(self, folder: str, number: int) -> dict[str, Any]:
        """The manifest line; `number` counts the lines of the index from 0."""
        found: dict[str, Any] = {"id": f"{folder}/{self.name}", "kind": "record", "file": self.index, "line": number}
        found["sha256"] = hashlib.sha256(self.data).hexdigest()
        found["origin"] = {"repo": self.origin.repo, "path": self.origin.path}
        if self.origin.licence is not None:
            found["licence"] = self.origin.licence
        return {**found, **self.facts, "expected": told(self.expected)}


def told(ends: Mapping[str, End]) -> dict[str, Any]:
    """Per corpus the end as a manifest line has it."""
    return {corpus: {"state": end.state, "reason": end.reason} for corpus, end in ends.items()}


def both(generation: End, understanding: End) -> dict[str, End]:
    """How a record ends in the two corpora that read `images`."""
    return {GENERATION: generation, UNDERSTANDING: understanding}


def described(picture: Picture, data: bytes, purpose: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """The fields that describe a picture: purpose, media, image, tags, caption, text, objects, counts."""
    with Image.open(io.BytesIO(data)) as image:
        facts: dict[str, Any] = {
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "format": image.format,
            "frames": getattr(image, "n_frames", 1),
        }
        if image.has_transparency_data:
            facts["alpha"] = True
    found: dict[str, Any] = {"purpose": list(purpose), "media": "image", "image": facts, "tags": list(picture.tags)}
    return found | {name: value for name, value in more.items() if value is not None}


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 90, **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    if kind in {"JPEG", "WEBP", "AVIF"}:
        options["quality"] = quality
    image.save(file, kind, **options)
    return file.getvalue()
