"""Merger `frame_sequence`: the frames of a clip, each with its text, back together as one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from pydantic import Field, model_validator

from pipeline.operator import Child, Merger, Params, Quarantine, Record

_OF_ONE_FRAME = ("clip", "frame", "frames", "time_s", "shot")


class SequenceParams(Params):
    """`text` names the column or field with each frame's text, `instruction` the one with the user's; null for none.

    `least` frames must have come through what stands between; `role` is that of their pictures.
    """

    text: str | None = None
    instruction: str | None = None
    least: int = Field(default=2, ge=1)
    role: str = "image"

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.text is not None and self.text == self.instruction:
            raise ValueError(f"text and instruction are both {self.text!r}")
        return self


class FrameSequence(Merger):
    """One record a clip: pictures in order of time, all with the role `image`, and what was written about them.

    Its fields are those of the clip, with `clip`, `times_s`, and `frame_texts` and `instruction` where they are asked
    for; the instruction is the first frame's. Frames that were set aside between are missing, and the rest keeps its
    order. Groups by the field `clip`, which a recipe makes known by mapping a field of that name (`map: {clip: id}`).
    Quarantines `too few frames`, and `no text` when a frame has none.
    """

    name = "frame_sequence"
    version = 1
    Params = SequenceParams
    params: SequenceParams

    @property
    def group_by(self) -> str:
        """The key of the clip."""
        return "clip"

    @property
    def reads(self) -> tuple[str, ...]:
        """Where the texts are."""
        return tuple(name for name in (self.params.text, self.params.instruction) if name is not None)

    def merge(self, records: Sequence[Record]) -> Child:
        """The sequence of one clip; raises Quarantine."""
        ordered = sorted(records, key=_place)
        if len(ordered) < self.params.least:
            raise Quarantine("too few frames", f"{len(ordered)} of the clip's frames came through")
        first = ordered[0].fields
        fields: dict[str, Any] = {name: value for name, value in first.items() if name not in _OF_ONE_FRAME}
        fields["clip"] = first["clip"]
        fields["times_s"] = [record.fields["time_s"] for record in ordered]
        if self.params.text is not None:
            fields["frame_texts"] = [_words(record, self.params.text) for record in ordered]
        if self.params.instruction is not None:
            fields["instruction"] = _words(ordered[0], self.params.instruction)
        media = tuple(replace(record.ref(self.params.role), role="image") for record in ordered)
        return Child("sequence", fields, media)


def _place(record: Record) -> int:
    place = record.fields.get("frame")
    if not isinstance(place, int):
        raise Quarantine("no frame number", "the record was not born by `frames`")
    return place


def _words(record: Record, column: str) -> str:
    value = record.values[column]
    if not isinstance(value, str) or not value.strip():
        raise Quarantine("no text", f"{column} of the frame at {record.fields['time_s']:.2f} s is empty")
    return value.strip()
