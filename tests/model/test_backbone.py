from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.backbone import Backbone
from model.cache import BlockCache
from model.configs import BackboneConfig
from model.masks import block_causal, noisy_clean
from tests.model import parity, reference
from tests.model.networks import load_separate, separate, tiny_backbone

IDS = torch.tensor([[5, 17, 400, 3, 3, 511, 80, 2, 9, 77, 64, 1]])


def test_logits_and_routes_equal_the_float64_reference() -> None:
    model = tiny_backbone()
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]])
    documents = [0] * 7 + [1] * 5
    out = model(IDS, positions, block_causal(12, 4, documents=torch.tensor(documents)), trace=True)
    may = reference.block_causal(12, 4, documents)
    logits, chosen = reference.backbone(separate(model), model.config, IDS[0].numpy(), positions[0].numpy(), may)
    assert np.abs(out.logits[0].detach().numpy() - logits).max() < 2e-4 * np.abs(logits).max()
    assert [r.experts.tolist() for r in out.routings] == chosen


def test_the_load_counts_every_choice_once() -> None:
    out = tiny_backbone()(IDS, trace=True)
    assert out.load.shape == (2, 8)
    assert out.load.sum(1).tolist() == [IDS.numel() * 2] * 2
    assert torch.equal(out.load[1], torch.bincount(out.routings[1].experts.flatten(), minlength=8))


def test_logits_at_marked_tokens_equal_those_of_all_tokens() -> None:
    model = tiny_backbone()
    marked = IDS > 60
    torch.testing.assert_close(model(IDS, logits_at=marked).logits, model(IDS).logits[marked])


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = tiny_backbone()
    other = IDS.flip(1)
    together = model(torch.cat([IDS, other]), mask=block_causal(12, 4)).logits
    torch.testing.assert_close(together[:1], model(IDS, mask=block_causal(12, 4)).logits, atol=1e-5, rtol=1e-5)


def test_a_later_block_changes_nothing_before_it() -> None:
    model = tiny_backbone()
    changed = IDS.clone()
    changed[0, 8:] = 200
    mask = block_causal(12, 4)
    torch.testing.assert_close(
        model(IDS, mask=mask).logits[:, :8], model(changed, mask=mask).logits[:, :8], atol=1e-5, rtol=1e-5
    )


