"""Contamination: planted benchmark items found, and clean records left alone.

.venv/bin/python -m tests.bench.bench_contamination

Half of the sample pictures (by group of copies) and the sample benchmarks are indexed; the other half of the pictures,
and the texts, captions and questions of the other corpora, are the clean set. Without the sample corpora the embedded
pictures and made questions stand in.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.benchmarks import PICTURE_SIDE, Index, load_index
from pipeline.measures.contamination import LEAST_WORDS, Contamination, ContaminationParams, PictureIndex, TextIndex
from pipeline.operator import Quarantine
from pipeline.pictures import decode_scaled, open_picture
from tests.bench.figure import Figure, figure

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
LEAST_POINTS = 60
"""Pictures with fewer key points (gradients, cards of one colour) are found by their bytes alone: not planted."""
Item = dict[str, Any]
Texts = list[str]


@dataclass
class Corpus:
    """What is indexed, what is clean. `pictures` are files; a clean picture has no copy among those of the index."""

    items: list[Item]
    pictures: list[Path]
    clean_pictures: list[Path]
    clean_texts: list[Texts] = field(default_factory=list)


def shuffled(options: list[str], seed: str) -> str:
    """Options in another order, lettered anew."""
    order = random.Random(seed).sample(options, len(options))
    return "\n".join(f"({letter}) {option}" for letter, option in zip("ABCDEFGHIJKLMNOP", order, strict=False))


def told(item: Item) -> Texts:
    """A question with all that belongs to it, as a record would have it."""
    return [
        item["question"],
        *map(str, item.get("options") or []),
        *([str(item["answer"])] if "answer" in item else []),
    ]


def stands_alone(item: Item) -> bool:
    """Not so a bare prompt of a few words: a text that holds "a photo of a bench" somewhere is no copy of it."""
    return "answer" in item or "options" in item or len(item["question"].split()) >= LEAST_WORDS


def in_a_document(item: Item) -> Texts:
    before, after = "It was said at the meeting before noon that", "and nobody in the room had anything to add."
    return [f"{before} {' '.join(told(item))} {after}"]


def plain(item: Item) -> Texts:
    return ["".join(c for c in text.lower() if c.isalnum() or c.isspace()) for text in told(item)]


TEXT_FORMS: dict[str, Callable[[Item], Texts]] = {
    "exact": told,
    "option_order": lambda item: [f"{item['question']}\n{shuffled(item['options'], item['id'])}"],
    "case_and_punctuation": plain,
    "in_a_document": in_a_document,
}


PLANTED: dict[str, Callable[[Item], bool]] = {
    "option_order": lambda item: bool(item.get("options")),
    "in_a_document": stands_alone,
}
"""Forms that not every item can take."""


def jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cropped(image: Image.Image, seed: str) -> Image.Image:
    """80 % of each side, anywhere."""
    draw = random.Random(seed)
    width, height = round(0.8 * image.width), round(0.8 * image.height)
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


PLAIN = np.zeros((8, 8, 3), np.uint8)
FLIP = Image.Transpose.FLIP_LEFT_RIGHT
PICTURE_FORMS: dict[str, Callable[[Image.Image, str], bytes]] = {
    "flipped": lambda image, name: jpeg(image.transpose(FLIP), 90),
    "cropped": lambda image, name: jpeg(cropped(image, name), 90),
    "cropped_and_flipped": lambda image, name: jpeg(cropped(image, name).transpose(FLIP), 90),
    "re_encoded": lambda image, name: jpeg(image, 30),
    "halved": lambda image, name: jpeg(image.resize((max(1, image.width // 2), max(1, image.height // 2))), 85),
}


def lines(path: Path) -> list[Item]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sample_corpus(root: Path) -> Corpus:
    """From the sample corpora beside the project."""
    benchmarks = root / "benchmarks"
    with_pictures = [line for line in lines(benchmarks / "manifest.jsonl") if line.get("media") == "image"]
    items = lines(benchmarks / "questions.jsonl") + with_pictures
    picked, clean = halves(root / "images")
    for name in ("grounding", "editing"):
        clean += sorted((root / name / "files").iterdir())
    pictures = [benchmarks / line["file"] for line in with_pictures] + picked
    texts = [[line["text"]] for line in lines(root / "text" / "docs.jsonl")]
    texts += [[line["question"], line["chain_of_thought"], str(line["answer"])]
              for line in lines(root / "reasoning" / "chains.jsonl")]  # fmt: skip
    texts += [[line["caption"]] for line in lines(root / "images" / "manifest.jsonl") if line.get("caption")]
    texts += [line["captions"] for line in lines(root / "grounding" / "manifest.jsonl") if line.get("captions")]
    texts += [[line["text"]] for line in lines(root / "ocr" / "manifest.jsonl") if line.get("text")]
    return Corpus(items, pictures, clean, texts)


def embedded_corpus(folder: Path) -> Corpus:
    """From the pictures that ship, with questions made up."""
    from pipeline.embedded.corpus import write_corpus

    write_corpus(folder)
    picked, clean = halves(folder / "images")
    words = [f"{a}{b}" for a in ("ba", "ko", "li", "mu", "ne") for b in ("ra", "sta", "to", "vin", "zel", "dor")]
    draw = random.Random(0)
    items = [
        {"id": f"made-{number}", "benchmark": "made", "question": " ".join(draw.choices(words, k=6 + number)) + "?",
         "options": draw.sample(words, 4)}
        for number in range(30)
    ]  # fmt: skip
    texts = [[" ".join(draw.choices(words, k=200))] for _ in range(50)]
    texts += [[line["caption"]] for line in lines(folder / "images" / "manifest.jsonl") if line.get("caption")]
    return Corpus(items, picked, clean, texts)


def halves(folder: Path) -> tuple[list[Path], list[Path]]:
    """Pictures to index and clean ones, by groups of copies."""
    groups: dict[str, list[Path]] = {}
    for line in lines(folder / "manifest.jsonl"):
        if line.get("kind", "file") == "file":
            # Parts of one photograph are named after it.
            group = line.get("near_dup_group") or Path(line["id"]).stem.partition("_part")[0]
            groups.setdefault(group, []).append(folder / line["file"])
    ordered = [groups[name] for name in sorted(groups)]
    indexed = [some[0] for some in ordered[::2]]
    known = set(digests(indexed))
    others = [path for some in ordered[1::2] for path in some]
    return indexed, [path for path, digest in zip(others, digests(others), strict=True) if digest not in known]


def write_benchmarks(folder: Path, corpus: Corpus) -> None:
    """The folder that is indexed."""
    folder.mkdir()
    questions = [{**item, "file": None} for item in corpus.items]
    (folder / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in questions))
    named = [{"id": path.name, "benchmark": "pictures", "kind": "file", "media": "image", "file": str(path)}
             for path in corpus.pictures]  # fmt: skip
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in named))


def decoded(paths: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    for path in paths:
        try:
            yield path, decode_scaled(path.read_bytes(), PICTURE_SIDE)
        except (Quarantine, OSError):
            continue


def measured(corpus: Corpus, index: Index) -> list[Figure]:
    """Both figures."""
    params = Contamination.build({}).params
    assert isinstance(params, ContaminationParams)
    texts, pictures = TextIndex(index), PictureIndex(index)

    def finds_text(some: Texts) -> bool:
        return texts.find(some).overlap >= params.overlap

    def finds_picture(data: np.ndarray) -> bool:
        return pictures.find(data, None, params.distance, params.inliers).item is not None

    found: dict[str, list[bool]] = {}
    missed: list[str] = []

    def note(kind: str, name: str, hit: bool) -> None:
        found.setdefault(kind, []).append(hit)
        if not hit:
            missed.append(f"{kind} {name}")

    for item in corpus.items:
        for kind, form in TEXT_FORMS.items():
            if kind not in PLANTED or PLANTED[kind](item):
                note(f"text_{kind}", item["id"], finds_text(form(item)))
    points = {row["digest"]: len(row["codes"]) // 32 for row in index.rows.to_pylist() if row["digest"]}
    by_path = dict(zip(corpus.pictures, digests(corpus.pictures), strict=True))
    for path in corpus.pictures:
        note("picture_exact", path.name, pictures.find(PLAIN, by_path[path], 0, 0).item is not None)
        if points[by_path[path]] < LEAST_POINTS:
            continue
        image = open_picture(path.read_bytes())
        for kind, form in PICTURE_FORMS.items():
            note(f"picture_{kind}", path.name, finds_picture(decode_scaled(form(image, path.name), PICTURE_SIDE)))
    alarms = [f"text {some[0][:60]}" for some in corpus.clean_texts if finds_text(some)]
    clean = list(decoded(corpus.clean_pictures))
    alarms += [f"picture {path.name}" for path, data in clean if finds_picture(data)]
    hits = [hit for some in found.values() for hit in some]
    kinds = {kind: f"{sum(some)}/{len(some)}" for kind, some in found.items()}
    looked = len(corpus.clean_texts) + len(clean)
    return [
        figure("contamination_recall", [sum(hits) / len(hits)], "", 0.95, len(hits), "none", by_kind=kinds,
               missed=missed),
        figure("contamination_false_alarms", [len(alarms)], "", 0, looked, "none", True, alarms=alarms),
    ]  # fmt: skip


def digests(paths: list[Path]) -> list[str]:
    from catalog.keys import media_digest

    return [media_digest(path.read_bytes()) for path in paths]


def run() -> list[Figure]:
    """All figures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = sample_corpus(CORPORA) if CORPORA.exists() else embedded_corpus(folder / "embedded")
        # A picture that cannot be decoded is none that a benchmark has.
        corpus.pictures = [path for path, _ in decoded(corpus.pictures)]
        write_benchmarks(folder / "benchmarks", corpus)
        return measured(corpus, load_index(folder / "benchmarks"))


if __name__ == "__main__":
    for one in run():
        print(json.dumps(one))
