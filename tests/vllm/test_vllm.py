"""The `openai` annotation against a real vLLM: what a stub cannot tell. Run it with `make test-vllm`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import UserError
from pipeline.annotations.answers import stored
from pipeline.annotations.openai import OpenAI
from pipeline.operator import Record
from tests.pipeline.annotations.conftest import Place

from .conftest import MODEL, REVISION, ROOT, Vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

COUNT = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def records(place: Place) -> list[Record]:
    """Real pictures, each another one: those of the sample corpora where they are, else those that skimage ships."""
    import skimage

    corpus = ROOT.parent / "shared" / "corpora" / "images" / "files"
    shipped = Path(skimage.__file__).parent / "data"
    paths = sorted(corpus.glob("coco-mini__*.jpg")) or sorted(
        p for p in shipped.iterdir() if p.suffix in {".png", ".jpg"}
    )
    assert len(paths) >= 8
    return [
        place.record(path.name, (place.picture(path.name, path.read_bytes()),), text=f"a photo, {path.stem}")
        for path in paths[:COUNT]
    ]


@pytest.fixture
def ask(vllm: Vllm, place: Place) -> Any:
    """Rows of a worker that asks the server; `again` forgets the stored answers first."""

    def run(some: list[Record], again: bool = False, **changes: Any) -> list[dict[str, Any]]:
        if again:
            for name, _ in list(place.storage.list("answers/")):
                place.storage.delete(name)
        return place.run("openai", params(vllm, **changes), some)

    return run


def params(vllm: Vllm, **changes: Any) -> dict[str, Any]:
    return {
        "base_url": vllm.url,
        "model": MODEL,
        "revision": REVISION,
        "prompt": "caption_short/v1",
        "max_side": 256,
        "max_tokens": 16,
        "concurrency": 8,
        **changes,
    }


def captions(rows: list[dict[str, Any]]) -> list[str]:
    assert [row["reason"] for row in rows] == [None] * len(rows)
    return [row["caption"] for row in rows]


def test_the_model_and_revision_that_are_served_are_checked(vllm: Vllm, place: Place) -> None:
    OpenAI.build(params(vllm)).preflight(place.storage)  # type: ignore[attr-defined]
    for changes, message in (
        ({"model": "other"}, f"does not serve model 'other'; it serves: {MODEL}"),
        ({"revision": "r2"}, f"serves {MODEL} at revision 'r1', the recipe declares 'r2'"),
    ):
        with pytest.raises(UserError, match=message):
            OpenAI.build(params(vllm, **changes)).preflight(place.storage)  # type: ignore[attr-defined]


def test_every_picture_gets_a_caption_of_its_own_and_the_same_one_again(
    vllm: Vllm, place: Place, records: list[Record], ask: Any
) -> None:
    started = time.monotonic()
    rows = ask(records, again=True)
    print(f"{len(records)} pictures in {time.monotonic() - started:.1f} s")
    assert len(set(captions(rows))) == len(records)
    assert {row["caption_by"] for row in rows} == {f"openai:{MODEL}@{REVISION}"}
    assert {row["caption_finish"] for row in rows} <= {"length", "stop"}
    assert all(1 <= row["caption_tokens"] <= 16 for row in rows)
    asked = vllm.requests()
    assert ask(records) == rows, "from the store"
    assert vllm.requests() == asked, "nothing was asked"
    assert ask(records, again=True) == rows, "asked anew"
    assert vllm.requests() == asked + len(records)
    assert ask(records, again=True, concurrency=1) == rows, "one at a time"


def test_the_stored_answers_say_where_they_come_from(place: Place, records: list[Record], ask: Any) -> None:
    rows = ask(records, again=True, temperature=0.0, seed=3)
    found = {asked["media"][0]: (asked, answer) for asked, answer in stored(place.storage)}
    assert set(found) == {record.media[0].digest for record in records}
    for record, row in zip(records, rows, strict=True):
        asked, answer = found[str(record.media[0].digest)]
        assert answer.text.strip() == row["caption"]
        assert (answer.served_model, answer.completion_tokens) == (MODEL, row["caption_tokens"])
        assert answer.prompt_tokens is not None
        assert answer.prompt_tokens > 20
        assert (asked["model"], asked["revision"], asked["prompt"]) == (MODEL, REVISION, row["caption_prompt"])
        assert asked["sampling"] == {"temperature": 0.0, "top_p": 1.0, "seed": 3, "max_tokens": 16, "extra": {}}


def test_the_text_of_the_source_reaches_the_model(records: list[Record], ask: Any) -> None:
    assert captions(ask(records[:4])) != captions(ask(records[:4], inputs={"text": "text"}))


def test_one_seed_gives_one_text_and_another_seed_another(records: list[Record], ask: Any) -> None:
    one, same, other = (captions(ask(records[:4], again=True, temperature=1.0, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_json_that_was_asked_for_comes_and_is_read(records: list[Record], ask: Any) -> None:
    word = {"type": "string", "pattern": "^[a-z ]{1,12}$"}
    schema = {"type": "object", "properties": {"caption": word}, "required": ["caption"], "additionalProperties": False}
    prompt = {"name": "word", "version": 1, "user": ["One word."], "schema": schema}
    rows = ask(records[:4], prompt=prompt, max_tokens=300)
    for text in captions(rows):
        assert set(json.loads(text)) == {"caption"}


def test_a_record_the_server_refuses_is_set_aside_and_the_others_go_on(
    place: Place, records: list[Record], ask: Any
) -> None:
    long = place.record("long", records[0].media, text="word " * 4000)
    rows = ask([*records[:3], long], inputs={"text": "text"})
    assert [row["reason"] for row in rows] == [None, None, None, "refused by the server"]
    assert rows[3]["message"] == "400 Bad Request (BadRequestError)"


def test_a_model_the_server_does_not_know_stops_the_node(vllm: Vllm, records: list[Record]) -> None:
    operator = OpenAI.build(params(vllm, model="other"))
    assert isinstance(operator, OpenAI)
    operator.setup()
    with pytest.raises(UserError, match=r"404 Not Found \(NotFoundError\)"):
        operator.process_batch(records[:2])
    operator.close()
