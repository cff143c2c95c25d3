"""The backbone: embedding, pre-norm blocks of attention and experts, head. It predicts; it never decides.

State-dict names are those of the released checkpoint in its merged-expert layout
(`model.layers.1.mlp.experts. gate_proj` and so on); `model/checkpoint.py` reads and writes both layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import Attention, RMSNorm, Rotation
from model.blank import Embedding, Linear
from model.cache import BlockCache
from model.configs import BackboneConfig
from model.experts import GatedMLP, MoE, Router, Routing
from model.masks import AttentionMask

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

AttentionBackend = Literal["auto", "sdpa", "flex"]


@dataclass(frozen=True)
class BackboneOutput:
    """What one forward returns.

    Attributes:
        logits: fp32 [B, T, V], or [M, V] for the M tokens that `logits_at` marks.
        hidden: [B, T, C] after the final norm.
        load: int64 [MoE layers, E], rows served by each expert; what `rebalance` needs.
        layers: when asked for, the hidden states [B, T, C] entering layer 0, 1, ..., and after the final
            norm.
        routings: when asked for, the choices of every MoE layer.
    """

    logits: Tensor
    hidden: Tensor
    load: Tensor
    layers: tuple[Tensor, ...] = ()
    routings: tuple[Routing, ...] = ()


class Layer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        sparse = index in config.moe_layers
        self.mlp = MoE(config) if sparse else GatedMLP(config.hidden_size, config.intermediate_size)

    def forward(
        self, x: Tensor, rotation: Rotation, mask: Tensor | BlockMask | None, cache: BlockCache | None
    ) -> tuple[Tensor, Routing | None]:
        """Map `x` [B, T, C] to the same shape; the routing is None for a dense layer."""
        x = x + self.attention(self.input_layernorm(x), rotation, mask, cache)
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MoE):
            y, routing = self.mlp(normed)
            return x + y, routing
        return x + self.mlp(normed), None


class Trunk(nn.Module):
    """Everything below the head; holds the released name prefix `model.`."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Backbone(nn.Module):
    """LLaDA2 MoE. Born without meaningful weights: load a checkpoint or call `initialise`."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.attention_backend: AttentionBackend = "auto"
        self.checkpoint_activations = False

    @torch.no_grad()
    def initialise(self, seed: int) -> Backbone:
        """Fill every weight from a seeded normal (norms with ones, biases with zeros) and return self."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                draw = torch.empty(parameter.shape, dtype=torch.float32)
                draw.normal_(0.0, self.config.initializer_range, generator=generator)
                parameter.copy_(draw)
        for router in self.routers():
            router.expert_bias.zero_()
        return self

    def routers(self) -> list[Router]:
        """The routers in layer order."""
        return [module for module in self.modules() if isinstance(module, Router)]

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        mask: AttentionMask | Tensor | None = None,
        *,
        cache: BlockCache | None = None,
        commit: bool = False,
        logits_at: Tensor | None = None,
        trace: bool = False,
    ) -> BackboneOutput:
        """Predict every fed token (logit i is about token i: nothing is shifted).

        Args:
            ids: int64 [B, T], each in 0..vocab_size-1.
            positions: int64 [B, T]; default: counted on from the cache's committed prefix.
            mask: a rule of `model.masks`, a bool picture [B or 1, 1, T, K] with True = may attend, or None
                for attention to everything. K counts the cache's committed prefix too.
            cache: committed blocks to read; the fed tokens follow them.
            commit: make the fed tokens final in the cache.
            logits_at: bool [B, T]; only these tokens get logits, which is most of the memory of a training
                step.
            trace: also return hidden states and routings of every layer.

        Raises:
            ValueError: an id outside the vocabulary, shapes or types that do not fit, a full cache, or a cache
                where gradients are recorded.
        """
        self._check(ids, positions, cache, commit, logits_at)
        if positions is None:
            start = cache.length if cache is not None else 0
            positions = torch.arange(start, start + ids.shape[1], device=ids.device).expand_as(ids)
        x = self.model.word_embeddings(ids)
        rotation = Rotation.at(positions, self.config, x.dtype)
        keys = ids.shape[1] + (cache.length if cache is not None else 0)
        form = self._backend_form(mask, x.device, ids.shape[1], keys)
        layers: list[Tensor] = []
        routings: list[Routing] = []
        for layer in self.model.layers:
            if trace:
                layers.append(x)
            if self.checkpoint_activations and self.training and torch.is_grad_enabled():
                x, routing = checkpoint(layer, x, rotation, form, cache, use_reentrant=False, preserve_rng_state=False)
            else:
                x, routing = layer(x, rotation, form, cache)
            if routing is not None:
                routings.append(routing)
        hidden = self.model.norm(x)
        logits = self.lm_head(hidden if logits_at is None else hidden[logits_at]).float()
        if cache is not None and commit:
            cache.commit(ids.shape[1])
        load = torch.stack([r.load() for r in routings]) if routings else ids.new_zeros(0, self.config.num_experts)
        seen = ((*layers, hidden), tuple(routings)) if trace else ((), ())
        return BackboneOutput(logits, hidden, load, *seen)

    def _check(
        self,
        ids: Tensor,
        positions: Tensor | None,
        cache: BlockCache | None,
        commit: bool,
        logits_at: Tensor | None,
    ) -> None:
        if ids.ndim != 2 or ids.shape[1] == 0 or ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"ids must be int64 [batch, tokens], got {ids.dtype} {list(ids.shape)}")
        for name, other in (("positions", positions), ("logits_at", logits_at)):
            if other is not None and other.shape != ids.shape:
                raise ValueError(f"{name} has shape {list(other.shape)}, ids has {list(ids.shape)}")
        if cache is not None:
            if torch.is_grad_enabled():
                raise ValueError("a cache keeps numbers, no graph: call under torch.no_grad() or inference_mode()")
            cache.check(*ids.shape)
        elif commit:
            raise ValueError("commit needs a cache to commit to")
        # Reading the ids back from a GPU would break the recording of a CUDA graph; the first run has
        # checked them.
        if ids.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return
        low, high = ids.aminmax()
        if int(low) < 0 or int(high) >= self.config.vocab_size:
            outside = (ids < 0) | (ids >= self.config.vocab_size)
            row, column = (int(i) for i in outside.nonzero()[0])
            raise ValueError(
                f"id {int(ids[row, column])} at row {row}, token {column} lies outside the vocabulary "
                f"0..{self.config.vocab_size - 1}"
            )

    def _backend_form(
        self, mask: AttentionMask | Tensor | None, device: torch.device, queries: int, keys: int
    ) -> Tensor | BlockMask | None:
        if mask is None:
            return None
        if isinstance(mask, Tensor):
            # Raw 0/1 numbers would be ADDED to the scores, which masks nothing and fails nowhere.
            if mask.dtype != torch.bool:
                raise ValueError(f"the mask must be bool, True = may attend, got {mask.dtype}")
            shape = list(mask.shape[-2:])
        else:
            shape = [mask.query.shape[1], mask.key.shape[1]]
        if shape != [queries, keys]:
            raise ValueError(f"the mask is for {shape[0]} queries x {shape[1]} keys, the step has {queries} x {keys}")
        if isinstance(mask, Tensor):
            return mask.to(device)
        flex = self.attention_backend == "flex" or (self.attention_backend == "auto" and device.type == "cuda")
        return mask.tiles(device=device) if flex else mask.to(device).dense()
