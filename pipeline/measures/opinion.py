"""Measure `opinion`: verified boxes that a second opinion agrees with.

The opinion is the answer of a vision-language model to the prompt `boxes_check/v1`, asked by an `annotate` node above:

    opinion: {annotate: openai, needs: [boxes], network: true,
              params: {into: boxes_opinion, prompt: boxes_check/v1, inputs: {boxes: boxes_grid}, ...}}
    agreed: {measure: opinion, needs: [opinion], params: {answer: boxes_opinion}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipeline.boxes import Box, grid_text
from pipeline.measures.boxes import BOX
from pipeline.operator import Column, Measure, Params, Quarantine, Record


class OpinionParams(Params):
    """Parameters of `opinion`: `answer` names the column with the model's JSON, {"holds": [true, ...]}."""

    answer: str = "boxes_opinion"


class Opinion(Measure):
    """The boxes a second opinion holds for right; a label with a doubted box cannot be counted."""

    name = "opinion"
    version = 1
    Params = OpinionParams
    params: OpinionParams

    @property
    def columns(self) -> tuple[Column, ...]:
        """See docs/measures.md."""
        return (
            Column("opinion_share", pa.float64(), "share of the verified boxes agreed with", 0, 1, "higher"),
            Column("agreed_boxes", pa.list_(BOX), "verified boxes that the second opinion agrees with, in order"),
            Column("agreed_uncountable", pa.list_(pa.string()), "uncountable labels, and those of doubted boxes"),
            Column("agreed_grid", pa.string(), "the agreed boxes as a model writes them, on a grid of 0 to 1000"),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The boxes and the opinion."""
        return ("verified_boxes", "uncountable", self.params.answer)

    def process(self, record: Record) -> Sequence[Any]:
        """The columns; raises Quarantine where the answer does not say true or false of each box."""
        boxes = [Box(**box) for box in record.values["verified_boxes"] or []]
        unsure = set(record.values["uncountable"] or [])
        answer = record.values[self.params.answer]
        if not boxes:
            return None, [], sorted(unsure), grid_text([])
        holds = _holds(answer)
        if len(holds) != len(boxes):
            raise Quarantine("opinion does not fit", f"it speaks of {len(holds)} boxes, there are {len(boxes)}")
        agreed = [box for box, held in zip(boxes, holds, strict=True) if held]
        unsure |= {box.label for box, held in zip(boxes, holds, strict=True) if not held}
        return len(agreed) / len(boxes), [box._asdict() for box in agreed], sorted(unsure), grid_text(agreed)


def _holds(answer: Any) -> list[bool]:
    try:
        holds = orjson.loads(answer)["holds"]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise Quarantine("opinion does not fit", f"no `holds` in {str(answer)[:60]!r}") from error
    if not isinstance(holds, list) or not all(isinstance(held, bool) for held in holds):
        raise Quarantine("opinion does not fit", "`holds` is no list of true and false")
    return holds
