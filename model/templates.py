"""The sequence of every task, as symbolic segments. Source: fact sheet section 3, the released remote code.

One function a task. Called with what the user gave, it returns the prompt for the sampler; called with the
response as well (codes, answer, frames), it returns the training form, whose segments say by `target` what is
response. Prompt and training form agree up to the first target. `Branch` chooses the branches of guidance,
which are also what training with dropped conditions uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from model.image_tokenizer import Codes, Grid
from model.sequences import Image, Segment, Segments, Text, Token, header, picture, symbols
from model.text_tokenizer import json_digest
from model.vocabulary import END_IMAGE, EOS, ROLE_END, START_IMAGE

SYSTEM, HUMAN, ASSISTANT = "<role>SYSTEM</role>", "<role>HUMAN</role>", "<role>ASSISTANT</role>"
UNCONDITION = "<uncondition>"  # a plain string in the released code too, not a special token

DRAWING = "You are a text-to-image generation assistant."
THINKING = "You are a text-to-image generation assistant with a thinking process."
UNDERSTANDING = "You are a multimodal understanding assistant."
EDITING = "You are an image editing assistant."
INTERLEAVED = "You are a interleaved generation assistant."  # spelled so in the released code
PLAIN = "detailed thinking off"

Branch = Literal["full", "no_text", "no_image"]
Wrapper = Literal["wrapper", "early", "plain"]
"""Understanding layouts: released; the first upload's, without role tags; with the plain chat's system."""


def text_to_image(
    prompt: str, grid: Grid, codes: Codes | None = None, *, branch: Literal["full", "no_text"] = "full"
) -> Segments:
    """Prompt, then a picture of `grid`. codes: int32 [grid height, grid width] for the training form.

    The header is prompt: the user chooses the size. The closing `<|/image|>` is a target; at inference the
    released code stops before it.
    """
    asked = _wrapped(DRAWING, [Text(_condition(prompt, branch))])
    return (*asked, *header(grid), *_drawn(grid, codes))


def text_to_image_thinking(
    prompt: str,
    grid: Grid | None = None,
    thinking: str | None = None,
    codes: Codes | None = None,
    *,
    branch: Literal["full", "no_text"] = "full",
) -> Segments:
    """Prompt, free text, then a picture whose header the model writes itself.

    With neither `thinking` nor `grid`: the prompt of phase one. With both: the prompt of phase two, or with
    `codes` the training form. The `no_text` branch has no thinking text and needs only `grid`. Raises
    ValueError for other mixes.
    """
    asked = _wrapped(THINKING, [Text(_condition(prompt, branch))])
    if branch == "no_text":
        if grid is None:
            raise ValueError("the no-text branch of thinking needs the grid of the picture")
        return (*asked, *header(grid), *_drawn(grid, codes))
    if (grid is None) != (thinking is None):
        raise ValueError("thinking text and grid come together: the model writes the header after its thoughts")
    if grid is None or thinking is None:
        return asked
    return (*asked, Text(thinking, target=True), *header(grid, target=True), *_drawn(grid, codes))


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


def understanding(
    question: str,
    pictures: Sequence[Codes],
    answer: str | None = None,
    *,
    earlier: Sequence[Turn] = (),
    variant: Wrapper = "wrapper",
) -> Segments:
    """Pictures in order, the question, then the answer and end of text.

    pictures: int32 codes [height, width] each, at least one. `earlier` turns come first, right after the
    pictures; each answer ends with end of text, and every answer is a target. No public code shows several
    turns: this layout is ours. `variant` "early" knows a single turn only.
    """
    if not pictures:
        raise ValueError("understanding needs at least one picture; use plain_text for a question without")
    shown = _flat(picture(codes, "input") for codes in pictures)
    turns = [(turn.question, turn.answer) for turn in earlier]
    first, *later = [*turns, (question, answer)]
    if variant == "early":
        if earlier:
            raise ValueError("the early understanding layout has no role tags and so no earlier turns")
        return (*shown, Text(question), *_answered(answer))
    system = PLAIN if variant == "plain" else UNDERSTANDING
    segments = [*_wrapped(system, [*shown, Text(first[0])]), *_answered(first[1])]
    for asked, said in later:
        segments += [Text(HUMAN), Text(asked), Text(ASSISTANT), *_answered(said)]
    return tuple(segments)


def editing(
    instruction: str,
    sources: Sequence[Codes],
    codes: Codes | None = None,
    *,
    grid: Grid | None = None,
    branch: Branch = "full",
) -> Segments:
    """Source pictures, the instruction, then the edited picture.

    With one source the output has its grid. Several sources (no public code shows their layout) need `grid`.
    The `no_image` branch keeps one lone `<|image|>` where the sources stood, as released. Raises ValueError
    for an empty instruction, no source, or a grid that contradicts the source or the codes.
    """
    if not sources:
        raise ValueError("editing needs at least one source picture")
    if not instruction.strip():
        raise ValueError("editing needs an instruction")
    output = grid
    if len(sources) == 1:
        output = Grid(*sources[0].shape)
        if grid not in (None, output):
            raise ValueError(f"an edit keeps its source's grid {output}; {grid} was asked for")
    if output is None:
        raise ValueError(f"editing with {len(sources)} sources needs the grid of the output")
    shown: Segments = (Token(START_IMAGE),)
    if branch != "no_image":
        shown = _flat(picture(source, "source") for source in sources)
    asked = _wrapped(EDITING, [*shown, Text(_condition(instruction, branch))])
    return (*asked, *header(output), *_drawn(output, codes))


@dataclass(frozen=True, eq=False)
class Frame:
    """One step of a story: text, a picture, or text and then a picture.

    A picture is given by codes, or by grid alone where it is still to be drawn (the last frame of a prompt).
    """

    text: str | None = None
    codes: Codes | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if self.codes is not None and self.grid not in (None, Grid(*self.codes.shape)):
            raise ValueError(f"frame codes {list(self.codes.shape)} contradict its grid {self.grid}")
        if not self.text and self.size is None:
            raise ValueError("a frame needs text, a picture, or both")

    @property
    def size(self) -> Grid | None:
        """Grid of the frame's picture, None for text alone."""
        return Grid(*self.codes.shape) if self.codes is not None else self.grid


