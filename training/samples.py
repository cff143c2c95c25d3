"""Reading a shard set: the samples its card names, checked against the model's vocabulary before the first one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import UserError
from catalog.shards import Card, read_card
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class TrainingSample:
    """One sample. ids: int32 [tokens]; `meta` is its JSON member (task, spans, licence, provenance)."""

    key: str
    ids: npt.NDArray[np.int32]
    meta: dict[str, Any]


def shard_paths(folder: Path) -> list[str]:
    """The tars of a shard set in the order of its card; raises UserError for a folder that is no shard set."""
    card = _card(folder)
    return [
        str(folder / generation["folder"] / shard["file"])
        for generation in card.generations
        for shard in generation["shards"]
    ]


def check_fit(folder: Path, vocabulary: Vocabulary) -> Card:
    """The card of a shard set made for this vocabulary; raises UserError naming what differs."""
    card = _card(folder)
    wanted = vocabulary.to_json()
    for name, value in wanted.items():
        if card.vocabulary.get(name) != value:
            raise UserError(f"{folder}: made for {name} {card.vocabulary.get(name)}, the model has {value}")
    return card


def samples(folder: Path, vocabulary: Vocabulary) -> Iterator[TrainingSample]:
    """Every sample of a shard set, by stock webdataset; raises UserError before the first if it does not fit."""
    import webdataset

    check_fit(folder, vocabulary)
    dataset = webdataset.WebDataset(shard_paths(folder), shardshuffle=False).decode()
    for row in dataset:
        yield TrainingSample(row["__key__"], row["ids.npy"], row["json"])


def _card(folder: Path) -> Card:
    try:
        return read_card(folder)
    except ValueError as error:
        raise UserError(str(error)) from None
