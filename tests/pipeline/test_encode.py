"""Encoding: sequences that their grammar accepts, from the embedded tokenizer and from a SigLIP-VQ checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from catalog.errors import UserError
from model.grammar import check
from model.sequences import Span, TokenSequence, parse
from model.text_tokenizer import TextTokenizer
from model.vocabulary import Vocabulary
from pipeline.encode import MODEL_BATCH, Encode
from pipeline.media import MediaReader, MediaRef
from pipeline.operator import Quarantine, Record
from tests.pipeline.pictures import encode as encode_picture
from tests.pipeline.pictures import scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for number, (width, height) in enumerate(((640, 480), (300, 500), (512, 512))):
        (made / f"{number}.jpg").write_bytes(encode_picture(scene(width, height, number), "JPEG", quality=90))
    return made


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the released architecture, tiny and random."""
    pytest.importorskip("torch")
    from model.configs import SigLIPVQConfig
    from model.siglip_vq import SigLIPVQ

    made = tmp_path_factory.mktemp("siglip") / "image_tokenizer"
    SigLIPVQ.random(SigLIPVQConfig.tiny(codes=128), 0).save(made)
    return made


def record(folder: Path, number: int, **values: Any) -> Record:
    key = f"{number:032x}"
    known = {"source": "s", "licence": "MIT", "text": "A red boat on a lake.", **values}
    ref = MediaRef("image", "file", f"{number}.jpg", digest="d" * 64)
    return Record(key, (ref,), b"{}", known, MediaReader(str(folder)))


def operator(**params: Any) -> Encode:
    made = Encode.build({"task": "text_to_image", "prompt": "text", "resolution": 256, **params})
    assert isinstance(made, Encode)
    made.setup()
    return made


def named(made: Encode, row: Any) -> dict[str, Any]:
    return {column.name: value for column, value in zip(made.columns, row, strict=True)}


