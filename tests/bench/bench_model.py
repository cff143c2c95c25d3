"""What the networks cost on a CPU, each as a ratio to the plain way of doing the same in the same run.

    .venv/bin/python -m tests.bench.bench_model

Times are CPU seconds of this process, one thread. The two sides alternate, so that a busy machine slows both;
a figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbone import Backbone
from model.cache import BlockCache
from model.configs import BackboneConfig, QuantiserConfig, SigLIPVQConfig, VisionConfig
from model.experts import MoE
from model.masks import block_causal, noisy_clean
from model.siglip_vq import SigLIPVQ
from tests.bench.figure import Figure, apart, figure

ROUNDS = 7
TOKENS, EXPERTS, CHOSEN, CHANNELS, INNER = 2048, 64, 8, 256, 128
PREFIX, BLOCK = 1024, 32
PICTURES, SIDE = 16, 256


def seconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratios(ours: Callable[[], object], plain: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Time of `plain` over time of `ours`, round by round, after one round that does not count."""
    ours(), plain()
    return [seconds(plain) / seconds(ours) for _ in range(rounds)]


def moe_layer(channels: int, inner: int) -> MoE:
    """A layer of 64 experts, 8 per token, with random weights."""
    config = BackboneConfig.tiny().model_copy(
        update={
            "hidden_size": channels,
            "moe_intermediate_size": inner,
            "num_experts": EXPERTS,
            "num_experts_per_tok": CHOSEN,
            "n_group": 8,
            "topk_group": 4,
        }
    )
    layer = MoE(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.05, generator=generator)
    return layer


def every_expert_on_every_token(layer: MoE, x: Tensor) -> Tensor:
    """The naive loop: each expert computes all tokens, unchosen results get weight zero."""
    routing, e = layer.gate(x), layer.experts
    out = layer.shared_experts(x)  # type: ignore[misc]
    for i in range(EXPERTS):
        share = (routing.weights * (routing.experts == i)).sum(1, keepdim=True)
        inner = F.silu(F.linear(x, e.gate_proj[i])) * F.linear(x, e.up_proj[i])
        out = out + F.linear(inner, e.down_proj[i]) * share
    return out


def each_expert_on_its_tokens(layer: MoE, x: Tensor) -> Tensor:
    """The loop of the usual modelling files: each expert picks its own rows by a mask and writes them back."""
    routing, e = layer.gate(x), layer.experts
    rows, flat = x.repeat_interleave(CHOSEN, 0), routing.experts.flatten()
    out = torch.empty_like(rows)
    for i in range(EXPERTS):
        mine = flat == i
        h = rows[mine]
        inner = F.silu(F.linear(h, e.gate_proj[i])) * F.linear(h, e.up_proj[i])
        out[mine] = F.linear(inner, e.down_proj[i])
    summed = (out.view(len(x), CHOSEN, -1) * routing.weights[..., None]).sum(1)
    return summed + layer.shared_experts(x)  # type: ignore[misc]


@torch.inference_mode()
def bench_experts() -> list[Figure]:
    """The MoE layer against loops over its experts.

    The second loop computes no more products than we do, so it can only be beaten by what lies around them.
    """
    layer = moe_layer(CHANNELS, INNER)
    x = torch.randn(TOKENS, CHANNELS, generator=torch.Generator().manual_seed(1))
    figures = []
    for name, loop, target in (
        ("moe_vs_naive_loop", every_expert_on_every_token, 3.0),
        ("moe_vs_masked_loop", each_expert_on_its_tokens, 1.0),
    ):
        ours, plain = partial(layer, x), partial(loop, layer, x)
        assert (ours()[0] - plain()).abs().max() < 1e-3 * plain().abs().max()
        baseline = f"{loop.__name__}, {EXPERTS} experts, top-{CHOSEN}, {CHANNELS} x {INNER}"
        figures.append(figure(name, ratios(ours, plain), "x", target, TOKENS, baseline, digits=2))
    return figures


