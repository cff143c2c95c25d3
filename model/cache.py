"""The exact cache of committed blocks.

Under the block-causal mask a token's keys and values depend only on blocks up to its own. Once a block is
final (*committed*) its keys and values never change, so a later step reads them instead of computing them
again, and gets the same numbers. Nothing is pruned or approximated here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.configs import BackboneConfig


class BlockCache:
    """Keys and values of all layers for the committed prefix, with room for the block being worked on.

    A step writes its block behind the prefix and attends to both; only `commit` moves the prefix forward,
    so the same block can be fed again and again while it is being denoised.
    """

    def __init__(
        self,
        config: BackboneConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Tokens the cache can hold, the block being worked on included."""
        return self.keys.shape[3]

    def place(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the fed tokens behind the prefix and return prefix and fed tokens together.

        Args:
            layer: index of the layer.
            key: [B, Hk, T, D].
            value: [B, Hk, T, D].

        Returns:
            Keys and values [B, Hk, length + T, D], views of the cache.
        """
        end = self.length + key.shape[2]
        self.keys[layer, :, :, self.length : end] = key
        self.values[layer, :, :, self.length : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def check(self, batch: int, tokens: int) -> None:
        """Raise ValueError when a step of `tokens` tokens for `batch` rows does not fit."""
        if batch != self.keys.shape[1]:
            raise ValueError(f"the cache was made for {self.keys.shape[1]} rows, the step has {batch}")
        if self.length + tokens > self.capacity:
            raise ValueError(
                f"the cache holds {self.capacity} tokens; {self.length} are committed, {tokens} more were fed"
            )

    def commit(self, tokens: int) -> None:
        """Make the `tokens` tokens of the last step final."""
        self.length += tokens
