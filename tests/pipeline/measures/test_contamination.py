from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.keys import key_of, media_digest
from pipeline.benchmarks import load_index
from pipeline.measures.contamination import TextIndex
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Record, check_row
from tests.pipeline.measures.copies import captioned, cropped, mirrored, recompressed, resized
from tests.pipeline.pictures import CORPORA, columns_of, encode, measure, record, scene
from tests.pipeline.runs import LINES, PICTURES, curate, entry, final_states, plan_of, write_manifest, write_picture
from tests.pipeline.test_benchmarks import QUESTION, write_benchmarks


def name_of(benchmark: str, item: str) -> str:
    return key_of(b"benchmark item", benchmark.encode(), item.encode())


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks") / "b")


def look(benchmarks: Path, tmp_path: Path, data: bytes | None = None, **fields: Any) -> dict[str, Any]:
    made = measure("contamination", benchmarks=str(benchmarks))
    given = record(tmp_path, data, **fields)
    check_row(made.columns, made.process(given))
    return columns_of(made, given)


def test_all_columns_of_a_benchmark_question(benchmarks: Path, tmp_path: Path) -> None:
    assert look(benchmarks, tmp_path, text=f"Here it comes. {QUESTION} So he asked.") == {
        "contaminated": True,
        "text_overlap": 1.0,
        "text_item": name_of("Pantry", "q1"),
        "picture_item": None,
        "picture_distance": None,
        "picture_inliers": None,
        "benchmark": "Pantry",
    }


def test_all_columns_of_a_clean_record(benchmarks: Path, tmp_path: Path) -> None:
    assert look(benchmarks, tmp_path, encode(scene(480, 360, 5)), text="A jar of honey on a shelf.") == {
        "contaminated": False,
        "text_overlap": 0.0,
        "text_item": None,
        "picture_item": None,
        "picture_distance": None,
        "picture_inliers": None,
        "benchmark": None,
    }


