"""Reading a mixture: every copy once an epoch whatever the ranks, from any position, and with stock webdataset too."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import webdataset

from catalog.errors import UserError
from catalog.mixture_samples import MixtureReader, samples
from catalog.mixtures import stage_facts
from catalog.shards import ShardDamage
from catalog.storage import open_storage
from catalog.store import Store
from catalog.view import View, open_view
from jobs.run import find_recipe
from pipeline.sets import load_set
from tests.jobs.sets import TinySet, write_set
from tests.pipeline.runs import curate, live_tars


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinySet:
    """A store with mixtures; nobody changes it."""
    tiny = write_set(tmp_path_factory.mktemp("read"))
    tiny.write(lambda data: data["stages"]["first"]["parts"]["images"].update(epochs=2, weight=4))
    tiny.curate()
    tiny.mix()
    return tiny


@pytest.fixture
def copied(made: TinySet, tmp_path: Path) -> TinySet:
    """A copy of it that may be changed."""
    shutil.copytree(made.folder, tmp_path / "copy")
    return TinySet(tmp_path / "copy")


def wanted(made: TinySet, stage: str = "first") -> dict[str, int]:
    return dict(made.view.mixture(stage).select("sample_key", "copies").collect().rows())


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_copy_comes_once_an_epoch_over_all_ranks(made: TinySet, world: int) -> None:
    reader = MixtureReader(made.view, "first")
    ranks = [list(reader.epoch(seed=5, epoch=1, rank=rank, world=world)) for rank in range(world)]
    assert Counter(one.key for rank in ranks for one in rank) == wanted(made)
    assert max(wanted(made).values()) > 1
    positions = sorted(one.position for rank in ranks for one in rank)
    assert positions == list(range(len(reader)))
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
    for start in (0, 5):
        later = reader.epoch(seed=5, epoch=1, rank=world - 1, world=world, start=start)
        assert all(one.position >= start and one.position % world == world - 1 for one in later)


def test_the_order_is_the_same_for_any_number_of_ranks_and_from_any_position(made: TinySet) -> None:
    reader = MixtureReader(made.view, "first")
    whole = [one.key for one in reader.epoch(seed=5)]
    for world, start in ((1, 7), (3, 6), (3, 7), (5, 20)):
        rest = {one.position: one.key for rank in range(world) for one in reader.epoch(5, 0, rank, world, start)}
        assert [rest[position] for position in sorted(rest)] == whole[start:]


def test_seed_and_epoch_decide_the_order(made: TinySet) -> None:
    reader = MixtureReader(made.view, "first")
    orders = [[one.key for one in reader.epoch(*pair)] for pair in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3
    # Known by heart: another order would make a run that goes on read some samples twice and others never.
    texts = [one.key[:4] for one in reader.epoch() if one.part == "text"]
    assert texts[:4] == ["aece", "3f09", "1af5", "b747"]


def test_a_sample_is_what_its_tar_holds(made: TinySet) -> None:
    place = [
        str(made.store / name) for corpus in ("pictures", "words") for name in sorted(live_tars(made.store, corpus))
    ]
    held = {one["__key__"]: one for one in webdataset.WebDataset(place, shardshuffle=False).decode()}
    parts = dict(made.view.mixture("first").select("sample_key", "part").collect().rows())
    for one in samples(made.view, "first"):
        assert one.ids.tolist() == held[one.key]["ids.npy"].tolist()
        assert one.meta == held[one.key]["json"]
        assert (one.part, one.extra) == (parts[one.key], {})


def test_tokens_told_are_tokens_read(made: TinySet) -> None:
    for name, facts in stage_facts(made.view).items():
        tokens: Counter[str] = Counter()
        for one in samples(made.view, name):
            tokens[one.part] += len(one.ids)
        assert {part.name: part.tokens for part in facts.parts} == tokens


def of_the_page(made: TinySet, begin: str, patched: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """The names that the block of docs/mixtures.md that begins so defines, run on a store in place of `runs/all`."""
    page = (Path(__file__).parents[2] / "docs" / "mixtures.md").read_text()
    code = begin + page.partition(f"```python\n{begin}")[2].partition("```")[0]
    (folder / "runs").mkdir()
    (folder / "runs" / "all").symlink_to(made.store)
    patched.chdir(folder)
    code = code.replace("mixtures/all/stage1", "mixtures/both/first").replace('"stage1"', '"first"')
    names: dict[str, Any] = {"code": code}
    exec(code, names)
    return names


def test_stock_webdataset_reads_a_mixture_without_our_code(
    made: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = of_the_page(made, "import json\n", monkeypatch, tmp_path)
    assert "catalog" not in names["code"]
    assert Counter(sample["__key__"] for sample in names["dataset"]) == wanted(made)


def test_the_page_reads_a_mixture(made: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_the_page(made, "import catalog\n", monkeypatch, tmp_path)["sample"].key in wanted(made)


def test_the_set_of_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "mixtures.md").read_text()
    (tmp_path / "mine.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    assert load_set(tmp_path / "mine.yaml", {}, find_recipe).plans.keys() == {"generation", "text"}


def test_bytes_of_another_sample_are_never_yielded(copied: TinySet) -> None:
    for name in live_tars(copied.store, "words"):
        path = copied.store / name
        data = bytearray(path.read_bytes())
        data[:4] = b"0000"
        path.write_bytes(data)
    with pytest.raises(ShardDamage, match=r"lies where the index has sample .*; run `unifactory audit`"):
        list(samples(copied.view, "first"))


def test_a_mixture_from_an_older_state_is_refused_and_the_old_snapshot_still_read(copied: TinySet) -> None:
    before = copied.view.snapshot.number
    lines = (copied.root / "prose.jsonl").read_text().splitlines()
    (copied.root / "prose.jsonl").write_text("\n".join(lines[1:]) + "\n")
    curate(copied.plan().plans["words"], copied.root, copied.store)
    with pytest.raises(UserError) as refused:
        MixtureReader(copied.view, "first")
    assert str(refused.value) == (
        "both/first: decided before words changed; run `unifactory curate both` again, or open an older snapshot"
    )
    old = open_view(str(copied.store), before)
    assert Counter(one.key for one in samples(old, "first")) == wanted(copied)
    copied.mix()
    assert len(MixtureReader(copied.view, "first"))


WRONG: list[tuple[dict[str, int], str]] = [
    ({"rank": 2, "world": 2}, "rank 2 of 2 from 0: write 0 <= rank < world and a start of 0 or more"),
    ({"rank": -1}, "rank -1 of 1 from 0: write 0 <= rank < world and a start of 0 or more"),
    ({"start": -1}, "rank 0 of 1 from -1: write 0 <= rank < world and a start of 0 or more"),
    ({"world": 0}, "rank 0 of 0 from 0: write 0 <= rank < world and a start of 0 or more"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[str(given) for given, _ in WRONG])
def test_ranks_that_cannot_be_are_refused(made: TinySet, given: dict[str, int], message: str) -> None:
    with pytest.raises(UserError) as refused:
        next(samples(made.view, "first", **given))
    assert str(refused.value) == message


def test_a_stage_is_named_alone_or_with_its_set(made: TinySet) -> None:
    view = made.view
    assert view.stages == ["both/first", "both/second"]
    assert view.mixture("both/first").collect().equals(view.mixture("first").collect())
    with pytest.raises(UserError) as refused:
        view.mixture("third")
    assert str(refused.value) == "no stage 'third' in the store; it has: both/first, both/second"


def words_alone(data: dict[str, Any]) -> None:
    """A set of one corpus of texts, the cheapest there is."""
    data["corpora"] = ["words.yaml"]
    data["stages"] = {"first": {"parts": {"text": data["stages"]["first"]["parts"]["text"]}}}


def test_a_mixture_in_a_bucket_is_decided_and_read_there(tmp_path: Path, s3: tuple[str, dict[str, str]]) -> None:
    address, options = s3
    tiny = write_set(tmp_path, pictures=0, texts=5)
    tiny.write(words_alone)
    read = []
    for place, given in ((address, options), (str(tiny.store), None)):
        tiny.curate(place, given)
        (facts,) = tiny.mix(place, given)
        store = Store(open_storage(place, given), 1)
        view = View(store, store.snapshots()[-1])
        read.append([(one.position, one.key, one.ids.tolist()) for one in samples(view, "first", seed=3, start=2)])
        assert [(part.pool, part.copies) for part in facts.parts] == [(5, 12)]
    assert read[0] == read[1]
    assert [position for position, _, _ in read[0]] == list(range(2, 12))