def interleaved(
    prompt: str,
    frames: Sequence[Frame] = (),
    *,
    pictures: Sequence[Codes] = (),
    complete: bool = True,
    branch: Branch = "full",
) -> Segments:
    """Prompt, then frames of text and pictures, all written by the model, then end of text.

    `complete=False` leaves the end of text out: the history that the sampler goes on from, whose last picture
    may be still to draw. `pictures` (codes of given pictures) stand before the prompt, as in understanding;
    no public code shows that layout. The guidance branches are those of the last frame: `no_text` keeps the
    history and replaces that frame's text (the first frame has no history, so the prompt), `no_image` drops
    history and prompt. Raises ValueError when a picture other than the last of an incomplete story lacks
    codes.
    """
    given = _flat(picture(codes, "input") for codes in pictures)
    if branch != "full":
        return _interleaved_branch(prompt, frames, given, branch)
    segments: list[Segment] = [*_wrapped(INTERLEAVED, [*given, Text(prompt)])]
    for index, frame in enumerate(frames):
        if frame.size is not None and frame.codes is None and (complete or index + 1 < len(frames)):
            raise ValueError(f"frame {index} has a grid but no codes; only the last of an incomplete story may")
        segments += _told(frame)
    if complete and frames:
        segments.append(Token(EOS, target=True))
    return tuple(segments)


