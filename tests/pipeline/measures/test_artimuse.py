from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from catalog.errors import UserError
from pipeline.measures.artimuse import QUESTION, SCORE_TOKENS, ArtiMuse
from pipeline.operator import load_operator
from pipeline.scorers.internvl import DEVIATION, MEAN
from pipeline.scorers.normalisation import Normalisation, squeezed
from tests.pipeline.pictures import encode, record, scene
from tests.pipeline.runs import curate, entry, final_states, plan_of, write_manifest
from tests.pipeline.scorers.releases import (
    INTERNVL_CONFIG,
    change_json,
    internvl_logits,
    internvl_pixels,
    internvl_tensors,
    qwen_tokenizer,
    write_internvl,
)

SIZES = ((60, 40), (40, 60), (33, 33), (200, 90))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("artimuse")
    write_internvl(folder)
    return folder


def build(release: Path, scale: int = 100, **params: Any) -> ArtiMuse:
    made = load_operator("artimuse").build({"checkpoint": str(release), "scale": scale, **params})
    assert isinstance(made, ArtiMuse)
    return made


def score_token(score: int) -> str:
    """The released function, from its ranges: 0-25 a, 26-50 c, 51-75 d, 76-100 e."""
    for first, start, end in (("a", 0, 25), ("c", 26, 50), ("d", 51, 75), ("e", 76, 100)):
        if start <= score <= end:
            return first + chr(ord("a") + score - start)
    raise AssertionError(score)


RELEASED_QUESTION = """
        Rate the aesthetics score of the image in 0-100.\x20
        In the output format, numbers are replaced by 2 corresponding letters,\x20
        and the mapping relationship is:\x20
        score 0 to 25: 0-aa, 1-ab, 2-ac, 3-ad, ... , 25-az,
        score 26 to 50: 26-ca, 27-cb, 28-cc, 29-cd, ..., 50-cy,
        score 51 to 75: 51-da, 52-db, 53-dc, 54-dd, ..., 75-dy,
        score 76 to 100: 76-ea, 77-eb, 78-ec, 79-ed, ..., 100-ey.

        The answer only outputs 2 corresponding letters.
        """


def expected(release: Path, picture: np.ndarray) -> float:
    """The score by transformers' processor and Qwen2, the released vision code and numpy's softmax."""
    tokenizer = qwen_tokenizer()
    system = (
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
    )
    query = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n<image>\n{RELEASED_QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ).replace("<image>", "<img>" + "<IMG_CONTEXT>" * 4 + "</img>")
    ids = tokenizer.encode(query, add_special_tokens=False).ids
    tensors = load_file(release / "model.safetensors")
    hole = tokenizer.token_to_id("<IMG_CONTEXT>")
    logits = internvl_logits(tensors, internvl_pixels(Image.fromarray(picture)), ids, hole)
    shares = np.exp(logits[[tokenizer.token_to_id(score_token(score)) for score in range(101)]].double().numpy())
    return float(shares @ np.arange(101) / shares.sum())


def test_scores_equal_an_independent_computation_on_both_scales(release: Path, tmp_path: Path) -> None:
    hundred, ten = build(release), build(release, scale=10)
    scores = []
    for number, (width, height) in enumerate(SIZES):
        picture = scene(width, height, number)
        (score,) = hundred.process(record(tmp_path, encode(picture)))
        assert score == pytest.approx(expected(release, picture), abs=1e-3)
        assert ten.process(record(tmp_path, encode(picture)))[0] == pytest.approx(score / 10)
        scores.append(score)
    assert max(scores) - min(scores) > 0.5


def test_the_tokens_and_the_question_are_those_of_the_release() -> None:
    assert list(SCORE_TOKENS) == [score_token(score) for score in range(101)]
    assert (SCORE_TOKENS[0], SCORE_TOKENS[25], SCORE_TOKENS[26], SCORE_TOKENS[100]) == ("aa", "az", "ca", "ey")
    assert QUESTION == RELEASED_QUESTION


