from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import bench_measures
from tests.bench.bench_measures import alternate, figure, run, write_jpegs


def test_every_figure_of_the_table_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_measures, "SIZES", (512,))
    monkeypatch.setattr(bench_measures, "REPEATS", 1)
    found = {line["name"]: line for line in run(copies=1)}
    assert set(found) == {
        "header_ratio",
        "pixels_ratio",
        "pixels_ratio_512",
        "phash_vs_library",
        "measures_vs_library",
    }
    for line in found.values():
        assert {"value", "unit", "target", "holds", "baseline", "n", "repeats", "spread"} <= set(line)
        assert line["value"] > 0


def test_the_pictures_of_a_bench_are_the_same_every_time(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        made.append([folder.joinpath(file).read_bytes() for file in write_jpegs(folder, [64, 96], 2)])
    assert made[0] == made[1]
    assert len(set(made[0])) == 4


def test_a_ratio_is_theirs_over_ours_and_its_target_is_a_floor() -> None:
    line = figure("x", 2.0, [(1.0, 3.0), (1.0, 2.0), (2.0, 2.0)], 1, "them")
    assert (line["value"], line["holds"], line["spread"], line["repeats"]) == (2.0, True, [1.0, 3.0], 3)
    assert not figure("x", 2.1, [(1.0, 2.0)], 1, "them")["holds"]


def test_both_sides_see_every_file_once_a_pass() -> None:
    ours: list[str] = []
    theirs: list[str] = []
    passes = alternate(ours.append, theirs.append, ["a", "b"], repeats=3)
    assert len(passes) == 3
    assert ours == theirs == ["a", "b"] * 4
