"""Measure `classifier`: how sure an image classifier of transformers is of one label.

NSFW and watermark scores enter this way: a folder with `config.json`, safetensors and a preprocessor's configuration.

    nsfw: {measure: classifier, needs: [...], requires: checkpoint,
           params: {checkpoint: FOLDER, label: nsfw, name: nsfw}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from catalog.errors import UserError
from pipeline.operator import Column, Quarantine, Record
from pipeline.scorers.checkpoint import CheckpointMeasure, CheckpointParams, read_json
from pipeline.scorers.encoder import finite, grey, in_fixed_batches, open_records, try_out

if TYPE_CHECKING:
    from PIL.Image import Image


class ClassifierParams(CheckpointParams):
    """Parameters of `classifier`.

    `label`: one of the labels in the checkpoint's `id2label`. `name`: the column that is written. `better`: the good
    direction, `lower` for what is to be kept out.
    """

    label: str
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    better: Literal["higher", "lower"] | None = "lower"
    about: str = ""


@dataclass(frozen=True)
class Judge:
    """A classifier, its preprocessor, and where its output says what is asked."""

    network: Any
    preprocessor: Any
    place: int
    exclusive: bool
    """One label to a picture (softmax), else any number of them (sigmoid)."""
    device: str

    def look(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        """The probability of each label [N, labels]."""
        inputs = [dict(self.preprocessor(images=picture, return_tensors="pt")) for picture in pictures]

        def probabilities(batch: Mapping[str, Any]) -> Any:
            logits = self.network(**batch).logits.double()
            return logits.softmax(-1) if self.exclusive else logits.sigmoid()

        return in_fixed_batches(probabilities, inputs, self.device)


class Classifier(CheckpointMeasure):
    """Probability of one label by an image classifier, such as NSFW or a watermark; needs `checkpoint`."""

    name = "classifier"
    version = 1
    Params = ClassifierParams
    params: ClassifierParams
    batch = 16
    packages: ClassVar[Mapping[str, str]] = {"torch": "transformers", "transformers": "transformers"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """The one column that the parameters declare."""
        given = self.params
        about = given.about or f"probability of the label {given.label!r}"
        return (Column(given.name, pa.float64(), about, 0, 1, given.better),)

    @property
    def missing(self) -> str | None:
        """A reason when no checkpoint is named."""
        return None if self.params.checkpoint else f"no checkpoint is given for {self.params.name!r}"

    def load(self, checkpoint: Path) -> Judge:
        """The classifier; raises UserError for a label that it does not know."""
        place, exclusive = read_label(checkpoint, self.params.label)
        from pipeline.scorers.transformers_encoder import load_network, load_preprocessor

        network = load_network(checkpoint, "AutoModelForImageClassification", self.params.device)
        judge = Judge(network, load_preprocessor(checkpoint), place, exclusive, self.params.device)
        labels = try_out(checkpoint, lambda: judge.look([grey()])).shape[1]
        if place >= labels:
            raise UserError(f"{checkpoint}: tells {labels} labels apart, {self.params.label!r} would be number {place}")
        return judge

    def inspect(self, checkpoint: Path) -> None:
        """Load it: what the library makes of a folder shows in no header."""
        self.load(checkpoint)

    def score(self, network: Any, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The probabilities."""
        opened = open_records(records, self.params.role)
        found = iter(network.look([picture for picture in opened if not isinstance(picture, Quarantine)]))
        rows: list[Sequence[Any] | Quarantine] = []
        for picture in opened:
            seen = picture if isinstance(picture, Quarantine) else finite(next(found))
            rows.append(seen if isinstance(seen, Quarantine) else (float(seen[network.place]),))
        return rows


def read_label(checkpoint: Path, label: str) -> tuple[int, bool]:
    """Where a label stands in a checkpoint's output, and whether its labels exclude one another; raises UserError."""
    path = checkpoint / "config.json"
    config = read_json(path)
    names = config.get("id2label")
    if not isinstance(names, dict) or len(names) < 2:
        raise UserError(f"{path}: names no labels (`id2label`); it is no classifier")
    kind = config.get("problem_type") or "single_label_classification"
    if kind == "regression":
        raise UserError(f"{path}: is a regression, its output is no probability")
    for place, name in names.items():
        if name == label:
            return int(place), kind != "multi_label_classification"
    known = ", ".join(repr(name) for name in list(names.values())[:20])
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    raise UserError(f"{path}: has no label {label!r}; it has {known}{more}")
