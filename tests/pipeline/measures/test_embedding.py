from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record, load_operator
from pipeline.pictures import open_picture
from pipeline.scorers.encoder import load_encoder
from tests.pipeline.conftest import Checkpoints
from tests.pipeline.pictures import cut, encode, measure, scene


def records(root: Path, pictures: list[bytes], **values: list[Any]) -> list[Record]:
    found = []
    for number, data in enumerate(pictures):
        (root / f"{number}").write_bytes(data)
        given = {name: column[number] for name, column in values.items()}
        found.append(
            Record(f"{number:032}", (MediaRef("image", "file", f"{number}"),), b"{}", given, MediaReader(str(root)))
        )
    return found


PICTURES = [encode(scene(70 + number, 90, number), "JPEG") for number in range(5)]


@pytest.mark.parametrize(("kind", "family"), [("open_clip", "openclip"), ("siglip", "siglip"), ("clip", "clip")])
def test_an_embedding_is_the_unit_vector_in_little_endian_float16(
    tiny: Checkpoints, tmp_path: Path, kind: str, family: Any
) -> None:
    folder, _ = tiny(kind)
    encoder = load_encoder(folder, family, "cpu")
    made = measure("embedding", checkpoint=str(folder), family=family)
    rows = made.process_batch(records(tmp_path, PICTURES))
    for row, data in zip(rows, PICTURES, strict=True):
        assert not isinstance(row, Quarantine)
        (stored,) = row
        vector = np.frombuffer(stored, "<f2")
        assert vector.shape == (encoder.width,)
        assert abs(np.linalg.norm(vector.astype(np.float64)) - 1) < 1e-3
        assert np.array_equal(vector, encoder.pictures([open_picture(data)])[0].astype(np.float16))


def test_a_broken_picture_costs_its_neighbours_nothing(tiny: Checkpoints, tmp_path: Path) -> None:
    made = measure("embedding", checkpoint=str(tiny("clip")[0]), family="clip")
    given = [PICTURES[0], cut(PICTURES[1], 0.3), b"no picture", PICTURES[2]]
    rows = made.process_batch(records(tmp_path, given))
    said = [row.reason if isinstance(row, Quarantine) else "fine" for row in rows]
    assert said == ["fine", "truncated image", "not an image", "fine"]
    alone = [made.process(record) for record in records(tmp_path, [PICTURES[0], PICTURES[2]])]
    assert [rows[0], rows[3]] == alone


def test_a_network_that_fails_is_a_quarantine_and_no_embedding(tiny: Checkpoints, tmp_path: Path) -> None:
    made: Any = measure("embedding", checkpoint=str(tiny("siglip")[0]), family="siglip")
    made._network.network.vision_model.post_layernorm.weight.data[0] = float("nan")
    (row,) = made.process_batch(records(tmp_path, PICTURES[:1]))
    assert (row.reason, str(row)) == ("non-finite value", "the network's output is not finite")
    with pytest.raises(Quarantine, match="the network's output is not finite"):
        made.process(records(tmp_path, PICTURES[:1])[0])


def test_packages_are_those_of_the_family() -> None:
    kind = load_operator("embedding")
    assert set(kind.build({"family": "openclip"}).packages.values()) == {"openclip"}
    assert set(kind.build({"family": "siglip"}).packages.values()) == {"transformers"}
    assert kind.build({}).missing == "no checkpoint is given for 'embedding'"
