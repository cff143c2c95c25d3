"""Records born on the way: one into three, three into one. Books, lineage, splits and caching hold for them too."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.audit import audit
from catalog.errors import UserError
from catalog.keys import key_of
from catalog.store import open_store
from catalog.view import open_view
from model.grammar import check
from pipeline.curate import Finished
from pipeline.decide import components
from pipeline.plan import Plan
from tests.pipeline.doom import Crash, Doom
from tests.pipeline.runs import (
    LINES,
    PICTURES,
    counted,
    curate,
    entry,
    final_states,
    noted,
    plan_of,
    shard_files,
    snapshots,
    tar_keys,
    workers,
    write_manifest,
    write_picture,
)
from tests.toys import CALLS, calls_noted

EXPAND = """
score: {measure: 'tests.toys:Score'}
fine: {decide: rules, needs: [score], rules: {fine: score > 0.1}}
parts: {expand: 'tests.toys:ThreeParts', needs: [fine]}
again: {measure: 'tests.toys:Score', needs: [parts], params: {shift: 1}}
"""
MERGE = """
scenes: {merge: 'tests.toys:Together'}
last: {measure: 'tests.toys:Beauty', needs: [scenes]}
"""
BOTH = """
parts: {expand: 'tests.toys:ThreeParts'}
scenes: {merge: 'tests.toys:Together', needs: [parts]}
split: {decide: split, needs: [scenes], test: 0.5}
encode: {encode: text_to_image, needs: [split], params: {prompt: text, resolution: 128}}
shards: {pack: webdataset, needs: [encode]}
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which toys note their calls."""
    path = tmp_path / "calls"
    monkeypatch.setenv(CALLS, str(path))
    return path


class Here:
    """A root with lines and a store, for one plan."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.root, self.store, self.plan = folder / "root", folder / "store", plan

    def run(self, *lines: dict[str, Any], **given: Any) -> Finished:
        write_manifest(self.root, lines)
        done = curate(self.plan, self.root, self.store, **given)
        for book in done.books:
            book.check()
        return done

    def records(self) -> dict[str, dict[str, Any]]:
        """Records by the id in their fields."""
        import json

        rows = open_store(str(self.store)).records("tiny").read().to_dicts()
        found = {json.loads(row["fields"])["id"]: row for row in rows}
        assert len(found) == len(rows)
        return found

    def edges(self) -> set[tuple[str, str, str, int, str]]:
        """(child, parent, role, ordinal, node), by ids."""
        names = {row["record_key"]: name for name, row in self.records().items()}
        rows = open_store(str(self.store)).lineage("tiny").read().to_dicts()
        found = {(names[r["record_key"]], names[r["parent"]], r["role"], r["ordinal"], r["node"]) for r in rows}
        assert len(found) == len(rows)
        return found

    def states(self) -> dict[str, tuple[str, str | None]]:
        return final_states(self.store)


def line(n: int, **given: Any) -> dict[str, Any]:
    """A line of scene n // 3."""
    return entry(n, **given)


def merged(*numbers: int) -> str:
    return "+".join(f"p{n:03d}" for n in numbers)


# -- one into three ---------------------------------------------------------------------------------------------------


def test_one_record_becomes_three(tmp_path: Path, calls: Path) -> None:
    here = Here(tmp_path, plan_of(EXPAND, LINES))
    done = here.run(line(1), line(2, do="raise"), line(3))
    parts = {f"p{n:03d}.{part}" for n in (1, 3) for part in range(3)}
    assert here.states() == {
        **dict.fromkeys(["p001", "p003"], ("expanded", None)),
        "p002": ("quarantined", "ValueError"),
        **dict.fromkeys(parts, ("kept", None)),
    }
    books = {book.node: (book.inputs, book.born, dict(book.counts)) for book in done.books}
    assert books["parts"] == (2, 6, {"expanded": 2, "passed": 6})
    assert books["again"] == (6, 0, {"passed": 6})
    assert done.final == {"expanded": 2, "kept": 6, "quarantined": 1}
    assert here.edges() == {(f"p{n:03d}.{p}", f"p{n:03d}", "part", p, "parts") for n in (1, 3) for p in range(3)}
    assert noted(calls) == {"toy_score": 3 + 6, "toy_three": 2}


