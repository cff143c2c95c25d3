"""What a set's recipe must be: every mistake is one line with its place, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import UserError
from jobs.run import find_recipe
from pipeline.sets import load_set, made
from tests.jobs.sets import TinySet, write_set

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinySet:
    return write_set(tmp_path_factory.mktemp("planned"), pictures=0, texts=0)


def part(**given: Any) -> Change:
    """A change of the first stage's part `images`; None takes a word away."""

    def change(data: dict[str, Any]) -> None:
        images = data["stages"]["first"]["parts"]["images"]
        images.update(given)
        for name in [name for name, value in images.items() if value is None]:
            del images[name]

    return change


def stage(**given: Any) -> Change:
    return lambda data: data["stages"]["first"].update(given)


def also(**given: Any) -> Change:
    """A further part beside `images` that differs from it in what is given."""

    def change(data: dict[str, Any]) -> None:
        parts = data["stages"]["first"]["parts"]
        parts["more"] = {name: v for name, v in {**parts["images"], **given}.items() if v is not None}

    return change


IMAGES = "stages.first.parts.images"
WRONG: list[tuple[Change, str]] = [
    (lambda data: data.update(version=2), "version: input should be 1"),
    (lambda data: data.update(set="All of it"), "set: 'All of it': write a lower-case name of letters, digits and _"),
    (lambda data: data.update(set="words"), "set: 'words' is the name of a corpus, too; choose another"),
    (lambda data: data.update(stage={}), "stage: is not a known name here"),
    (lambda data: data.pop("stages"), "stages: is missing"),
    (lambda data: data.update(stages={}), "stages: dictionary should have at least 1 item after validation, not 0"),
    (lambda data: data.update(stages={"a/b": data["stages"]["first"]}), "stages: 'a/b': write a lower-case name of "),
    (lambda data: data.update(corpora=[]), "corpora: tuple should have at least 1 item after validation, not 0"),
    (
        lambda data: data["corpora"].append("moving.yaml"),
        "corpora: moving.yaml: no such recipe file; shipped recipes: all, editing, ",
    ),
    (
        lambda data: data["corpora"].append("words.yaml"),
        "corpora: words.yaml and {folder}/words.yaml are both of the corpus 'words'; name one of them",
    ),
    (part(weight=None), f"{IMAGES}.weight: is missing"),
    (part(weight=0), f"{IMAGES}.weight: input should be greater than 0"),
    (part(weight=-1), f"{IMAGES}.weight: input should be greater than 0"),
    (part(weight=float("nan")), f"{IMAGES}.weight: input should be "),
    (part(weight="much"), f"{IMAGES}.weight: input should be a valid number"),
    (part(weight=True), f"{IMAGES}.weight: input should be a valid number"),
    (part(epochs=0), f"{IMAGES}.epochs: input should be greater than 0"),
    (part(epochs=1001), f"{IMAGES}.epochs: input should be less than or equal to 1000"),
    (part(quota=0), f"{IMAGES}.quota: input should be greater than or equal to 1"),
    (part(quota=1.5), f"{IMAGES}.quota: input should be a valid integer"),
    (part(weigth=3), f"{IMAGES}.weigth: is not a known name here"),
    (stage(total=0), "stages.first.total: input should be greater than or equal to 1"),
    (stage(unit="bytes"), "stages.first.unit: input should be 'samples' or 'tokens'"),
    (stage(overlap="both"), "stages.first.overlap: input should be 'refuse' or 'first'"),
    (part(corpus="photos"), f"{IMAGES}: there is no corpus 'photos' in the set; corpora are: pictures, words"),
    (
        part(task="text_to_picture"),
        f"{IMAGES}: pictures makes no text_to_picture 64; it makes: text_to_image 64, text_to_image 128",
    ),
    (
        part(resolution=512),
        f"{IMAGES}: pictures makes no text_to_image 512; it makes: text_to_image 64, text_to_image 128",
    ),
    (
        part(variant="short"),
        f"{IMAGES}: pictures makes no text_to_image 64 (short); it makes: text_to_image 64, text_to_image 128",
    ),
    (part(source="scans"), f"{IMAGES}: pictures has no source 'scans'; it has: lines"),
    (part(where="tokens > 3"), f"{IMAGES}.where: there is no column 'tokens' of samples; there are: sample_key, "),
    (part(where="text_tokens >"), f"{IMAGES}.where: 'text_tokens >' is not a condition: "),
    (part(where="text_tokens + 1"), f"{IMAGES}.where: 'text_tokens + 1' is no condition; write one like "),
    (part(where="AVG(text_tokens) > 3"), f"{IMAGES}.where: 'AVG(text_tokens) > 3' is not a condition on one record: "),
    (
        also(),
        "stages.first: parts images and more draw the same samples of pictures; tell them apart by resolution, source, "
        "variant or where, or say overlap: first",
    ),
    (also(resolution=None), "stages.first: parts images and more draw the same samples of pictures; "),
    (also(where="text_tokens > 3"), "stages.first: parts images and more draw the same samples of pictures; "),
    (also(source="lines"), "stages.first: parts images and more draw the same samples of pictures; "),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:70] for _, message in WRONG])
def test_a_wrong_set_is_one_line(tiny: TinySet, change: Change, message: str) -> None:
    tiny.write(change)
    with pytest.raises(UserError) as refused:
        tiny.plan()
    told = str(refused.value)
    assert told.startswith(f"{tiny.recipe}: " + message.format(folder=tiny.folder)), told
    assert "\n" not in told


def both_conditions(data: dict[str, Any]) -> None:
    also(where="text_tokens > 3")(data)
    part(where="text_tokens <= 3")(data)


FINE: list[Change] = [
    also(resolution=128),
    both_conditions,
    lambda data: (also()(data), stage(overlap="first")(data)),  # type: ignore[func-returns-value]
]


@pytest.mark.parametrize("change", FINE, ids=["another resolution", "two conditions", "the first part's"])
def test_parts_that_can_be_told_apart_are_fine(tiny: TinySet, change: Change) -> None:
    tiny.write(change)
    assert tiny.plan().recipe.stages["first"].parts.keys() == {"images", "text", "more"}


def test_a_mistake_within_a_recipe_names_that_recipe(tiny: TinySet, tmp_path: Path) -> None:
    folder = write_set(tmp_path, pictures=0, texts=0)
    (tmp_path / "words.yaml").write_text((tmp_path / "words.yaml").read_text().replace("document", "documents"))
    with pytest.raises(UserError, match=rf"^{tmp_path}/words\.yaml: nodes\.encode"):
        folder.plan()


def test_settings_reach_the_recipes_within(tiny: TinySet) -> None:
    tiny.write()
    before, after = (
        load_set(tiny.recipe, settings, find_recipe) for settings in ({}, {"pictures.small.max_tokens": 100})
    )
    assert before.plans["words"].fingerprint == after.plans["words"].fingerprint
    assert before.plans["pictures"].fingerprint != after.plans["pictures"].fingerprint != before.fingerprint
    assert before.fingerprint != after.fingerprint
    with pytest.raises(UserError) as refused:
        load_set(tiny.recipe, {"small.max_tokens": 100}, find_recipe)
    assert str(refused.value) == "--set small.max_tokens: write CORPUS.NODE.PARAM=VALUE; corpora are: pictures, words"


def test_a_plan_says_what_it_makes(tiny: TinySet) -> None:
    tiny.write()
    kinds = {corpus: [str(kind) for kind in made(plan)] for corpus, plan in tiny.plan().plans.items()}
    assert kinds == {"pictures": ["text_to_image 64", "text_to_image 128"], "words": ["document"]}
