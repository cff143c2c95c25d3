from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model import experts
from model.configs import BackboneConfig
from model.experts import MoE, Router, grouped_product, rebalance
from tests.model import reference


def moe_layer(seed: int = 0, **changes: object) -> MoE:
    layer = MoE(BackboneConfig.tiny().model_copy(update=changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.2, generator=generator)
        layer.gate.expert_bias.normal_(0, 0.1, generator=generator)
    return layer


def weights_of(layer: MoE) -> reference.Weights:
    weights: reference.Weights = {}
    for name, tensor in layer.state_dict().items():
        array = tensor.double().numpy()
        if name.startswith("experts."):
            last = name.removeprefix("experts.")
            weights |= {f"experts.{e}.{last}.weight": part for e, part in enumerate(array)}
        else:
            weights[name] = array
    return weights


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_the_layer_equals_the_loop_over_tokens(seed: int, tokens: int) -> None:
    layer = moe_layer(seed)
    x = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(seed))
    y, routing = layer(x)
    expected, chosen = reference.moe(weights_of(layer), "", layer.gate.config, x[0].double().numpy())
    assert routing.experts.tolist() == chosen
    assert np.abs(y[0].detach().numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_an_expert_nobody_chose_costs_nothing_and_breaks_nothing() -> None:
    layer = moe_layer()
    layer.gate.expert_bias[:6] = -100.0
    y, routing = layer(torch.randn(1, 9, 64))
    assert set(routing.experts.flatten().tolist()) <= {6, 7}
    assert torch.isfinite(y).all()


def test_gradients_equal_those_of_the_loop_over_experts() -> None:
    layer = moe_layer()
    x = torch.randn(1, 17, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.randn(1, 17, 64, generator=torch.Generator().manual_seed(2))

    def loop(x: Tensor) -> Tensor:
        routing = layer.gate(x[0])
        out = torch.zeros_like(x[0])
        e = layer.experts
        for i in range(8):
            h = torch.nn.functional.silu(x[0] @ e.gate_proj[i].T) * (x[0] @ e.up_proj[i].T)
            share = (routing.weights * (routing.experts == i)).sum(1, keepdim=True)
            out = out + share * (h @ e.down_proj[i].T)
        return out[None] + layer.shared_experts(x)

    grads = []
    for forward in (lambda x: layer(x)[0], loop):
        layer.zero_grad()
        x.grad = None
        (forward(x) * target).sum().backward()
        assert x.grad is not None
        grads.append([x.grad.clone(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    assert len(grads[0]) == len(grads[1]) == 1 + len(list(layer.parameters()))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_half_precision_stays_close_to_full_precision() -> None:
    layer = moe_layer()
    x = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(3))
    full, routing = layer(x)
    half = layer.to(torch.bfloat16)
    half.gate.float()
    y = half.experts(x[0].bfloat16(), routing) + half.shared_experts(x[0].bfloat16())
    assert y.dtype == torch.bfloat16
    assert ((y - full[0]).norm() / full.norm()).item() < 0.02


def test_the_fallback_without_a_grouped_kernel_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = torch.randn(10, 8), torch.randn(4, 3, 8)
    ends = torch.tensor([4, 4, 9, 10], dtype=torch.int32)
    kernel = grouped_product(rows, weight, ends)
    monkeypatch.delattr(experts.F, "grouped_mm", raising=False)
    monkeypatch.delattr(torch, "_grouped_mm", raising=False)
    torch.testing.assert_close(grouped_product(rows, weight, ends), kernel)


def test_widths_that_the_kernel_refuses_take_the_loop() -> None:
    rows, weight = torch.randn(5, 6), torch.randn(2, 3, 6)
    product = grouped_product(rows, weight, torch.tensor([2, 5], dtype=torch.int32))
    torch.testing.assert_close(product, torch.cat([rows[:2] @ weight[0].T, rows[2:] @ weight[1].T]))


def test_mixing_weights_ignore_the_bias_and_sum_to_the_scale() -> None:
    layer = moe_layer()
    x = torch.randn(30, 64)
    routing = layer.gate(x)
    torch.testing.assert_close(routing.weights.sum(1), torch.full((30,), 2.5))
    chosen = routing.logits.sigmoid().gather(1, routing.experts)
    torch.testing.assert_close(routing.weights, chosen / chosen.sum(1, keepdim=True) * 2.5)


def test_rebalance_is_the_normalised_update() -> None:
    router = Router(BackboneConfig.tiny())
    load = torch.tensor([[10, 0, 0, 0, 0, 0, 0, 6]])
    rebalance([router], load, speed=0.01)
    excess = np.array([10, 0, 0, 0, 0, 0, 0, 6]) / 16 - 1 / 8
    expected = -0.01 * excess / np.sqrt((excess**2).mean())
    assert np.abs(router.expert_bias.numpy() - expected).max() < 1e-7
    assert abs(float(router.expert_bias.pow(2).mean().sqrt()) - 0.01) < 1e-7


def test_rebalance_evens_out_the_load() -> None:
    layer = moe_layer()
    with torch.no_grad():
        layer.gate.weight[0].mul_(4)
        layer.gate.expert_bias.zero_()
        layer.gate.expert_bias[0] = 0.5
    x = torch.randn(2000, 64, generator=torch.Generator().manual_seed(5))
    spread = []
    for _ in range(200):
        load = layer.gate(x).load()
        spread.append(float(load.max() / load.float().mean()))
        rebalance([layer.gate], load[None], speed=0.01)
    assert spread[0] > 2
    assert min(spread[-20:]) < 1.25


@pytest.mark.parametrize("load", [torch.zeros(1, 8), torch.full((1, 8), 5)])
def test_rebalance_leaves_an_even_or_empty_load_alone(load: Tensor) -> None:
    router = Router(BackboneConfig.tiny())
    rebalance([router], load, speed=0.01)
    assert torch.equal(router.expert_bias, torch.zeros(8))


def test_rebalance_refuses_a_load_of_another_model() -> None:
    with pytest.raises(ValueError, match=r"^load has shape \(2, 8\), expected 1 layers x 8 experts$"):
        rebalance([Router(BackboneConfig.tiny())], torch.zeros(2, 8), speed=0.01)