def plain_text(question: str, answer: str | None = None, *, earlier: Sequence[Turn] = ()) -> Segments:
    """Chat without pictures, in the text model's own chat template: no spaces, each message closed."""
    segments: list[Segment] = [Text(SYSTEM + PLAIN), Token(ROLE_END)]
    for turn in earlier:
        segments += [Text(HUMAN + turn.question), Token(ROLE_END), Text(ASSISTANT)]
        segments += [Text(turn.answer, target=True), Token(ROLE_END, target=True)]
    segments += [Text(HUMAN + question), Token(ROLE_END), Text(ASSISTANT)]
    if answer is not None:
        segments += [Text(answer, target=True), Token(ROLE_END, target=True), Token(EOS, target=True)]
    return tuple(segments)


@dataclass(frozen=True, eq=False)
class ShownTurn:
    """A question with the pictures shown just before it, and its answer, None where it is still to be given.

    pictures: int32 codes [height, width] each.
    """

    question: str
    answer: str | None = None
    pictures: tuple[Codes, ...] = ()


def conversation(turns: Sequence[ShownTurn]) -> Segments:
    """Questions and answers in turn, every answer a target; pictures stand before the question they come with.

    With all pictures in the first turn it is `understanding` with earlier turns; no public code shows several turns.
    Raises ValueError for no turn, no picture (`plain_text` has turns without), or an answer missing before the last.
    """
    if not turns:
        raise ValueError("a conversation needs at least one turn")
    if not any(turn.pictures for turn in turns):
        raise ValueError("a conversation needs a picture; use plain_text for one without")
    segments: list[Segment] = []
    for index, turn in enumerate(turns):
        if turn.answer is None and index + 1 < len(turns):
            raise ValueError(f"turn {index} has no answer; only the last of a prompt may lack one")
        asked = [*_flat(picture(codes, "input") for codes in turn.pictures), Text(turn.question)]
        segments += [Text(HUMAN), *asked, Text(ASSISTANT)] if index else _wrapped(UNDERSTANDING, asked)
        segments += _answered(turn.answer)
    return tuple(segments)


def document(text: str) -> Segments:
    """A document of a text corpus: no template, all of it a target, closed by end of text."""
    return Text(text, target=True), Token(EOS, target=True)


@dataclass(frozen=True)
class Template:
    """A task's layout. `version` rises with any change of it that the examples do not show."""

    name: str
    function: Callable[..., Segments]
    version: int
    examples: tuple[Mapping[str, Any], ...]

    def fingerprint(self) -> str:
        """Identity of the layout (64 hex characters): name, version, and the symbols of every example."""
        drawn = [symbols(self.function(**example)) for example in self.examples]
        return json_digest({"name": self.name, "version": self.version, "examples": drawn})


def _example_codes(height: int, width: int) -> Codes:
    return np.arange(height * width, dtype=np.int32).reshape(height, width)


_GRID, _CODES, _OTHER = Grid(2, 3), _example_codes(2, 3), _example_codes(1, 2)
_STORY = (Frame("one", _CODES), Frame("two", _OTHER))