def test_children_stand_in_the_split_group_of_their_root(tmp_path: Path) -> None:
    here = Here(tmp_path, plan_of(EXPAND, LINES))
    here.run(line(1), line(2))
    records = here.records()
    for name, row in records.items():
        root = records[name.partition(".")[0]]
        assert row["split_group"] == root["record_key"]
        assert row["source"] == "lines"
        assert row["node"] == ("parts" if "." in name else "ingest")


def test_running_again_calls_nothing(tmp_path: Path, calls: Path) -> None:
    here = Here(tmp_path, plan_of(EXPAND, LINES))
    here.run(line(1), line(2))
    calls.unlink()
    done = here.run(line(1), line(2))
    assert not calls.exists()
    assert done.timings == {}
    assert snapshots(here.store) == 1


def test_a_record_may_become_none_and_one_that_fails_bears_nothing(tmp_path: Path) -> None:
    here = Here(tmp_path, plan_of(EXPAND.replace("score > 0.1", "score IS NULL OR score > 0.1"), LINES))
    here.run(line(1, do="childless"), line(2, do="quarantine"), line(3))
    states = here.states()
    assert states["p001"] == ("expanded", None)
    assert states["p002"] == ("quarantined", "too odd")
    assert sum(state == ("kept", None) for state in states.values()) == 3


def test_children_leave_and_return_with_their_parent_without_a_call(tmp_path: Path, calls: Path) -> None:
    here = Here(tmp_path, plan_of(EXPAND, LINES))
    here.run(line(1), line(2, do="negative"), line(3))
    before = here.records()
    calls.unlink()
    here.plan = plan_of(EXPAND.replace("score > 0.1", "score > 0.9"), LINES)
    here.run(line(1), line(2, do="negative"), line(3))
    assert set(here.records()) == {"p001", "p002", "p003"}
    assert here.edges() == set()
    here.plan = plan_of(EXPAND, LINES)
    here.run(line(1), line(2, do="negative"), line(3))
    assert here.records() == before
    assert not calls.exists()


def test_children_of_a_record_that_leaves_its_source_are_gone(tmp_path: Path, calls: Path) -> None:
    here = Here(tmp_path, plan_of(EXPAND, LINES))
    here.run(line(1), line(2))
    calls.unlink()
    here.run(line(2))
    assert set(here.records()) == {"p002", "p002.0", "p002.1", "p002.2"}
    assert {parent for _, parent, *_ in here.edges()} == {"p002"}
    assert not calls.exists()


# -- three into one ---------------------------------------------------------------------------------------------------


def test_three_records_become_one(tmp_path: Path, calls: Path) -> None:
    here = Here(tmp_path, plan_of(MERGE, LINES))
    done = here.run(*(line(n) for n in range(6)))
    assert here.states() == {
        **{f"p{n:03d}": ("merged", None) for n in range(6)},
        merged(0, 1, 2): ("kept", None),
        merged(3, 4, 5): ("kept", None),
    }
    books = {book.node: (book.inputs, book.born, dict(book.counts)) for book in done.books}
    assert books["scenes"] == (6, 2, {"merged": 6, "passed": 2})
    assert here.edges() == {
        (merged(*scene), f"p{n:03d}", "scene", 0, "scenes") for scene in ((0, 1, 2), (3, 4, 5)) for n in scene
    }
    records = here.records()
    for scene in ((0, 1, 2), (3, 4, 5)):
        least = min(records[f"p{n:03d}"]["record_key"] for n in scene)
        assert records[merged(*scene)]["split_group"] == least
    assert noted(calls) == {"toy_together": 2, "toy_beauty": 2}
    assert counted(here.store) == {"scenes": 2, "last": 2}


