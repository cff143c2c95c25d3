from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from catalog.errors import UserError
from pipeline.operator import Quarantine, load_operator
from pipeline.pictures import open_picture
from tests.pipeline.conftest import Checkpoints
from tests.pipeline.measures.test_embedding import PICTURES, records
from tests.pipeline.pictures import measure
from tests.pipeline.scorers import checkpoints


def asked(folder: Path, label: str = "nsfw", **more: Any) -> dict[str, Any]:
    return {"checkpoint": str(folder), "label": label, "name": "nsfw", **more}


@pytest.mark.parametrize("problem", [None, "single_label_classification", "multi_label_classification"])
def test_the_score_is_the_probability_of_the_label(tmp_path: Path, problem: str | None) -> None:
    labels = ("drawing", "nsfw", "normal")
    network = checkpoints.classifier(tmp_path / "vit", labels, problem)
    made: Any = measure("classifier", **asked(tmp_path / "vit"))
    given = records(tmp_path, PICTURES)
    rows = made.process_batch(given)
    scores = []
    for row, data in zip(rows, PICTURES, strict=True):
        inputs = made._network.preprocessor(images=open_picture(data), return_tensors="pt")
        with torch.no_grad():
            logits = network(**inputs).logits[0].double()
        exclusive = problem != "multi_label_classification"
        expected = logits.softmax(-1)[1] if exclusive else logits[1].sigmoid()
        assert row[0] == pytest.approx(expected.item(), abs=1e-6)
        scores.append(row[0])
    assert max(scores) - min(scores) > 1e-3
    assert list(rows[::-1]) == [made.process(record) for record in given[::-1]]


def test_the_probabilities_of_labels_that_exclude_each_other_come_to_one(tiny: Checkpoints, tmp_path: Path) -> None:
    (given,) = records(tmp_path, PICTURES[:1])
    shares = [
        measure("classifier", **asked(tiny("classifier")[0], label)).process(given)[0] for label in ("normal", "nsfw")
    ]
    assert sum(shares) == pytest.approx(1, abs=1e-6)


def test_the_column_is_what_the_parameters_say(tiny: Checkpoints) -> None:
    (column,) = load_operator("classifier").build(asked(tiny("classifier")[0])).columns  # type: ignore[attr-defined]
    assert (column.name, column.low, column.high, column.better) == ("nsfw", 0, 1, "lower")
    assert column.about == "probability of the label 'nsfw'"
    made: Any = load_operator("classifier").build({"label": "photo", "name": "photo", "better": "higher"})
    assert made.columns[0].better == "higher"
    assert made.missing == "no checkpoint is given for 'photo'"
    with pytest.raises(ValidationError):
        load_operator("classifier").build({"label": "x", "name": "not a name"})


def test_a_broken_picture_costs_its_neighbours_nothing(tiny: Checkpoints, tmp_path: Path) -> None:
    made = measure("classifier", **asked(tiny("classifier")[0]))
    first, broken, last = made.process_batch(records(tmp_path, [PICTURES[0], b"<html>", PICTURES[1]]))
    assert isinstance(broken, Quarantine)
    assert broken.reason == "not an image"
    assert [first, last] == [made.process(record) for record in records(tmp_path, PICTURES[:2])]


def changed(key: str, value: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, key: value}))

    return change


WRONG: list[tuple[str, Callable[[Path], Any], str]] = [
    ("porn", lambda folder: None, "config.json: has no label 'porn'; it has 'normal', 'nsfw'"),
    ("nsfw", changed("id2label", None), "config.json: names no labels (`id2label`); it is no classifier"),
    ("nsfw", changed("problem_type", "regression"), "config.json: is a regression, its output is no probability"),
    ("nsfw", lambda folder: (folder / "config.json").unlink(), "config.json: no such file; a release has one"),
    ("nsfw", changed("num_hidden_layers", 1), "the weights do not fit config.json: tensor without a place vit."),
    ("nsfw", changed("hidden_size", 32), "the weights do not fit config.json: tensor of another shape "),
    ("nsfw", changed("model_type", "siglip_text_model"), "transformers cannot load the network: "),
    ("nsfw", changed("model_type", "no_such"), "transformers cannot load the network: "),
    ("nsfw", changed("architectures", ["ViTModel"]), ""),
    (
        "nsfw",
        lambda folder: (folder / "preprocessor_config.json").write_text("{}"),
        "the network does not take what its preprocessing makes: Input image size (224*224) doesn't match",
    ),
    (
        "nsfw",
        lambda folder: (folder / "preprocessor_config.json").write_text("?"),
        "transformers cannot load the preprocessor: ",
    ),
    ("third", changed("id2label", {"0": "a", "1": "b", "2": "third"}), "of another shape classifier.bias"),
]


@pytest.mark.parametrize(("label", "damage", "message"), WRONG, ids=[f"{n}-{w[2][:40]}" for n, w in enumerate(WRONG)])
def test_what_cannot_classify_is_refused_before_any_record(
    tiny: Checkpoints, tmp_path: Path, label: str, damage: Callable[[Path], Any], message: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny("classifier")[0], folder)
    damage(folder)
    made = load_operator("classifier").build(asked(folder, label))
    if not message:  # the file's word on its architecture is not what counts
        made.check()
        return
    with pytest.raises(UserError) as caught:
        made.check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_head_is_no_classifier(tiny: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(tiny("classifier")[0], folder)
    from safetensors.torch import load_file, save_file

    stored = {
        name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "classifier" not in name
    }
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"do not fit config.json: missing tensor classifier.bias, classifier.weight$"):
        load_operator("classifier").build(asked(folder)).check()
