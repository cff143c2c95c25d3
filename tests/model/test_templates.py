from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pytest

from model import templates
from model.image_tokenizer import Codes, Grid
from model.sequences import Image, Segment, Text, Token
from model.templates import TEMPLATES, Frame, Turn
from model.text_tokenizer import TextTokenizer
from tests.model.goldens import golden_json

PROMPT = "A paper boat on a pond"


def codes(height: int, width: int, start: int = 0) -> Codes:
    return np.arange(start, start + height * width, dtype=np.int32).reshape(height, width)


def spelled(segments: Iterable[Segment]) -> str:
    """Segments in one line: tokens as they are, pictures as [role hxw], targets in braces."""
    pieces = []
    for segment in segments:
        if isinstance(segment, Image):
            piece = f"[{segment.role} {segment.grid}]"
        else:
            piece = segment.text if isinstance(segment, Text) else segment.name
        pieces.append("{" + piece + "}" if segment.target else piece)
    return "".join(pieces)


def prompt_of(segments: Iterable[Segment]) -> list[Segment]:
    """The segments before the first target."""
    found = []
    for segment in segments:
        if segment.target:
            break
        found.append(segment)
    return found


HEADER_2X3 = "<|image|><|reserved_token_2|><|reserved_token_3|><boi>"
TARGET_HEADER = "{<|image|>}{<|reserved_token_2|>}{<|reserved_token_3|>}{<boi>}"


def test_text_to_image():
    assert spelled(templates.text_to_image("p", Grid(2, 3), codes(2, 3))) == (
        "<role>SYSTEM</role> You are a text-to-image generation assistant. <role>HUMAN</role>p"
        f"<role>ASSISTANT</role>{HEADER_2X3}" + "{[target 2x3]}{<|/image|>}"
    )
    unconditional = spelled(templates.text_to_image("p", Grid(2, 3), branch="no_text"))
    assert "<role>HUMAN</role><uncondition><role>ASSISTANT</role>" in unconditional


def test_with_thinking_the_model_writes_the_header_itself():
    assert spelled(templates.text_to_image_thinking("p", Grid(2, 3), "hm", codes(2, 3))) == (
        "<role>SYSTEM</role> You are a text-to-image generation assistant with a thinking process. "
        "<role>HUMAN</role>p<role>ASSISTANT</role>{hm}" + TARGET_HEADER + "{[target 2x3]}{<|/image|>}"
    )


def test_thinking_and_grid_come_together():
    for arguments in ({"grid": Grid(2, 3)}, {"thinking": "hm"}):
        with pytest.raises(ValueError, match="come together"):
            templates.text_to_image_thinking("p", **arguments)
    with pytest.raises(ValueError, match="needs the grid"):
        templates.text_to_image_thinking("p", branch="no_text")


def test_understanding_answers_and_ends():
    picture = f"{HEADER_2X3}[input 2x3]<|/image|>"
    assert spelled(templates.understanding("q", [codes(2, 3)] * 2, "a")) == (
        "<role>SYSTEM</role> You are a multimodal understanding assistant. <role>HUMAN</role>"
        f"{picture}{picture}q<role>ASSISTANT</role>"
        "{a}{<|endoftext|>}"
    )


def test_understanding_turns_follow_each_other_after_the_pictures():
    segments = templates.understanding("q2", [codes(2, 3)], "a2", earlier=[Turn("q1", "a1")])
    assert spelled(segments).endswith(
        "<|/image|>q1<role>ASSISTANT</role>{a1}{<|endoftext|>}<role>HUMAN</role>q2<role>ASSISTANT</role>{a2}{<|endoftext|>}"
    )


def test_a_conversation_shows_pictures_before_the_question_they_come_with():
    turns = [
        templates.ShownTurn("q1", "a1", (codes(2, 3),)),
        templates.ShownTurn("q2", "a2"),
        templates.ShownTurn("q3", "a3", (codes(2, 3),)),
    ]
    picture = f"{HEADER_2X3}[input 2x3]<|/image|>"
    assert spelled(templates.conversation(turns)) == (
        "<role>SYSTEM</role> You are a multimodal understanding assistant. <role>HUMAN</role>"
        f"{picture}q1<role>ASSISTANT</role>"
        "{a1}{<|endoftext|>}<role>HUMAN</role>q2<role>ASSISTANT</role>{a2}{<|endoftext|>}<role>HUMAN</role>"
        f"{picture}q3<role>ASSISTANT</role>"
        "{a3}{<|endoftext|>}"
    )


