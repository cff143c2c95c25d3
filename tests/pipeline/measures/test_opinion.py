from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.annotations.prompt import load_prompt
from pipeline.boxes import Box, grid_text
from pipeline.media import MediaReader
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, measure

CAT, DOG = Box("cat", 0.1, 0.1, 0.5, 0.5), Box("dog", 0.5, 0.5, 1.0, 1.0)


def look(answer: Any, *boxes: Box) -> dict[str, Any]:
    values = {
        "verified_boxes": [box._asdict() for box in boxes],
        "uncountable": ["cow"],
        "boxes_opinion": answer,
    }
    made = measure("opinion")
    given = Record("0" * 32, (), b"{}", values, MediaReader(str(Path())))
    check_row(made.columns, made.process(given))
    return columns_of(made, given)


def test_doubted_boxes_go_and_their_labels_are_not_counted() -> None:
    assert look('{"holds":[true,false]}', CAT, DOG) == {
        "opinion_share": 0.5,
        "agreed_boxes": [CAT._asdict()],
        "agreed_uncountable": ["cow", "dog"],
        "agreed_grid": grid_text([CAT]),
    }


def test_full_agreement_changes_nothing() -> None:
    found = look('{"holds":[true,true]}', CAT, DOG)
    assert (found["opinion_share"], found["agreed_uncountable"]) == (1.0, ["cow"])


def test_without_boxes_there_is_nothing_to_have_an_opinion_of() -> None:
    found = look(None)
    assert (found["opinion_share"], found["agreed_boxes"], found["agreed_grid"]) == (None, [], "[]")


@pytest.mark.parametrize(
    "answer", [None, "", "true", "[]", "{}", '{"holds":[true]}', '{"holds":true}', '{"holds":[1,0]}']
)
def test_an_answer_that_does_not_fit_sets_the_record_aside(answer: Any) -> None:
    with pytest.raises(Quarantine) as caught:
        look(answer, CAT, DOG)
    assert caught.value.reason == "opinion does not fit"


def test_the_prompt_asks_of_the_boxes_in_the_form_they_are_written_in() -> None:
    prompt = load_prompt("boxes_check/v1")
    assert prompt.gaps == ("boxes",)
    assert prompt.required == ("holds",)
    assert prompt.text({"boxes": grid_text([CAT])}).endswith('The boxes: [{"bbox_2d":[100,100,500,500],"label":"cat"}]')
    assert prompt.read('{"holds": [true]}', "stop") == '{"holds":[true]}'