def test_a_score_is_the_same_in_any_batch_and_again(release: Path, tmp_path: Path) -> None:
    made = build(release)
    records = []
    for number, (width, height) in enumerate(SIZES):
        folder = tmp_path / str(number)
        folder.mkdir()
        records.append(record(folder, encode(scene(width, height, number))))
    together = list(made.process_batch(records))
    assert together == [made.process(one) for one in records]
    assert together[::-1] == list(build(release).process_batch(records[::-1]))


@pytest.mark.parametrize("score", [0, 25, 26, 60, 100])
def test_a_token_that_takes_all_gives_its_score(tmp_path: Path, score: int) -> None:
    tensors = internvl_tensors()
    # The state behind the prompt is read off, and the head then points one token along it.
    tensors["language_model.lm_head.weight"] = torch.zeros_like(tensors["language_model.lm_head.weight"])
    write_internvl(tmp_path / "release", tensors)
    made = build(tmp_path / "release")
    made.setup()
    states: list[torch.Tensor] = []
    handle = made._network.network.lm_head.register_forward_pre_hook(lambda module, given: states.append(given[0]))
    picture = record(tmp_path, encode(scene(50, 40)))
    assert made.process(picture)[0] == pytest.approx(50.0)
    handle.remove()
    number = qwen_tokenizer().token_to_id(score_token(score))
    tensors["language_model.lm_head.weight"][number] = 100 * states[0][0, -1] / states[0][0, -1].norm() ** 2
    write_internvl(tmp_path / "release", tensors)
    assert build(tmp_path / "release").process(picture)[0] == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pictures_become_what_the_library_makes_of_them_without_tiles(width: int, height: int) -> None:
    picture = Image.fromarray(scene(width, height, 3))
    ours = squeezed(picture, Normalisation(28, MEAN, DEVIATION))
    assert np.abs(ours - internvl_pixels(picture)[0].numpy()).max() < 1e-6


def test_the_column_carries_the_scale_of_the_checkpoint() -> None:
    for scale in (10, 100):
        (column,) = load_operator("artimuse").build({"scale": scale}).columns  # type: ignore[attr-defined]
        assert (column.name, column.low, column.high, column.better) == ("artimuse", 0, scale, "higher")


NODES = """
artimuse: {measure: artimuse, requires: checkpoint, params: {checkpoint: %s%s}}
quality:
  decide: rules
  needs: [artimuse]
  rules: {aesthetics: {keep: artimuse >= %s, else: skip}}
"""


