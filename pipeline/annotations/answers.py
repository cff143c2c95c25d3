"""Answers of models, kept for ever: one write-once object per question, stored the moment the answer arrives.

A question is what was asked of whom: pictures by digest, text, prompt, provider, model and revision, sampling. Before
asking, look here; of two workers that ask the same at once, both use what was stored first. Where the server is and how
patiently it is asked are no part of a question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from catalog.errors import UserError
from catalog.keys import canonical, fingerprint
from catalog.storage import Storage

PREFIX = "answers/"
_FORMAT = 1


@dataclass(frozen=True)
class Question:
    """What is asked of whom.

    `prompt` is the prompt's label and `prompt_hash` its whole hash; `media` holds the sha256 of every picture as it
    lies in the source and `picture` how it is made ready; `text` is what the model reads beside it.
    """

    provider: str
    model: str
    revision: str
    prompt: str
    prompt_hash: str
    sampling: dict[str, Any]
    media: tuple[str, ...]
    picture: dict[str, Any]
    text: str

    @property
    def key(self) -> str:
        """32 hex characters; equal questions have equal keys, whoever asks."""
        parts = asdict(self)
        del parts["prompt"]
        return fingerprint({"format": _FORMAT, **parts})

    @property
    def place(self) -> str:
        """The object of the store that holds the answer."""
        return f"{PREFIX}{self.key[:2]}/{self.key}.json"

    @property
    def provenance(self) -> dict[str, Any]:
        """What is stored beside an answer; of the text only its key, since a source's text may have to go."""
        parts = asdict(self)
        return {**parts, "text": fingerprint(parts["text"])}


@dataclass(frozen=True)
class Answer:
    """What came back. `served_model` and `system_fingerprint` are the server's words; token counts null if not told."""

    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    served_model: str | None = None
    system_fingerprint: str | None = None

    @property
    def tokens(self) -> int:
        """All tokens the server counted for it."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


def find(storage: Storage, question: Question) -> Answer | None:
    """The stored answer, None when the question was never answered."""
    try:
        data = storage.read(question.place)
    except FileNotFoundError:
        return None
    return _parse(question.place, data)[1]


def keep(storage: Storage, question: Question, answer: Answer) -> Answer:
    """Store an answer and return it; or return the one that another worker stored first."""
    data = canonical({"format": _FORMAT, "question": question.provenance, "answer": asdict(answer)})
    if storage.create(question.place, data):
        return answer
    first = find(storage, question)
    return answer if first is None else first


def stored(storage: Storage) -> Iterator[tuple[dict[str, Any], Answer]]:
    """Every stored answer with its provenance, in the order of keys."""
    for name, _ in storage.list(PREFIX):
        yield _parse(name, storage.read(name))


def _parse(name: str, data: bytes) -> tuple[dict[str, Any], Answer]:
    try:
        loaded = orjson.loads(data)
        if loaded["format"] == _FORMAT:
            return loaded["question"], Answer(**loaded["answer"])
        problem = f"has format {loaded['format']}, this version reads {_FORMAT}"
    except (ValueError, KeyError, TypeError):
        problem = "is damaged; delete it to have the question asked again"
    raise UserError(f"{name}: {problem}")
