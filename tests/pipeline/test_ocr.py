"""What docs/corpora/understanding-ocr.md says, run on drawn pages; and corrections by a model, near and far."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jobs.run import load_plan
from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from tests.pipeline.annotations.stub import Reply, Request, said, serve
from tests.pipeline.pictures import encode
from tests.pipeline.runs import curate, final_states, tar_keys, write_manifest
from tests.pipeline.text_pages import LINES, OTHER, page, spoilt

PAGE = Path(__file__).parents[2] / "docs" / "corpora" / "understanding-ocr.md"
ALONE, CORRECTED = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.S | re.M)


def alone(**nodes: Any) -> Plan:
    recipe = yaml.safe_load(ALONE)
    recipe["nodes"] |= nodes
    return resolve(Recipe.model_validate(recipe), "R")


def write_pages(root: Path, pages: dict[str, tuple[np.ndarray, str | None]]) -> None:
    (root / "ocr/files").mkdir(parents=True)
    lines = []
    for number, (name, (picture, text)) in enumerate(pages.items()):
        (root / f"ocr/files/{number}.png").write_bytes(encode(picture))
        given = {} if text is None else {"text": text}
        lines.append({"id": name, "file": f"files/{number}.png", "licence": "MIT", "media": "image", **given})
    write_manifest(root / "ocr", lines)


def test_each_page_gets_the_verdict_it_should(tmp_path: Path) -> None:
    text = "\n".join(LINES)
    pages = {
        "good": (page(), text),
        "unlabelled": (page(LINES[:2]), None),
        "spoilt": (spoilt(page(), 2.6, 30), text),
        "spoilt and unlabelled": (spoilt(page(LINES[:2]), 2.2, 25), None),
        "wrong": (page(LINES[::-1]), "\n".join(OTHER)),
        "blank": (page(()), text),
    }
    write_pages(tmp_path / "root", pages)
    curate(alone(), tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store", "ocr") == {
        "good": ("kept", None),
        "unlabelled": ("kept", None),
        "spoilt": ("dropped", "some"),
        "spoilt and unlabelled": ("dropped", "agreement"),
        "wrong": ("dropped", "reference"),
        "blank": ("dropped", "some"),
    }
    assert len(tar_keys(tmp_path / "store", "ocr")) == 2


def test_a_correction_that_strays_from_the_reading_is_dropped(tmp_path: Path) -> None:
    pages = {"near": (page(LINES[:2]), None), "far": (page(OTHER[:2]), None)}
    write_pages(tmp_path / "root", pages)

    def correct(request: Request) -> Reply:
        assert "An OCR engine read this" in request.text
        near = "\n".join(LINES[:2]).replace("four", "five") if LINES[0] in request.text else "A cat sits on a red sofa."
        return Reply(body=said(near))

    with serve() as server:
        server.behave = correct
        nodes = yaml.safe_load(CORRECTED)
        nodes["corrected"]["params"] |= {"base_url": server.url, "model": "tiny", "revision": "r1", "attempts": 1}
        curate(alone(**nodes), tmp_path / "root", tmp_path / "store")
    assert final_states(tmp_path / "store", "ocr") == {"near": ("kept", None), "far": ("dropped", "stray")}


def test_the_shipped_recipe_reads_pages_with_an_engine_and_says_so_without() -> None:
    for settings, branch in ((["reading.engine=rapidocr"], "keep"), ([], "skip")):
        plan = load_plan("understanding", settings)
        assert {rule.branch for rule in plan.nodes["references"].rules} == {branch}
        assert not [note for node in plan.nodes.values() for note in node.notes if "not range-checked" in note]
