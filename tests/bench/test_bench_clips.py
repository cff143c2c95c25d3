from __future__ import annotations

import pytest

from tests.bench import bench_clips


def test_every_figure_of_the_table_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_clips, "SIZES", {"": (160, 90), "_360": (128, 72)})
    monkeypatch.setattr(bench_clips, "SECONDS", 1)
    monkeypatch.setattr(bench_clips, "LENGTHS", (1, 3))
    monkeypatch.setattr(bench_clips, "REPEATS", 1)
    found = {line["name"]: line for line in bench_clips.run()}
    assert set(found) == {"clip_scan_ratio", "clip_scan_ratio_rgb", "clip_scan_ratio_360", "clip_memory_growth"}
    for line in found.values():
        assert {"value", "unit", "target", "holds", "baseline", "n", "repeats", "spread"} <= set(line)
        assert line["value"] > 0
