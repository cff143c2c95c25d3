"""The recipes of texts: a good and a bad record for every rule, and what becomes of the sample corpora."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from catalog.decisions import Duplicates, Licence
from jobs.run import load_plan
from pipeline.plan import Plan
from tests.pipeline.pictures import CORPORA, encode, scene
from tests.pipeline.runs import curate, final_states, workers

PARAGRAPH = (
    "The heron is a patient bird that stands in the shallow water of a river and waits for a fish to come near. "
    "When one does, it strikes faster than the eye can follow, and then it stands as still as it did before. "
)
KEPT = ("kept", None)


WORDS = "the heron of a river and to its fish in water when it stands still for day night cold reed stone sky"


def drawn(count: int) -> str:
    """Words of a long text that hardly comes back to what it said."""
    rng, words = random.Random(4), WORDS.split()
    return " ".join(rng.choice(words) for _ in range(count))


LONG = drawn(300)
GERMAN = "Der Reiher ist ein Vogel, der in dem Wasser steht und auf einen Fisch wartet. Er bleibt bis zu dem Abend."
CHINESE = (
    "苍鹭是一种很有耐心的鸟，它站在河边的浅水里，等待鱼儿游过来。一旦有鱼靠近，它的动作比眼睛还快。"
    "然后它又像以前一样安静地站着，直到下一条鱼出现为止。人们常常看见它在清晨的雾里一动不动，好像是石头。"
    "孩子们喜欢数它能站多久，可是没有谁有它那样的耐心。"
)
NUMBERS = "the heron and the fish of it " + "12 345 678 901 " * 8 + "."
LINK = "See https://herons.example.org/a/very/long/address/of/a/page/about/herons."
MENU = "Home\nAbout the birds\nSign in to your page\nThe shop\nBlog\nContact\nHerons of the world\nTerms of all the use"

TEXTS: dict[str, tuple[Any, tuple[str, str | None]]] = {
    "good": (PARAGRAPH, KEPT),
    # The longer one stays; between these two only blanks differ.
    "german": (GERMAN.replace(" ", "  "), KEPT),
    "twin": (GERMAN, ("duplicate", "exact")),
    "chinese": (CHINESE, KEPT),
    "none": (None, ("dropped", "length")),
    "short": ("A heron stands.", ("dropped", "length")),
    "unknown": ("lorem ipsum dolor sit amet " * 5 + "x.", ("dropped", "language")),
    "numbers": (NUMBERS, ("dropped", "letters")),
    "capitals": (PARAGRAPH.upper(), ("dropped", "capitals")),
    "again": ((PARAGRAPH[:80] + " ") * 8 + ".", ("dropped", "repetition")),
    "lines": (f"{CHINESE}\n{CHINESE}\n{CHINESE[::-1]}", ("dropped", "repeated_lines")),
    "links": (PARAGRAPH[:107] + LINK, ("dropped", "links")),
    "broken": (PARAGRAPH + "and \ufffd so on.", ("dropped", "encoding")),
    "mojibake": (PARAGRAPH + "It isnâ€™t far.", ("dropped", "mojibake")),
    "scanned": (PARAGRAPH.replace("th", "~h").replace("er", "^r").replace("an", "|n"), ("dropped", "scanning")),
    "menu": (MENU, ("dropped", "menus")),
    "cut": (PARAGRAPH[:150], ("dropped", "whole")),
    # Three addresses are a page's; six are a list of people, and a card's number is nobody else's.
    "page": (PARAGRAPH.replace("river", "pond") + "Ask ann@herons.net, bob@herons.net or +44 20 7393 1500.", KEPT),
    "list": (
        PARAGRAPH.replace("river", "lake") + "".join(f"Ask {n}@herons.net. " for n in ("a", "b", "c", "d", "e", "f")),
        ("dropped", "personal"),
    ),
    "card": (PARAGRAPH.replace("river", "sea") + "I paid with 4111 1111 1111 1111.", ("dropped", "personal")),
    "forbidden": (PARAGRAPH.replace("heron", "stork"), ("dropped", "licence")),
    # Of two texts that are all but the same the longer one stays.
    "longer": (f"{LONG} and that is the end of the tale.", KEPT),
    "nearly": (f"{LONG}.", ("duplicate", "near")),
}


def write(root: Path, folder: str, records: list[dict[str, Any]], name: str, **common: dict[str, Any]) -> None:
    root.joinpath(folder).mkdir()
    lines = [
        {"id": row["id"], "kind": "record", "file": name, "line": place, "licence": "MIT", **common.get(row["id"], {})}
        for place, row in enumerate(records)
    ]
    root.joinpath(folder, "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    root.joinpath(folder, name).write_text("".join(json.dumps(row) + "\n" for row in records))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str | None]]:
    folder = tmp_path_factory.mktemp("texts")
    records = [{"id": name, "text": text} for name, (text, _) in TEXTS.items()]
    write(folder, "text", records, "docs.jsonl", forbidden={"licence": "CC-BY-NC-4.0"})
    curate(load_plan("text", []), folder, folder / "store")
    return final_states(folder / "store", "text")


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_ends_where_it_should(texts: dict[str, tuple[str, str | None]], name: str) -> None:
    assert texts[name] == TEXTS[name][1]


def test_the_order_of_the_rows_and_the_number_of_workers_decide_nothing(
    texts: dict[str, tuple[str, str | None]], tmp_path: Path
) -> None:
    records = [{"id": name, "text": text} for name, (text, _) in reversed(TEXTS.items())]
    write(tmp_path, "text", records, "docs.jsonl", forbidden={"licence": "CC-BY-NC-4.0"})
    curate(load_plan("text", []), tmp_path, tmp_path / "store", workers(2))
    assert final_states(tmp_path / "store", "text") == texts


QUESTION = "Ann has {a} eggs and finds {b} more. How many has she then?"
CHAINS: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "good": ({}, KEPT),
    "empty": ({"chain_of_thought": ""}, ("dropped", "steps")),
    "bare": ({"chain_of_thought": "The answer is 19."}, ("dropped", "reasoned")),
    "open": ({"chain_of_thought": "<think>12 + 7 = 19"}, ("dropped", "template")),
    "again": ({"chain_of_thought": "She counts.\nShe counts.\nShe counts.\n12 + 7 = 19"}, ("dropped", "repeated")),
    "blind": ({"question": "Look at <image 1>. How many eggs?"}, ("dropped", "pictures")),
    "leak": ({"chain_of_thought": "Answer: 19\nShe has 12 + 7 = 19 eggs."}, ("dropped", "leak")),
    "wrong": ({"chain_of_thought": "She has 12 + 7 = 18 eggs.\nAnd one more: 18 + 1 = 19."}, ("dropped", "arithmetic")),
    "other": ({"answer": "20"}, ("dropped", "answer")),
    "unknown": ({"answer": None}, ("dropped", "answer")),
    "loop": ({"chain_of_thought": "so we see " * 40 + "that 12 + 7 = 19"}, ("dropped", "repetition")),
    "broken": ({"chain_of_thought": "She has\ufffd 12 + 7 = 19 eggs.\nThat is 19."}, ("dropped", "encoding")),
}


SEEN = {
    "question": "Which muscle is marked in <image 1>?",
    "options": "['Soleus', 'Plantaris', 'Popliteus']",
    "chain_of_thought": "The mark in <image 1> lies deep behind the knee.\nAnswer: C",
    "answer": "C",
}
PICTURED: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "seen": ({}, KEPT),
    "unseen": ({"chain_of_thought": "Both <image 1> and <image 2> show it.\nAnswer: C"}, ("dropped", "pictures")),
    "mistaken": ({"chain_of_thought": "It lies far in front of the shin bone.\nAnswer: $A$"}, ("dropped", "answer")),
    "stray": ({"answer": "E", "chain_of_thought": "It is deep behind.\nAnswer: E"}, ("dropped", "choices")),
    "twice": ({"options": ["Soleus", "soleus", "Popliteus"]}, ("dropped", "choices")),
    "unread": ({"options": "Soleus, Plantaris, Popliteus"}, ("dropped", "choices")),
    "told": ({"chain_of_thought": "Answer: C\nFor it is the one that lies behind."}, ("dropped", "leak")),
}


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str | None]]:
    folder = tmp_path_factory.mktemp("chains")
    records = []
    for place, (name, (change, _)) in enumerate(CHAINS.items()):
        chain = f"She finds 7 in nest {place}, so she has 12 + 7 = 19 eggs.\nThat makes 19."
        question = QUESTION.format(a=12, b=7) + f" Tell it for case {place} of {name}, if you please."
        records.append({"id": name, "question": question, "chain_of_thought": chain, "answer": "19", **change})
    copy = next(row for row in records if row["id"] == "good")
    records.append({**copy, "id": "copy"})
    write(folder, "reasoning", records, "chains.jsonl")
    with folder.joinpath("reasoning", "manifest.jsonl").open("a") as manifest:
        for name, (change, _) in PICTURED.items():
            folder.joinpath("reasoning", f"{name}.png").write_bytes(encode(scene(32, 32)))
            line = {"id": name, "kind": "file", "file": f"{name}.png", "licence": "MIT", **SEEN, **change}
            manifest.write(json.dumps(line) + "\n")
    curate(load_plan("reasoning", []), folder, folder / "store")
    return final_states(folder / "store", "reasoning")


@pytest.mark.parametrize("name", [name for name in (*CHAINS, *PICTURED) if name != "good"])
def test_a_chain_ends_where_it_should(chains: dict[str, tuple[str, str | None]], name: str) -> None:
    assert chains[name] == (CHAINS | PICTURED)[name][1]


def test_of_two_equal_chains_one_is_kept(chains: dict[str, tuple[str, str | None]]) -> None:
    assert sorted([chains["good"], chains["copy"]], key=str) == [("duplicate", "exact"), KEPT]


@pytest.fixture(params=["text", "reasoning"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return load_plan(request.param, [])


def test_every_threshold_is_range_checked(plan: Plan) -> None:
    notes = [note for node in plan.nodes.values() for note in node.notes if "not range-checked" in note]
    # Truth values, texts and nulls have no range.
    assert not [note for note in notes if any(sign in note for sign in "<>")]


def test_licences_are_judged_before_duplicates(plan: Plan) -> None:
    (name,) = [name for name, node in plan.nodes.items() if isinstance(node.node, Duplicates)]
    assert isinstance(plan.nodes["licence"].node, Licence)
    assert "licence" in plan.recipe.ancestors(name)


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="no sample corpora beside the project")
def test_every_damaged_text_of_the_sample_leaves_and_one_of_each_copy_stays(tmp_path: Path) -> None:
    curate(load_plan("text", []), CORPORA, tmp_path / "store")
    states = final_states(tmp_path / "store", "text")
    tags = {}
    for line in map(json.loads, (CORPORA / "text" / "manifest.jsonl").read_text().splitlines()):
        tags[line["id"]] = set(line.get("tags", ()))
    damaged = [id for id in states if "low-quality" in tags[id]]
    kept = [id for id in damaged if states[id] == KEPT]
    assert [id for id in kept if not id.endswith("-exact-duplicate")] == []
    for id in damaged:
        if id.endswith("-exact-duplicate"):
            pair = {states[id][0], states[id.removesuffix("-exact-duplicate")][0]}
            assert "duplicate" in pair
    good = [id for id in states if "good" in tags[id]]
    lost = Counter(states[id][1] for id in good if states[id][0] == "dropped")
    assert lost == {"length": 1}


@pytest.mark.reviewed
@pytest.mark.corpora
@pytest.mark.skipif(not CORPORA.exists(), reason="no sample corpora beside the project")
def test_of_the_sample_of_chains_only_wrong_ones_leave(tmp_path: Path) -> None:
    curate(load_plan("reasoning", []), CORPORA, tmp_path / "store")
    states = final_states(tmp_path / "store", "reasoning")
    assert {id.removeprefix("reasoning/"): state for id, state in states.items() if state != KEPT} == {
        "gsm8k-train-6760": ("dropped", "arithmetic"),
        "gsm8k-train-6812": ("dropped", "arithmetic"),
        "mmmu__test_Energy_and_Power_276_1.png": ("dropped", "answer"),
        "mmmu__test_History_1_1.png": ("dropped", "answer"),
        "mmmu__validation_Music_11_1.png": ("dropped", "answer"),
    }
