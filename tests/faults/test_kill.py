"""`kill -9` of the driver and of workers while `unifactory curate` runs, and what the next run makes of it.

Every kill waits until the run has put some files more into the store than at the start of that attempt, so that kills
spread over the whole run: ingest, every node, packing and the snapshot. The numbers are seeded.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl
import psutil
import pytest

from catalog.view import open_view
from tests.pipeline.runs import counted, live_tars, shard_files, write_corpus
from tests.toys import CALLS, calls_noted

RECORDS = 60
ONE = ("--engine", "local", "--workers", "1")
TWO = ("--engine", "local", "--workers", "2")
RAY = ("--engine", "ray", "--workers", "2")
BATCH = 4
"""Records a unit: what a worker may have in work when it is killed."""
RECIPE = f"""
version: 1
corpus: tiny
sources:
  lines:
    kind: jsonl
    manifest: manifest.jsonl
    map: {{id: id, text: text, licence: licence, scene: scene, do: do}}
    media: {{image: file}}
nodes:
  header: {{measure: 'tests.toys:CountedHeader', batch: {BATCH}}}
  side: {{decide: rules, needs: [header], rules: {{side: short_side >= 160}}}}
  light: {{measure: 'tests.toys:Brightness', needs: [side], params: {{slow: 0.02}}, batch: {BATCH}}}
  bright: {{decide: rules, needs: [light], rules: {{bright: brightness >= 60}}}}
  unique: {{decide: duplicates, needs: [bright], order: [short_side desc]}}
  parts: {{expand: 'tests.toys:ThreeParts', needs: [unique], batch: {BATCH}}}
  scenes: {{merge: 'tests.toys:Together', needs: [parts], batch: {BATCH}}}
  split: {{decide: split, needs: [scenes], validation: 0.3}}
  encode: {{encode: text_to_image, needs: [split], params: {{prompt: text, resolution: 128}}, batch: {BATCH}}}
  shards: {{pack: webdataset, needs: [encode], shard_samples: 4}}