def test_only_groups_that_change_are_merged_again(tmp_path: Path, calls: Path) -> None:
    here = Here(tmp_path, plan_of(MERGE, LINES))
    here.run(*(line(n) for n in range(6)))
    calls.unlink()
    here.run(*(line(n) for n in range(6)))
    assert not calls.exists()
    assert snapshots(here.store) == 1
    # One more in the first scene, one less in the second.
    here.run(line(0), line(1), line(2), line(9, scene="s0"), line(3), line(4))
    keys = {name: row["record_key"] for name, row in here.records().items()}
    assert [operator for operator, _ in calls_noted(calls)].count("toy_together") == 2
    assert set(here.records()) == {
        *(f"p{n:03d}" for n in (0, 1, 2, 3, 4, 9)),
        merged(0, 1, 2, 9),
        merged(3, 4),
    }
    assert {child for child, *_ in here.edges()} == {merged(0, 1, 2, 9), merged(3, 4)}
    # And back: the old groups are known still.
    calls.unlink()
    here.run(*(line(n) for n in range(6)))
    assert not calls.exists()
    assert keys.keys() != here.records().keys()


def test_a_group_that_fails_is_set_aside_with_all_its_members(tmp_path: Path) -> None:
    here = Here(tmp_path, plan_of(MERGE, LINES))
    here.run(line(0), line(1, do="raise"), line(2), line(3), line(4), line(5, scene=None))
    assert here.states() == {
        **{f"p{n:03d}": ("quarantined", "ValueError") for n in range(3)},
        **{f"p{n:03d}": ("merged", None) for n in (3, 4)},
        "p005": ("dropped", "no group"),
        merged(3, 4): ("kept", None),
    }


@pytest.mark.parametrize("name", ["group", "keys", "parents", "birth"])
def test_the_field_that_groups_may_have_any_name(tmp_path: Path, name: str) -> None:
    source = {**LINES, "map": {"id": "id", "do": "do", name: "scene"}}
    here = Here(tmp_path, plan_of(MERGE.replace("Together'", f"Together', params: {{by: {name}}}"), source))
    here.run(*(line(n) for n in range(6)))
    assert {merged(0, 1, 2), merged(3, 4, 5)} <= set(here.records())


def test_a_measure_may_read_a_field_called_group(tmp_path: Path) -> None:
    source = {**LINES, "map": {"id": "id", "do": "do", "group": "scene"}}
    here = Here(tmp_path, plan_of("a: {measure: 'tests.toys:ReadsGroup'}", source))
    here.run(*(line(n) for n in range(6)))
    assert set(here.states().values()) == {("kept", None)}


# -- both -------------------------------------------------------------------------------------------------------------


def with_pictures(tmp_path: Path, *numbers: int) -> Here:
    here = Here(tmp_path, plan_of(BOTH, PICTURES))
    for n in numbers:
        write_picture(here.root / f"files/{n:03d}.jpg", n, 150)
    return here


def test_parts_of_scenes_become_samples(tmp_path: Path, calls: Path) -> None:
    here = with_pictures(tmp_path, *range(6))
    lines = [line(n) for n in range(6)]
    done = here.run(*lines)
    books = {book.node: (book.inputs, book.born, dict(book.counts)) for book in done.books}
    assert books["parts"] == (6, 18, {"expanded": 6, "passed": 18})
    assert books["scenes"] == (18, 2, {"merged": 18, "passed": 2})
    assert done.final == {"expanded": 6, "merged": 18, "kept": 2}
    assert len(tar_keys(here.store)) == 2
    assert audit(open_view(str(here.store)), check).findings == []
    files = shard_files(here.store)
    calls.unlink()
    here.run(*lines)
    assert not calls.exists()
    assert (snapshots(here.store), shard_files(here.store)) == (1, files)
    here.store = tmp_path / "other"
    here.run(*reversed(lines), engine=workers(2))
    assert shard_files(here.store) == files