def sequence(row: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    return np.frombuffer(row["sample_ids"][0], "<i4"), orjson.loads(row["sample_metas"][0])


@pytest.mark.parametrize("tokenizer", ["patch-vq", "siglip"])
@pytest.mark.parametrize("task", ["text_to_image", "understanding"])
def test_a_sample_is_what_its_grammar_and_its_template_make(
    folder: Path, request: pytest.FixtureRequest, tokenizer: str, task: str
) -> None:
    spec = str(request.getfixturevalue("siglip")) if tokenizer == "siglip" else tokenizer
    params = {"answer": "text", "prompt": "question", "resolution": 0} if task == "understanding" else {}
    made = operator(task=task, image_tokenizer=spec, **params)
    row = named(made, made.process(record(folder, 0, question="What is shown?")))
    ids, meta = sequence(row)
    card = made.card_parts()
    check(card["vocabulary"], ids, meta["spans"])
    assert row["image_tokens"][0] == meta["tokens"]["image"] == int((ids >= card["vocabulary"]["image_offset"]).sum())
    assert row["text_tokens"][0] + row["image_tokens"][0] == len(ids)
    text = TextTokenizer.embedded()
    vocabulary = Vocabulary.from_tokenizer(text, 128 if tokenizer == "siglip" else 1024)
    segments = parse(TokenSequence(ids, tuple(Span.from_json(span) for span in meta["spans"])), vocabulary, text)
    assert "A red boat on a lake." in [getattr(segment, "text", "") for segment in segments]
    assert card["tokenizers"]["image"]["embedded"] is (tokenizer == "patch-vq")


PROMPT, ANSWER, THINKING = "What has changed?", "The boat is red.", "It was blue before."
TASKS: dict[str, tuple[dict[str, Any], list[str], list[tuple[str, int, int, bool]]]] = {
    "text_to_image_thinking": (
        {"prompt": "prompt", "thinking": "thinking", "resolution": 256}, [PROMPT, THINKING], [("target", 14, 18, True)],
    ),
    "understanding": (
        {"prompt": "prompt", "answer": "answer", "given": ["image", "second"]},
        [PROMPT, ANSWER],
        [("input", 24, 32, False), ("input", 32, 18, False)],
    ),
    "conversation": (
        {"prompt": "turns", "given": ["image", "second"]},
        ["Where?", "There.", PROMPT, ANSWER],
        [("input", 24, 32, False), ("input", 32, 18, False)],
    ),
    "conversation without pictures": (
        {"prompt": "chat", "given": []}, ["Where?", "There.", PROMPT, ANSWER], [],
    ),
    "editing": (
        {"prompt": "prompt", "role": "second", "given": ["image"], "resolution": 256},
        [PROMPT],
        [("source", 14, 18, False), ("target", 14, 18, True)],
    ),
    "editing of two": (
        {"prompt": "prompt", "role": "third", "given": ["image", "second"], "resolution": 256},
        [PROMPT],
        [("source", 14, 18, False), ("source", 20, 12, False), ("target", 16, 16, True)],
    ),
    "interleaved": (
        {"prompt": "prompt", "frame_texts": "said", "resolution": 256},
        [PROMPT, "First a lake,", "then a boat."],
        [("frame", 14, 18, True), ("frame", 16, 16, True)],
    ),
    "plain_text": ({"prompt": "prompt", "answer": "answer", "thinking": "thinking"}, [PROMPT, THINKING, ANSWER], []),
    "document": ({"prompt": "answer"}, [ANSWER], []),
}  # fmt: skip


def turns(*pictures: int) -> str:
    said = (("Where?", "There."), (PROMPT, ANSWER))
    return orjson.dumps(
        [{"question": q, "answer": a, "pictures": n} for (q, a), n in zip(said, pictures, strict=True)]
    ).decode()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_texts_and_pictures_in_its_template(folder: Path, name: str) -> None:
    params, texts, pictures = TASKS[name]
    made = Encode.build({"task": name.partition(" ")[0], **params})
    assert isinstance(made, Encode)
    made.setup()
    roles = ("image", "second", "third")
    if name == "interleaved":
        roles = ("image", "other", "image")
    media = tuple(MediaRef(role, "file", f"{n}.jpg", digest="d" * 64) for n, role in enumerate(roles))
    values = {"source": "s", "licence": "MIT", "prompt": PROMPT, "answer": ANSWER, "thinking": THINKING}
    values |= {"turns": turns(1, 1), "chat": turns(0, 0)}
    fields = b'{"said": ["First a lake,", "then a boat."]}'
    one = Record("0" * 32, media, fields, values, MediaReader(str(folder)))
    row = named(made, made.process(one))
    assert list(made.process_batch([one, one])) == [made.process(one)] * 2
    ids, meta = sequence(row)
    check(made.card_parts()["vocabulary"], ids, meta["spans"])
    spans = [Span.from_json(span) for span in meta["spans"]]
    shown = [span for span in spans if span.grid is not None]
    assert [(span.role, span.grid.height, span.grid.width, span.target) for span in shown if span.grid] == pictures
    whole = TextTokenizer.embedded().decode(_words(ids, spans))
    assert [whole.find(said) for said in texts] == sorted(whole.find(said) for said in texts)
    assert all(said in whole for said in texts)
    assert row["image_tokens"] == [sum(height * width for _, height, width, _ in pictures)]


def _words(ids: np.ndarray, spans: list[Span]) -> list[int]:
    """The ids of all texts, one after another."""
    parts = [ids[span.start : span.start + span.length] for span in spans if span.kind == "text"]
    return [int(token) for part in parts for token in part]


def test_pictures_encoded_together_get_the_codes_they_get_alone(folder: Path, siglip: Path) -> None:
    made = operator(image_tokenizer=str(siglip))
    assert made.batch == MODEL_BATCH
    assert made.loads_model
    records = [record(folder, number) for number in range(3)]
    assert list(made.process_batch(records)) == [made.process(one) for one in records]


@pytest.mark.parametrize(("device", "real", "gpus"), [("cpu", True, 0.0), ("cuda:0", True, 1.0), ("cuda", False, 0.0)])
def test_a_tokenizer_on_a_gpu_says_so(siglip: Path, device: str, real: bool, gpus: float) -> None:
    params = {"task": "text_to_image", "prompt": "text", "resolution": 256, "device": device}
    assert Encode.build({**params, **({"image_tokenizer": str(siglip)} if real else {})}).gpus == gpus


def test_a_plan_knows_a_checkpoint_without_loading_it(siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model.siglip_vq import SigLIPVQ

    loaded = SigLIPVQ.load(siglip).fingerprint()
    monkeypatch.setattr(SigLIPVQ, "load", None)
    made = Encode.build({"task": "text_to_image", "prompt": "text", "resolution": 256, "image_tokenizer": str(siglip)})
    assert isinstance(made, Encode)
    assert made.card_parts()["tokenizers"]["image"]["fingerprint"] == loaded
    assert made.embedded == ("embedded-bpe",)


def test_another_tokenizer_is_another_fingerprint_and_a_device_is_not(siglip: Path) -> None:
    def parts(**params: Any) -> Any:
        made = operator(**params)
        return made.fingerprint_parts(), made.params.model_dump(mode="json")

    assert parts() != parts(image_tokenizer=str(siglip))
    assert parts() == parts(device="cuda")


def test_records_that_cannot_be_a_sample_are_set_aside(folder: Path) -> None:
    made = operator()
    with pytest.raises(Quarantine, match="text is empty") as empty:
        made.process(record(folder, 0, text="  "))
    assert empty.value.reason == "no text"
    short = operator(max_tokens=10)
    with pytest.raises(Quarantine, match="at most 10") as long:
        short.process(record(folder, 0))
    assert long.value.reason == "sequence too long"


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        (["one"], "texts and frames differ", "1 texts for 2 frames"),
        (["one", " "], "no said", "the field said is not a list of texts"),
        ([], "no said", "the field said is not a list of texts"),
        ("one", "no said", "the field said is not a list of texts"),
        (None, "no said", "the field said is not a list of texts"),
    ],
)
def test_frames_whose_texts_do_not_fit_are_set_aside(folder: Path, said: Any, reason: str, message: str) -> None:
    made = operator(task="interleaved", frame_texts="said")
    media = tuple(MediaRef("image", "file", f"{n}.jpg", digest="d" * 64) for n in range(2))
    values = {"source": "s", "licence": "MIT", "text": PROMPT}
    with pytest.raises(Quarantine) as aside:
        made.process(Record("0" * 32, media, orjson.dumps({"said": said}), values, MediaReader(str(folder))))
    assert (aside.value.reason, str(aside.value)) == (reason, message)


