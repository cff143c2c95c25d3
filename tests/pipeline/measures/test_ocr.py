"""Real readings of drawn pages, and what a reference text that fits or does not fit is told by."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import UserError
from pipeline.measures.ocr import Ocr, character_error_rate, words_read
from pipeline.media import MediaReader
from pipeline.operator import Measure, Quarantine, Record, check_row
from tests.pipeline.pictures import columns_of, encode, measure, record
from tests.pipeline.runs import plan_of
from tests.pipeline.text_pages import LINES, OTHER, page, spoilt


@pytest.fixture(scope="module")
def reader() -> Measure:
    """One engine for all pages here."""
    return measure("ocr", reference="text")


def read(reader: Measure, folder: Path, picture: np.ndarray, text: str | None = None) -> dict[str, Any]:
    given = record(folder, encode(picture), text=text)
    check_row(reader.columns, reader.process(given))
    return columns_of(reader, given)


def test_a_clean_page_is_read_word_for_word(reader: Measure, tmp_path: Path) -> None:
    found = read(reader, tmp_path, page(), "\n".join(LINES))
    assert found["ocr_text"] == "\n".join(LINES)
    assert found["ocr_agreement"] == found["ocr_trusted"] == 1.0
    assert found["ocr_confidence"] > 0.97
    assert (found["reference_cer"], found["reference_words"]) == (0.0, 1.0)
    assert (found["ocr_chars"], found["ocr_unread"], found["ocr_turned"]) == (
        len("".join(LINES).replace(" ", "")),
        0,
        0,
    )
    assert [line["text"] for line in found["ocr_lines"]] == list(LINES)
    # Letters of 20 pixels from 30 pixels on, at every 40, on a page of 560 by 160.
    assert 0.1 < found["text_share"] < 0.4
    for row, line in enumerate(found["ocr_lines"]):
        assert line["x0"] * 560 == pytest.approx(30, abs=8)
        assert (line["y0"] + line["y1"]) * 80 == pytest.approx(42 + 40 * row, abs=6)
        assert line["trusted"]


def test_a_reading_is_the_same_twice(reader: Measure, tmp_path: Path) -> None:
    assert read(reader, tmp_path, page()) == read(measure("ocr", reference="text"), tmp_path, page())


def test_passes_over_a_blurred_and_grainy_page_do_not_agree(reader: Measure, tmp_path: Path) -> None:
    found = read(reader, tmp_path, spoilt(page(LINES[:2]), 2.2, 25), "\n".join(LINES[:2]))
    assert found["ocr_agreement"] < 0.9
    assert found["ocr_trusted"] < 1
    assert found["reference_cer"] > 0.05


def test_the_reference_of_another_page_is_far_from_what_is_read(reader: Measure, tmp_path: Path) -> None:
    found = read(reader, tmp_path, page(), "\n".join(OTHER))
    assert found["ocr_agreement"] == 1.0
    assert found["reference_cer"] > 0.6
    assert found["reference_words"] < 0.3


def test_a_page_without_text_has_none(reader: Measure, tmp_path: Path) -> None:
    found = read(reader, tmp_path, page(()), "something")
    assert found == {
        "ocr_text": "",
        "ocr_lines": [],
        "ocr_agreement": None,
        "ocr_trusted": None,
        "ocr_confidence": None,
        "ocr_chars": 0,
        "text_share": 0.0,
        "ocr_regions": 0,
        "ocr_unread": 0,
        "ocr_turned": 0,
        "reference_cer": 1.0,
        "reference_words": 0.0,
    }


@pytest.mark.parametrize(("quarters", "turned"), [(1, 270), (2, 180)])
def test_a_page_on_its_side_or_head_is_read_and_its_boxes_lie_on_the_picture(
    reader: Measure, tmp_path: Path, quarters: int, turned: int
) -> None:
    found = read(reader, tmp_path, np.rot90(page(), quarters))
    assert (found["ocr_text"], found["ocr_turned"]) == ("\n".join(LINES), turned)
    first = found["ocr_lines"][0]
    middle = ((first["x0"] + first["x1"]) / 2, (first["y0"] + first["y1"]) / 2)
    upright = read(reader, tmp_path, page())["ocr_lines"][0]
    x, y = (upright["x0"] + upright["x1"]) / 2, (upright["y0"] + upright["y1"]) / 2
    assert middle == pytest.approx({1: (y, 1 - x), 2: (1 - x, 1 - y)}[quarters], abs=0.03)


@pytest.mark.parametrize("size", [(1, 1), (4, 300), (40, 40)])
def test_tiny_and_flat_pictures_have_no_text(reader: Measure, tmp_path: Path, size: tuple[int, int]) -> None:
    assert read(reader, tmp_path, np.full((*size, 3), 200, np.uint8))["ocr_chars"] == 0


def test_a_picture_that_cannot_be_decoded_is_set_aside(reader: Measure, tmp_path: Path) -> None:
    with pytest.raises(Quarantine, match="text; it begins with"):
        reader.process(record(tmp_path, b"this is no picture", text=None))


def test_without_the_engine_the_plan_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "rapidocr" else found(name))
    with pytest.raises(UserError) as error:
        plan_of("ocr: {measure: ocr}")
    assert str(error.value) == (
        "R: nodes.ocr: ocr cannot run: rapidocr is not installed; install it with: pip install 'unifactory[ocr]'; "
        "write `requires:` if rules have an `else`"
    )
    nodes = (
        "header: {measure: header}\nocr: {measure: ocr, requires: engine}\nkeep: {decide: rules, needs: [header, ocr], "
    )
    plan = plan_of(nodes + "rules: {read: {keep: ocr_agreement >= 0.9, else: short_side >= 64}}}")
    assert [rule.branch for rule in plan.nodes["keep"].rules] == ["else"]


def test_the_engine_is_part_of_the_fingerprint() -> None:
    parts = Ocr.build({}).fingerprint_parts()
    assert {"rapidocr", "onnxruntime", "PP-OCRv6_rec_small.onnx"} < set(parts)


def matched(values: dict[str, Any]) -> list[Any]:
    given = Record("0" * 32, (), b"{}", values, MediaReader(str(Path())))
    return list(measure("ocr_match", reference="corrected", into="corrected").process(given))


@pytest.mark.parametrize(
    ("corrected", "reading", "expected"),
    [
        ("Two eggs\nTEA", "two  eggs tea", [0.0, 1.0]),
        ("two eggs", "two egg", [0.125, 0.5]),
        ("ab", "a", [0.5, 0.0]),
        ("ab", "", [1.0, 0.0]),
        ("a", "abc", [2.0, 0.0]),
        ("one two", "two one", [6 / 7, 1.0]),
        ("!", "?", [1.0, None]),
        (" ", "a", [None, None]),
        ("", "a", [None, None]),
        (None, "a", [None, None]),
    ],
)
def test_a_text_is_compared_without_regard_to_case_and_breaks(
    corrected: str | None, reading: str, expected: list[float | None]
) -> None:
    assert matched({"corrected": corrected, "ocr_text": reading}) == pytest.approx(expected)


def test_a_reference_that_is_no_text_is_set_aside() -> None:
    with pytest.raises(Quarantine, match="'corrected' holds int"):
        matched({"corrected": 3, "ocr_text": "a"})


@given(st.text(max_size=20), st.text(max_size=20))
def test_error_rates_lie_where_they_may(reference: str, reading: str) -> None:
    rate, words = character_error_rate(reference, reading), words_read(reference, reading)
    assert rate is None or rate >= 0
    assert words is None or 0 <= words <= 1
    assert character_error_rate(reference, reference) in (None, 0.0)