@pytest.mark.parametrize(
    ("scale", "threshold", "message"),
    [
        (", scale: 10", 60, "quality.rules.aesthetics: artimuse >= 60 decides nothing: artimuse ranges from 0 to 10"),
        (
            ", scale: 100",
            160,
            "quality.rules.aesthetics: artimuse >= 160 decides nothing: artimuse ranges from 0 to 100",
        ),
        ("", 60, "artimuse.params.scale: is missing"),
        (", scale: 50", 60, "artimuse.params.scale: Input should be 10 or 100"),
    ],
)
def test_plan_refuses_thresholds_of_another_scale_and_a_scale_that_is_not_said(
    release: Path, scale: str, threshold: float, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(NODES % (release, scale, threshold))
    assert str(caught.value) == f"R: nodes.{message}"


def other_architecture(folder: Path) -> str:
    change_json(folder / "config.json", model_type="internvl")
    return f"{folder}/config.json: model_type is 'internvl', must be 'internvl_chat'"


def other_language(folder: Path) -> str:
    change_json(folder / "config.json", llm_config={**INTERNVL_CONFIG["llm_config"], "model_type": "llama"})
    return f"{folder}/config.json: "


def other_folding(folder: Path) -> str:
    change_json(folder / "config.json", ps_version="v1")
    return f"{folder}/config.json: ps_version: Input should be 'v2'"


def other_layer(folder: Path) -> str:
    change_json(folder / "config.json", select_layer=-4)
    return f"{folder}/config.json: select_layer: Input should be -1"


def other_template(folder: Path) -> str:
    change_json(folder / "config.json", template="Hermes-2")
    return f"{folder}/config.json: Value error, template 'Hermes-2' is not known; known: internvl2_5"


def other_side(folder: Path) -> str:
    change_json(folder / "config.json", force_image_size=56)
    return f"{folder}/config.json: Value error, force_image_size 56 is not vision_config.image_size"


def no_projector(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    del tensors["mlp1.3.bias"]
    save_file(tensors, folder / "model.safetensors")
    return f"{folder} does not fit the model: missing tensor 'mlp1.3.bias' of shape [32]"


def narrow_attention(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.encoder.layers.1.attn.qkv.weight"] = torch.ones(48, 24)
    save_file(tensors, folder / "model.safetensors")
    return (
        f"{folder} does not fit the model: tensor 'vision_model.encoder.layers.1.attn.qkv.weight' "
        "has shape [48, 24], the model needs [72, 24]"
    )


def no_score_token(folder: Path) -> str:
    data = json.loads((folder / "tokenizer.json").read_text())["model"]
    data["vocab"]["zz"] = data["vocab"].pop("dd")
    data["merges"] = [merge for merge in data["merges"] if "".join(merge).replace(" ", "") != "dd"]
    change_json(folder / "tokenizer.json", model=data)
    return f"{folder}: the tokenizer has no token 'dd', which stands for a score"


def no_mark(folder: Path) -> str:
    data = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change_json(folder / "tokenizer.json", added_tokens=[token for token in data if token["content"] != "</img>"])
    return f"{folder}: the tokenizer has no token '</img>', which the prompt needs"


SPOILT = [
    other_architecture, other_language, other_folding, other_layer, other_template, other_side, no_projector,
    narrow_attention, no_score_token, no_mark,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_wrong_with_a_release_is_said_before_any_record(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    write_internvl(tmp_path)
    build(tmp_path).check()
    message = spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        build(tmp_path).check()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        build(tmp_path).setup()


def test_a_recipe_keeps_what_the_checkpoint_finds_beautiful_and_skips_the_rule_without_one(
    release: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "files").mkdir(parents=True)
    scores: dict[str, float] = {}
    for number in range(4):
        picture = scene(60, 40 + number, number)
        (root / entry(number)["file"]).write_bytes(encode(picture))
        scores[entry(number)["id"]] = expected(release, picture)
    (root / entry(4)["file"]).write_bytes(b"")
    write_manifest(root, [entry(number) for number in range(5)])
    threshold = round(sum(sorted(scores.values())[1:3]) / 2, 3)

    curate(plan_of(NODES % (release, ", scale: 100", threshold)), root, tmp_path / "with")
    states = final_states(tmp_path / "with")
    verdicts = {name: "kept" if score >= threshold else "dropped" for name, score in scores.items()}
    assert sorted(verdicts.values()) == ["dropped", "dropped", "kept", "kept"]
    assert {name: states[name][0] for name in scores} == verdicts
    assert states["p004"] == ("quarantined", "empty file")

    curate(plan_of(NODES % ("null", ", scale: 100", threshold)), root, tmp_path / "without")
    assert {state for state, _ in final_states(tmp_path / "without").values()} == {"kept"}


def test_scores_known_beforehand_and_the_model_stand_side_by_side_under_two_names() -> None:
    nodes = """
known: {measure: scores, requires: table, params: {table: null, column: artimuse, name: %s, low: 0, high: 100}}
artimuse: {measure: artimuse, needs: [known], requires: checkpoint, params: {checkpoint: null, scale: 100}}
quality:
  decide: rules
  needs: [artimuse]
  rules: {model: {keep: artimuse >= 60, else: skip}, known: {keep: %s >= 60, else: skip}}
"""
    plan_of(nodes % ("artimuse_known", "artimuse_known"))
    with pytest.raises(UserError, match=r"nodes\.artimuse: writes 'artimuse', which known writes already"):
        plan_of(nodes % ("artimuse", "artimuse"))
