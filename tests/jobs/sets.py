"""Two tiny corpora and the recipe of a set over them, for tests of mixtures. Everything runs in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from catalog.mixtures import StageFacts
from catalog.storage import open_storage
from catalog.store import create_store
from catalog.view import View, open_view
from jobs.run import find_recipe
from pipeline.mixing import mix
from pipeline.sets import PlannedSet, load_set
from tests.pipeline.runs import curate, entry, write_manifest, write_picture

PICTURES = {
    "version": 1,
    "corpus": "pictures",
    "sources": {
        "lines": {
            "kind": "jsonl",
            "manifest": "manifest.jsonl",
            "map": {"id": "id", "text": "text", "licence": "licence"},
            "media": {"image": "file"},
        }
    },
    "nodes": {
        "split": {"decide": "split", "validation": 0.2},
        "small": {"encode": "text_to_image", "needs": ["split"], "params": {"prompt": "text", "resolution": 64}},
        "large": {"encode": "text_to_image", "needs": ["split"], "params": {"prompt": "text", "resolution": 128}},
        "shards": {"pack": "webdataset", "needs": ["small", "large"], "shard_samples": 8},
    },
}
WORDS = {
    "version": 1,
    "corpus": "words",
    "sources": {
        name: {"kind": "jsonl", "manifest": f"{name}.jsonl", "map": {"id": "id", "text": "text", "licence": "licence"}}
        for name in ("prose", "verse")
    },
    "nodes": {
        "encode": {"encode": "document", "params": {"prompt": "text"}},
        "shards": {"pack": "webdataset", "needs": ["encode"], "shard_samples": 8},
    },
}
STAGES: dict[str, Any] = {
    "first": {
        "parts": {
            "images": {"corpus": "pictures", "task": "text_to_image", "resolution": 64, "weight": 2},
            "text": {"corpus": "words", "task": "document", "source": "prose", "weight": 1, "epochs": 2.5},
        }
    },
    "second": {
        "unit": "tokens",
        "total": 600,
        "parts": {
            "images": {"corpus": "pictures", "task": "text_to_image", "resolution": 128, "weight": 3},
            "long": {"corpus": "words", "task": "document", "where": "text_tokens >= 20", "weight": 1, "epochs": 4},
            "short": {"corpus": "words", "task": "document", "where": "text_tokens < 20", "weight": 0.5, "epochs": 4},
        },
    },
}


@dataclass(frozen=True)
class TinySet:
    """Where things are."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "set.yaml"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def view(self) -> View:
        return open_view(str(self.store))

    def write(self, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        """The set's recipe, with a change made to it."""
        data = yaml.safe_load(yaml.safe_dump({"version": 1, "set": "both", "about": "Two.", "stages": STAGES}))
        data["corpora"] = ["pictures.yaml", "words.yaml"]
        if change is not None:
            change(data)
        self.recipe.write_text(yaml.safe_dump(data, sort_keys=False))

    def plan(self) -> PlannedSet:
        return load_set(self.recipe, {}, find_recipe)

    def curate(self, store: str | None = None, options: dict[str, str] | None = None) -> None:
        """Run the corpora alone."""
        for plan in self.plan().plans.values():
            curate(plan, self.root, store or self.store, options=options)

    def mix(self, store: str | None = None, options: dict[str, str] | None = None) -> list[StageFacts]:
        """Decide the mixtures alone."""
        storage = open_storage(store or str(self.store), options)
        with storage.lock():
            return mix(create_store(storage), self.plan(), lambda count: None)[1]

    @property
    def arguments(self) -> tuple[str, ...]:
        """`curate` of the set, with one worker."""
        return ("curate", str(self.recipe), "--root", str(self.root), "--store", str(self.store), "--workers", "1")


def write_set(folder: Path, pictures: int = 20, texts: int = 12) -> TinySet:
    """`pictures` pictures, each encoded at two sizes, and `texts` texts of each of two sources."""
    tiny = TinySet(folder)
    for number in range(pictures):
        write_picture(tiny.root / f"files/{number:03d}.jpg", number, 140)
    write_manifest(tiny.root, [entry(number) for number in range(pictures)])
    (tiny.root / "manifest.jsonl").rename(tiny.root / "pictures.jsonl")
    for name in ("prose", "verse"):
        lines = [entry(n, text=f"{name} of number {n}. " * (1 + n % 4)) for n in range(texts)]
        write_manifest(tiny.root, lines)
        (tiny.root / "manifest.jsonl").rename(tiny.root / f"{name}.jsonl")
    (tiny.root / "pictures.jsonl").rename(tiny.root / "manifest.jsonl")
    for data in (PICTURES, WORDS):
        (folder / f"{data['corpus']}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    tiny.write()
    return tiny