"""


@dataclass
class Scene:
    """A corpus, a recipe, and the stores that runs over it make."""

    folder: Path
    engine: tuple[str, ...]
    wanted: dict[str, bytes]
    """Shards of a run without kills, which lies in `undisturbed`."""
    files: int
    """How many files the store of that run has."""
    store: Path
    calls: Path

    def start(self) -> subprocess.Popen[str]:
        """Start the command; nothing of an earlier run is waited for or unlocked."""
        return start(self.folder, self.store, self.calls, self.engine)

    def wait_for(self, process: subprocess.Popen[str], more: int, first: int) -> bool:
        """Wait until the store holds so many files more; False when the run ends before."""
        deadline = time.monotonic() + 240
        while count(self.store) < first + more:
            assert time.monotonic() < deadline
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        return process.poll() is None


def start(folder: Path, store: Path, calls: Path, engine: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start `unifactory curate`."""
    arguments = [str(folder / "recipe.yaml"), "--root", str(folder / "root"), "--store", str(store), *engine]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "curate", *arguments],
        env={**os.environ, CALLS: str(calls)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Wait for the end, which must be a good one."""
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error[-3000:]


def count(folder: Path) -> int:
    """How many files a folder holds by now."""
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a recipe, and the store of a run without kills."""
    folder = tmp_path_factory.mktemp("kill")
    write_corpus(folder / "root", RECORDS)
    (folder / "recipe.yaml").write_text(RECIPE)
    end(start(folder, folder / "undisturbed", folder / "calls", TWO))
    noted = Counter(operator for operator, _ in calls_noted(folder / "calls"))
    assert noted == counted_toys(folder / "undisturbed")
    return folder


@pytest.fixture
def scene(undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    """The corpus and an engine, with a place for a store of this test's own."""
    store = undisturbed / "undisturbed"
    engine = getattr(request, "param", TWO)
    return Scene(undisturbed, engine, shard_files(store), count(store), tmp_path / "store", tmp_path / "calls")


def kill_driver(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Kill a driver; returns the processes it had started."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    _, error = process.communicate()
    assert "in use by" not in error, error
    return children


def assert_gone(children: list[psutil.Process], seconds: float) -> None:
    """Every process ends by itself within that time."""
    _, alive = psutil.wait_procs(children, timeout=seconds)
    assert [(process.pid, process.name(), process.status()) for process in alive] == []


TOYS = {"header": "toy_header", "light": "toy_brightness", "parts": "toy_three", "scenes": "toy_together"}


def counted_toys(store: Path) -> Counter[str]:
    """What the catalog says of the calls of toys."""
    return Counter({TOYS[node]: calls for node, calls in counted(store).items() if node in TOYS})


def check(scene: Scene, driver_kills: int, worker_kills: int, workers: int) -> None:
    """After whatever happened, the store is as good as an undisturbed one, and little was done twice."""
    audited = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "audit", str(scene.store), "--json"],
        capture_output=True,
        check=False,
    )
    result = orjson.loads(audited.stdout)
    assert result["findings"] == []
    assert audited.returncode == 0
    found = shard_files(scene.store)
    assert {name: found.get(name) for name in scene.wanted} == scene.wanted
    assert live_tars(scene.store) == live_tars(scene.folder / "undisturbed")
    assert (
        not open_view(str(scene.store)).records("tiny").filter(pl.col("reason") == "killed its worker").collect().height
    )
    once = counted_toys(scene.folder / "undisturbed")
    noted = Counter(operator for operator, _ in calls_noted(scene.calls))
    # Truly made: a driver's death loses a unit a worker, a worker's death one unit.
    most = BATCH * (driver_kills * workers + worker_kills)
    assert once.total() <= noted.total() <= once.total() + most
    # As counted by the catalog: a commit that a kill cut in two may count twice, and a commit holds a second of work.
    said = sum(result["operator_calls"].values())
    whole = sum(counted(scene.folder / "undisturbed").values())
    assert whole <= said <= whole * (1 + driver_kills)
    for node, toy in TOYS.items():
        assert result["operator_calls"][node] >= once[toy]


def kill_again_and_again(scene: Scene, kills: int, seed: int, workers: int, patience: float) -> None:
    """Kill drivers until there were enough kills, over as many whole runs as that takes, and check each."""
    rng = random.Random(seed)
    total = early = 0
    children: list[psutil.Process] = []
    while total < kills:
        here = 0
        while True:
            process = scene.start()
            more = rng.randint(1, max(2, 2 * scene.files // kills))
            first = count(scene.store)
            if total + here >= kills or not scene.wait_for(process, more, first):
                end(process)
                break
            time.sleep(rng.random() * 0.03)
            children += kill_driver(process)
            here += 1
            early += not list(scene.store.glob("tables/outcomes/*/_delta_log/*1.json"))
        check(scene, here, 0, workers)
        total += here
        scene.calls.unlink()
        shutil.rmtree(scene.store)
    assert_gone(children, patience)
    assert early <= total / 2


def test_a_run_that_is_killed_three_times_ends_as_if_nothing_had_happened(scene: Scene) -> None:
    kill_again_and_again(scene, 3, 7, 2, 10.0)


def test_a_run_whose_workers_are_killed_ends_as_if_nothing_had_happened(scene: Scene) -> None:
    kill_workers(scene, 3, 11)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [ONE, TWO], indirect=True, ids=["1 worker", "2 workers"])
def test_twenty_kills_of_the_driver(scene: Scene) -> None:
    kill_again_and_again(scene, 20, 1, int(scene.engine[-1]), 10.0)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [ONE, TWO], indirect=True, ids=["1 worker", "2 workers"])
def test_twenty_kills_of_workers(scene: Scene) -> None:
    kill_workers(scene, 20, 2)


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [RAY], indirect=True, ids=["ray"])
def test_twenty_kills_of_the_driver_on_ray(scene: Scene) -> None:
    kill_again_and_again(scene, 20, 3, 2, 60.0)


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [RAY], indirect=True, ids=["ray"])
def test_twenty_kills_of_workers_on_ray(scene: Scene) -> None:
    kill_workers(scene, 20, 4)


def kill_workers(scene: Scene, kills: int, seed: int) -> None:
    """Kill workers at random moments, over as many whole runs as it takes to have enough kills."""
    rng = random.Random(seed)
    on_ray = "ray" in scene.engine
    total = 0
    while total < kills:
        here = 0
        process = scene.start()
        deadline = time.monotonic() + 240
        seen = count(scene.store)
        while process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(rng.uniform(0.0, 0.2))
            if count(scene.store) == seen:
                continue  # let the workers get somewhere first: one that never begins is an error of the machine
            victims = [child for child in _children(process) if _is_worker(child, on_ray)]
            if victims and total + here < kills:
                victim = rng.choice(victims)
                victim.kill()
                here += 1
                seen = count(scene.store)
        end(process)
        check(scene, 0, here, 0)
        total += here
        scene.calls.unlink()
        shutil.rmtree(scene.store)


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return sorted(psutil.Process(process.pid).children(recursive=True), key=lambda child: child.pid)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process, on_ray: bool) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return command.startswith("ray::_") if on_ray else "spawn_main" in command