def test_a_conversation_with_all_pictures_first_is_understanding_with_earlier_turns():
    turns = [templates.ShownTurn("q1", "a1", (codes(2, 3),)), templates.ShownTurn("q2", "a2")]
    earlier = templates.understanding("q2", [codes(2, 3)], "a2", earlier=[Turn("q1", "a1")])
    assert spelled(templates.conversation(turns)) == spelled(earlier)
    asked = [*turns[:1], templates.ShownTurn("q2")]
    assert spelled(templates.conversation(asked)) == spelled(earlier).removesuffix("{a2}{<|endoftext|>}")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "at least one turn"),
        ([templates.ShownTurn("q", "a")], "use plain_text"),
        ([templates.ShownTurn("q", None, (codes(1, 1),)), templates.ShownTurn("q", "a")], "turn 0 has no answer"),
    ],
)
def test_what_is_no_conversation_is_refused(turns: list[templates.ShownTurn], message: str):
    with pytest.raises(ValueError, match=message):
        templates.conversation(turns)


def test_understanding_needs_a_picture():
    with pytest.raises(ValueError, match="use plain_text"):
        templates.understanding("q", [])
    with pytest.raises(ValueError, match="no earlier turns"):
        templates.understanding("q", [codes(1, 1)], earlier=[Turn("q", "a")], variant="early")


def test_editing_draws_on_the_grid_of_its_source():
    assert spelled(templates.editing("i", [codes(2, 3)], codes(2, 3))) == (
        "<role>SYSTEM</role> You are an image editing assistant. <role>HUMAN</role>"
        f"{HEADER_2X3}[source 2x3]<|/image|>i<role>ASSISTANT</role>{HEADER_2X3}" + "{[target 2x3]}{<|/image|>}"
    )
    with pytest.raises(ValueError, match="keeps its source's grid 2x3; 3x2 was asked for"):
        templates.editing("i", [codes(2, 3)], grid=Grid(3, 2))
    with pytest.raises(ValueError, match="do not fill the target picture's grid 2x3"):
        templates.editing("i", [codes(2, 3)], codes(3, 2))


def test_several_references_need_a_grid():
    sources = [codes(2, 3), codes(1, 2)]
    with pytest.raises(ValueError, match="2 sources needs the grid"):
        templates.editing("i", sources)
    segments = templates.editing("i", sources, grid=Grid(1, 1))
    assert [s.grid for s in segments if isinstance(s, Image)] == [Grid(2, 3), Grid(1, 2)]
    lone = templates.editing("i", sources, grid=Grid(1, 1), branch="no_image")
    assert [s.name for s in lone if isinstance(s, Token)].count("<|image|>") == 2
    assert not any(isinstance(s, Image) for s in lone)


def test_editing_needs_an_instruction_and_a_source():
    with pytest.raises(ValueError, match="an instruction"):
        templates.editing("  ", [codes(1, 1)])
    with pytest.raises(ValueError, match="at least one source"):
        templates.editing("i", [])


def test_interleaved_tells_text_and_pictures_and_ends():
    frames = [Frame("one", codes(2, 3)), Frame(codes=codes(2, 3)), Frame("end")]
    drawn = TARGET_HEADER + "{[frame 2x3]}{<|/image|>}"
    assert spelled(templates.interleaved("p", frames, pictures=[codes(2, 3)])) == (
        "<role>SYSTEM</role> You are a interleaved generation assistant. <role>HUMAN</role>"
        f"{HEADER_2X3}[input 2x3]<|/image|>p<role>ASSISTANT</role>"
        "{one}" + drawn + drawn + "{end}{<|endoftext|>}"
    )


