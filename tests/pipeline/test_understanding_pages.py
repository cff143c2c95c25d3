"""Pages that an engine reads: references held against the reading, and texts for pages that come without one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.embedded import pages
from pipeline.embedded.item import encoded
from pipeline.embedded.picture import Picture
from pipeline.plan import Plan, resolve
from pipeline.recipe import Recipe
from tests.pipeline.pictures import encode, scene
from tests.pipeline.runs import curate, final_states, outcome_of

HERE = Path(__file__).parents[2]
PAGE = HERE / "docs" / "corpora" / "understanding.md"
(ALONE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.S | re.M)
KEPT = ("kept", None)


def shipped(engine: str | None) -> Plan:
    """The recipe `understanding` over pages alone."""
    recipe: dict[str, Any] = yaml.safe_load((HERE / "jobs/recipes/understanding.yaml").read_text())
    recipe["sources"] = {"ocr": recipe["sources"]["ocr"]}
    recipe["nodes"]["reading"]["params"]["engine"] = engine
    return resolve(Recipe.model_validate(recipe), "R")


def drawn() -> dict[str, Picture]:
    """Three pages of other texts."""
    texts = {"mill": pages.PARAGRAPHS[:2], "bees": pages.PARAGRAPHS[2:4], "copper": pages.PARAGRAPHS[4:6]}
    return {name: pages.page(f"read {name}", (560, 420), name.title(), text) for name, text in texts.items()}


def write(root: Path, lines: dict[str, tuple[bytes, str | None]]) -> Path:
    (root / "ocr").mkdir(parents=True)
    with (root / "ocr/manifest.jsonl").open("w") as manifest:
        for name, (data, text) in lines.items():
            (root / "ocr" / name).write_bytes(data)
            line = {"id": name, "kind": "file", "file": name, "text": text, "licence": "MIT"}
            manifest.write(json.dumps(line) + "\n")
    return root


def test_without_an_engine_references_stand_and_the_plan_says_so() -> None:
    plan = shipped(None)
    assert plan.nodes["reading"].missing
    (note,) = plan.nodes["references"].notes
    assert note.startswith("nodes.references.rules.read: skipped")


def test_a_reference_that_the_page_does_not_say_is_dropped(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    made = drawn()
    lines = {name: (encoded(page.image), page.text) for name, page in made.items()}
    lines["bees"] = (lines["bees"][0], made["copper"].text)
    curate(shipped("rapidocr"), write(tmp_path / "root", lines), tmp_path / "store")
    ends = final_states(tmp_path / "store", "understanding")
    assert ends == {"mill": KEPT, "bees": ("dropped", "read"), "copper": KEPT}


def test_a_page_without_a_text_gets_the_one_that_was_read(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    made = drawn()
    plan = resolve(Recipe.model_validate(yaml.safe_load(ALONE)), str(PAGE))
    blur = encoded(made["copper"].image.resize((112, 84)).resize((560, 420)))
    lines: dict[str, tuple[bytes, str | None]] = {
        "mill": (encoded(made["mill"].image), None),
        "bees": (encoded(made["bees"].image), made["bees"].text),
        "photo": (encode(scene(320, 240, 3)), None),
        "blurred": (blur, None),
    }
    curate(plan, write(tmp_path / "root", lines), tmp_path / "store")
    ends = final_states(tmp_path / "store", "understanding_pages")
    assert ends.pop("blurred")[0] == "dropped"
    assert ends == {"mill": KEPT, "bees": ("dropped", "unread"), "photo": ("dropped", "written")}
    read = outcome_of(tmp_path / "store", plan, "reading")["ocr_text"]
    assert any("".join((made["mill"].text or "").split())[:60] in "".join(text.split()) for text in read)
