"""Conversations in every layout, each fault by its name, and from a manifest to audited shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.audit import audit
from catalog.view import open_view
from model.grammar import check
from pipeline.measures.turns import Exchange, exchanges_of
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Record, check_row
from tests.pipeline.pictures import columns_of, measure
from tests.pipeline.runs import curate, final_states, plan_of, write_manifest, write_picture

PAIRS = [("What is this?", "A boat."), ("Which colour?", "Red, as the flag.")]
GOOD = [{"question": question, "answer": answer} for question, answer in PAIRS]
HUMAN, GPT = "human", "gpt"


def llava(*said: str) -> list[dict[str, str]]:
    return [{"from": (HUMAN, GPT)[place % 2], "value": text} for place, text in enumerate(said)]


def look(turns: Any, pictures: int = 1) -> dict[str, Any]:
    made = measure("turns")
    media = tuple(MediaRef("image", "file", f"{n}.jpg", digest=f"{n:064x}") for n in range(pictures))
    record = Record("0" * 32, media, orjson.dumps({"turns": turns}), {}, MediaReader("."))
    check_row(made.columns, made.process(record))
    return columns_of(made, record)


def test_a_good_conversation() -> None:
    found = look(GOOD)
    assert len(found.pop("asked_digest")) == 64
    assert json.loads(found.pop("conversation")) == [{**GOOD[0], "pictures": 1}, {**GOOD[1], "pictures": 0}]
    assert found == {
        "turn_count": 2, "turns_fault": None, "turns_detail": None, "repeated_questions": 0.0, "shortest_answer": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    "turns",
    [
        [
            {"role": role, "content": text}
            for pair in PAIRS
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ],
        [
            {"role": role, "content": text}
            for pair in PAIRS
            for role, text in zip(("Human", "model"), pair, strict=True)
        ],
        llava("<image>\nWhat is this?", "A boat.", "Which colour?", "Red, as the flag."),
        llava(" What is this? <image> ", "A boat.", "Which colour?", "Red, as the flag.\n"),
        [*GOOD[:1], *llava(*PAIRS[1])],
    ],
)
def test_every_layout_gives_the_same_conversation(turns: Any) -> None:
    assert look(turns) == look(GOOD)


FAULTS: list[tuple[Any, str, str]] = [
    ("a boat", "malformed", "the turns are str, not a list"),
    ([*GOOD, "and then"], "malformed", "turn 2 has neither question and answer nor role and content"),
    ([{"question": "Why?"}], "malformed", "turn 0 has neither question and answer nor role and content"),
    ([{"question": "Why?", "answer": 7}], "malformed", "turn 0 holds something else than text"),
    ([{"from": "system", "value": "Be brief."}, *llava("Why?", "So.")], "role", "turn 0 is said by 'system'"),
    (llava("Why?", "So.")[::-1], "order", "an answer comes first"),
    ([*GOOD, {"from": GPT, "value": "And red."}], "order", "turn 4 is a second answer in a row"),
    ([{"from": HUMAN, "value": "Why?"}, *GOOD], "order", "turn 1 is a second question in a row"),
    (llava("Why?", " "), "empty", "answer 1 says nothing"),
    (llava("Why?", "So.", "<image>\n", "A boat."), "empty", "question 2 says nothing"),
    (llava("Why?", "So.", "And then?"), "unanswered", "the last question has no answer"),
    (llava("<image><image> Why?", "So."), "pictures", "2 placeholders for 1 pictures"),
    (llava("Why?", "So <image>."), "pictures", "answer 1 has a placeholder"),
    (llava("What is in <image 2>?", "A boat."), "pictures", "question 1 refers to a picture that is not there"),
]


@pytest.mark.parametrize(("turns", "fault", "detail"), FAULTS)
def test_every_fault_has_its_name(turns: Any, fault: str, detail: str) -> None:
    found = look(turns)
    assert (found.pop("turns_fault"), found.pop("turns_detail")) == (fault, detail)
    assert set(found.values()) == {None}


@pytest.mark.parametrize("turns", [None, []])
def test_no_conversation_is_no_fault(turns: Any) -> None:
    found = look(turns)
    assert found.pop("turn_count") == 0
    assert set(found.values()) == {None}


def test_pictures_stand_with_the_question_that_shows_them() -> None:
    said = llava("<image>\nWhat is this?", "A boat.", "And <image>?", "A tree.", "Like <image 1>?\n<image>", "Yes.")
    assert exchanges_of(said, 3) == [
        Exchange("What is this?", "A boat.", 1),
        Exchange("And image 2?", "A tree.", 1),
        Exchange("Like <image 1>?", "Yes.", 1),
    ]
    (one,) = exchanges_of(llava("<image>\n<image> What tells <image> from <image>? <IMAGE>", "The mast."), 5)
    assert one == Exchange("What tells image 3 from image 4?", "The mast.", 5)


def test_repeated_questions_and_equal_conversations_are_told() -> None:
    assert look([*GOOD, GOOD[0]])["repeated_questions"] == pytest.approx(1 / 3)
    one = look(GOOD)["asked_digest"]
    assert one == look([{**turn, "answer": "Else."} for turn in GOOD])["asked_digest"]
    assert len({one, look(GOOD[::-1])["asked_digest"], look(GOOD, 2)["asked_digest"]}) == 3


WORDS = st.text("abc <>é猫?", min_size=1).filter(lambda text: text.strip())


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5), st.integers(0, 3))
def test_what_is_sound_comes_out_as_it_went_in(pairs: list[tuple[str, str]], pictures: int) -> None:
    found = exchanges_of(llava(*(text for pair in pairs for text in pair)), pictures)
    assert [(one.question, one.answer) for one in found] == [(q.strip(), a.strip()) for q, a in pairs]
    assert [one.pictures for one in found] == [pictures, *[0] * (len(pairs) - 1)]


NODES = """
turns: {measure: turns}
sound: {decide: rules, needs: [turns], rules: {turns: turns_fault IS NULL AND turn_count >= 1}}
unique: {decide: duplicates, needs: [sound], exact: asked_digest}
split: {decide: split, needs: [unique]}
encode: {encode: conversation, needs: [split], params: {prompt: conversation}}
shards: {pack: webdataset, needs: [encode]}
"""


def test_conversations_become_audited_samples(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", 1, 96)
    write_picture(tmp_path / "b.jpg", 2, 96)
    said = llava("<image> What is this?", "A boat.", "And this? <image>", "A tree.")
    texts = {"good": said, "copy": said, "open": said[:3], "one": said[:2], "none": None}
    lines = [
        {"id": name, "images": ["a.jpg", "b.jpg"][: 1 if name == "one" else 2], "turns": turns, "licence": "MIT"}
        for name, turns in texts.items()
    ]
    write_manifest(tmp_path, lines)
    source = {
        "kind": "jsonl",
        "manifest": "manifest.jsonl",
        "map": {"id": "id", "turns": "turns", "licence": "licence"},
        "media": {"image": "images"},
    }
    curate(plan_of(NODES, source), tmp_path, tmp_path / "store")
    ends = final_states(tmp_path / "store")
    assert {ends.pop("good"), ends.pop("copy")} == {("kept", None), ("duplicate", "exact")}
    assert ends == {"open": ("dropped", "turns"), "one": ("kept", None), "none": ("dropped", "turns")}
    view = open_view(str(tmp_path / "store"))
    assert audit(view, check).findings == []
    assert set(view.samples("tiny").collect()["task"]) == {"conversation"}


def test_a_shard_whose_answer_is_left_open_is_found_by_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import templates

    write_picture(tmp_path / "a.jpg", 1, 96)
    write_manifest(tmp_path, [{"id": "a", "images": "a.jpg", "turns": GOOD, "licence": "MIT"}])
    source = {
        "kind": "jsonl",
        "manifest": "manifest.jsonl",
        "map": {"id": "id", "turns": "turns", "licence": "licence"},
        "media": {"image": "images"},
    }
    monkeypatch.setattr(templates, "_answered", lambda answer: (templates.Text(answer, target=True),))
    curate(plan_of(NODES, source), tmp_path, tmp_path / "refused")
    assert final_states(tmp_path / "refused")["a"][0] == "quarantined"
    monkeypatch.setattr("pipeline.encode.check", lambda sequence, vocabulary: None)
    curate(plan_of(NODES, source), tmp_path, tmp_path / "store")
    (finding,) = audit(open_view(str(tmp_path / "store")), check).findings
    assert "is a target, and no token of the model closes it" in finding.message