def test_only_the_last_frame_may_still_have_to_be_drawn():
    open_frame = Frame("one", grid=Grid(2, 3))
    assert spelled(templates.interleaved("p", [open_frame], complete=False)).endswith("{<boi>}")
    with pytest.raises(ValueError, match="frame 0 has a grid but no codes"):
        templates.interleaved("p", [open_frame])
    with pytest.raises(ValueError, match="frame 0 has a grid but no codes"):
        templates.interleaved("p", [open_frame, Frame("two")], complete=False)
    with pytest.raises(ValueError, match="contradict"):
        Frame(codes=codes(2, 3), grid=Grid(3, 2))
    with pytest.raises(ValueError, match="needs text, a picture, or both"):
        Frame()


def test_history_of_a_guidance_branch_ends_with_its_last_picture():
    frames = [Frame("one", codes(2, 3)), Frame("aside"), Frame("two", grid=Grid(2, 3))]
    branch = spelled(templates.interleaved("p", frames, branch="no_text"))
    assert branch.endswith("{[frame 2x3]}{<|/image|>}{<uncondition>}" + TARGET_HEADER)
    only_text_before = spelled(templates.interleaved("p", frames[1:], branch="no_text"))
    assert only_text_before == spelled(templates.interleaved("p", frames[2:], branch="no_text"))
    with pytest.raises(ValueError, match="a last frame with a picture"):
        templates.interleaved("p", frames[:2], branch="no_text")


def test_plain_text_is_the_chat_template_without_spaces():
    assert spelled(templates.plain_text("q2", "a2", earlier=[Turn("q1", "a1")])) == (
        "<role>SYSTEM</role>detailed thinking off<|role_end|>"
        "<role>HUMAN</role>q1<|role_end|><role>ASSISTANT</role>{a1}{<|role_end|>}"
        "<role>HUMAN</role>q2<|role_end|><role>ASSISTANT</role>{a2}{<|role_end|>}{<|endoftext|>}"
    )


def test_a_document_is_all_target():
    assert spelled(templates.document("words")) == "{words}{<|endoftext|>}"


def test_the_prompt_is_the_training_form_up_to_the_first_target():
    drawn = codes(2, 3)
    pairs = [
        (templates.text_to_image("p", Grid(2, 3)), templates.text_to_image("p", Grid(2, 3), drawn)),
        (
            templates.text_to_image_thinking("p"),
            templates.text_to_image_thinking("p", Grid(2, 3), "hm", drawn),
        ),
        (templates.understanding("q", [drawn]), templates.understanding("q", [drawn], "a")),
        (templates.editing("i", [drawn]), templates.editing("i", [drawn], drawn)),
        (
            templates.interleaved("p", complete=False),
            templates.interleaved("p", [Frame("one", drawn)]),
        ),
        (templates.plain_text("q"), templates.plain_text("q", "a")),
    ]
    for prompt, training in pairs:
        assert list(prompt) == prompt_of(training)
        assert len(training) > len(prompt)


def test_fingerprints_follow_the_layout(monkeypatch: pytest.MonkeyPatch):
    before = {name: template.fingerprint() for name, template in TEMPLATES.items()}
    assert len(set(before.values())) == len(TEMPLATES)
    monkeypatch.setattr(templates, "UNCONDITION", "<other>")
    changed = {name for name, template in TEMPLATES.items() if template.fingerprint() != before[name]}
    assert changed == {"text_to_image", "text_to_image_thinking", "editing", "interleaved"}


def test_a_change_of_layout_is_noticed_here():
    """Shards carry this value. Change it only together with a new version of what changed."""
    assert templates.fingerprint() == "fa486bdd99c8d2e49af9c067d6529efa2323472ef8b4bc8f717b4456f81a3267"


def symbolic(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """As the goldens write segments; image tokens by their number."""
    listed: list[dict[str, Any]] = []
    for segment in segments:
        if isinstance(segment, Image):
            listed.append({"count": segment.grid.area})
        elif isinstance(segment, Token):
            listed.append({"token": segment.name})
        else:
            listed.append({"text": segment.text})
    return listed


def expected(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"count": part["count"]} if "image_tokens" in part else part for part in parts]


def case(name: str) -> dict[str, Any]:
    found: dict[str, Any] = golden_json("templates/templates.json")["cases"][name]
    return found


