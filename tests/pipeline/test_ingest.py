"""Ingest: rows become records with keys that follow from their content, and unchanged files are not read again."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import UserError
from catalog.keys import record_key
from catalog.storage import LocalFolder
from catalog.store import Store, create_store
from pipeline.ingest import Ingested, ingest
from pipeline.recipe import Recipe

SOURCE: dict[str, Any] = {"kind": "jsonl", "manifest": "manifest.jsonl", "map": {"text": "text"}}


def recipe(**sources: dict[str, Any]) -> Recipe:
    nodes = {"a": {"decide": "split"}}
    return Recipe.model_validate({"version": 1, "corpus": "c", "sources": sources or {"s": SOURCE}, "nodes": nodes})


def write(root: Path, lines: list[Any], name: str = "manifest.jsonl") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def take_in(folder: Path, what: Recipe | None = None, **given: Any) -> tuple[Store, Ingested]:
    store = create_store(LocalFolder(str(folder / "store")))
    return store, ingest(store, what or recipe(), folder / "root", "r1", lambda count: None, **given)


def records(store: Store) -> list[dict[str, Any]]:
    return store.records("c").read().sort("record_key").to_dicts()


texts = st.lists(st.sampled_from(["a", "b", "c"]), max_size=9)


@given(texts, st.randoms())
@settings(max_examples=10)
def test_keys_follow_from_the_rows_alone(tmp_path_factory: Any, some: list[str], random: Any) -> None:
    keys = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("ingest")
        write(folder / "root", [{"text": text} for text in some])
        rows = records(take_in(folder)[0])
        assert sorted(json.loads(row["fields"])["text"] for row in rows) == sorted(some)
        keys.append([row["record_key"] for row in rows])
        random.shuffle(some)
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == len(some)


@given(texts, texts)
@settings(max_examples=10)
def test_rows_that_stay_keep_their_keys(tmp_path_factory: Any, one: list[str], two: list[str]) -> None:
    folder = tmp_path_factory.mktemp("ingest")
    write(folder / "root", [{"text": text} for text in one])
    before = {row["record_key"] for row in records(take_in(folder)[0])}
    write(folder / "root", [{"text": text} for text in two])
    after = {row["record_key"] for row in records(take_in(folder)[0])}
    both = Counter(one) & Counter(two)
    assert len(before & after) == both.total()
    assert len(after) == len(two)


def test_the_key_of_a_row_is_that_of_its_source_fields_and_digests(tmp_path: Path) -> None:
    write(tmp_path / "root", [{"text": "é", "other": 1}])
    row = records(take_in(tmp_path)[0])[0]
    assert row["record_key"] == row["split_group"] == record_key("s", '{"text":"é"}'.encode(), [], 0)
    assert (row["node"], row["source"], row["place"], row["media"]) == ("ingest", "s", "manifest.jsonl:1", [])


def test_equal_rows_of_two_sources_are_two_records(tmp_path: Path) -> None:
    write(tmp_path / "root", [{"text": "a"}])
    store, found = take_in(tmp_path, recipe(s=SOURCE, t=SOURCE))
    assert found.rows == 2
    assert len({row["record_key"] for row in records(store)}) == 2


# -- media ------------------------------------------------------------------------------------------------------------

MEDIA = recipe(s={**SOURCE, "media": {"image": "file"}})


def pictures(folder: Path, *contents: bytes) -> None:
    (folder / "root").mkdir(parents=True)
    for n, content in enumerate(contents):
        (folder / f"root/{n}.jpg").write_bytes(content)
    write(folder / "root", [{"text": "a", "file": f"{n}.jpg"} for n in range(len(contents))])


def test_files_are_read_once_and_again_only_when_they_change(tmp_path: Path) -> None:
    pictures(tmp_path, b"one", b"two", b"three")
    assert take_in(tmp_path, MEDIA)[1] == Ingested(3, 0, 3)
    version = create_store(LocalFolder(str(tmp_path / "store"))).media_digests().version
    store, found = take_in(tmp_path, MEDIA)
    assert found == Ingested(3, 0, 0)
    assert store.media_digests().version == version
    (tmp_path / "root/1.jpg").write_bytes(b"two, and more")
    os.utime(tmp_path / "root/2.jpg", ns=(5, 5))
    assert take_in(tmp_path, MEDIA)[1] == Ingested(3, 0, 2)
    assert take_in(tmp_path, MEDIA)[1] == Ingested(3, 0, 0)


def test_a_change_within_the_same_size_and_second_is_seen(tmp_path: Path) -> None:
    pictures(tmp_path, b"one")
    before = records(take_in(tmp_path, MEDIA)[0])[0]["record_key"]
    (tmp_path / "root/0.jpg").write_bytes(b"two")
    status = os.stat(tmp_path / "root/0.jpg")
    os.utime(tmp_path / "root/0.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert records(take_in(tmp_path, MEDIA)[0])[0]["record_key"] != before


def test_equal_pictures_share_a_digest_and_never_a_key(tmp_path: Path) -> None:
    pictures(tmp_path, b"same", b"same")
    rows = records(take_in(tmp_path, MEDIA)[0])
    assert len({row["media"][0]["digest"] for row in rows}) == 1
    assert len({row["record_key"] for row in rows}) == 2
    assert {row["media"][0]["length"] for row in rows} == {4}


def test_a_file_that_cannot_be_read_sets_its_row_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    pictures(tmp_path, b"one", b"two")
    plain = hashlib.file_digest

    def failing(file: Any, algorithm: str) -> Any:
        if file.name.endswith("1.jpg"):
            raise OSError(5, "Input/output error")
        return plain(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", failing)
    store, found = take_in(tmp_path, MEDIA)
    assert found == Ingested(2, 1, 2)
    bad = next(row for row in records(store) if row["reason"] is not None)
    assert (bad["reason"], bad["message"]) == ("unreadable file", "1.jpg: Input/output error")
    assert bad["media"][0]["digest"] is None
    monkeypatch.undo()
    assert take_in(tmp_path, MEDIA)[1] == Ingested(2, 0, 1)


# -- bad rows and rows that go ----------------------------------------------------------------------------------------


def test_a_bad_row_is_a_record_that_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/manifest.jsonl").write_bytes(b'{"text": "a"}\nnonsense\n\xff\nnonsense\n{"text": "b"}\n')
    store, found = take_in(tmp_path, recipe(s={**SOURCE, "on_bad_row": "quarantine"}))
    assert (found.rows, found.quarantined) == (5, 3)
    rows = records(store)
    assert Counter(row["reason"] for row in rows) == {None: 2, "not JSON": 2, "broken UTF-8": 1}
    assert len({row["record_key"] for row in rows}) == 5


def test_a_bad_row_stops_the_run_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path / "root", [{"text": "a"}])
    store, _ = take_in(tmp_path)
    before = records(store)
    (tmp_path / "root/manifest.jsonl").write_bytes(b'{"text": "b"}\nnonsense\n')
    with pytest.raises(UserError, match=r"^manifest\.jsonl:2: "):
        take_in(tmp_path)
    assert records(create_store(LocalFolder(str(tmp_path / "store")))) == before


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [(100, 90, False), (100, 89, True), (10, 1, False), (12, 0, True), (9, 0, False), (500, 451, False)],
)
def test_losing_more_than_a_tenth_and_ten_rows_must_be_meant(
    tmp_path: Path, before: int, after: int, refused: bool
) -> None:
    write(tmp_path / "root", [{"text": str(n)} for n in range(before)])
    take_in(tmp_path)
    write(tmp_path / "root", [{"text": str(n)} for n in range(after)])
    if refused:
        with pytest.raises(UserError) as stopped:
            take_in(tmp_path)
        assert str(stopped.value) == (
            f"corpus c: the sources hold {after} rows, {before - after} fewer than at the last run; "
            "if that is meant, run again with --accept-removals"
        )
        assert len(records(create_store(LocalFolder(str(tmp_path / "store"))))) == before
    assert len(records(take_in(tmp_path, accept_removals=True)[0])) == after


def test_a_sample_is_the_same_rows_every_time(tmp_path: Path) -> None:
    write(tmp_path / "root", [{"text": str(n)} for n in range(200)])
    some = [row["record_key"] for row in records(take_in(tmp_path, sample=20)[0])]
    assert len(some) == 20
    write(tmp_path / "root", [{"text": str(n)} for n in reversed(range(200))])
    assert [row["record_key"] for row in records(take_in(tmp_path, sample=20)[0])] == some


def test_memory_holds_a_bucket_not_a_corpus(tmp_path: Path) -> None:
    """Rows reach the table bucket by bucket; each bucket's frame has its own keys alone."""
    from pipeline.ingest import _Spill

    store = create_store(LocalFolder(str(tmp_path / "store")))
    (tmp_path / "spill").mkdir()
    spill = _Spill(tmp_path / "spill", store)
    write(tmp_path / "root", [{"text": str(n % 40)} for n in range(120)])
    from pipeline.ingest import _record

    found = list(recipe().sources["s"].rows(tmp_path / "root"))
    for start in range(0, 120, 50):
        spill.add([_record("s", row) for row in found[start : start + 50]], start)
    spill.close()
    seen: list[str] = []
    for bucket, frame in spill.buckets():
        assert frame["record_key"].str.starts_with(bucket).all()
        seen += frame["record_key"].to_list()
    assert len(seen) == len(set(seen)) == 120
    assert pl.Series(seen).str.len_chars().unique().to_list() == [32]
