from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import bench_contamination
from tests.bench.bench_contamination import Corpus, measured, run, shuffled, write_benchmarks
from tests.pipeline.pictures import encode, scene


def small(folder: Path) -> Corpus:
    """Two pictures to find, one to leave, one question."""
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(scene(320, 240, number)))
    item = {"id": "q", "benchmark": "B", "question": "How many legs do four spiders have?", "options": ["8", "32"]}
    return Corpus([item], paths[:2], paths[2:], [["Four spiders sit in a web."]])


def test_both_figures_are_reported_with_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_contamination, "sample_corpus", lambda root: small(tmp_path))
    monkeypatch.setattr(bench_contamination, "embedded_corpus", lambda root: small(tmp_path))
    recall, alarms = run()
    assert (recall["name"], recall["value"], recall["holds"], recall["missed"]) == ("contamination_recall", 1, True, [])
    assert recall["by_kind"] == {
        **{f"text_{kind}": "1/1" for kind in ("exact", "option_order", "case_and_punctuation", "in_a_document")},
        **{f"picture_{kind}": "2/2" for kind in ("exact", *bench_contamination.PICTURE_FORMS)},
    }
    assert (alarms["name"], alarms["value"], alarms["n"]) == ("contamination_false_alarms", 0, 2)


def test_a_contaminated_clean_set_and_a_lost_item_would_show(tmp_path: Path) -> None:
    from pipeline.benchmarks import load_index

    corpus = small(tmp_path)
    write_benchmarks(tmp_path / "b", corpus)
    corpus.clean_texts.append(["how many legs do four spiders have"])
    corpus.clean_pictures.append(corpus.pictures[0])
    corpus.items.append({"id": "new", "question": "Which colour has the third wheel of the cart in the yard?"})
    recall, alarms = measured(corpus, load_index(tmp_path / "b"))
    assert recall["missed"] == ["text_exact new", "text_case_and_punctuation new", "text_in_a_document new"]
    assert len(alarms["alarms"]) == 2
    assert not alarms["holds"]


def test_options_change_their_order_the_same_way_every_time() -> None:
    options = ["red", "green", "blue", "white"]
    assert shuffled(options, "a") == shuffled(options, "a")
    assert len({shuffled(options, str(seed)) for seed in range(20)}) > 5
