"""Sequences as symbolic segments, and as ids with spans; `render` and `parse` go from one to the other.

A segment says what a piece is and whether it is a target (the response) or prompt. Pieces are tokenised one
by one and joined as ids, as the released code does; joining the strings first would give other ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model import grammar
from model.image_tokenizer import Codes, Grid
from model.text_tokenizer import TextTokenizer
from model.vocabulary import BEGIN_IMAGE_TOKENS, END_IMAGE, START_IMAGE, Vocabulary, size_token

Ids = NDArray[np.int32]
Kind = Literal["text", "token", "image"]
Role = Literal["input", "source", "target", "frame"]
"""What a picture is for: of a question, of an edit, to be drawn, of a story."""


@dataclass(frozen=True)
class Text:
    """Ordinary text. `ids` is set only where a model wrote ids that the tokenizer would not choose."""

    text: str
    target: bool = False
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.text and not self.ids:
            raise ValueError("a text segment is empty; leave it out instead")


@dataclass(frozen=True)
class Token:
    """One special token by its spelling, such as `<boi>`."""

    name: str
    target: bool = False


@dataclass(frozen=True, eq=False)
class Image:
    """The image ids of a picture, without header and end. codes: int32 [grid height, grid width]."""

    grid: Grid
    codes: Codes
    role: Role
    target: bool = False

    def __post_init__(self) -> None:
        if self.codes.shape != (self.grid.height, self.grid.width):
            raise ValueError(f"codes {list(self.codes.shape)} do not fill the {self.role} picture's grid {self.grid}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        same = (self.grid, self.role, self.target) == (other.grid, other.role, other.target)
        return same and np.array_equal(self.codes, other.codes)

    def __hash__(self) -> int:
        return hash((self.grid, self.role, self.target, self.codes.tobytes()))


Segment: TypeAlias = Text | Token | Image
Segments: TypeAlias = tuple[Segment, ...]


@dataclass(frozen=True)
class Span:
    """Where a piece lies in the ids. `grid` and `role` are set for images only."""

    kind: Kind
    start: int
    length: int
    target: bool
    grid: Grid | None = None
    role: Role | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data as `model.grammar` documents it."""
        data: dict[str, Any] = {
            "kind": self.kind,
            "start": self.start,
            "length": self.length,
            "target": self.target,
        }
        if self.grid is not None:
            data |= {"grid": [self.grid.height, self.grid.width], "role": self.role}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Span:
        """Inverse of `to_json`."""
        grid = Grid(*data["grid"]) if "grid" in data else None
        return cls(data["kind"], data["start"], data["length"], data["target"], grid, data.get("role"))


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """int32 ids [n] and the spans that cover them in order."""

    ids: Ids
    spans: tuple[Span, ...]

    def target_mask(self) -> NDArray[np.bool_]:
        """bool [n]: True where the id belongs to the response."""
        mask = np.zeros(len(self.ids), np.bool_)
        for span in self.spans:
            mask[span.start : span.start + span.length] = span.target
        return mask

    def image_mask(self) -> NDArray[np.bool_]:
        """bool [n]: True where the id is an image id."""
        mask = np.zeros(len(self.ids), np.bool_)
        for span in self.spans:
            mask[span.start : span.start + span.length] = span.kind == "image"
        return mask


def header(grid: Grid, *, target: bool = False) -> Segments:
    """What announces a picture: start of image, height, width, begin of image tokens."""
    names = (START_IMAGE, size_token(grid.height), size_token(grid.width), BEGIN_IMAGE_TOKENS)
    return tuple(Token(name, target) for name in names)


def picture(codes: Codes, role: Role, *, target: bool = False) -> Segments:
    """A whole picture from its codes [height, width]: header, image ids, end of image."""
    grid = Grid(*codes.shape)
    return (*header(grid, target=target), Image(grid, codes, role, target), Token(END_IMAGE, target))


def render(segments: Iterable[Segment], vocabulary: Vocabulary, tokenizer: TextTokenizer) -> TokenSequence:
    """Ids and spans of `segments`; neighbouring tokens of equal target share one span.

    Raises ValueError naming the segment when a token is unknown, a code lies outside the code book, or text
    came out as an id that text may not have.
    """
    parts: list[Ids] = []
    spans: list[Span] = []
    start = 0
    specials = grammar.special_ids(vocabulary.to_json())
    for index, segment in enumerate(segments):
        try:
            ids = _ids_of(segment, vocabulary, tokenizer, specials)
        except ValueError as error:
            raise ValueError(f"segment {index} ({_describe(segment)}): {error}") from None
        last = spans[-1] if spans else None
        if isinstance(segment, Token) and last and last.kind == "token" and last.target == segment.target:
            spans[-1] = Span("token", last.start, last.length + 1, last.target)
        elif isinstance(segment, Image):
            spans.append(Span("image", start, len(ids), segment.target, segment.grid, segment.role))
        else:
            spans.append(Span("text" if isinstance(segment, Text) else "token", start, len(ids), segment.target))
        parts.append(ids)
        start += len(ids)
    joined = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return TokenSequence(joined, tuple(spans))