def test_left_padding_changes_nothing_for_the_real_tokens() -> None:
    model = tiny_backbone()
    pads = 6
    ids = torch.cat([torch.full((1, pads), 3), IDS], dim=1)
    hidden = torch.arange(18)[None] < pads
    positions = torch.cat([torch.zeros(1, pads, dtype=torch.long), torch.arange(12)[None]], dim=1)
    # Blocks of 2, so that padding of 6 keeps the same block borders among the real tokens.
    padded = model(ids, positions, block_causal(18, 2, hidden=hidden)).logits
    assert torch.isfinite(padded).all()
    plain = model(IDS, mask=block_causal(12, 2)).logits
    torch.testing.assert_close(padded[:, pads:], plain, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_flex_attention_equals_sdpa() -> None:
    """Uncompiled FlexAttention runs on CPU too; the compiled kernel is compared by the GPU benchmark."""
    model = tiny_backbone()
    hidden = torch.arange(12)[None] < 4
    for mask in (block_causal(12, 4), block_causal(12, 4, hidden=hidden), noisy_clean(6, 2)):
        model.attention_backend = "sdpa"
        dense = model(IDS, mask=mask).logits
        model.attention_backend = "flex"
        torch.testing.assert_close(model(IDS, mask=mask).logits, dense, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_compiled_flex_attention_equals_sdpa_on_a_gpu() -> None:
    model = tiny_backbone().cuda()
    hidden = torch.arange(12)[None] < 4
    for mask in (block_causal(12, 4), block_causal(12, 4, hidden=hidden), noisy_clean(6, 2)):
        found = []
        for backend in ("sdpa", "flex"):
            model.attention_backend = backend  # type: ignore[assignment]
            model.zero_grad()
            out = model(IDS.cuda(), mask=mask)
            out.logits.square().mean().backward()
            found.append((out.logits, model.model.word_embeddings.weight.grad))
        for dense, tiles in zip(*found, strict=True):
            torch.testing.assert_close(tiles, dense, atol=1e-3, rtol=1e-3)


def test_activation_checkpointing_changes_no_gradient_and_no_load() -> None:
    model = tiny_backbone().train()
    grads, loads = [], []
    for checkpointed in (False, True):
        model.checkpoint_activations = checkpointed
        model.zero_grad()
        out = model(IDS, mask=block_causal(12, 4))
        out.logits.square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        loads.append(out.load)
    assert grads[0].keys() == grads[1].keys() == dict(model.named_parameters()).keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)
    assert torch.equal(*loads)


def test_activation_checkpointing_recomputes_every_layer() -> None:
    model = tiny_backbone().train()
    runs = []
    for layer in model.model.layers:
        layer.attention.register_forward_hook(lambda *_: runs.append(1))
    model.checkpoint_activations = True
    model(IDS).logits.sum().backward()
    assert len(runs) == 2 * model.config.num_hidden_layers


def test_initialise_depends_on_the_seed_alone() -> None:
    first, second, other = (Backbone(BackboneConfig.tiny()).initialise(seed) for seed in (3, 3, 4))
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert torch.equal(first.model.norm.weight, torch.ones(64))
    assert 0.018 < float(first.lm_head.weight.detach().std()) < 0.022


def test_bad_input_is_named_before_compute_starts() -> None:
    model = tiny_backbone()
    ran = []
    model.model.word_embeddings.register_forward_hook(lambda *_: ran.append(1))
    outside = IDS.clone()
    outside[0, 4] = 512
    cases = [
        (lambda: model(outside), "id 512 at row 0, token 4 lies outside the vocabulary 0..511"),
        (lambda: model(-IDS), "id -5 at row 0, token 0 lies outside the vocabulary 0..511"),
        (lambda: model(IDS[0]), "ids must be int64 [batch, tokens], got torch.int64 [12]"),
        (lambda: model(IDS.float()), "ids must be int64 [batch, tokens], got torch.float32 [1, 12]"),
        (lambda: model(IDS, IDS[:, :3]), "positions has shape [1, 3], ids has [1, 12]"),
        (lambda: model(IDS, commit=True), "commit needs a cache to commit to"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()
    assert not ran
    with pytest.raises(ValueError, match=r"^the mask is for 11 queries x 11 keys, the step has 12 x 12$"):
        model(IDS, mask=block_causal(11, 4))
    with pytest.raises(ValueError, match=r"^the mask must be bool, True = may attend, got torch\.float32$"):
        model(IDS, mask=torch.ones(1, 1, 12, 12))


@pytest.fixture(scope="module")
def golden() -> tuple[Backbone, dict[str, torch.Tensor]]:
    folder = parity.golden_folder("backbone")
    model = Backbone(BackboneConfig.read(folder / "config.json"))
    load_separate(model, parity.tensors(folder / "weights.safetensors"))
    return model.eval(), parity.tensors(folder / "forward.safetensors")


@pytest.mark.golden
def test_block_causal_forward_matches_the_reference(golden: tuple[Backbone, dict[str, torch.Tensor]]) -> None:
    model, stored = golden
    out = model(stored["input_ids"], stored["position_ids"], stored["block_causal_mask"], trace=True)
    parity.close("backbone/block_causal.logits", out.logits, stored["block_causal.logits"])
    for i, hidden in enumerate(out.layers):
        parity.close(f"backbone/block_causal.hidden{i}", hidden, stored[f"block_causal.hidden{i}"])
    for i, routing in zip(model.config.moe_layers, out.routings, strict=True):
        name = f"block_causal.router.layer{i}"
        parity.same(f"backbone/{name}.topk_idx", routing.experts, stored[f"{name}.topk_idx"])
        parity.close(f"backbone/{name}.topk_weight", routing.weights, stored[f"{name}.topk_weight"])
        parity.close(f"backbone/{name}.logits", routing.logits, stored[f"{name}.logits"])


@pytest.mark.golden
def test_full_and_packed_attention_match_the_reference(
    golden: tuple[Backbone, dict[str, torch.Tensor]],
) -> None:
    model, stored = golden
    full = model(stored["input_ids"], stored["position_ids"])
    parity.close("backbone/full_attention.logits", full.logits, stored["full_attention.logits"])
    packed = model(stored["input_ids"], stored["packed.position_ids"], stored["packed.mask"])
    parity.close("backbone/packed.logits", packed.logits, stored["packed.logits"])


@pytest.mark.golden
@torch.no_grad()
def test_a_cached_block_matches_the_reference(golden: tuple[Backbone, dict[str, torch.Tensor]]) -> None:
    model, stored = golden
    ids, mask = stored["input_ids"], stored["block_causal_mask"]
    block = int(mask[0, 0, 0].sum())
    length = stored["cached_block1.logits"].shape[1]
    cache = BlockCache(model.config, batch=len(ids), capacity=block + length)
    model(ids[:, :block], mask=block_causal(block, block), cache=cache, commit=True)
    out = model(ids[:, block : block + length], mask=block_causal(block + length, block, queries=length), cache=cache)
    parity.close("backbone/cached_block1.logits", out.logits, stored["cached_block1.logits"])


@pytest.mark.golden
def test_one_training_step_matches_the_reference(golden: tuple[Backbone, dict[str, torch.Tensor]]) -> None:
    model, _ = golden
    folder = parity.golden_folder("backbone")
    stored, facts = parity.tensors(folder / "training.safetensors"), parity.numbers(folder / "training.json")
    clean, n = stored["clean_ids"], stored["clean_ids"].shape[1]

    low, high = facts["noise_range"]
    ratio = low + float(stored["u0"]) * (high - low)
    masked = (stored["U"] < ratio) & (torch.arange(n) >= facts["prompt_length"])
    noisy = torch.where(masked[None], facts["mask_id"], clean)
    parity.same("backbone/training.noisy_ids", noisy, stored["noisy_ids"])
    parity.same("backbone/training.labels", torch.where(masked[None], clean, -100), stored["labels"])
    mask = noisy_clean(n, facts["block_size"])
    parity.same("backbone/training.full_mask", mask.dense(), stored["full_mask"])

    model.train()
    model.zero_grad()
    out = model(torch.cat([noisy, clean], dim=1), stored["position_ids"], mask)
    logits = out.logits[:, :n]
    parity.close("backbone/training.noisy_logits", logits, stored["noisy_logits"])
    losses = F.cross_entropy(logits[0], stored["labels"][0], reduction="none", ignore_index=-100)
    parity.close("backbone/training.per_token_ce", losses, stored["per_token_ce"])
    loss = losses.sum() / masked.sum()
    parity.close("backbone/training.loss", loss[None], stored["loss"])

    right = masked & (logits[0].argmax(-1) == clean[0])
    chosen = logits[0][right].log_softmax(-1)
    entropy = -(chosen.exp() * chosen).sum(-1)
    mean = entropy.sum()[None] / max(int(right.sum()), 1)
    parity.close("backbone/training.confidence_entropy_loss", mean, stored["confidence_entropy_loss"])

    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    named = separate(model, grads)
    for key, expected in stored.items():
        if key.startswith("grad."):
            parity.close(f"backbone/training.{key}", named[key.removeprefix("grad.")], expected)
    norm = torch.stack([g.norm() for g in grads.values()]).norm()[None]
    parity.close("backbone/training.grad_norm_total", norm, stored["grad_norm_total"])
    model.zero_grad()
    model.eval()
