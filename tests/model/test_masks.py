from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from model.masks import AttentionMask, block_causal, noisy_clean, positions_of
from tests.model import parity, reference


@st.composite
def document_rows(draw: st.DrawFn) -> list[int]:
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    return [document for document, length in enumerate(lengths) for _ in range(length)]


def picture(mask: AttentionMask) -> np.ndarray:
    return mask.dense()[0, 0].numpy()


@given(document_rows(), st.integers(1, 6))
def test_block_causal_equals_the_rule_written_pair_by_pair(documents: list[int], block: int) -> None:
    mask = block_causal(len(documents), block, documents=torch.tensor(documents))
    assert (picture(mask) == reference.block_causal(len(documents), block, documents)).all()


@given(document_rows(), st.integers(1, 6))
def test_noisy_clean_equals_the_rule_written_pair_by_pair(documents: list[int], block: int) -> None:
    mask = noisy_clean(len(documents), block, documents=torch.tensor(documents))
    assert (picture(mask) == reference.noisy_clean(len(documents), block, documents)).all()


@given(document_rows(), st.integers(1, 6), st.booleans(), st.integers(1, 8))
def test_tile_lists_are_exact(documents: list[int], block: int, training: bool, tile: int) -> None:
    make = noisy_clean if training else block_causal
    mask = make(len(documents), block, documents=torch.tensor(documents))
    dense = mask.dense()[0, 0]
    lists = mask.tiles(tile)
    size = -(-len(dense) // tile)
    for i in range(size):
        partial = set(lists.kv_indices[0, 0, i, : lists.kv_num_blocks[0, 0, i]].tolist())
        full = set(lists.full_kv_indices[0, 0, i, : lists.full_kv_num_blocks[0, 0, i]].tolist())
        for j in range(size):
            inside = dense[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile]
            whole = bool(inside.all()) and inside.shape == (tile, tile)
            assert (j in full) == whole
            assert (j in partial) == (bool(inside.any()) and not whole)


def test_tile_lists_equal_those_that_torch_builds_token_by_token() -> None:
    documents = torch.tensor([[0] * 150 + [1] * 200, [0] * 32 + [1] * 318])
    mask = noisy_clean(350, 32, documents=documents)
    ours = mask.tiles(128)
    theirs = create_block_mask(mask._mask_mod(), 2, None, 700, 700, device="cpu", BLOCK_SIZE=128)
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)


def test_queries_are_the_last_positions() -> None:
    whole, tail = block_causal(20, 4), block_causal(20, 4, queries=6)
    assert torch.equal(whole.dense()[:, :, 14:], tail.dense())


def test_hidden_columns_are_seen_by_nobody_and_still_count_for_blocks() -> None:
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    hidden[1, :5] = True
    dense = block_causal(12, 4, hidden=hidden).dense()
    plain = block_causal(12, 4).dense()[0]
    assert torch.equal(dense[0], plain)
    assert torch.equal(dense[1], plain & ~hidden[1])


def test_negative_documents_are_padding_that_nobody_sees() -> None:
    dense = block_causal(6, 2, documents=torch.tensor([0, 0, 0, 0, -1, -2])).dense()[0, 0]
    assert not dense[:, 4:].any()
    assert not dense[4:].any()


def test_positions_restart_with_each_document() -> None:
    assert positions_of(torch.tensor([[7, 7, 7, 2, 2, 9]])).tolist() == [[0, 1, 2, 0, 1, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_causal(8, 0), "length 8 and block 0 must both be at least 1"),
        (lambda: block_causal(8, 4, queries=9), "queries is 9; it must lie in 1..8, the number of keys"),
        (
            lambda: block_causal(3, 2, documents=torch.tensor([0, 1, 0])),
            "documents row 0: document 0 is cut in two at column 2",
        ),
        (
            lambda: noisy_clean(4, 2, documents=torch.tensor([0, 1, 1])),
            "documents has 3 columns, the mask has 4 tokens",
        ),
        (
            lambda: block_causal(4, 2, hidden=torch.zeros(1, 3, dtype=torch.bool)),
            "hidden has 3 columns, the mask has 4 keys",
        ),
    ],
)
def test_a_mask_that_cannot_be_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        call()  # type: ignore[operator]


@pytest.mark.golden
def test_training_masks_match_the_reference() -> None:
    stored = parity.tensors(parity.golden_folder("backbone") / "training_masks.safetensors")
    for name, expected in stored.items():
        length, block = (int(part[1:]) for part in name.split("_"))
        parity.same(f"backbone/training_masks/{name}", noisy_clean(length, block).dense()[0, 0], expected.bool())


@pytest.mark.golden
def test_inference_masks_match_the_reference() -> None:
    stored = parity.tensors(parity.golden_folder("backbone") / "forward.safetensors")
    expected = stored["block_causal_mask"]
    length, block = expected.shape[-1], int(expected[0, 0, 0].sum())
    parity.same("backbone/block_causal_mask", block_causal(length, block).dense(), expected)
    documents = (stored["packed.position_ids"][0] == 0).cumsum(0)
    parity.same(
        "backbone/packed.mask",
        block_causal(length, block, documents=documents).dense(),
        stored["packed.mask"],
    )
    same = positions_of(documents).expand_as(stored["packed.position_ids"])
    parity.same("backbone/packed.position_ids", same, stored["packed.position_ids"])
