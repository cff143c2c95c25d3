"""One whole small run into an S3-compatible object store: the same shards as in a folder, and a clean audit."""

from __future__ import annotations

import json
from pathlib import Path

from catalog.storage import open_storage
from tests.jobs.tiny import unifactory, write_tiny


def tars(store: str, options: dict[str, str] | None = None) -> dict[str, bytes]:
    storage = open_storage(store, options)
    return {name: storage.read(name) for name, _ in storage.list("shards/") if name.endswith(".tar")}


def test_a_run_into_a_bucket_equals_one_into_a_folder(tmp_path: Path, s3: tuple[str, dict[str, str]]) -> None:
    address, options = s3
    tiny = write_tiny(tmp_path)
    assert tiny.curate().returncode == 0
    there = ("curate", str(tiny.recipe), "--root", str(tiny.root), "--store", address, "--workers", "1")
    done = unifactory(*there, **options)
    assert done.returncode == 0, done.stderr
    assert tars(address, options) == tars(str(tiny.store))
    audit = unifactory("audit", address, "--json", **options)
    assert audit.returncode == 0, audit.stdout
    calls = json.loads(audit.stdout)["operator_calls"]
    assert unifactory(*there, **options).returncode == 0
    again = json.loads(unifactory("audit", address, "--json", **options).stdout)
    assert again["operator_calls"] == calls
    assert options["AWS_SECRET_ACCESS_KEY"].encode() not in b"".join(
        open_storage(address, options).read(name) for name, _ in open_storage(address, options).list()
    )