_ALL = (
    Template(
        "text_to_image",
        text_to_image,
        1,
        (
            {"prompt": "p", "grid": _GRID, "codes": _CODES},
            {"prompt": "p", "grid": _GRID, "branch": "no_text"},
        ),
    ),
    Template(
        "text_to_image_thinking",
        text_to_image_thinking,
        1,
        (
            {"prompt": "p"},
            {"prompt": "p", "grid": _GRID, "thinking": "t", "codes": _CODES},
            {"prompt": "p", "grid": _GRID, "branch": "no_text"},
        ),
    ),
    Template(
        "understanding",
        understanding,
        1,
        (
            {"question": "q", "pictures": (_CODES, _OTHER), "answer": "a", "earlier": (Turn("q0", "a0"),)},
            {"question": "q", "pictures": (_CODES,), "answer": "a", "variant": "early"},
            {"question": "q", "pictures": (_CODES,), "answer": "a", "variant": "plain"},
        ),
    ),
    Template(
        "editing",
        editing,
        1,
        (
            {"instruction": "i", "sources": (_CODES,), "codes": _CODES},
            {"instruction": "i", "sources": (_CODES, _OTHER), "codes": _OTHER, "grid": Grid(1, 2)},
            {"instruction": "i", "sources": (_CODES,), "branch": "no_text"},
            {"instruction": "i", "sources": (_CODES,), "branch": "no_image"},
        ),
    ),
    Template(
        "interleaved",
        interleaved,
        1,
        (
            {"prompt": "p", "frames": (*_STORY, Frame("end")), "pictures": (_OTHER,)},
            {"prompt": "p", "frames": _STORY[:1], "branch": "no_text"},
            {"prompt": "p", "frames": _STORY, "branch": "no_text"},
            {"prompt": "p", "frames": _STORY, "branch": "no_image"},
        ),
    ),
    Template(
        "plain_text",
        plain_text,
        1,
        ({"question": "q", "answer": "a", "earlier": (Turn("q0", "a0"),)},),
    ),
    Template(
        "conversation",
        conversation,
        1,
        (
            {
                "turns": (
                    ShownTurn("q0", "a0", (_CODES, _OTHER)),
                    ShownTurn("q1", "a1"),
                    ShownTurn("q2", "a2", (_OTHER,)),
                )
            },
        ),
    ),
    Template("document", document, 1, ({"text": "t"},)),
)
TEMPLATES: Mapping[str, Template] = {template.name: template for template in _ALL}


def fingerprint() -> str:
    """Identity of all templates together, as a shard set's card carries it."""
    return json_digest({name: template.fingerprint() for name, template in TEMPLATES.items()})


_Pieces: TypeAlias = Sequence[Segment]


def _wrapped(system: str, user: _Pieces) -> Segments:
    """The multimodal chat wrapper: single spaces round the system sentence, none elsewhere."""
    return Text(f"{SYSTEM} {system} {HUMAN}"), *user, Text(ASSISTANT)


def _condition(text: str, branch: Branch) -> str:
    return UNCONDITION if branch == "no_text" else text


def _drawn(grid: Grid, codes: Codes | None) -> Segments:
    if codes is None:
        return ()
    return Image(grid, codes, "target", target=True), Token(END_IMAGE, target=True)


def _answered(answer: str | None) -> Segments:
    return () if answer is None else (Text(answer, target=True), Token(EOS, target=True))


def _told(frame: Frame) -> list[Segment]:
    segments: list[Segment] = [Text(frame.text, target=True)] if frame.text else []
    if frame.codes is not None:
        segments += picture(frame.codes, "frame", target=True)
    elif frame.grid is not None:
        segments += header(frame.grid, target=True)
    return segments


def _interleaved_branch(prompt: str, frames: Sequence[Frame], given: Segments, branch: Branch) -> Segments:
    """Up to the header of the last frame's picture. The other frames are history and need their codes."""
    size = frames[-1].size if frames else None
    if size is None:
        raise ValueError("a guidance branch needs a last frame with a picture")
    unconditional = _wrapped(INTERLEAVED, [Text(UNCONDITION)])
    told = [segment for frame in frames[:-1] for segment in _told(frame)]
    # History ends with its last picture: text after it is part of what guidance asks about.
    while told and not (isinstance(told[-1], Token) and told[-1].name == END_IMAGE):
        told.pop()
    if branch == "no_text" and told:
        history = [*_wrapped(INTERLEAVED, [*given, Text(prompt)]), *told]
        return (*history, Text(UNCONDITION, target=True), *header(size, target=True))
    if branch == "no_image" and frames[-1].text:
        return (*unconditional, Text(frames[-1].text, target=True), *header(size, target=True))
    return (*unconditional, *header(size, target=True))


def _flat(groups: Iterable[Segments]) -> Segments:
    return tuple(segment for group in groups for segment in group)
