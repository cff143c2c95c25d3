from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from catalog.errors import UserError
from pipeline.measures.deqa import AFTER, BEFORE, LEVELS, DeQA, pixels_of
from pipeline.operator import Quarantine, check_row, load_operator
from pipeline.scorers.normalisation import read_normalisation
from tests.pipeline.pictures import encode, record, scene
from tests.pipeline.runs import curate, entry, final_states, outcome_of, plan_of, write_manifest
from tests.pipeline.scorers.releases import (
    OWL_PROMPT,
    change_json,
    owl_logits,
    owl_pixels,
    owl_tensors,
    owl_tokenizer,
    write_owl,
)

SIZES = ((60, 40), (40, 60), (33, 33), (200, 90))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("deqa")
    write_owl(folder)
    return folder


def build(release: Path, **params: Any) -> DeQA:
    made = load_operator("deqa").build({"checkpoint": str(release), **params})
    assert isinstance(made, DeQA)
    return made


def expected(release: Path, picture: np.ndarray) -> tuple[float, list[float]]:
    """The score by transformers' processor and networks and numpy's softmax."""
    tokenizer = owl_tokenizer()
    halves = [tokenizer.encode(half, add_special_tokens=False).ids for half in OWL_PROMPT]
    tensors = load_file(release / "model.safetensors")
    logits = owl_logits(tensors, owl_pixels(Image.fromarray(picture)), [1, *halves[0]], halves[1])
    words = [tokenizer.token_to_id(f"▁{word}") for word in ("excellent", "good", "fair", "poor", "bad")]
    shares = np.exp(logits[words].double().numpy())
    shares /= shares.sum()
    return float(shares @ [5, 4, 3, 2, 1]), shares.tolist()


def test_scores_equal_an_independent_computation(release: Path, tmp_path: Path) -> None:
    made = build(release)
    scores = []
    for number, (width, height) in enumerate(SIZES):
        picture = scene(width, height, number)
        score, levels = made.process(record(tmp_path, encode(picture)))
        want, shares = expected(release, picture)
        assert score == pytest.approx(want, abs=1e-4)
        assert levels == pytest.approx(shares, abs=1e-4)
        scores.append(score)
    assert max(scores) - min(scores) > 0.05


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


def test_equal_logits_give_the_middle(tmp_path: Path) -> None:
    tensors = owl_tensors()
    tensors["lm_head.weight"] = torch.zeros_like(tensors["lm_head.weight"])
    write_owl(tmp_path / "even", tensors)
    picture = record(tmp_path, encode(scene(50, 40)))
    assert build(tmp_path / "even").process(picture) == (pytest.approx(3.0), pytest.approx([0.2] * 5))


@pytest.mark.parametrize(("word", "score"), [("excellent", 5.0), ("good", 4.0), ("poor", 2.0), ("bad", 1.0)])
def test_a_level_that_takes_all_gives_its_value(tmp_path: Path, word: str, score: float) -> None:
    tensors = write_owl(tmp_path / "release")
    made = build(tmp_path / "release")
    made.setup()
    picture = record(tmp_path, encode(scene(50, 40)))
    # The state behind the prompt, read through a head that hands it on.
    head = made._network.network.lm_head
    states: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, given: states.append(given[0]))
    made.process(picture)
    handle.remove()
    number = owl_tokenizer().token_to_id(f"▁{word}")
    tensors["lm_head.weight"] = torch.zeros_like(tensors["lm_head.weight"])
    tensors["lm_head.weight"][number] = 100 * states[0][0] / states[0].norm() ** 2
    write_owl(tmp_path / "release", tensors)
    assert build(tmp_path / "release").process(picture)[0] == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pictures_become_what_clips_processor_makes_of_them(release: Path, width: int, height: int) -> None:
    picture = Image.fromarray(scene(width, height, 3))
    how = read_normalisation(release, 28)
    assert np.abs(pixels_of(picture, how) - owl_pixels(picture)[0].numpy()).max() < 1e-6


def test_the_prompt_and_the_words_are_those_of_the_release() -> None:
    assert (BEFORE, AFTER) == OWL_PROMPT
    assert LEVELS == {"excellent": 5, "good": 4, "fair": 3, "poor": 2, "bad": 1}


