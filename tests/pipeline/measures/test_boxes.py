from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.boxes import REASONS
from pipeline.measures.boxes import Boxes
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import CORPORA, columns_of, encode, measure, record, scene

CAT = {"label": "cat", "bbox_xywh": [20, 10, 100, 50]}


def look(tmp_path: Path, objects: Any, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    made = measure("boxes", **(params or {}))
    given = record(tmp_path, encode(scene(200, 100), "PNG"), objects=objects, **fields)
    check_row(made.columns, made.process(given))
    return columns_of(made, given)


def test_all_columns_of_a_good_and_a_broken_box(tmp_path: Path) -> None:
    found = look(tmp_path, [{"label": "dog", "bbox_xywh": [150, 10, 100, 50]}, CAT])
    assert found == {
        "boxes": 2,
        "boxes_verified": 1,
        "boxes_crowd": 0,
        **{f"boxes_{reason}": int(reason == "outside") for reason in REASONS},
        "boxes_share": 0.5,
        "verified_boxes": [{"label": "cat", "x0": 0.1, "y0": 0.1, "x1": 0.6, "y1": 0.6}],
        "uncountable": ["dog"],
        "boxes_grid": '[{"bbox_2d":[100,100,600,600],"label":"cat"}]',
    }


@pytest.mark.parametrize("objects", [None, []])
def test_a_record_without_objects_has_no_share(tmp_path: Path, objects: Any) -> None:
    found = look(tmp_path, objects)
    assert (found["boxes"], found["boxes_share"], found["verified_boxes"], found["boxes_grid"]) == (0, None, [], "[]")


def test_objects_that_are_no_list_are_set_aside(tmp_path: Path) -> None:
    with pytest.raises(Quarantine, match="field 'objects' holds dict") as caught:
        look(tmp_path, CAT)
    assert caught.value.reason == "objects are no list"


def test_the_stated_size_and_the_texts_are_fields(tmp_path: Path) -> None:
    params = {"size": "image", "phrase_in": ["captions"]}
    good = {"image": {"width": 200, "height": 100}, "captions": ["A cat sits.", None]}
    assert look(tmp_path, [CAT], params, **good)["boxes_verified"] == 1
    assert look(tmp_path, [CAT], params, **{**good, "image": {"width": 100, "height": 200}})["boxes_frame"] == 1
    assert look(tmp_path, [CAT], params, **{**good, "captions": "A dog."})["boxes_unsaid"] == 1


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(100, 200), "JPEG", exif=exif)
    found = columns_of(measure("boxes"), record(tmp_path, data, objects=[CAT]))
    assert found["verified_boxes"][0]["x1"] == 0.6


def test_a_long_header_does_not_hide_the_size(tmp_path: Path) -> None:
    data = encode(scene(200, 100), "JPEG", comment=b"x" * 60000, exif=b"Exif\0\0" + b"y" * 60000)
    assert columns_of(measure("boxes"), record(tmp_path, data, objects=[CAT]))["boxes_verified"] == 1


def corpus_records() -> list[tuple[dict[str, Any], Record]]:
    import orjson

    from pipeline.media import MediaReader, MediaRef

    root = CORPORA / "grounding"
    rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    reader = MediaReader(str(root))
    return [
        (row, Record(row["sha256"][:32], (MediaRef("image", "file", row["file"]),), orjson.dumps(row), {}, reader))
        for row in rows
        if row["kind"] == "file"
    ]


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
def test_the_boxes_of_real_pictures_are_sound_but_for_small_things_crowds_and_one_elephant() -> None:
    made = Boxes.build({"size": "image"})
    assert isinstance(made, Boxes)
    found: Counter[str] = Counter()
    for row, given in corpus_records():
        values = columns_of(made, given)
        check_row(made.columns, list(values.values()))
        found.update({name: value for name, value in values.items() if type(value) is int})
        counts = Counter(box["label"] for box in values["verified_boxes"])
        sure = {label: count for label, count in counts.items() if label not in values["uncountable"]}
        assert sure.items() <= row["counts"].items()
    assert {name: count for name, count in found.items() if count} == {
        "boxes": 346,
        "boxes_verified": 301,
        "boxes_crowd": 3,
        "boxes_tiny": 41,
        "boxes_whole": 1,
    }
