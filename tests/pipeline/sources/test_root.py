from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.base import BadRow
from pipeline.sources.root import MediaRoot

PARTS = st.lists(st.sampled_from(["", ".", "..", "a", "b c", "x.jpg", "..."]), min_size=1, max_size=8).map("/".join)


def test_a_neighbour_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    neighbour = root.parent / "root2"
    neighbour.mkdir()
    (neighbour / "secret.jpg").write_bytes(b"x")
    (root / "link.jpg").symlink_to(neighbour / "secret.jpg")
    (root / "folder").symlink_to(neighbour)
    for path in ("link.jpg", "folder/secret.jpg", "../root2/secret.jpg"):
        with pytest.raises(BadRow) as refused:
            MediaRoot(root).file(path)
        assert refused.value.reason == "path leaves the root"


def test_a_chain_of_links_is_judged_by_its_end(root: Path) -> None:
    (root / "one.jpg").symlink_to("two.jpg")
    (root / "two.jpg").symlink_to(root.parent / "outside.jpg")
    (root / "good.jpg").symlink_to("better.jpg")
    (root / "better.jpg").symlink_to("images/files/a.jpg")
    with pytest.raises(BadRow, match="is a link that leads outside the root"):
        MediaRoot(root).file("one.jpg")
    assert MediaRoot(root).file("good.jpg") == "good.jpg"


def test_links_in_a_circle_are_refused(root: Path) -> None:
    (root / "one.jpg").symlink_to("two.jpg")
    (root / "two.jpg").symlink_to("one.jpg")
    with pytest.raises(BadRow):
        MediaRoot(root).file("one.jpg")


@given(path=PARTS, folder=st.sampled_from(["", "a", "a/b c"]))
def test_a_cleaned_path_never_points_above_the_root(path: str, folder: str) -> None:
    try:
        cleaned = MediaRoot(Path("/nowhere/root")).clean(path, folder)
    except BadRow:
        return
    real = os.path.normpath(f"/nowhere/root/{cleaned}")
    assert real == "/nowhere/root" or real.startswith("/nowhere/root/")
    assert cleaned == os.path.normpath(cleaned)


def test_a_checked_file_costs_one_look(root: Path) -> None:
    media_root = MediaRoot(root)
    media_root.file("images/files/a.jpg")
    start = time.process_time()
    for _ in range(10_000):
        media_root.file("files/a.jpg", "images")
    assert (time.process_time() - start) / 10_000 < 20e-6
