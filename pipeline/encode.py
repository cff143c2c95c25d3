"""Encoding: pictures to codes, text to ids, joined by a template into the sequences that trainers read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from catalog.errors import UserError
from catalog.keys import canonical, sample_key
from model import templates
from model.image_tokenizer import (
    Codes,
    ImageTokenizer,
    Pixels,
    TokenizerIdentity,
    identify_image_tokenizer,
    load_image_tokenizer,
)
from model.resize import UNIT, Size, apply
from model.sequences import check, render
from model.text_tokenizer import TextTokenizer
from model.vocabulary import Vocabulary
from pipeline.encode_tasks import TASKS, EncodeTask, Shape, TaskName
from pipeline.operator import Column, Measure, Params, Quarantine, Record
from pipeline.pictures import open_picture

MODEL_BATCH = 8


class EncodeParams(Params):
    """What a sequence is made of.

    `prompt`, `answer` and `thinking` name columns or mapped fields: the prompt is a caption, question, instruction or
    document. `frame_texts` names the field with the texts of an interleaved record's frames. `role` is the picture that
    the model draws, `given` are those it is given. `resolution` is the side of the stage's aspect buckets in pixels,
    for tasks that draw. Tokenizers are `embedded`, `patch-vq`, or a path; `device` is where a SigLIP-VQ runs.
    """

    task: TaskName
    prompt: str
    answer: str | None = None
    thinking: str | None = None
    frame_texts: str | None = None
    resolution: int = Field(default=0, ge=0)
    variant: str = "main"
    role: str = "image"
    given: tuple[str, ...] = ("image",)
    text_tokenizer: str = "embedded"
    image_tokenizer: str = "patch-vq"
    device: str = Field(default="cpu", exclude=True)
    max_tokens: int = 8192
    provenance: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_task(self) -> EncodeParams:
        task = TASKS[self.task]
        for name in ("answer", "thinking"):
            there, wanted = getattr(self, name) is not None, name in task.texts
            if wanted and not there:
                raise ValueError(f"{self.task} needs `{name}`, a column")
            if there and not wanted and name not in task.optional:
                raise ValueError(f"{self.task} has no `{name}`")
        if self.frame_texts is not None and self.task != "interleaved":
            raise ValueError(f"{self.task} has no `frame_texts`")
        if task.draws and (not self.resolution or self.resolution % UNIT):
            raise ValueError(f"{self.task} needs `resolution`, a multiple of {UNIT}, such as 256 or 512")
        if task.draws and task.gives and (not self.given or self.role in self.given):
            raise ValueError(f"{self.task} needs `given`, the roles of its source pictures, without {self.role!r}")
        return self

    @property
    def texts(self) -> dict[str, str]:
        """The columns that texts come from, by parameter."""
        named = {"prompt": self.prompt, "answer": self.answer, "thinking": self.thinking}
        return {name: column for name, column in named.items() if column is not None}


class Encode(Measure):
    """Token sequences of one record, ready to be packed."""

    name = "encode"
    version = 1
    Params = EncodeParams
    params: EncodeParams
    time_limit: ClassVar[float] = 120.0

    @property
    def columns(self) -> tuple[Column, ...]:
        """Parallel lists, one entry a sample."""
        return (
            Column("sample_keys", pa.list_(pa.string()), "keys of the samples"),
            Column("sample_heads", pa.list_(pa.string()), "task, resolution, template, variant as JSON"),
            Column("sample_licences", pa.list_(pa.string()), "licence of each sample"),
            Column("text_tokens", pa.list_(pa.int64()), "ids of text and special tokens"),
            Column("image_tokens", pa.list_(pa.int64()), "ids of image codes"),
            Column("sample_ids", pa.list_(pa.binary()), "int32 little-endian ids"),
            Column("sample_metas", pa.list_(pa.binary()), "the sample's JSON member"),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that prompt, answer and provenance come from."""
        return tuple(dict.fromkeys([*self.params.texts.values(), "source", "licence", *self.params.provenance]))

    def fingerprint_parts(self) -> dict[str, Any]:
        """Tokenizers, vocabulary and template decide the ids."""
        return {**self.card_parts(), "template": self._template.fingerprint()}

    def card_parts(self) -> dict[str, Any]:
        """What a shard set's card says of the sequences in it."""
        text, image = self._text, self._identity
        return {
            "vocabulary": {**self._vocabulary.to_json(), "fingerprint": self._vocabulary.fingerprint()},
            "tokenizers": {
                "text": {"name": text.name, "fingerprint": text.fingerprint, "embedded": text.is_embedded},
                "image": {
                    "name": image.name,
                    "revision": image.revision,
                    "fingerprint": image.fingerprint,
                    "embedded": image.is_embedded,
                },
            },
            "templates": {self.params.task: self._template.fingerprint()},
        }

    @property
    def embedded(self) -> tuple[str, ...]:
        """The tokenizers that are stand-ins."""
        kinds = self.card_parts()["tokenizers"].values()
        return tuple(kind["name"] for kind in kinds if kind["embedded"])

    @property
    def loads_model(self) -> bool:  # type: ignore[override]
        """A tokenizer that is not embedded is a model."""
        return self.params.image_tokenizer != "patch-vq"

    @property
    def gpus(self) -> float:  # type: ignore[override]
        """A whole one where the model runs on a GPU."""
        return 1.0 if self.loads_model and self.params.device.startswith("cuda") else 0.0

    @cached_property
    def _text(self) -> TextTokenizer:
        name = self.params.text_tokenizer
        return TextTokenizer.embedded() if name == "embedded" else TextTokenizer.load(name)

    @cached_property
    def _image(self) -> ImageTokenizer:
        return load_image_tokenizer(self.params.image_tokenizer, self.params.device)

    @cached_property
    def _identity(self) -> TokenizerIdentity:
        """Enough for a plan; the weights are loaded by workers alone."""
        try:
            return identify_image_tokenizer(self.params.image_tokenizer)
        except ValueError as error:
            raise UserError(str(error)) from None

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.from_tokenizer(self._text, self._identity.codes)

    @property
    def _task(self) -> EncodeTask:
        return TASKS[self.params.task]

    @property
    def _template(self) -> templates.Template:
        return templates.TEMPLATES[self.params.task]

    @property
    def batch(self) -> int:  # type: ignore[override]
        """A model encodes several pictures at once."""
        return MODEL_BATCH if self.loads_model else 1

    def setup(self) -> None:
        """Load the tokenizers."""
        _ = self._vocabulary, self._image

    def process(self, record: Record) -> Sequence[Any]:
        """One sample of the record's task."""
        return self._sample(record, [self._image.encode(picture) for picture in self._pictures(record)])

    def process_batch(self, records: Sequence[Record]) -> Sequence[Sequence[Any] | Quarantine]:
        """The samples of several records, their pictures encoded together."""
        pictures = [self._pictures(record) for record in records]
        codes = iter(self._image.encode_batch(list(chain.from_iterable(pictures))))
        return [
            self._sample(record, [next(codes) for _ in mine]) for record, mine in zip(records, pictures, strict=True)
        ]

    def _sample(self, record: Record, codes: Sequence[Codes]) -> Sequence[Any]:
        texts = {name: _text_of(record, column) for name, column in self.params.texts.items()}
        sequence = render(self._task.segments(texts, codes, self._frame_texts(record)), self._vocabulary, self._text)
        count = len(sequence.ids)
        if count > self.params.max_tokens:
            raise Quarantine("sequence too long", f"{count} tokens, at most {self.params.max_tokens}")
        check(sequence, self._vocabulary)
        image_tokens = int(sequence.image_mask().sum())
        template = f"{self._template.name}/v{self._template.version}"
        task, resolution, variant = self.params.task, self.params.resolution, self.params.variant
        key = sample_key(record.key, task, resolution, template, variant)
        head = {"task": task, "resolution": resolution, "template": template, "variant": variant}
        licence = record.values["licence"]
        meta = {
            **head,
            "spans": [span.to_json() for span in sequence.spans],
            "tokens": {"text": count - image_tokens, "image": image_tokens},
            "licence": licence,
            "provenance": {
                "record_key": record.key,
                "source": record.values["source"],
                "media": [ref.digest for ref in record.media],
                **{name: record.values[name] for name in self.params.provenance},
            },
        }
        return (
            [key],
            [canonical(head).decode()],
            [licence],
            [count - image_tokens],
            [image_tokens],
            [np.asarray(sequence.ids, dtype="<i4").tobytes()],
            [canonical(meta)],
        )

    def _frame_texts(self, record: Record) -> list[str]:
        name = self.params.frame_texts
        if name is None:
            return []
        found = record.fields.get(name)
        if not isinstance(found, list) or not found or not all(isinstance(one, str) and one.strip() for one in found):
            raise Quarantine(f"no {name}", f"the field {name} is not a list of texts")
        return [text.strip() for text in found]

    def _pictures(self, record: Record) -> list[Pixels]:
        shape = Shape(self.params.given, self.params.role, self.params.resolution)
        opened = [open_picture(record.reader.read(ref)) for ref in self._task.pictures(record, shape)]
        geometries = self._task.geometries([Size(picture.width, picture.height) for picture in opened], shape)
        return [np.asarray(apply(one, geometry)) for one, geometry in zip(opened, geometries, strict=True)]


def _text_of(record: Record, column: str) -> str:
    value = record.values[column]
    if not isinstance(value, str) or not value.strip():
        raise Quarantine(f"no {column}", f"{column} is empty; drop such records with a rule if that is expected")
    return value.strip()
