"""Pictures of one thing become a pair of views."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Child, Merger, Quarantine, Record, load_operator


def view(number: int, licence: str | None = "MIT", **fields: Any) -> Record:
    data = orjson.dumps({"licence": licence, "subject": "cup_1", "label": "cup", **fields})
    return Record(f"{number:032x}", (MediaRef("image", "file", f"{number}.jpg"),), data, {}, MediaReader("."))


def merged(records: list[Record], **params: Any) -> Child:
    operator = load_operator("views").build({"by": "subject", "label": "label", **params})
    assert isinstance(operator, Merger)
    assert operator.group_by == "subject"
    return operator.merge(records)


@pytest.mark.parametrize(
    ("most", "roles"),
    [(2, ["source", "target"]), (3, ["source", "reference", "target"]), (9, ["source", *["reference"] * 2, "target"])],
)
def test_the_last_view_is_drawn_from_the_others(most: int, roles: list[str]) -> None:
    child = merged([view(number) for number in range(4)], most=most)
    assert [ref.role for ref in child.media] == roles
    assert [ref.path for ref in child.media] == [f"{number}.jpg" for number in range(len(roles))]
    assert child.fields["text"] == "Show the same cup in another view."
    assert child.fields["views"] == len(roles)


def test_a_thing_without_a_name_is_a_thing() -> None:
    assert merged([view(0), view(1)], label=None).fields["text"] == "Show the same thing in another view."
    assert merged([view(0, label=None), view(1)]).fields["text"] == "Show the same thing in another view."


@pytest.mark.parametrize(
    ("records", "reason"),
    [([view(0)], "one view"), ([view(0), view(1, licence="CC0-1.0")], "licences differ")],
)
def test_what_gives_no_pair_is_set_aside(records: list[Record], reason: str) -> None:
    with pytest.raises(Quarantine) as caught:
        merged(records)
    assert caught.value.reason == reason


def test_one_view_cannot_be_asked_for() -> None:
    with pytest.raises(ValidationError):
        merged([], most=1)