@pytest.mark.parametrize(
    ("fields", "overlap"),
    [
        ({"text": QUESTION.upper().replace("?", "")}, 1.0),
        ({"question": QUESTION, "options": ["none", "the green", "the blue"]}, 1.0),
        ({"text": QUESTION.replace("honey", "syrup")}, 6 / 7),
        ({"text": QUESTION.replace("Which of the", "Any of these")}, 4 / 7),
        ({"text": " ".join(QUESTION.split()[:12])}, 0.0),
        ({"text": " ".join(QUESTION.split()[::-1])}, 0.0),
        # A short question: alone, with its answer, and where its words say nothing.
        ({"text": "A photo of a purple otter."}, 1.0),
        ({"text": "This is a photo of a purple otter in a pond."}, 0.0),
        ({"question": "Where is Tibbles?", "answer": "Under the oak table, asleep."}, 1.0),
        ({"question": "Where is Tibbles?", "answer": "In the garden."}, 0.0),
        ({"question": "Where is Tibbles?"}, 0.0),
        ({"answer": "under the oak table"}, 0.0),
        ({"text": "Which bird sings loudest? (1) An owl (2) a wren (3) a crane"}, 1.0),
        ({"question": "Which bird sings loudest?", "answer": "A wren."}, 1.0),
        ({"question": "Which bird sings loudest?", "answer": "A crane."}, 0.0),
        ({"question": "Which bird flies highest?", "options": ["a wren", "a crane", "an owl"]}, 0.0),
        ({"text": "请看：图中左边的篮子里一共有多少个红色的苹果呢？"}, 1.0),
        ({"text": "图中左边的篮子里一共有多少个绿色的梨呢"}, 0.0),
        ({"text": ""}, 0.0),
        ({"text": None, "options": [3, None]}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_much_of_an_item_a_record_holds(
    benchmarks: Path, tmp_path: Path, fields: dict[str, Any], overlap: float
) -> None:
    found = look(benchmarks, tmp_path, **fields)
    assert found["text_overlap"] == pytest.approx(overlap)
    assert found["contaminated"] is (overlap >= 0.5)


def test_runs_do_not_reach_from_one_field_into_the_next(benchmarks: Path, tmp_path: Path) -> None:
    words = QUESTION.split()
    assert look(benchmarks, tmp_path, question=" ".join(words[:12]), answer=" ".join(words[12:]))["text_overlap"] == 0


COPIES: dict[str, Any] = {
    "itself": lambda picture: picture,
    "flipped": mirrored,
    "cropped": lambda picture: cropped(picture, 0.1),
    "cropped to a corner": lambda picture: picture[72:, 96:],
    "cropped and flipped": lambda picture: mirrored(picture[:288, 30:414]),
    "re-encoded": recompressed,
    "half as large": lambda picture: resized(picture, 0.5),
    "with a band": captioned,
    "in a frame": lambda picture: np.pad(picture, ((20, 20), (26, 26), (0, 0))),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_of_a_benchmark_picture_is_contaminated(benchmarks: Path, tmp_path: Path, copy: str) -> None:
    for number in range(3):
        found = look(benchmarks, tmp_path, encode(COPIES[copy](scene(480, 360, 100 + number)), "JPEG", quality=90))
        assert found["contaminated"] is True
        assert found["picture_item"] == name_of("Drawn", f"p{number}")
        assert found["picture_distance"] <= 10
        assert found["picture_inliers"] >= 20
        assert found["benchmark"] == "Drawn"


def test_a_picture_of_a_benchmark_is_found_behind_others(benchmarks: Path, tmp_path: Path) -> None:
    refs = []
    for name, data in (("clean", encode(scene(480, 360, 5))), ("copy", encode(scene(480, 360, 101)))):
        (tmp_path / name).write_bytes(data)
        refs.append(MediaRef("image", "file", name, digest=media_digest(data)))
    made = measure("contamination", benchmarks=str(benchmarks))
    for media in (refs, refs[::-1], [replace(refs[0], role="page"), refs[1]]):
        found = columns_of(made, Record("0" * 32, tuple(media), b"{}", {}, MediaReader(str(tmp_path))))
        assert (found["contaminated"], found["picture_item"]) == (True, name_of("Drawn", "p1"))
    aside = (refs[0], replace(refs[1], role="page"))
    assert columns_of(made, Record("0" * 32, aside, b"{}", {}, MediaReader(str(tmp_path))))["contaminated"] is False


def test_a_near_hash_is_not_enough(benchmarks: Path, tmp_path: Path) -> None:
    # Blurred beyond its key points: the hash is the same, nothing confirms it.
    import cv2

    blurred = cv2.GaussianBlur(scene(480, 360, 100), (0, 0), 16)
    found = look(benchmarks, tmp_path, encode(blurred))
    assert (found["contaminated"], found["picture_item"]) == (False, None)
    assert found["picture_distance"] <= 10
    assert found["picture_inliers"] < 20


def test_the_same_bytes_need_no_key_points(tmp_path: Path) -> None:
    from pipeline.operator import Measure

    flat = encode(np.full((60, 80, 3), (200, 30, 30), np.uint8))
    folder = write_benchmarks(tmp_path / "b", pictures=1)
    (folder / "files/p0.png").write_bytes(flat)
    made = measure("contamination", benchmarks=str(folder))
    assert isinstance(made, Measure)
    (tmp_path / "again.png").write_bytes(flat)
    reader = MediaReader(str(tmp_path))
    given = [
        Record("0" * 32, (MediaRef("image", "file", "again.png", digest=digest),), b"{}", {}, reader)
        for digest in (media_digest(flat), None)
    ]
    assert [columns_of(made, one)["contaminated"] for one in given] == [True, False]


def test_many_records_give_what_each_gives_alone(benchmarks: Path, tmp_path: Path) -> None:
    data = encode(scene(480, 360, 101))
    first = look(benchmarks, tmp_path, data, text=QUESTION)
    look(benchmarks, tmp_path, encode(scene(300, 300, 3)), text="else")
    assert look(benchmarks, tmp_path, data, text=QUESTION) == first
    assert (first["text_item"], first["picture_item"]) == (name_of("Pantry", "q1"), name_of("Drawn", "p1"))
    assert first["benchmark"] == "Pantry"


def test_the_benchmarks_are_part_of_the_fingerprint(benchmarks: Path, tmp_path: Path) -> None:
    other = write_benchmarks(tmp_path / "b", pictures=1)
    parts = [measure("contamination", benchmarks=str(folder)).fingerprint_parts() for folder in (benchmarks, other)]
    assert parts[0] != parts[1]
    assert parts[0] == {"index": load_index(benchmarks).fingerprint}


NODES = """
copies: {measure: contamination, requires: benchmarks, params: {benchmarks: BENCHMARKS, columns: [text], fields: []}}
clean: {decide: rules, needs: [copies], rules: {clean: {keep: contaminated = false, else: skip}}}
"""


def test_a_run_drops_what_is_contaminated_and_without_benchmarks_skips_the_rule(
    benchmarks: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for number in range(3):
        write_picture(root / f"files/{number:03d}.jpg", number, 200)
    (root / "files/002.jpg").write_bytes(encode(mirrored(scene(480, 360, 102)), "JPEG"))
    write_manifest(root, [entry(0), entry(1, text=f"He said: {QUESTION}"), entry(2)])
    plan = plan_of(NODES.replace("BENCHMARKS", str(benchmarks)), PICTURES)
    curate(plan, root, tmp_path / "store")
    kept, dropped = ("kept", None), ("dropped", "clean")
    assert final_states(tmp_path / "store") == {"p000": kept, "p001": dropped, "p002": dropped}
    without = plan_of(NODES.replace("BENCHMARKS", "null"), LINES)
    assert [rule.branch for rule in without.nodes["clean"].rules] == ["skip"]


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="the sample corpora are not beside the project")
def test_every_probe_of_the_sample_benchmarks_is_told() -> None:
    index = TextIndex(load_index(CORPORA / "benchmarks"))
    found: dict[Any, list[bool]] = defaultdict(list)
    for line in (CORPORA / "benchmarks" / "contamination_probes.jsonl").read_text().splitlines():
        probe = json.loads(line)
        found[probe.get("expected_contaminated")].append(index.find([probe["text"]]).overlap >= 0.5)
    assert (len(found[True]), all(found[True])) == (36, True)
    assert (len(found[False]), any(found[False])) == (12, False)