@pytest.mark.golden
def test_text_to_image_is_the_reference():
    golden = case("text_to_image")
    inputs, grid = golden["inputs"], Grid(*golden["grid_hw"])
    assert grid.area == golden["n_image_tokens"]
    assert symbolic(templates.text_to_image(inputs["prompt"], grid)) == expected(golden["cond"])
    unconditional = templates.text_to_image(inputs["prompt"], grid, branch="no_text")
    assert symbolic(unconditional) == expected(golden["uncond"])


@pytest.mark.golden
def test_thinking_is_the_reference():
    golden = case("text_to_image_thinking")
    prompt, grid = golden["inputs"]["prompt"], Grid(*case("text_to_image")["grid_hw"])
    assert symbolic(templates.text_to_image_thinking(prompt)) == expected(golden["phase1"])
    unconditional = templates.text_to_image_thinking(prompt, grid, branch="no_text")
    assert symbolic(unconditional) == expected(golden["phase2_uncond"])
    second = symbolic(templates.text_to_image_thinking(prompt, grid, "hm"))
    assert second[: len(golden["phase1"])] == expected(golden["phase1"])
    assert second[-1] == {"token": golden["phase1_ends_at_first"]}


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("understanding", "wrapper"),
        ("understanding_two_images", "wrapper"),
        ("understanding_early_release_variant", "early"),
    ],
)
def test_understanding_is_the_reference(name: str, variant: Any):
    golden = case(name)
    inputs = golden["inputs"]
    grids = inputs.get("grids_hw") or [inputs["grid_hw"]]
    prompt = templates.understanding(inputs["question"], [codes(*grid) for grid in grids], variant=variant)
    assert symbolic(prompt) == expected(golden["prompt"])


@pytest.mark.golden
def test_editing_is_the_reference():
    golden = case("edit_single")
    instruction, source = golden["inputs"]["instruction"], codes(*golden["inputs"]["grid_hw"])
    branches: Any = {"full": "cond", "no_text": "uncond_text", "no_image": "uncond_image"}
    for branch, key in branches.items():
        assert symbolic(templates.editing(instruction, [source], branch=branch)) == expected(golden[key])


@pytest.mark.golden
def test_the_first_interleaved_frame_is_the_reference():
    golden = case("interleaved_frame0")
    prompt = golden["inputs"]["prompt"]
    frame = Frame(golden["inputs"]["frame_text"], grid=Grid(*golden["inputs"]["grid_hw"]))
    assert symbolic(templates.interleaved(prompt, complete=False)) == expected(golden["prompt"])
    told = templates.interleaved(prompt, [frame], complete=False)
    assert symbolic(told) == expected(golden["prompt"] + golden["generated_text_phase"])
    assert symbolic(templates.interleaved(prompt, [frame], branch="no_text")) == expected(golden["uncond"])


@pytest.mark.golden
def test_a_later_interleaved_frame_is_the_reference():
    first, golden = case("interleaved_frame0")["inputs"], case("interleaved_frame1")
    inputs = golden["inputs"]
    frames = [
        Frame(first["frame_text"], codes(*first["grid_hw"])),
        Frame(inputs["frame_text"], grid=Grid(*inputs["grid_hw"])),
    ]
    told = templates.interleaved(inputs["prompt"], frames, complete=False)
    assert symbolic(told) == expected(golden["cond"])
    branches: Any = ("no_text", "no_image")
    for branch in branches:
        found = templates.interleaved(inputs["prompt"], frames, branch=branch)
        assert symbolic(found) == expected(golden[branch])


@pytest.mark.golden
def test_plain_text_is_the_reference():
    golden = case("plain_text")
    [whole] = golden["prompt"]
    segments = templates.plain_text(golden["inputs"]["question"])
    assert spelled(segments) == whole["text"]
    # Special tokens split text before anything else does, so the pieces give the ids of the whole.
    tokenizer = TextTokenizer.embedded()
    reader = TextTokenizer.from_json("reader", tokenizer.inner.to_str())
    reader.inner.encode_special_tokens = False
    pieces = [
        [tokenizer.token_id(s.name)] if isinstance(s, Token) else tokenizer.encode(s.text)
        for s in segments
        if not isinstance(s, Image)
    ]
    assert list(chain.from_iterable(pieces)) == reader.encode(whole["text"])
