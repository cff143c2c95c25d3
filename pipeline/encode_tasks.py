"""What a sequence of each task is made of: which columns and pictures it needs, how its pictures are cut, its template.

`pipeline.encode` runs them; the layouts themselves are `model.templates`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import orjson

from model import templates
from model.image_tokenizer import Codes, Grid
from model.resize import Geometry, Size, covering, for_editing, for_generation, for_understanding
from model.sequences import Segments
from pipeline.media import MediaRef
from pipeline.operator import Quarantine, Record

TaskName = Literal[
    "text_to_image",
    "text_to_image_thinking",
    "understanding",
    "conversation",
    "editing",
    "interleaved",
    "plain_text",
    "document",
]
Texts = Mapping[str, str]
"""Per parameter that names a column (`prompt`, `answer`, `thinking`) the text of the record."""


@dataclass(frozen=True)
class Shape:
    """The parameters that decide which pictures there are: roles of given ones, role of the drawn one, stage side."""

    given: tuple[str, ...]
    drawn: str
    resolution: int


class EncodeTask(ABC):
    """One task of the model. `texts` are the parameters it must have, `optional` those it may have."""

    texts: ClassVar[tuple[str, ...]] = ("prompt",)
    optional: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[bool] = False
    """Whether pictures are given to the model."""
    draws: ClassVar[bool] = False
    """Whether the model draws a picture, so that there is a stage's resolution."""

    def pictures(self, record: Record, shape: Shape) -> list[MediaRef]:
        """A record's pictures in the order in which they are encoded: all of each given role, then the drawn one."""
        given = [ref for role in shape.given for ref in _all_of(record, role)] if self.gives else []
        return [*given, *([record.ref(shape.drawn)] if self.draws else [])]

    def geometries(self, sizes: Sequence[Size], shape: Shape) -> list[Geometry]:
        """How each of the pictures is scaled and cut."""
        return [for_generation(size, shape.resolution) for size in sizes]

    @abstractmethod
    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """The training sequence. codes: int32 [grid height, grid width] each, in the order of `pictures`."""


def _all_of(record: Record, role: str) -> list[MediaRef]:
    """A record's media of a role, in their order; a record without one is quarantined."""
    return [ref for ref in record.media if ref.role == role] or [record.ref(role)]


class TextToImage(EncodeTask):
    """A caption, then the picture."""

    draws = True

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """Prompt and picture."""
        return templates.text_to_image(texts["prompt"], Grid(*codes[0].shape), codes[0])


class TextToImageThinking(EncodeTask):
    """A caption, thoughts, then the picture."""

    texts = ("prompt", "thinking")
    draws = True

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """Prompt, thoughts and picture."""
        return templates.text_to_image_thinking(texts["prompt"], Grid(*codes[0].shape), texts["thinking"], codes[0])


class Understanding(EncodeTask):
    """Pictures and a question, then the answer; with `thinking` the thoughts stand before it."""

    texts = ("prompt", "answer")
    optional = ("thinking",)
    gives = True

    def geometries(self, sizes: Sequence[Size], shape: Shape) -> list[Geometry]:
        """Smart sizes; smaller ones where there are several pictures."""
        return [for_understanding(size, several=len(sizes) > 1) for size in sizes]

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """Question and answer."""
        return templates.understanding(texts["prompt"], tuple(codes), _said(texts))


