"""The measure on a source, a target and references: its columns, its roles, what it sets aside."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.embedded.pairs import EditPair, edit_pair
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, cut, encode, measure, scene


def pair_of(root: Path, /, **media: bytes) -> Record:
    """A record with one medium for each role."""
    refs = []
    for role, data in media.items():
        (root / role).write_bytes(data)
        refs.append(MediaRef(role, "file", role))
    return Record("0" * 32, tuple(refs), b"{}", {}, MediaReader(str(root)))


def look(root: Path, pair: EditPair | None = None, /, **media: bytes) -> dict[str, Any]:
    made = measure("pair")
    given = pair_of(root, **({"source": pair.source, "target": pair.target} if pair else {}), **media)
    check_row(made.columns, made.process(given))
    return columns_of(made, given)


def test_an_added_thing_is_one_small_compact_change_on_the_same_picture(tmp_path: Path) -> None:
    found = look(tmp_path, edit_pair("added", 0))
    assert found["pair_match"] > 0.9
    assert found["structure"] > 10
    assert 0.005 < found["change_share"] < 0.06
    assert found["change_parts"] == 1
    assert found["outside_difference"] < 2 > found["drift"]
    assert found["outline_gain"] > 0.2
    assert (found["moved"], found["overlap"], found["references"], found["copied"]) == (0, 1, 0, None)


def test_an_unrelated_target_has_neither_match_nor_structure(tmp_path: Path) -> None:
    found = look(tmp_path, edit_pair("unrelated", 0))
    assert found["pair_match"] < 0.6
    assert found["structure"] < 10
    assert found["aspect_difference"] < 0.01


def test_sizes_and_proportions_are_those_of_the_files(tmp_path: Path) -> None:
    found = look(tmp_path, source=encode(scene(400, 300)), target=encode(scene(600, 150)), style=encode(scene(90, 80)))
    assert found["least_side"] == 80
    assert found["aspect_difference"] == pytest.approx(math.log(3))
    assert found["pair_scale"] == pytest.approx(math.sqrt(0.75))
    assert found["references"] == 1


def test_a_second_source_is_a_reference(tmp_path: Path) -> None:
    data = [encode(scene(200, 150, number)) for number in range(3)]
    one = pair_of(tmp_path, source=data[0], reference=data[1], target=data[2])
    two = replace(one, media=tuple(replace(ref, role=ref.role.replace("reference", "source")) for ref in one.media))
    assert measure("pair").process(two) == measure("pair").process(one)


def test_a_target_that_is_its_reference_is_copied(tmp_path: Path) -> None:
    source, target = encode(scene(400, 300, 1)), encode(scene(400, 300, 2))
    again = encode(scene(400, 300, 2), "JPEG", quality=80)
    other = encode(scene(300, 300, 3))
    assert look(tmp_path, source=source, target=target, first=other)["copied"] < 0.5
    assert look(tmp_path, source=source, target=target, first=other, second=again)["copied"] > 0.9
    assert look(tmp_path, source=source, target=target, first=source)["copied"] < 0.5


@pytest.mark.parametrize("role", ["source", "target", "reference"])
def test_any_picture_that_cannot_be_decoded_sets_the_pair_aside(tmp_path: Path, role: str) -> None:
    media = {name: encode(scene(200, 150), "JPEG") for name in ("source", "target", "reference")}
    media[role] = cut(media[role], 0.5)
    with pytest.raises(Quarantine) as caught:
        measure("pair").process(pair_of(tmp_path, **media))
    assert caught.value.reason == "truncated image"


def test_a_pair_without_its_target_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(Quarantine, match="no medium with the role 'target'"):
        measure("pair").process(pair_of(tmp_path, source=encode(scene(200, 150))))


def test_roles_may_have_other_names(tmp_path: Path) -> None:
    picture = encode(scene(200, 150))
    made = measure("pair", source="before", target="after")
    assert columns_of(made, pair_of(tmp_path, before=picture, after=picture))["change_share"] == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 3)])
def test_tiny_and_thin_pictures_have_figures_in_range(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert look(tmp_path, source=encode(noise), target=encode(scene(64, 64)))["change_share"] > 0
    assert look(tmp_path, source=encode(noise), target=encode(noise))["change_share"] == 0
