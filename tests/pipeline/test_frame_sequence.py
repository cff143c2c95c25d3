from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.frame_sequence import FrameSequence
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Child, Quarantine, Record


def frame(number: int, text: str | None = "a text", key: str | None = None, **fields: Any) -> Record:
    """A frame as `frames` bears it."""
    own = {"clip": "c" * 32, "frame": number, "frames": 3, "time_s": 5.0 * number, "shot": [0.0, 12.0]}
    ref = MediaRef("image", "store", f"media/{number}", digest=f"{number:064d}")
    return Record(
        key or f"{9 - number:032d}",
        (ref,),
        orjson.dumps({"id": "a", "licence": "MIT", **own, **fields}),
        {"text": text, "wish": f"wish {number}"},
        MediaReader("."),
    )


def merged(records: list[Record], **params: Any) -> Child:
    operator = FrameSequence.build(params)
    assert isinstance(operator, FrameSequence)
    return operator.merge(sorted(records, key=lambda record: record.key))


def test_frames_stand_in_order_of_time_whatever_their_keys() -> None:
    child = merged([frame(0, "one"), frame(1, "two"), frame(2, "three")], text="text", instruction="wish")
    assert child.role == "sequence"
    assert [ref.path for ref in child.media] == ["media/0", "media/1", "media/2"]
    assert {ref.role for ref in child.media} == {"image"}
    assert child.fields == {
        "id": "a",
        "licence": "MIT",
        "clip": "c" * 32,
        "times_s": [0.0, 5.0, 10.0],
        "frame_texts": ["one", "two", "three"],
        "instruction": "wish 0",
    }


def test_a_frame_that_was_set_aside_is_missing_and_too_few_are_none() -> None:
    assert merged([frame(2), frame(0)]).fields["times_s"] == [0.0, 10.0]
    with pytest.raises(Quarantine) as caught:
        merged([frame(2)])
    assert (caught.value.reason, str(caught.value)) == ("too few frames", "1 of the clip's frames came through")


@pytest.mark.parametrize("text", [None, " "])
def test_a_frame_without_a_text_sets_the_clip_aside(text: str | None) -> None:
    with pytest.raises(Quarantine) as caught:
        merged([frame(0), frame(1, text)], text="text")
    assert (caught.value.reason, str(caught.value)) == ("no text", "text of the frame at 5.00 s is empty")


def test_only_frames_can_be_brought_together() -> None:
    with pytest.raises(Quarantine) as caught:
        merged([frame(0), frame(1, frame="second")])
    assert caught.value.reason == "no frame number"


def test_text_and_instruction_are_two_columns() -> None:
    with pytest.raises(ValidationError, match="both 'text'"):
        FrameSequence.build({"text": "text", "instruction": "text"})