def test_a_tokenizer_that_is_nowhere_is_a_users_mistake() -> None:
    made = Encode.build(
        {"task": "text_to_image", "prompt": "text", "resolution": 256, "image_tokenizer": "/nowhere/siglip"}
    )
    with pytest.raises(UserError, match="image tokenizer '/nowhere/siglip': say 'patch-vq'"):
        made.fingerprint_parts()


@pytest.mark.parametrize("task", ["understanding", "editing"])
def test_all_pictures_of_a_given_role_are_given_in_their_order(folder: Path, task: str) -> None:
    def made(roles: str, given: list[str]) -> Any:
        media = tuple(MediaRef(role, "file", f"{n}.jpg", digest="d" * 64) for n, role in enumerate(roles.split()))
        values = {"source": "s", "licence": "MIT", "prompt": PROMPT, "answer": ANSWER}
        one = Record("0" * 32, media, b"{}", values, MediaReader(str(folder)))
        own = {"answer": "answer"} if task == "understanding" else {"resolution": 256, "role": "out"}
        operator = Encode.build({"task": task, "prompt": "prompt", "given": given, **own})
        assert isinstance(operator, Encode)
        return named(operator, operator.process(one))

    together = made("in in out", ["in"])
    assert together["sample_ids"] == made("a b out", ["a", "b"])["sample_ids"]
    assert together["sample_ids"] != made("b a out", ["a", "b"])["sample_ids"]
    assert made("in other out", ["in"])["image_tokens"] != together["image_tokens"]
    with pytest.raises(Quarantine) as aside:
        made("other other out", ["in"])
    assert aside.value.reason == "no in"


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        (turns(1, 1), "turns and pictures differ", "the turns show 2 pictures, the roles hold 1"),
        ("What is this?", "no conversation", "the prompt is not what the measure `turns` writes as `conversation`"),
        ('[{"question": "q"}]', "no conversation", "the prompt is not what the measure"),
        ("[]", "no conversation", "the prompt is not what the measure"),
    ],
)
def test_turns_that_do_not_fit_are_set_aside(folder: Path, said: str, reason: str, message: str) -> None:
    made = Encode.build({"task": "conversation", "prompt": "text"})
    assert isinstance(made, Encode)
    made.setup()
    with pytest.raises(Quarantine) as aside:
        made.process(record(folder, 0, text=said))
    assert aside.value.reason == reason
    assert str(aside.value).startswith(message)