class Conversation(EncodeTask):
    """Several questions and answers, each with the pictures that come with it, or without any; `turns` writes them."""

    gives = True

    def pictures(self, record: Record, shape: Shape) -> list[MediaRef]:
        """All pictures of the given roles, in their order; there may be none."""
        return [ref for role in shape.given for ref in record.media if ref.role == role]

    def geometries(self, sizes: Sequence[Size], shape: Shape) -> list[Geometry]:
        """Smart sizes, as of understanding."""
        return [for_understanding(size, several=len(sizes) > 1) for size in sizes]

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """The turns; without pictures the text model's own chat."""
        turns = _turns(texts["prompt"])
        if sum(turn["pictures"] for turn in turns) != len(codes):
            shown = sum(turn["pictures"] for turn in turns)
            raise Quarantine(
                "turns and pictures differ", f"the turns show {shown} pictures, the roles hold {len(codes)}"
            )
        if not codes:
            *earlier, last = [templates.Turn(turn["question"], turn["answer"]) for turn in turns]
            return templates.plain_text(last.question, last.answer, earlier=earlier)
        left = iter(codes)
        return templates.conversation(
            [
                templates.ShownTurn(turn["question"], turn["answer"], tuple(islice(left, turn["pictures"])))
                for turn in turns
            ]
        )


class Editing(EncodeTask):
    """Source pictures and an instruction, then the edited picture; `resolution` is 512 unless said otherwise."""

    gives = True
    draws = True

    def geometries(self, sizes: Sequence[Size], shape: Shape) -> list[Geometry]:
        """Buckets of an aspect each; the drawn picture has that of its source where there is one alone."""
        *given, drawn = sizes
        cut = [for_editing(size, shape.resolution) for size in given]
        last = covering(drawn, cut[0].output) if len(cut) == 1 else for_editing(drawn, shape.resolution)
        return [*cut, last]

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """Sources, instruction and result."""
        *given, drawn = codes
        return templates.editing(texts["prompt"], given, drawn, grid=Grid(*drawn.shape))


class Interleaved(EncodeTask):
    """An instruction, then frame after frame: its text and the picture, both written by the model."""

    draws = True

    def pictures(self, record: Record, shape: Shape) -> list[MediaRef]:
        """All pictures of the role, in their order."""
        return [ref for ref in record.media if ref.role == shape.drawn]

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """Instruction and frames; without texts the pictures alone."""
        if not codes:
            raise Quarantine("no pictures", "the record has no frame")
        if frame_texts and len(frame_texts) != len(codes):
            raise Quarantine("texts and frames differ", f"{len(frame_texts)} texts for {len(codes)} frames")
        said: Sequence[str | None] = frame_texts or [None] * len(codes)
        frames = [templates.Frame(text, picture) for text, picture in zip(said, codes, strict=True)]
        return templates.interleaved(texts["prompt"], frames)


class PlainText(EncodeTask):
    """A question and an answer without pictures; with `thinking` the thoughts stand before the answer."""

    texts = ("prompt", "answer")
    optional = ("thinking",)

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """Question and answer."""
        return templates.plain_text(texts["prompt"], _said(texts))


class Document(EncodeTask):
    """A text, as it stands."""

    def segments(self, texts: Texts, codes: Sequence[Codes], frame_texts: Sequence[str]) -> Segments:
        """The text."""
        return templates.document(texts["prompt"])


def _turns(text: str) -> list[dict[str, Any]]:
    """The exchanges that the measure `turns` wrote; raises Quarantine for any other text."""
    try:
        turns = orjson.loads(text)
        if turns and all(set(turn) == {"question", "answer", "pictures"} for turn in turns):
            return list(turns)
    except (orjson.JSONDecodeError, TypeError):
        pass
    raise Quarantine("no conversation", "the prompt is not what the measure `turns` writes as `conversation`")


def _said(texts: Texts) -> str:
    """What the model says. No released layout marks thoughts: they are text before the answer."""
    return f"{texts['thinking']}\n\n{texts['answer']}" if "thinking" in texts else texts["answer"]


TASKS: Mapping[TaskName, EncodeTask] = {
    "text_to_image": TextToImage(),
    "text_to_image_thinking": TextToImageThinking(),
    "understanding": Understanding(),
    "conversation": Conversation(),
    "editing": Editing(),
    "interleaved": Interleaved(),
    "plain_text": PlainText(),
    "document": Document(),
}
