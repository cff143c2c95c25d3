"""Measure `boxes`: the objects of a mapped field, checked against the picture and written as shares of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.boxes import REASONS, Form, Limits, check_boxes, grid_text
from pipeline.measures.header import HEAD_BYTES, read_header
from pipeline.operator import Column, Measure, Quarantine, Record

BOX = pa.struct([pa.field("label", pa.string()), *(pa.field(name, pa.float64()) for name in ("x0", "y0", "x1", "y1"))])


class BoxesParams(Form, Limits):
    """Parameters of `boxes`, those of `Form` and `Limits` among them.

    `field` holds a list of objects. `size` names a field with `width` and `height` as the annotator saw them.
    `phrase_in` names fields (texts or lists of texts) one of which must name each label.
    """

    role: str = "image"
    field: str = "objects"
    size: str | None = None
    phrase_in: tuple[str, ...] = ()


class Boxes(Measure):
    """Boxes inside the picture, in order, neither tiny nor all of it, there once, and named."""

    name = "boxes"
    version = 1
    Params = BoxesParams
    params: BoxesParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        given = self.params
        about = {
            "frame": "boxes whose annotator saw a picture of another size",
            "malformed": "boxes that are not four finite numbers",
            "unlabelled": "boxes without a label",
            "reversed": "boxes without width or height",
            "outside": f"boxes that stand out of the picture by more than {given.tolerance:g} of a side",
            "tiny": f"boxes of less than {given.least_area:g} of the picture, or narrower than two lines of the grid",
            "whole": f"boxes of more than {given.most_area:g} of the picture",
            "area": "boxes smaller than the mask said to be in them",
            "unsure": f"boxes of a confidence below {given.least_score:g}",
            "unsaid": "boxes whose label no text of the record names",
            "duplicate": f"boxes with an IoU of {given.duplicate_iou:g} or more with another of their label",
        }
        broken = [Column(f"boxes_{name}", pa.int64(), about[name], 0, None, "lower") for name in REASONS]
        return (
            Column("boxes", pa.int64(), "objects the source gives; 0 when it gives none", 0),
            Column("boxes_verified", pa.int64(), "boxes that hold", 0, None, "higher"),
            Column("boxes_crowd", pa.int64(), "boxes around many things at once; they are never verified", 0),
            *broken,
            Column("boxes_share", pa.float64(), "verified / (boxes - crowds); null without any", 0, 1, "higher"),
            Column(
                "verified_boxes",
                pa.list_(BOX),
                "label and corners as shares of the upright picture, 0-1, sorted by label and corners",
            ),
            Column("uncountable", pa.list_(pa.string()), "labels with a crowd, or a box broken but for a duplicate"),
            Column("boxes_grid", pa.string(), "the verified boxes as a model writes them, on a grid of 0 to 1000"),
        )

    def process(self, record: Record) -> Sequence[Any]:
        """The columns; raises Quarantine for a field that is no list, and for a picture without a size."""
        fields = record.fields
        objects = fields.get(self.params.field)
        if objects is None:
            objects = []
        if not isinstance(objects, list):
            raise Quarantine("objects are no list", f"field {self.params.field!r} holds {type(objects).__name__}")
        stated = None
        if self.params.size is not None and isinstance(told := fields.get(self.params.size), dict):
            stated = (told.get("width"), told.get("height"))
        texts = [text for name in self.params.phrase_in for text in texts_of(fields.get(name))]
        found = check_boxes(objects, self._size(record), self.params, self.params, texts, stated)
        single = found.given - found.crowds
        return (
            found.given,
            len(found.verified),
            found.crowds,
            *(found.broken[reason] for reason in REASONS),
            len(found.verified) / single if single else None,
            [box._asdict() for box in found.verified],
            found.uncountable,
            grid_text(found.verified),
        )

    def _size(self, record: Record) -> tuple[int, int]:
        """Width and height of the upright picture, from the first 64 KiB where they suffice."""
        head = record.head(HEAD_BYTES, self.params.role)
        info = read_header(record, self.params.role, head, is_whole=len(head) < HEAD_BYTES)
        return info.width, info.height


def texts_of(value: Any) -> list[str]:
    """The texts of a field: itself, or the texts in a list."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
