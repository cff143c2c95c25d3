from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import pipeline.embedded.corpus as module
from jobs.run import RECIPES
from pipeline.embedded.corpus import STAMP, Corpus, write_corpus
from tests.pipeline.embedded.conftest import read_lines

Lines = dict[str, list[dict[str, Any]]]
UNREADABLE = {"editing/cut_00__output.jpg", "reasoning/counted_cut.jpg", "video/no_clip.mp4", "video/nothing.mp4"}
"""Files of which a line cannot say sizes."""
SAMPLES = Path(__file__).parents[4] / "shared" / "corpora"


def test_it_is_small_but_not_too_small(corpus: Corpus) -> None:
    assert set(corpus.records) == {"images", "ocr", "grounding", "hostile", "editing", "video", "reasoning", "text"}
    assert 450 <= sum(corpus.records.values()) <= 600
    assert corpus.bytes < 45e6


def test_every_line_names_its_file_by_size_and_digest(corpus: Corpus, lines: Lines) -> None:
    missing = []
    for folder, some in lines.items():
        for line in some:
            path = corpus.folder / folder / line["file"]
            if not path.exists():
                missing.append(line["id"])
                continue
            data = path.read_bytes()
            if line["kind"] == "record":
                one = data.splitlines(keepends=True)[line["line"]]
                assert (json.loads(one)["id"], line["sha256"]) == (line["id"], hashlib.sha256(one).hexdigest())
                continue
            assert (line["bytes"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), line["id"]
    assert missing == ["hostile/not_there.jpg"]


def test_ids_are_unique_and_no_file_is_unnamed(corpus: Corpus, lines: Lines) -> None:
    ids = [line["id"] for some in lines.values() for line in some]
    assert len(ids) == len(set(ids))
    for folder, some in lines.items():
        named = {Path(line["file"]).name for line in some}
        if not (corpus.folder / folder / "files").is_dir():
            assert folder == "text"
            continue
        assert {path.name for path in (corpus.folder / folder / "files").iterdir()} <= named


def test_indices_are_told_of_by_size_and_digest(corpus: Corpus) -> None:
    told = {}
    for folder in corpus.records:
        for line in read_lines(corpus.folder / folder / "manifest.jsonl"):
            if line["kind"] == "index":
                data = (corpus.folder / folder / line["file"]).read_bytes()
                assert (line["bytes"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
                told[folder] = line["file"]
    assert told == {"editing": "pairs.jsonl", "reasoning": "chains.jsonl", "text": "docs.jsonl"}


def test_the_answers_cover_every_way_a_record_can_end(lines: Lines) -> None:
    ends = Counter((end["state"], end["reason"]) for some in lines.values() for line in some
                   for end in line["expected"].values())  # fmt: skip
    assert {state for state, _ in ends} == {"kept", "expanded", "dropped", "duplicate", "quarantined"}
    for rule in ("side", "aspect", "compression", "still", "licence", "no licence", "contrast", "flat", "border",
                 "sharpness", "placeholder", "answer", "repetition", "links", "markup", "blank"):  # fmt: skip
        assert ends["dropped", rule], rule
    for reason in ("truncated image", "broken image", "empty file", "not an image", "too many pixels",
                   "unsupported format", "missing file"):  # fmt: skip
        assert ends["quarantined", reason], reason
    assert ends["duplicate", "exact"]
    assert ends["duplicate", "near"]


def test_copies_name_the_group_of_an_original(lines: Lines) -> None:
    everything = [line for some in lines.values() for line in some]
    stems = {Path(line["file"] if line["kind"] == "file" else line["id"]).stem for line in everything}
    groups = {line["near_dup_group"] for line in everything if "near_dup_group" in line}
    assert groups
    assert groups <= stems


@pytest.mark.corpora
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample corpora beside the project")
def test_lines_have_the_fields_of_the_sample_corpora(lines: Lines) -> None:
    for folder, some in lines.items():
        theirs = [json.loads(line) for line in (SAMPLES / folder / "manifest.jsonl").read_text().splitlines()]
        known = {name for line in theirs for name in line} | {"expected", "derived", "near_dup_group"}
        always = set.intersection(known, *(set(line) for line in theirs if line.get("kind") == "file"))
        for line in some:
            assert set(line) <= known, line["id"]
            unstated = {"licence"} if "/terms" in line["id"] else set()
            lost = {"bytes", "sha256"} if line["id"] == "hostile/not_there.jpg" else set()
            lost |= {"image", "video"} if line["id"] in UNREADABLE else set()
            if line["kind"] != "file":
                continue
            assert always - {"observed"} - unstated - lost <= set(line), line["id"]


def test_pictures_are_as_the_manifest_says(corpus: Corpus, lines: Lines) -> None:
    for folder in ("images", "ocr", "grounding"):
        for line in lines[folder]:
            if line["media"] != "image":
                continue
            with Image.open(corpus.folder / folder / line["file"]) as image:
                stated = line["image"]
                assert (image.width, image.height) == (stated["width"], stated["height"]), line["id"]
                assert (image.mode, image.format) == (stated["mode"], stated["format"]), line["id"]


def test_boxes_lie_inside_and_add_up_to_the_counts(lines: Lines) -> None:
    for line in lines["grounding"]:
        width, height = line["image"]["width"], line["image"]["height"]
        assert line["objects"], line["id"]
        for thing in line["objects"]:
            x, y, w, h = thing["bbox_xywh"]
            assert 0 <= x < x + w <= width + 0.1, line["id"]
            assert 0 <= y < y + h <= height + 0.1, line["id"]
        assert line["counts"] == dict(Counter(thing["label"] for thing in line["objects"]))


PLANTED = {
    "editing": "side proportions instruction leftovers copied related traced changed direction consistency restyled",
    "interleaved": "side aspect duration intact shot black still repeated clarity motion",
    "reasoning": "steps reasoned template repeated pictures leak arithmetic answer repetition encoding",
    "text": "length language letters capitals repetition repeated_lines links encoding mojibake scanning menus whole",
}
"""Rules of the shipped recipes that a record was made for."""


@pytest.mark.parametrize("recipe", PLANTED)
def test_every_rule_has_a_record_that_it_drops(recipe: str, corpus: Corpus) -> None:
    nodes = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["nodes"].values()
    planted = set(PLANTED[recipe].split())
    assert planted <= {name for node in nodes for name in node.get("rules", ())}
    everything = [line for index in corpus.folder.glob("*/*.jsonl") for line in read_lines(index)]
    ends = [line["expected"][recipe] for line in everything if recipe in line.get("expected", ())]
    assert {end["reason"] for end in ends if end["state"] == "dropped"} == {*planted, "licence", "no licence"}
    assert "duplicate" in {end["state"] for end in ends}


def test_another_process_draws_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    code = "import sys, pathlib, pipeline.embedded.corpus as c; c.write_corpus(pathlib.Path(sys.argv[1]))"
    root = Path(module.__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment, cwd=root)
    for name in corpus.records:
        mine, theirs = (folder / name / "manifest.jsonl" for folder in (corpus.folder, tmp_path))
        assert mine.read_bytes() == theirs.read_bytes()


def test_what_is_there_is_not_drawn_again(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Any]:
        raise AssertionError("drawn again")

    monkeypatch.setattr(module, "_FOLDERS", {"images": fail})
    assert write_corpus(corpus.folder) == corpus


def test_a_damaged_file_is_written_anew_and_the_others_keep_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FOLDERS", {"hostile": module._hostile})
    write_corpus(tmp_path)
    files = tmp_path / "hostile" / "files"
    whole, other = files / "truncated_a.jpg", files / "zeros.jpg"
    before, time = whole.read_bytes(), other.stat().st_mtime_ns
    whole.write_bytes(b"gone")
    write_corpus(tmp_path)
    assert whole.read_bytes() == before
    assert other.stat().st_mtime_ns == time


def test_a_corpus_of_another_version_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FOLDERS", {"hostile": module._hostile})
    write_corpus(tmp_path)
    stamp = tmp_path / STAMP
    stated = json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**stated, "maker": "an older one", "records": {"hostile": 1}}))
    assert write_corpus(tmp_path).records == stated["records"]


def test_exact_copies_are_the_same_bytes(corpus: Corpus, lines: Lines) -> None:
    digests = {line["id"]: line["sha256"] for some in lines.values() for line in some if "sha256" in line}
    copies = [name for name in digests if name.endswith("_exact.jpg")]
    assert copies
    for name in copies:
        assert digests[name] == digests[name.replace("_exact", "")]
    assert digests["grounding/harbour_00_again.jpg"] == digests["images/harbour_00.jpg"]


def test_turned_pictures_stand_upright_once_their_orientation_counts(corpus: Corpus) -> None:
    from PIL import ImageOps

    from pipeline.embedded import scenes

    drawn = scenes.landscape("turned_6", (576, 512), scenes.TIMES[1], 4, 1).image
    with Image.open(io.BytesIO((corpus.folder / "images/files/turned_6.jpg").read_bytes())) as stored:
        assert stored.size == (512, 576)
        upright = ImageOps.exif_transpose(stored)
    small, wanted = (image.convert("L").resize((16, 16)).tobytes() for image in (upright, drawn))
    assert max(abs(a - b) for a, b in zip(small, wanted, strict=True)) < 12