@pytest.mark.parametrize("point", [12, 20, 30, 40, 50])
def test_a_crash_while_records_are_born_costs_nothing(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    here = with_pictures(tmp_path, *range(6))
    lines = [line(n) for n in range(6)]
    here.run(*lines)
    wanted = (shard_files(here.store), here.states(), here.edges())
    here.store = tmp_path / "crashed"
    calls.unlink()
    doom = Doom(monkeypatch)
    doom.at, doom.before = point, bool(point % 4)
    with pytest.raises(Crash):
        here.run(*lines)
    doom.live()
    here.run(*lines)
    assert (shard_files(here.store), here.states(), here.edges()) == wanted
    assert noted(calls)["toy_three"] <= 6 + 2
    assert noted(calls)["toy_together"] <= 2 + 1


# -- splits -----------------------------------------------------------------------------------------------------------


def test_everything_born_of_one_root_has_one_split(tmp_path: Path) -> None:
    nodes = EXPAND + "split: {decide: split, needs: [again], test: 0.4, validation: 0.3}"
    here = Here(tmp_path, plan_of(nodes, LINES))
    here.run(*(line(n) for n in range(30)))
    assert len(Counter(_splits(here).values())) == 3
    of_root = defaultdict(set)
    for name, split in _splits(here).items():
        of_root[name.partition(".")[0]].add(split)
    assert all(len(some) == 1 for some in of_root.values())


def _splits(here: Here) -> dict[str, str]:
    from pipeline.flow import Flow

    opened = open_store(str(here.store))
    names = {row["record_key"]: name for name, row in here.records().items()}
    found = {}
    for node in here.plan.nodes:
        if getattr(here.plan.recipe.nodes[node], "decide", "") == "split":
            rows = Flow(opened, here.plan).verdicts(node).read(["record_key", "value"]).rows()
            found |= {names[key]: value for key, value in rows}
    return found


TWICE = """
split_scenes: {decide: split, needs: [scenes], test: 0.5}
split_pairs: {decide: split, needs: [pairs], test: 0.5}
scenes: {merge: 'tests.toys:Together', params: {by: scene}}
pairs: {merge: 'tests.toys:Together', params: {by: do}}
"""


def test_no_picture_stands_on_both_sides_of_a_split_when_groups_overlap(tmp_path: Path) -> None:
    """Scenes tie records together, and so do pairs: what is tied by either has one split."""
    here = Here(tmp_path, plan_of(TWICE, LINES))
    # Scenes of three; the other groups tie three scenes each to a block of nine.
    lines = [line(n, do=f"group {n // 9} {'adbbdccda'[n % 9]}") for n in range(72)]
    here.run(*lines)
    splits = _splits(here)
    of_block = defaultdict(set)
    for name, split in splits.items():
        for member in name.split("+"):
            of_block[int(member[1:]) // 9].add(split)
    assert len(of_block) == 8
    assert all(len(some) == 1 for some in of_block.values())
    assert len({split for some in of_block.values() for split in some}) == 2
    here.run(*lines)
    assert snapshots(here.store) == 1


def test_nothing_is_born_below_a_split(tmp_path: Path) -> None:
    """It would have none, or one of its own."""
    with pytest.raises(UserError) as refused:
        plan_of(
            """
            split: {decide: split, test: 0.5}
            parts: {expand: 'tests.toys:ThreeParts', needs: [split]}
            encode: {encode: text_to_image, needs: [parts], params: {prompt: text, resolution: 128}}
            shards: {pack: webdataset, needs: [encode]}
            """
        )
    assert (
        str(refused.value)
        == "R: nodes.parts: bears records below nodes.split, which gives them no split; split below it"
    )


groups = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=8)


@given(groups)
@settings(max_examples=60)
def test_components_are_what_touches(some: list[list[int]]) -> None:
    keys = [key_of(b"%d" % n) for n in range(10)]
    found = components([[keys[n] for n in group] for group in some])
    # The oracle: spread the least key until nothing changes.
    least = {key: key for key in keys}
    for _ in keys:
        for group in some:
            low = min(least[keys[n]] for n in group)
            for n in group:
                least[keys[n]] = low
    assert {key: found.get(key, key) for key in keys} == least
    assert all(key != low for key, low in found.items())