def parse(sequence: TokenSequence, vocabulary: Vocabulary, tokenizer: TextTokenizer) -> Segments:
    """Segments that render to exactly `sequence` again; the inverse of `render`."""
    segments: list[Segment] = []
    for span in sequence.spans:
        part = sequence.ids[span.start : span.start + span.length]
        if span.kind == "text":
            text = tokenizer.decode(part.tolist())
            spelled = tokenizer.encode(text) == part.tolist()
            segments.append(Text(text, span.target, None if spelled else tuple(part.tolist())))
        elif span.kind == "token":
            segments += [Token(tokenizer.token_name(token_id), span.target) for token_id in part.tolist()]
        else:
            if span.grid is None or span.role is None:
                raise ValueError(f"image span at {span.start} has no grid or no role")
            codes = (part - vocabulary.image_offset).reshape(span.grid.height, span.grid.width)
            segments.append(Image(span.grid, codes, span.role, span.target))
    return tuple(segments)


def find_spans(ids: Ids, vocabulary: Vocabulary, *, role: Role = "target", target: bool = False) -> tuple[Span, ...]:
    """Spans of bare ids by the grammar alone, for what a model wrote: pictures, special tokens, runs of text.

    Pictures get `role` and everything gets `target`. A picture cut short by the end of the ids raises
    ValueError.
    """
    plain = vocabulary.to_json()
    special = np.isin(ids, sorted(grammar.special_ids(plain)))
    spans: list[Span] = []

    def add_plain(start: int, end: int) -> None:
        edges = [start, *(np.flatnonzero(np.diff(special[start:end])) + 1 + start).tolist(), end]
        for left, right in pairwise(edges):
            if left < right:
                spans.append(Span("token" if special[left] else "text", left, right - left, target))

    position = 0
    for start, height, width in grammar.find_images(plain, ids):
        grid = Grid(height, width)
        if start == len(ids):
            break
        if start + grid.area > len(ids):
            raise ValueError(f"position {start}: only {len(ids) - start} ids follow the header of a {grid} picture")
        add_plain(position, start)
        spans.append(Span("image", start, grid.area, target, grid, role))
        position = start + grid.area
    add_plain(position, len(ids))
    return tuple(spans)


def check(sequence: TokenSequence, vocabulary: Vocabulary, *, complete: bool = True) -> None:
    """`grammar.check` of a sequence; see there. Raises a one-line ValueError naming the position."""
    spans = [span.to_json() for span in sequence.spans]
    grammar.check(vocabulary.to_json(), sequence.ids, spans, complete=complete)


def symbols(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Segments as plain data for reading and comparing; codes are left out, their number stays."""
    listed: list[dict[str, Any]] = []
    for segment in segments:
        if isinstance(segment, Image):
            grid = [segment.grid.height, segment.grid.width]
            listed.append({"image": segment.role, "grid": grid, "target": segment.target})
        elif isinstance(segment, Token):
            listed.append({"token": segment.name, "target": segment.target})
        else:
            listed.append({"text": segment.text, "target": segment.target})
    return listed


def _ids_of(segment: Segment, vocabulary: Vocabulary, tokenizer: TextTokenizer, specials: frozenset[int]) -> Ids:
    if isinstance(segment, Token):
        if not tokenizer.has_token(segment.name):
            largest = vocabulary.largest_side
            raise ValueError(f"the tokenizer has no such token; size tokens go up to {largest} patches a side")
        token_id = tokenizer.token_id(segment.name)
        if token_id not in specials:
            raise ValueError(f"{segment.name!r} (id {token_id}) is no special token of the vocabulary")
        return np.array([token_id], np.int32)
    if isinstance(segment, Image):
        codes = segment.codes
        if codes.min() < 0 or codes.max() >= vocabulary.image_codes:
            wrong = int(codes.min() if codes.min() < 0 else codes.max())
            raise ValueError(f"image code {wrong} is outside the code book 0..{vocabulary.image_codes - 1}")
        return codes.reshape(-1).astype(np.int32) + np.int32(vocabulary.image_offset)
    ids = list(segment.ids) if segment.ids is not None else tokenizer.encode(segment.text)
    for at, token_id in enumerate(ids):
        if not 0 <= token_id < vocabulary.text_size or token_id in specials:
            raise ValueError(f"id {token_id} at {at} of the text is no ordinary text id")
    if not ids:
        raise ValueError("the text gave no ids")
    return np.array(ids, np.int32)


def _describe(segment: Segment) -> str:
    if isinstance(segment, Token):
        return f"token {segment.name}"
    if isinstance(segment, Image):
        return f"{segment.role} picture {segment.grid}"
    return f"text {segment.text[:40]!r}"
