"""Attention of the backbone: fused projection, norm of queries and keys, partial rotation, two backends.

Axes in names: B batch, T tokens fed, K keys seen, Hq query heads, Hk key heads, D channels of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blank import Linear
from model.configs import BackboneConfig

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from model.cache import BlockCache


class RMSNorm(nn.Module):
    """Root-mean-square norm: variance in fp32, result cast back BEFORE the weight, as released."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of `x` [..., channels]."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


@dataclass(frozen=True)
class Rotation:
    """Rotary tables of one forward: `cos` and `sin`, each [B, 1, T, rotating channels / 2]."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, config: BackboneConfig, dtype: torch.dtype) -> Rotation:
        """Tables for `positions` int64 [B, T]; angles theta^(-2i/R) x position in fp32."""
        channels = config.rotary_channels
        steps = torch.arange(0, channels, 2, dtype=torch.float32, device=positions.device) / channels
        angles = positions[:, None, :, None].float() * config.rope_theta**-steps
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the first channels of `x` [B, heads, T, D] (channel i pairs with i + R/2), pass the rest."""
        half = self.cos.shape[-1]
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        turned = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return torch.cat([*turned, rest], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | BlockMask | None) -> Tensor:
    """Softmax attention, scale D^-0.5; the kind of `mask` chooses the backend.

    Args:
        query: [B, Hq, T, D].
        key: [B, Hk, K, D]; Hq is a multiple of Hk.
        value: like `key`.
        mask: bool [B or 1, 1, T, K] (True = may attend) or None for SDPA, tile lists for FlexAttention.

    Returns:
        [B, Hq, T, D]. A query that may attend to nothing gets zeros from both backends.
    """
    if mask is None or isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    kernel = _flex_kernel(query.device.type)
    attended: Tensor = kernel(query, key, value, block_mask=mask, enable_gqa=True)
    return attended


@functools.cache
def _flex_kernel(device_type: str) -> Callable[..., Any]:
    """FlexAttention, compiled where a GPU is; on CPU its plain form (slow, there to compare results)."""
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., Any] = flex_attention
    return torch.compile(kernel, dynamic=False) if device_type == "cuda" else kernel


class Attention(nn.Module):
    """Grouped-query self-attention. State-dict names are the released ones."""

    def __init__(self, config: BackboneConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        rows = (self.heads + 2 * self.key_heads) * self.head_dim
        self.query_key_value = Linear(config.hidden_size, rows, bias=False)
        self.query_layernorm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.key_layernorm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.dense = Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rotation: Rotation, mask: Tensor | BlockMask | None, cache: BlockCache | None
    ) -> Tensor:
        """Attend from `x` [B, T, hidden] to the cache's committed tokens and to `x` itself."""
        batch, tokens, _ = x.shape
        heads = self.query_key_value(x).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
        query, key, value = heads.split([self.heads, self.key_heads, self.key_heads], dim=1)
        query = rotation(self.query_layernorm(query))
        key = rotation(self.key_layernorm(key))
        if cache is not None:
            key, value = cache.place(self.layer, key, value)
        attended = attend(query, key, value, mask).transpose(1, 2).reshape(batch, tokens, -1)
        projected: Tensor = self.dense(attended)
        return projected
