"""The command as people meet it: help, verbs in order, the core alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from catalog import schemas
from catalog.store import Store, open_store
from catalog.view import open_view
from jobs.show import reasons_line
from tests.jobs.tiny import Tiny, here, unifactory, write_tiny

VERBS = ("plan", "curate", "status", "retry", "audit", "report", "explain", "gc", "inspect", "demo")
HEAVY = ("torch", "ray", "polars", "pyarrow", "deltalake", "cv2", "numpy", "PIL", "matplotlib", "sqlglot", "httpx")


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = write_tiny(tmp_path_factory.mktemp("cli"))
    done = made.curate()
    assert done.returncode == 0, done.stderr
    return made


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['unifactory', '--help']\n"
        "from jobs.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example(verb: str) -> None:
    done = here(verb, "--help")
    assert done.returncode == 0
    assert f"Example: unifactory {verb}" in " ".join(done.stdout.split())


def test_the_core_plans_curates_and_audits_without_torch_and_ray(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path)
    blocker = tmp_path / "blocked"
    blocker.mkdir()
    for name in ("torch", "ray", "transformers", "diffusers", "safetensors", "skimage"):
        (blocker / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here', name='{name}')")
    environment = {"PYTHONPATH": f"{blocker}:{Path.cwd()}"}
    place = ("--root", str(tiny.root), "--store", str(tiny.store))
    assert unifactory("plan", str(tiny.recipe), *place, "--probe", "2", **environment).returncode == 0
    assert unifactory(*tiny.arguments, **environment).returncode == 0
    assert unifactory("audit", str(tiny.store), **environment).returncode == 0
    ray = unifactory(*tiny.arguments, "--engine", "ray", **environment)
    # An unchanged corpus needs no engine; a new store does.
    assert ray.returncode == 0
    fresh = unifactory(*[*tiny.arguments[:4], "--store", str(tmp_path / "new")], "--engine", "ray", **environment)
    assert (fresh.returncode, fresh.stderr.strip()) == (
        2,
        "unifactory: --engine ray needs Ray; install it with: pip install 'unifactory[ray]'",
    )
    inspect = unifactory("inspect", "released", **environment)
    assert (inspect.returncode, inspect.stderr.strip()) == (
        2,
        "unifactory: this needs torch; install it with: pip install 'unifactory[torch]'",
    )


def test_the_audit_has_the_shape_that_others_script_against(curated: Tiny) -> None:
    done = here("audit", str(curated.store), "--json")
    assert done.returncode == 0
    audit = json.loads(done.stdout)
    corpus = audit["corpora"]["tiny"]
    assert audit["findings"] == []
    assert audit["operator_calls"] == {"encode": 10, "header": 12, "pixels": 10}
    assert (corpus["inputs"], corpus["born"], corpus["kept"], corpus["dropped"]) == (12, 0, 10, {"side": 2})
    assert (corpus["duplicates"], corpus["quarantined"], corpus["tombstoned"]) == (0, {}, 0)
    assert (corpus["samples"], corpus["shards"]) == (10, 4)
    assert set(corpus["tokens"]) == {"text", "image"}


def test_damage_to_a_shard_is_a_finding_and_exit_code_1(curated: Tiny, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "store"
    shutil.copytree(curated.store, copy)
    tar = sorted(copy.rglob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(bytes(data))
    done = here("audit", str(copy))
    assert done.returncode == 1
    assert f"shard: {tar.relative_to(copy).as_posix()}: its sha256 is not the one in the card" in done.stdout
    tar.unlink()
    assert "is missing" in here("audit", str(copy)).stdout


def test_a_stray_tar_is_a_finding_until_gc_removes_it(curated: Tiny, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "store"
    shutil.copytree(curated.store, copy)
    stray = sorted(copy.rglob("*.tar"))[0].with_name("0000-of-0004-0123456789abcdef.tar")
    stray.write_bytes(bytes(10240))
    assert here("audit", str(copy)).returncode == 1
    assert here("gc", str(copy), "--dry-run").returncode == 0
    assert stray.exists()
    assert here("gc", str(copy)).returncode == 0
    assert not stray.exists()
    assert here("audit", str(copy)).returncode == 0


def test_explain_tells_a_records_life_from_the_start_of_its_key(curated: Tiny) -> None:
    import catalog

    sample = catalog.open(str(curated.store)).samples().sort("sample_key").collect().to_dicts()[0]
    for key in (sample["record_key"], sample["sample_key"][:12]):
        told = here("explain", key, "--store", str(curated.store)).stdout
        assert f"{sample['record_key']} in tiny: kept at shards" in told
        assert "header [measure]: ok" in told
        assert "short_side: 256" in told
        assert sample["shard"] in told
    missed = here("explain", "0123456789abcdef0123", "--store", str(curated.store))
    assert (missed.returncode, missed.stderr) == (
        2,
        "unifactory: 0123456789abcdef0123: no record or sample of this snapshot has such a key\n",
    )


def test_retry_opens_exactly_the_records_that_fit(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path)
    broken = tiny.root / "pictures" / "files" / "03.jpg"
    good = broken.read_bytes()
    broken.write_bytes(b"not a picture at all")
    assert tiny.curate().returncode == 0
    assert here("retry", str(tiny.store), "--where", "reason = 'time limit'").stdout.startswith("no quarantined record")
    wrong = here("retry", str(tiny.store), "--where", "colour = 'red'")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "unifactory: --where: there is no column 'colour'; there are: "
        "reason, message, node, corpus, attempt, record_key\n",
    )
    told = here("retry", str(tiny.store), "--where", "reason = 'not an image'").stdout
    assert told.startswith("tiny: header: 1 records opened again")
    assert tiny.curate().returncode == 0
    audit = json.loads(here("audit", str(tiny.store), "--json").stdout)
    assert audit["operator_calls"]["header"] == 13
    assert audit["corpora"]["tiny"]["quarantined"] == {"not an image": 1}
    assert len(good) > 100


def test_retry_forgets_what_a_killed_run_left_of_the_records_it_opens(tmp_path: Path) -> None:
    """The next run adopts finished files of a killed one, the verdict that was to be forgotten with them."""
    tiny = write_tiny(tmp_path)
    (tiny.root / "pictures" / "files" / "03.jpg").write_bytes(b"not a picture at all")
    assert tiny.curate().returncode == 0
    store = open_store(str(tiny.store))
    name = next(name for name in open_view(str(tiny.store)).snapshot.tables if name.startswith("outcomes/header-"))
    table = store.existing(name)
    store.append_log("runs", schemas.RUNS, [_run_row(store)], "r000002")
    bad = table.read().filter(pl.col("status") != "ok")
    left = table.write(bad.to_arrow(compat_level=pl.CompatLevel.oldest()), "r000002-killed")
    assert table.orphans() == [file.path for file in left]
    assert "1 records opened again" in here("retry", str(tiny.store), "--where", "reason = 'not an image'").stdout
    assert tiny.curate().returncode == 0
    view = open_view(str(tiny.store))
    files = view.store.existing(name).files(view.snapshot.tables[name])
    assert not {file.path for file in files} & {file.path for file in left}
    assert [file.rows for file in files if "/r000003-" in file.path] == [1]


def _run_row(store: Store) -> dict[str, Any]:
    """A run that began and never finished."""
    row: dict[str, Any] = store.read_log("runs", schemas.RUNS).filter(pl.col("event") == "started").to_dicts()[0]
    return {**row, "run": 2}


def test_a_fault_of_the_program_is_not_taken_for_findings(curated: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("catalog.open", fault)
    done = here("audit", str(curated.store))
    assert done.returncode == 2
    assert "ZeroDivisionError: a fault" in done.stderr


def test_what_looks_like_markup_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """A reason may quote whatever stood in a source."""
    Console(width=80).print(reasons_line({"[/red] no such tag": 2, "[bold]x": 1}))
    assert capsys.readouterr().out == "[/red] no such tag 2, [bold]x 1\n"


def test_a_probe_asks_no_other_machine(tiny_with_server: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-nobody-sends")
    done = here("plan", str(tiny_with_server.recipe), "--root", str(tiny_with_server.root), "--probe", "4")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "no probe: node caption uses the network; times come from a first run on a small source" in said


@pytest.fixture
def tiny_with_server(tmp_path: Path) -> Tiny:
    """The tiny recipe with captions by a server elsewhere, where nobody listens."""
    tiny = write_tiny(tmp_path)
    text = tiny.recipe.read_text()
    caption = """  caption:
    annotate: openai
    needs: [header]
    network: true
    params: {prompt: caption_long/v1, inputs: {text: text}, base_url: 'http://192.0.2.1/v1', model: m, revision: r}
  split:"""
    tiny.recipe.write_text(text.replace("  split:", caption))
    return tiny


def test_an_undecided_record_fails_the_run_and_status_names_it(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path)
    tiny.recipe.write_text(tiny.recipe.read_text().replace("side: short_side >= 200", "worded: text != 'nothing'"))
    lines = tiny.manifest.read_text().splitlines()
    lines[4] = lines[4].replace('"caption"', '"heading"')
    tiny.manifest.write_text("\n".join(lines) + "\n")
    failed = tiny.curate()
    assert (failed.returncode, failed.stderr) == (
        2,
        "unifactory: node shape: 1 records undecided: worded reads null; "
        "say on_null: drop, keep or quarantine, or add a rule before it\n",
    )
    told = here("status", str(tiny.store)).stdout
    assert "run 1 of tiny: killed or failed; run curate again to go on (12 calls)" in told
    with open_store(str(tiny.store)).storage.lock():
        assert "run 1 of tiny: running (12 calls)" in here("status", str(tiny.store)).stdout
    assert tiny.curate().returncode == 2
    told = here("status", str(tiny.store)).stdout
    assert "run 1 of tiny: killed or failed; a later run went on (12 calls)" in told
    assert "no snapshot yet" in told
