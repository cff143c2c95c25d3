"""Merger `views`: pictures of one thing become a pair of views, the last drawn from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from pipeline.operator import Child, Merger, Params, Quarantine, Record, text_field


class ViewsParams(Params):
    """Parameters of `views`.

    `by`: the field or column whose equal values name one thing. `label`: the field with what it is called, null where
    there is none. `most`: pictures of a group that are used, those of the least keys. `role`: of the pictures.
    """

    by: str
    label: str | None = None
    most: int = Field(default=4, ge=2, le=16)
    role: str = "image"


class Views(Merger):
    """One record a thing: its views in the order of their keys as `source`, `reference`s and, the last, `target`.

    Fields are those of the first picture, with `text` the instruction and `views` how many there are. Quarantines
    `one view` where nothing else shows the thing, and `licences differ` where its pictures may not be used alike.
    """

    name = "views"
    version = 1
    Params = ViewsParams
    params: ViewsParams

    @property
    def group_by(self) -> str:
        """What names one thing."""
        return self.params.by

    def merge(self, records: Sequence[Record]) -> Child:
        """The views of one thing; raises Quarantine."""
        taken = records[: self.params.most]
        if len(taken) < 2:
            raise Quarantine("one view", "no other picture shows this thing")
        licences = {text_field(record.fields, "licence") for record in taken}
        if len(licences) > 1:
            raise Quarantine("licences differ", ", ".join(sorted(str(licence) for licence in licences)))
        fields: dict[str, Any] = dict(taken[0].fields)
        label = text_field(fields, self.params.label) if self.params.label is not None else None
        fields["text"] = f"Show the same {label or 'thing'} in another view."
        fields["views"] = len(taken)
        roles = ("source", *["reference"] * (len(taken) - 2), "target")
        media = tuple(
            replace(record.ref(self.params.role), role=role) for record, role in zip(taken, roles, strict=True)
        )
        return Child("views", fields, media)
