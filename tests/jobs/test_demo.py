from __future__ import annotations

import contextlib
import io
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import catalog
from jobs.demo import RECIPES, demo
from tests.conftest import Shown

# Six recipes over five hundred records, twice.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("demo")]


def expected(root: Path, corpus: str) -> dict[str, tuple[str | None, dict[str, Any]]]:
    """Record id -> (group of copies, how it should end) for the lines that a recipe reads."""
    found = {}
    for manifest in [*sorted(root.glob("*/manifest.jsonl")), root / "editing" / "pairs.jsonl"]:
        for text in manifest.read_text().splitlines():
            line = json.loads(text)
            if corpus in line.get("expected", ()):
                name = line.get("id") or line["pair_id"]
                stem = Path(name if line.get("kind") != "file" else line["file"]).stem
                found[name] = (line.get("near_dup_group", stem), line["expected"][corpus])
    return found


@pytest.mark.parametrize("corpus", RECIPES)
def test_every_record_ends_as_its_manifest_line_says(shown: Shown, corpus: str) -> None:
    """Which of several exact copies is kept is the recipe's choice: the states of a group hold as a set.

    Which of the kept make room for boosted subjects is a hash's choice.
    """
    boosted = ("dropped", "quota other")
    ends = {
        json.loads(row["fields"])["id"]: ("kept", None)
        if (row["state"], row["reason"]) == boosted
        else (row["state"], row["reason"])
        for row in catalog.open(str(shown.store)).records(corpus).collect().iter_rows(named=True)
        if row["place"] is not None  # others are born of these
    }
    wanted = expected(shown.root, corpus)
    assert set(ends) == set(wanted)
    groups: dict[str, tuple[Counter[Any], Counter[Any]]] = defaultdict(lambda: (Counter(), Counter()))
    for name, (group, end) in wanted.items():
        groups[group or name][0][end["state"], end["reason"]] += 1
        groups[group or name][1][ends[name]] += 1
    wrong = {group: (should, did) for group, (should, did) in groups.items() if should != did}
    assert wrong == {}


def test_the_store_is_clean_and_every_kept_record_is_a_sample(shown: Shown) -> None:
    assert shown.result.findings == []
    assert set(shown.result.corpora) == set(RECIPES)
    least = {"generation": 100, "understanding": 100, "editing": 20, "interleaved": 5, "reasoning": 30, "text": 40}
    for name, found in shown.result.corpora.items():
        assert found.samples >= found.kept > least[name]
        left = found.kept + sum(found.dropped.values()) + found.duplicates + sum(found.quarantined.values())
        assert found.inputs + found.born == left + found.expanded + found.merged
        assert found.tokens["text"] > 0
        assert (found.tokens["image"] > 0) == (name != "text")


def test_it_says_what_became_of_the_records_and_where_things_are(shown: Shown) -> None:
    lines = shown.said.splitlines()
    for name, found in shown.result.corpora.items():
        states = (found.kept, sum(found.dropped.values()), found.duplicates, sum(found.quarantined.values()))
        counts = (found.inputs, *states, found.samples, *found.tokens.values())
        assert [name, *(f"{count:,}" for count in counts)] in [line.split() for line in lines]
        for reason, count in {**found.dropped, **found.quarantined}.items():
            assert f"{reason} {count}" in " ".join(shown.said.split())
    for name in RECIPES:
        path = f"shards/{name}/train"
        assert f"{shown.store}/{path}" in shown.said
        assert (shown.store / path / "card.json").is_file()
        assert f"{shown.store}/reports/{name}.html" in shown.said
        assert (shown.store / "reports" / f"{name}.html").is_file()


def test_it_calls_its_stand_ins_stand_ins(shown: Shown) -> None:
    (line,) = [line for line in shown.said.splitlines() if "stand-ins, not the real models" in line]
    for name in ("patch-vq", "embedded-bpe", "metadata"):
        assert name in line


def test_it_says_what_did_not_run_for_want_of_a_model(shown: Shown) -> None:
    said = [line for line in shown.said.splitlines() if line.startswith("not run in ")]
    view = catalog.open(str(shown.store))
    missing = {name: [node for node, facts in view.nodes(name).items() if facts["missing"]] for name in RECIPES}
    assert missing["generation"]
    assert missing["interleaved"]
    for name, nodes in missing.items():
        told = [line for line in said if line.startswith(f"not run in {name}: ")]
        assert len(told) == bool(nodes)
        assert all(f"{node} (" in told[0] for node in nodes)


def test_its_table_fits_a_hundred_columns(shown: Shown) -> None:
    lines = shown.said.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("what became of the records")))
    assert all(len(line.rstrip()) <= 100 for line in lines[start : start + 5 + len(RECIPES)])


def test_a_second_demo_computes_nothing(shown: Shown) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        again = demo(shown.store, 2)
    assert again.operator_calls == shown.result.operator_calls
    assert again.corpora == shown.result.corpora