@torch.inference_mode()
def bench_cache() -> list[Figure]:
    """One denoising step on cached blocks against the forward over everything."""
    config = BackboneConfig.tiny(vocab_size=4096, image_token_offset=2048).model_copy(
        update={"hidden_size": 256, "num_hidden_layers": 4, "moe_intermediate_size": 128, "num_experts": 16}
    )
    model = Backbone(config).initialise(0).eval()
    ids = torch.randint(4096, (1, PREFIX + BLOCK), generator=torch.Generator().manual_seed(0))
    cache = BlockCache(config, batch=1, capacity=PREFIX + BLOCK)
    model(ids[:, :PREFIX], mask=block_causal(PREFIX, BLOCK), cache=cache, commit=True)
    mask = block_causal(PREFIX + BLOCK, BLOCK)
    step = lambda: model(ids[:, PREFIX:], cache=cache).logits  # noqa: E731
    whole = lambda: model(ids, mask=mask).logits[:, PREFIX:]  # noqa: E731
    assert (step() - whole()).abs().max() < 1e-4
    values = ratios(step, whole)
    return [figure("cached_step_vs_full", values, "x", 5.0, PREFIX, f"forward over {PREFIX + BLOCK} tokens", digits=1)]


def tokenizer() -> SigLIPVQ:
    """A tower of four blocks with the released patch size."""
    vision = VisionConfig(hidden_size=192, intermediate_size=768, depth=4, num_heads=4, patch_size=16, image_size=512)
    codes = QuantiserConfig(num_embeddings=1024, embed_dim=64, latent_channels=192)
    return SigLIPVQ.random(SigLIPVQConfig(vision_config=vision, vq_config=codes), 0)


def pictures(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Noise of mixed sizes around 256 x 256."""
    rng = np.random.default_rng(0)
    sides = [(SIDE, SIDE), (SIDE - 64, SIDE + 64), (SIDE + 64, SIDE - 64)]
    return [rng.integers(0, 256, (*sides[i % 3], 3), dtype=np.uint8) for i in range(count)]


def encode_all(count: int) -> dict[str, Any]:
    """Encode `count` pictures in one batch (run in a process of its own, for its memory)."""
    return {"pictures": len(tokenizer().encode_batch(pictures(count)))}


def bench_encoder() -> list[Figure]:
    """A batch against one picture at a time, and the memory of a batch."""
    model, images = tokenizer(), pictures(PICTURES)
    values = ratios(lambda: model.encode_batch(images), lambda: [model.encode(image) for image in images])
    large, small = (apart("tests.bench.bench_model", "encode_all", count) for count in (96, 8))
    growth = large["own_peak_mb"] / small["own_peak_mb"]
    return [
        figure("encode_batch_vs_one", values, "x", 0.95, PICTURES, "the same pictures one by one", digits=2),
        figure("encode_memory_growth", [growth], "x", 1.2, 96, "a batch of 8", at_most=True, digits=2),
    ]


def bench_masks() -> list[Figure]:
    """FlexAttention's tile lists from runs, against torch's way through every pair of tokens."""
    from torch.nn.attention.flex_attention import create_block_mask

    length = 2048
    documents = torch.tensor([0] * 900 + [1] * 1148)
    mask = noisy_clean(length, BLOCK, documents=documents)
    rule = mask._mask_mod()
    torch_way = lambda: create_block_mask(rule, 1, None, 2 * length, 2 * length, device="cpu")  # noqa: E731
    assert torch.equal(mask.tiles().to_dense(), torch_way().to_dense())
    values = ratios(mask.tiles, torch_way, rounds=3)
    return [figure("tile_lists_vs_torch", values, "x", 20.0, 2 * length, "create_block_mask", digits=0)]


def run() -> list[Figure]:
    """All figures."""
    torch.set_num_threads(1)
    return [*bench_experts(), *bench_cache(), *bench_encoder(), *bench_masks()]


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
