from __future__ import annotations

import pytest
import torch

from model.cache import BlockCache
from model.masks import block_causal
from tests.model.networks import tiny_backbone

BLOCK = 4


@torch.no_grad()
def test_blocks_from_the_cache_equal_the_whole_forward() -> None:
    model = tiny_backbone()
    ids = torch.randint(512, (2, 16), generator=torch.Generator().manual_seed(0))
    whole = model(ids, mask=block_causal(16, BLOCK)).logits
    cache = BlockCache(model.config, batch=2, capacity=16)
    for start in range(0, 16, BLOCK):
        mask = block_causal(start + BLOCK, BLOCK, queries=BLOCK)
        block = ids[:, start : start + BLOCK]
        # A denoising step in between, on other tokens, must leave nothing behind.
        model(block.flip(1), mask=mask, cache=cache)
        step = model(block, mask=mask, cache=cache, commit=True)
        torch.testing.assert_close(step.logits, whole[:, start : start + BLOCK], atol=1e-5, rtol=1e-5)
    assert cache.length == 16


@torch.no_grad()
def test_several_blocks_may_be_committed_at_once() -> None:
    model = tiny_backbone()
    ids = torch.randint(512, (1, 12), generator=torch.Generator().manual_seed(1))
    cache = BlockCache(model.config, batch=1, capacity=12)
    model(ids[:, :8], mask=block_causal(8, BLOCK), cache=cache, commit=True)
    step = model(ids[:, 8:], cache=cache)
    whole = model(ids, mask=block_causal(12, BLOCK))
    torch.testing.assert_close(step.logits, whole.logits[:, 8:], atol=1e-5, rtol=1e-5)


def test_a_cache_is_refused_where_gradients_are_recorded() -> None:
    model = tiny_backbone()
    with pytest.raises(ValueError, match=r"^a cache keeps numbers, no graph: call under torch\.no_grad"):
        model(torch.zeros(1, 4, dtype=torch.long), cache=BlockCache(model.config, batch=1, capacity=8))


@torch.no_grad()
def test_a_step_that_does_not_fit_is_refused() -> None:
    model = tiny_backbone()
    cache = BlockCache(model.config, batch=1, capacity=6)
    ids = torch.zeros(1, 4, dtype=torch.long)
    model(ids, cache=cache, commit=True)
    with pytest.raises(ValueError, match=r"^the cache holds 6 tokens; 4 are committed, 4 more were fed$"):
        model(ids, cache=cache)
    with pytest.raises(ValueError, match=r"^the cache was made for 1 rows, the step has 2$"):
        model(ids[:, :2].expand(2, -1), cache=cache)