def test_bytes_that_are_no_picture_are_set_aside_and_their_neighbours_not(release: Path, tmp_path: Path) -> None:
    made = build(release)
    (tmp_path / "bad").mkdir()
    bad, good = record(tmp_path / "bad", b"no picture"), record(tmp_path, encode(scene(50, 40)))
    first, second = made.process_batch([bad, good])
    assert isinstance(first, Quarantine)
    assert first.reason == "not an image"
    assert second == made.process(good)
    with pytest.raises(Quarantine, match="it begins with"):
        made.process(bad)


def test_a_score_that_is_no_number_never_gets_through(tmp_path: Path) -> None:
    tensors = owl_tensors()
    tensors["lm_head.weight"][:] = torch.nan
    write_owl(tmp_path / "release", tensors)
    made = build(tmp_path / "release")
    row = made.process(record(tmp_path, encode(scene(50, 40))))
    with pytest.raises(Quarantine) as caught:
        check_row(made.columns, row)
    assert caught.value.reason == "non-finite value"


def other_architecture(folder: Path) -> str:
    change_json(folder / "config.json", model_type="llava")
    return f"{folder}/config.json: model_type is 'llava', must be 'mplug_owl2'"


def no_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return f"{folder}/config.json: no such file; a release has one"


def lora_alone(folder: Path) -> str:
    (folder / "config.json").rename(folder / "adapter_config.json")
    return f"{folder}: holds LoRA weights alone; merge them into their base model first"


