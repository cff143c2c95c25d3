from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from catalog.errors import UserError
from pipeline.scorers.released import (
    Names,
    Place,
    check_fits,
    expectation,
    load_released,
    read_tokens,
    token_ids,
    word_ids,
)
from tests.pipeline.scorers.releases import LEVELS, owl_tokenizer, qwen_tokenizer, write_json


class Two(nn.Module):
    """Two layers that a release keeps in one tensor, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(3, 2)
        self.value = nn.Linear(3, 4)
        self.out = nn.Linear(4, 1, bias=False)


def joined(name: str) -> Place:
    stem, _, last = name.partition(".")
    return Place(name) if stem == "out" else Place(f"kv.{last}", int(stem == "value"))


NAMES = Names(place=joined)
STORED = {"kv.weight": torch.arange(18.0).view(6, 3), "kv.bias": torch.arange(6.0), "out.weight": torch.ones(1, 4)}


def empty() -> Two:
    with torch.device("meta"):
        return Two()


def assert_filled(two: Two) -> None:
    assert torch.equal(two.key.weight, STORED["kv.weight"][:2])
    assert torch.equal(two.value.weight, STORED["kv.weight"][2:])
    assert torch.equal(two.value.bias, STORED["kv.bias"][2:])
    assert torch.equal(two.out.weight, STORED["out.weight"])
    assert not two.training


def test_one_stored_tensor_fills_several_of_a_module(tmp_path: Path) -> None:
    save_file(STORED, tmp_path / "model.safetensors")
    two = empty()
    load_released(two, tmp_path, NAMES)
    assert_filled(two)


def test_bin_files_are_read_alone_and_by_their_index(tmp_path: Path) -> None:
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    alone.mkdir()
    cut.mkdir()
    torch.save(STORED, alone / "pytorch_model.bin")
    where = {name: f"pytorch_model-{number}.bin" for number, name in enumerate(STORED)}
    for name, file in where.items():
        torch.save({name: STORED[name]}, cut / file)
    write_json(cut / "pytorch_model.bin.index.json", {"weight_map": where})
    for folder in (alone, cut):
        two = empty()
        load_released(two, folder, NAMES)
        assert_filled(two)


def test_weights_come_in_the_type_asked_for(tmp_path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in STORED.items()}, tmp_path / "model.safetensors")
    two = empty()
    load_released(two, tmp_path, NAMES)
    assert_filled(two)
    load_released(two, tmp_path, NAMES, dtype=torch.bfloat16)
    assert two.out.weight.dtype == torch.bfloat16


def changed(**tensors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    both = {**STORED, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
    return {name: tensor for name, tensor in both.items() if tensor is not None}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (changed(kv__weight=None), "does not fit the model: missing tensor 'kv.weight' of shape [6, 3]"),
        (changed(extra=torch.ones(2)), "does not fit the model: unexpected tensor 'extra' of shape [2]"),
        (
            changed(kv__bias=torch.ones(5)),
            "does not fit the model: tensor 'kv.bias' has shape [5], the model needs [6]",
        ),
        (
            changed(kv__bias=torch.ones(6, dtype=torch.int64)),
            "does not fit the model: tensor 'kv.bias' has type I64; readable are BF16, F16, F32, F8_E4M3",
        ),
        (
            changed(kv__bias=None, extra=torch.ones(2)),
            "does not fit the model: unexpected tensor 'extra' of shape [2]; missing tensor 'kv.bias' of shape [6]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, stored: dict[str, torch.Tensor], message: str) -> None:
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as caught:
        check_fits(empty(), tmp_path, NAMES)
    assert str(caught.value) == f"{tmp_path} {message}"


def test_a_long_list_of_misfits_is_cut(tmp_path: Path) -> None:
    save_file({f"extra{number}": torch.ones(1) for number in range(20)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"'extra0' .*; and 15 more$"):
        check_fits(empty(), tmp_path, NAMES)


def no_folder(folder: Path) -> str:
    folder.rmdir()
    return f"{folder}: no such folder; the checkpoint of this model is a folder"


def no_weights(folder: Path) -> str:
    return f"{folder}: no safetensors file and no index"


def an_object(folder: Path) -> str:
    torch.save({"kv.weight": Path("x")}, folder / "pytorch_model.bin")
    return f"{folder}/pytorch_model.bin: damaged, or holds more than tensors: "


def a_list(folder: Path) -> str:
    torch.save([torch.ones(1)], folder / "pytorch_model.bin")
    return f"{folder}/pytorch_model.bin: holds more than tensors"


def cut_off(folder: Path) -> str:
    torch.save(STORED, folder / "pytorch_model.bin")
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    return f"{folder}/pytorch_model.bin: damaged, or holds more than tensors: "


def a_part_gone(folder: Path) -> str:
    save_file(STORED, folder / "other.txt")
    torch.save(STORED, folder / "pytorch_model-1.bin")
    where = {"kv.weight": "pytorch_model-1.bin", "kv.bias": "pytorch_model-2.bin"}
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": where})
    return f"{folder}/pytorch_model-2.bin: no such file, and the index names it"


def damaged(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    return f"{folder}/model.safetensors: truncated or damaged"


@pytest.mark.parametrize("spoil", [no_folder, no_weights, an_object, a_list, cut_off, a_part_gone, damaged])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    message = spoil(folder)
    with pytest.raises(UserError) as caught:
        check_fits(empty(), folder, NAMES)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_bin_file_is_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (Path.touch, (str(tmp_path / "run"),))

    torch.save({"kv.weight": Runs()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds more than tensors"):
        check_fits(empty(), tmp_path, NAMES)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([1, 0, 0, 0, 0], 5.0),
        ([0, 0, 0, 0, 1], 1.0),
        ([0.2, 0.2, 0.2, 0.2, 0.2], 3.0),
        ([0.5, 0, 0, 0, 0.5], 3.0),
        ([0.125, 0.5, 0.25, 0.125, 0], 3.625),
    ],
)
def test_planted_shares_give_their_exact_mean(shares: list[float], expected: float) -> None:
    logits = torch.tensor([math.log(share) if share else -math.inf for share in shares], dtype=torch.float64)
    mean, found = expectation(logits + 11.5, (5, 4, 3, 2, 1))
    assert mean == pytest.approx(expected, abs=1e-12)
    assert found == pytest.approx(shares, abs=1e-12)


@settings(max_examples=25)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=101, max_size=101), st.sampled_from([10, 100]))
def test_a_score_never_leaves_its_scale_and_rises_with_its_token(logits: list[float], scale: int) -> None:
    values = [number * scale / 100 for number in range(101)]
    mean, shares = expectation(torch.tensor(logits), values)
    assert 0 <= mean <= scale
    assert sum(shares) == pytest.approx(1)
    raised = torch.tensor(logits)
    raised[100] += 5
    assert expectation(raised, values)[0] >= mean


def test_rounding_does_not_carry_a_sure_score_beyond_its_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    over = 0
    for _ in range(200):
        logits = torch.randn(5, generator=generator, dtype=torch.float64) * 0.1
        logits[1:] -= 36 + 4 * torch.rand(1, generator=generator, dtype=torch.float64)
        over += float(torch.softmax(logits, -1) @ torch.tensor([5.0, 4, 3, 2, 1], dtype=torch.float64)) > 5
        assert expectation(logits, (5, 4, 3, 2, 1))[0] <= 5
    assert over  # it would, without care


def test_a_logit_that_is_no_number_gives_a_score_that_is_none() -> None:
    assert math.isnan(expectation(torch.tensor([0.0, math.nan]), (1, 2))[0])


def test_a_tokenizer_is_read_from_its_json_or_from_qwens_two_files(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    made = qwen_tokenizer()
    made.save(str(whole / "tokenizer.json"))
    model = json.loads(made.to_str())["model"]
    write_json(parts / "vocab.json", model["vocab"])
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (parts / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    added = {token.content: number for number, token in made.get_added_tokens_decoder().items()}
    write_json(parts / "added_tokens.json", added)
    decoder = {str(number): {"content": token, "special": True} for token, number in added.items()}
    write_json(parts / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder})
    first, second = read_tokens(whole, "transformers"), read_tokens(parts, "transformers")
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nda<|im_end|>\n"
    assert first.ids(text) == second.ids(text)
    assert first.ids("da") == [first.id_of("da")]
    assert second.id_of("ey") == first.id_of("ey")
    assert second.id_of("zz") is None


def test_a_sentencepiece_model_without_the_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        read_tokens(tmp_path, "transformers")
    assert str(caught.value) == (
        f"{tmp_path}/tokenizer.model needs sentencepiece; install it with: pip install 'unifactory[transformers]'"
    )


def test_a_sentencepiece_model_is_read_with_a_space_before_the_text(tmp_path: Path) -> None:
    pieces = pytest.importorskip("sentencepiece")
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(LEVELS)] * 50),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=40,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokens = read_tokens(tmp_path, "transformers")
    assert len(word_ids(tokens, LEVELS[1:], tmp_path, "a level")) == 4
    assert tokens.ids("good") == [tokens.id_of("▁good")]


def test_a_folder_without_a_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json, tokenizer\.model, or vocab\.json with merges\.txt"):
        read_tokens(tmp_path, "transformers")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        read_tokens(tmp_path, "transformers")


def test_words_and_tokens_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    owl_tokenizer(("good", "bad")).save(str(tmp_path / "tokenizer.json"))
    tokens = read_tokens(tmp_path, "transformers")
    assert len(word_ids(tokens, ("good", "bad"), tmp_path, "a level")) == 2
    with pytest.raises(UserError, match=r"'splendid', a level, is \d+ tokens of its tokenizer, must be one"):
        word_ids(tokens, ("good", "splendid"), tmp_path, "a level")
    with pytest.raises(UserError, match=r"has no token 'aa', a score"):
        token_ids(tokens, ("aa",), tmp_path, "a score")
    unknown = Tokenizer(models.WordLevel({"<unk>": 0, "good": 1}, unk_token="<unk>"))
    unknown.pre_tokenizer = pre_tokenizers.Whitespace()
    unknown.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="'poor' and 'fair' are one token, a level"):
        word_ids(read_tokens(tmp_path, "transformers"), ("good", "fair", "poor"), tmp_path, "a level")


def test_an_optional_tensor_that_is_not_stored_keeps_its_computed_values(tmp_path: Path) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(3.0, device="cpu"))
            self.layer = nn.Linear(2, 1, bias=False)

    save_file({"layer.weight": torch.ones(1, 2)}, tmp_path / "model.safetensors")
    with torch.device("meta"):
        made = Table()
    with pytest.raises(UserError, match="missing tensor 'table'"):
        load_released(made, tmp_path)
    load_released(made, tmp_path, Names(optional=lambda name: name == "table"))
    assert torch.equal(made.state_dict()["table"], torch.arange(3.0))
    assert load_file(tmp_path / "model.safetensors").keys() == {"layer.weight"}
