"""The mixture of experts: who serves a token, the grouped products, and the balance of the load.

Axes in names: N tokens, E experts, k experts per token, C channels of the hidden state, I channels inside an
expert. Rows (N x k of them) are pairs of a token and one of its experts, sorted by expert, so that each
expert's work is one contiguous slice and all experts run as one grouped product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from model.blank import Linear
from model.configs import BackboneConfig


@dataclass(frozen=True)
class Routing:
    """Which experts serve which token.

    Attributes:
        experts: int64 [N, k], in descending order of selection score.
        weights: fp32 [N, k], mixing weights, normalised and scaled.
        logits: fp32 [N, E], the router's raw product.
    """

    experts: Tensor
    weights: Tensor
    logits: Tensor

    def load(self) -> Tensor:
        """How many rows each expert got: int64 [E]."""
        chosen = self.experts.flatten()
        # torch.bincount would wait for the GPU to learn its own length; this can be recorded in a CUDA graph.
        return torch.zeros_like(self.logits[0], dtype=torch.int64).scatter_add_(0, chosen, torch.ones_like(chosen))


class Router(nn.Module):
    """Grouped sigmoid router with a selection bias (LLaDA2 MoE).

    A group's score is the sum of its two best selection scores; the best groups stay, and among their
    experts the best k are chosen. The bias takes part in choosing only; mixing weights are the bare
    sigmoids.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.expert_bias: Tensor
        self.register_buffer("expert_bias", torch.zeros(config.num_experts, dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        bias = self.expert_bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # Steps of `rebalance` are far below bf16's resolution, so a change of type leaves the bias in fp32.
        if self.expert_bias.dtype != torch.float32:
            self.expert_bias = bias.to(self.expert_bias.device)
        return self

    def forward(self, x: Tensor) -> Routing:
        """Choose experts for `x` [N, C]."""
        config = self.config
        logits = F.linear(x.float(), self.weight.float())
        scores = logits.sigmoid()
        selection = (scores + self.expert_bias).view(-1, config.n_group, config.num_experts // config.n_group)
        group_scores = selection.topk(2, dim=-1).values.sum(-1)
        closed = torch.ones_like(group_scores, dtype=torch.bool)
        closed.scatter_(1, group_scores.topk(config.topk_group, dim=-1).indices, False)
        selection = selection.masked_fill(closed[..., None], -torch.inf).flatten(1)
        experts = selection.topk(config.num_experts_per_tok, dim=-1).indices
        chosen = scores.gather(1, experts)
        weights = chosen / (chosen.sum(-1, keepdim=True) + 1e-20) * config.routed_scaling_factor
        return Routing(experts, weights, logits)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(channels, inner, bias=False)
        self.up_proj = Linear(channels, inner, bias=False)
        self.down_proj = Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., channels] to the same shape."""
        mapped: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return mapped


class Experts(nn.Module):
    """All routed experts of one layer, stacked along a first axis (the merged layout of dFactory)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        experts, channels, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_proj = nn.Parameter(torch.empty(experts, inner, channels))
        self.up_proj = nn.Parameter(torch.empty(experts, inner, channels))
        self.down_proj = nn.Parameter(torch.empty(experts, channels, inner))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """Weighted sum of each token's experts: [N, C] from `x` [N, C].

        The mixing weight multiplies inside the expert, before the last product, where it touches I channels
        instead of C; the k contributions of a token are then summed in fp32 by the kernel.
        """
        order = routing.experts.flatten().argsort(stable=True)
        ends = routing.load().cumsum(0).to(torch.int32)
        token = order // routing.experts.shape[1]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        place = place.view_as(routing.experts)

        rows: Tensor = _Spread.apply(x, token, place)  # type: ignore[no-untyped-call]
        gate = grouped_product(rows, self.gate_proj, ends)
        up = grouped_product(rows, self.up_proj, ends)
        weight = routing.weights.flatten()[order, None]
        if torch.is_grad_enabled():
            inner = (F.silu(gate) * up * weight).to(x.dtype)
        else:  # the same numbers without three large temporaries
            inner = F.silu(gate, inplace=True).mul_(up).mul_(weight)
        products = grouped_product(inner, self.down_proj, ends)
        summed: Tensor = _Gather.apply(products, token, place)  # type: ignore[no-untyped-call]
        return summed


class MoE(nn.Module):
    """Routed experts plus the shared expert, which serves every token with weight one."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        width = config.moe_intermediate_size * config.num_shared_experts
        self.shared_experts = GatedMLP(config.hidden_size, width) if width else None

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """Map `x` [B, T, C] to the same shape, and say who served whom."""
        flat = x.flatten(0, -2)
        routing: Routing = self.gate(flat)
        y = self.experts(flat, routing).view_as(x)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x)
        return y, routing


def grouped_product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """rows[slice e] @ weight[e].T for every expert e in one call.

    Args:
        rows: [R, in], sorted by expert.
        weight: [E, out, in].
        ends: int32 [E], the end of each expert's slice.

    Returns:
        [R, out].
    """
    grouped = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    # The kernel came with torch 2.8 and wants rows of whole 16-byte units; odd tiny widths take the loop.
    if grouped is None or rows.shape[1] * rows.element_size() % 16:
        starts = [0, *ends.tolist()]
        slices = [F.linear(rows[a:b], weight[e]) for e, (a, b) in enumerate(itertools.pairwise(starts))]
        return torch.cat(slices)
    product: Tensor = grouped(rows, weight.transpose(1, 2), offs=ends)
    return product


def _sum_rows(rows: Tensor, place: Tensor) -> Tensor:
    """Sum of rows[place[n, :]] for every token n: one fused gather and sum, in a fixed order."""
    return F.embedding_bag(place, rows, mode="sum")


class _Spread(torch.autograd.Function):
    """Tokens to rows. Its backward sums rows in a fixed order, where index_select's own would use atomics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return _sum_rows(grads[0].contiguous(), place), None, None


class _Gather(torch.autograd.Function):
    """Rows to tokens, the transpose of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, token: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(token)
        return _sum_rows(rows, place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (token,) = ctx.saved_tensors
        return grads[0].index_select(0, token), None, None


@torch.no_grad()
def rebalance(routers: list[Router], load: Tensor, speed: float) -> None:
    """Move the selection biases towards an even load, without an auxiliary loss.

    b <- b - u (F - Q) / RMS(F - Q), with F the observed share of each expert, Q = 1/E and u = `speed`. The
    paper prints a plus; since the bias is ADDED to the selection score, that would send yet more tokens to
    overloaded experts, so the sign here is the one that balances (PAPER 4; see the facts, section 5.1).

    Args:
        routers: one per MoE layer.
        load: [layers, E] row counts of the step on this rank; summed over ranks when torch.distributed runs.
        speed: u, the root-mean-square size of one step's change.
    """
    experts = routers[0].config.num_experts
    if load.shape != (len(routers), experts):
        raise ValueError(f"load has shape {tuple(load.shape)}, expected {len(routers)} layers x {experts} experts")
    counts = load.to(torch.float32)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
    for router, count in zip(routers, counts, strict=True):
        if count.sum() == 0:
            continue
        excess = count / count.sum() - 1 / len(count)
        size = excess.pow(2).mean().sqrt()
        if size > 0:
            router.expert_bias -= (speed * excess / size).to(router.expert_bias.device)
