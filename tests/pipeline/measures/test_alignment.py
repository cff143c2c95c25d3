from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.operator import Quarantine, load_operator
from pipeline.pictures import open_picture
from pipeline.scorers.encoder import load_encoder
from tests.pipeline.conftest import Checkpoints
from tests.pipeline.measures.test_embedding import PICTURES, records
from tests.pipeline.pictures import measure

TEXTS = ["a photo of a red square", None, " \n", "two birds", "Blobs and noise " * 40]
FAMILIES = [("open_clip", "openclip"), ("siglip", "siglip"), ("siglip2", "siglip"), ("clip", "clip")]


@pytest.mark.parametrize(("kind", "family"), FAMILIES)
def test_alignment_is_the_cosine_of_picture_and_text_and_null_without_one(
    tiny: Checkpoints, tmp_path: Path, kind: str, family: Any
) -> None:
    folder, _ = tiny(kind)
    encoder = load_encoder(folder, family, "cpu", texts=True)
    made = measure("alignment", checkpoint=str(folder), family=family, text="caption")
    given = records(tmp_path, PICTURES, caption=TEXTS)
    rows = made.process_batch(given)
    expected: list[Any] = []
    for data, text in zip(PICTURES, TEXTS, strict=True):
        if text is None or not text.strip():
            expected.append(None)
        else:
            picture = encoder.pictures([open_picture(data)])[0].astype(np.float64)
            expected.append(pytest.approx(picture @ encoder.texts([text.strip()])[0].astype(np.float64), abs=1e-12))
    assert [row if isinstance(row, Quarantine) else row[0] for row in rows] == expected
    assert rows[::-1] == made.process_batch(given[::-1])
    assert list(rows) == [made.process(record) for record in given]


def test_a_text_changes_the_score_and_a_picture_without_one_is_not_looked_at(tiny: Checkpoints, tmp_path: Path) -> None:
    made = measure("alignment", checkpoint=str(tiny("siglip")[0]), family="siglip")
    one, other = (made.process(records(tmp_path, PICTURES[:1], text=[text])[0])[0] for text in ("two birds", "fox"))
    assert abs(one - other) > 1e-3
    assert made.process(records(tmp_path, [b"no picture"], text=[None])[0]) == (None,)
    with pytest.raises(Quarantine, match="text"):
        made.process(records(tmp_path, [b"no picture"], text=["a text"])[0])


def test_alignment_reads_its_text_and_declares_a_cosine() -> None:
    made: Any = load_operator("alignment").build({"text": "caption"})
    (column,) = made.columns
    assert made.reads == ("caption",)
    assert (column.name, column.low, column.high, column.better) == ("alignment", -1, 1, "higher")