def broken_config(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return f"{folder}/config.json: cannot be read as JSON: "


def a_list(folder: Path) -> str:
    (folder / "config.json").write_text("[]")
    return f"{folder}/config.json: holds no JSON object"


def no_size(folder: Path) -> str:
    change_json(folder / "config.json", hidden_size=None)
    return f"{folder}/config.json: hidden_size: Field required"


def stretched_positions(folder: Path) -> str:
    change_json(folder / "config.json", rope_scaling={"type": "linear", "factor": 2.0})
    return f"{folder}/config.json: rope_scaling: Input should be None"


def missing_tensor(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.multiway.1.weight"]
    save_file(tensors, folder / "model.safetensors")
    return (
        f"{folder} does not fit the model: "
        "missing tensor 'model.layers.1.self_attn.k_proj.multiway.1.weight' of shape [32, 32]"
    )


def left_over_tensor(folder: Path) -> str:
    save_file({**load_file(folder / "model.safetensors"), "model.extra": torch.ones(2)}, folder / "model.safetensors")
    return f"{folder} does not fit the model: unexpected tensor 'model.extra' of shape [2]"


def wrong_shape(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.norm.weight": torch.ones(31)}, folder / "model.safetensors")
    return f"{folder} does not fit the model: tensor 'model.norm.weight' has shape [31], the model needs [32]"


def no_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return f"{folder}: holds no weights (.bin, .onnx, .pt, .pth, .safetensors)"


def no_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return f"{folder}: no tokenizer.json, tokenizer.model, or vocab.json with merges.txt"


def word_in_pieces(folder: Path) -> str:
    tokenizer = owl_tokenizer()
    data = yaml.safe_load(tokenizer.to_str())
    data["model"]["vocab"].pop("▁excellent")
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in data["model"]["merges"]]
    data["model"]["merges"] = [merge for merge in merges if "".join(merge) != "▁excellent"]
    change_json(folder / "tokenizer.json", model=data["model"])
    return f"{folder}: 'excellent', a level of the score, is 2 tokens of its tokenizer, must be one"


def small_vocabulary(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        tensors[name] = tensors[name][:50].clone()
    save_file(tensors, folder / "model.safetensors")
    change_json(folder / "config.json", vocab_size=50)
    return f"{folder}: the tokenizer gives the id "


def no_preprocessing(folder: Path) -> str:
    (folder / "preprocessor_config.json").unlink()
    return f"{folder}/preprocessor_config.json: no such file; a release has one"


def other_side(folder: Path) -> str:
    change_json(folder / "preprocessor_config.json", size={"shortest_edge": 224})
    return f"{folder}/preprocessor_config.json: size is {{'shortest_edge': 224}}, the model sees 28"


def other_filter(folder: Path) -> str:
    change_json(folder / "preprocessor_config.json", resample=2)
    return f"{folder}/preprocessor_config.json: resample is 2, must be 3 (bicubic)"


def no_mean(folder: Path) -> str:
    change_json(folder / "preprocessor_config.json", image_mean=[0.5])
    return f"{folder}/preprocessor_config.json: image_mean is [0.5], must be three numbers"


SPOILT = [
    other_architecture, no_config, lora_alone, broken_config, a_list, no_size, stretched_positions, missing_tensor,
    left_over_tensor, wrong_shape, no_weights, no_tokenizer, word_in_pieces, small_vocabulary, no_preprocessing,
    other_side, other_filter, no_mean,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_wrong_with_a_release_is_said_before_any_record(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    write_owl(tmp_path)
    build(tmp_path).check()
    message = spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        build(tmp_path).check()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        build(tmp_path).setup()


def test_a_missing_package_is_one_line_that_names_the_extra(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "safetensors" else name)
    with pytest.raises(UserError) as caught:
        build(release).check_packages()
    assert str(caught.value) == "deqa needs safetensors; install it with: pip install 'unifactory[transformers]'"


def test_unknown_parameters_and_precisions_are_refused() -> None:
    for params in ({"precision": "int8"}, {"device": "tpu"}, {"chekpoint": "x"}):
        with pytest.raises(ValidationError):
            load_operator("deqa").build(params)


def test_precision_changes_a_score_a_little(release: Path, tmp_path: Path) -> None:
    picture = record(tmp_path, encode(scene(50, 40)))
    exact, rounded = (build(release, precision=name).process(picture)[0] for name in ("float32", "bfloat16"))
    assert exact != rounded
    assert exact == pytest.approx(rounded, abs=0.2)


NODES = """
deqa: {measure: deqa, requires: checkpoint, params: {checkpoint: %s}}
quality:
  decide: rules
  needs: [deqa]
  rules: {quality: {keep: deqa >= %s, else: scene IS NOT NULL}}
"""


def test_a_recipe_keeps_what_the_checkpoint_rates_high_and_its_else_what_it_says(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    scores: dict[str, float] = {}
    entries = []
    for number in range(4):
        line = entry(number)
        path = root / line["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = scene(60, 40 + number, number)
        path.write_bytes(encode(picture))
        scores[line["id"]] = expected(release, picture)[0]
        entries.append(line)
    entries.append(entry(4))
    (root / entries[4]["file"]).write_bytes(b"no picture at all")
    write_manifest(root, entries)
    threshold = round(sum(sorted(scores.values())[1:3]) / 2, 4)

    plan = plan_of(NODES % (release, threshold))
    assert plan.nodes["deqa"].missing is None
    curate(plan, root, tmp_path / "with")
    states = final_states(tmp_path / "with")
    verdicts = {name: "kept" if score >= threshold else "dropped" for name, score in scores.items()}
    assert sorted(verdicts.values()) == ["dropped", "dropped", "kept", "kept"]
    assert {name: states[name][0] for name in scores} == verdicts
    assert states["p004"] == ("quarantined", "not an image")
    assert outcome_of(tmp_path / "with", plan, "deqa").height == 5

    without = plan_of(NODES % ("null", threshold))
    assert without.nodes["deqa"].missing == "no checkpoint is given for 'deqa'"
    curate(without, root, tmp_path / "without")
    assert {state for state, _ in final_states(tmp_path / "without").values()} == {"kept"}


def test_a_release_that_does_not_fit_ends_a_run_before_its_first_record(tmp_path: Path) -> None:
    write_owl(tmp_path / "release")
    change_json(tmp_path / "release" / "config.json", model_type="llava")
    root = tmp_path / "root"
    (root / "files").mkdir(parents=True)
    (root / entry(0)["file"]).write_bytes(encode(scene(50, 40)))
    write_manifest(root, [entry(0)])
    plan = plan_of(NODES % (tmp_path / "release", 3))
    with pytest.raises(UserError, match="model_type is 'llava', must be 'mplug_owl2'"):
        curate(plan, root, tmp_path / "store")
    with pytest.raises(UserError, match="deqa >= 60 decides nothing: deqa ranges from 1 to 5"):
        plan_of(NODES % (tmp_path / "release", 60))
    with pytest.raises(UserError, match="cannot be read"):
        plan_of(NODES % (tmp_path / "nowhere", 3))


def test_another_file_of_the_release_is_another_fingerprint(tmp_path: Path) -> None:
    write_owl(tmp_path)
    before = plan_of(NODES % (tmp_path, 3)).nodes["deqa"].fingerprint
    assert plan_of(NODES % (tmp_path, 3)).nodes["deqa"].fingerprint == before
    write_owl(tmp_path, owl_tensors(seed=8))
    assert plan_of(NODES % (tmp_path, 3)).nodes["deqa"].fingerprint != before
