"""What the networks reach on a GPU at their released width, with random weights.

    .venv/bin/python -m tests.bench.bench_model_gpu

Without a GPU nothing is measured, and the one line returned says so. Floors are those of section 3.1 of the
training anchors: bytes that a step must read over the memory's bandwidth, operations over the peak of bf16.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import torch

from model.attention import attend
from model.backbone import Backbone
from model.cache import BlockCache
from model.configs import BackboneConfig, SigLIPVQConfig
from model.experts import MoE
from model.image_tokenizer import Grid
from model.masks import noisy_clean
from model.siglip_vq import GPU_ROWS, SigLIPVQ
from tests.bench.figure import Figure, figure

ROUNDS = 7
RELEASED = BackboneConfig.released()
PEAKS = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "A100": (2.0e12, 312e12)}
"""Bytes per second and dense bf16 operations per second, by a word in the GPU's name."""


def run() -> list[Figure]:
    """All figures, or one that says why there are none."""
    if not torch.cuda.is_available():
        return [left_out("torch sees no GPU on this machine")]
    with torch.inference_mode():
        figures = [*bench_experts(), *bench_tokenizer(), *bench_step()]
    return [*figures, *bench_attention()]


def left_out(reason: str) -> Figure:
    """A line of the table in place of the figures."""
    return {**figure("gpu", [0.0], "-", 1.0, 0, f"LEFT OUT, nothing measured: {reason}"), "left_out": reason}


def peaks() -> tuple[float, float]:
    """Bandwidth and bf16 peak of this GPU; of an unknown one the bandwidth of a copy, and no peak."""
    name = torch.cuda.get_device_name()
    for word, numbers in PEAKS.items():
        if word in name:
            return numbers
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(times(lambda: target.copy_(source))), float("nan")


def times(call: Callable[[], object], rounds: int = ROUNDS, inner: int = 10) -> list[float]:
    """Seconds of one call, by GPU events, averaged over `inner` calls; after three that do not count."""
    for _ in range(3):
        call()
    found = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(inner):
            call()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1e3 / inner)
    return found


def recorded(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph: launches no longer cost Python time."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def random_weights(module: torch.nn.Module) -> Any:
    """The module on the GPU in bf16, filled with small random numbers."""
    module.to(torch.bfloat16).to_empty(device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    for tensor in module.state_dict().values():
        tensor.normal_(0, 0.02, generator=generator)
    return module.eval()


def bench_experts() -> list[Figure]:
    """One MoE layer: the share of bandwidth at one block, the rate of operations at 32k tokens."""
    with torch.device("meta"):
        layer = MoE(RELEASED)
    layer = random_weights(layer)
    bandwidth, _ = peaks()
    figures = []
    for tokens in (32, 32768):
        x = torch.randn(tokens, RELEASED.hidden_size, device="cuda", dtype=torch.bfloat16)
        touched = int((layer.gate(x).load() > 0).sum())
        matrix = RELEASED.hidden_size * RELEASED.moe_intermediate_size
        found = times(recorded(lambda x=x: layer(x)))  # type: ignore[misc]
        if tokens == 32:
            read = 2 * 3 * matrix * (touched + RELEASED.num_shared_experts)
            shares = [100 * read / bandwidth / t for t in found]
            baseline = f"{touched} experts touched, {bandwidth / 1e12:.2f} TB/s"
            figures.append(figure("experts_bandwidth_t32", shares, "%", 70, tokens, baseline, digits=1))
        else:
            done = 2 * 3 * matrix * tokens * (RELEASED.num_experts_per_tok + RELEASED.num_shared_experts)
            rates = [done / t / 1e12 for t in found]
            figures.append(figure("experts_tflops_32k", rates, "TFLOP/s", 180, tokens, "none", digits=0))
    return figures


def bench_attention() -> list[Figure]:
    """Forward and backward under the training mask, tile lists against a dense mask, 8,192 tokens in two halves."""
    length, heads, keys, channels = 4096, RELEASED.num_attention_heads, RELEASED.num_key_value_heads, RELEASED.head_dim
    mask = noisy_clean(length, 32)
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(count: int) -> torch.Tensor:
        shape = (1, count, 2 * length, channels)
        x = torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=generator)
        return x.requires_grad_()

    query, key, value = draw(heads), draw(keys), draw(keys)
    tiles, dense = mask.tiles(device="cuda"), mask.dense().to("cuda")

    def step(form: Any) -> torch.Tensor:
        out = attend(query, key, value, form)
        out.sum().backward()
        return out.detach()

    apart = (step(tiles) - step(dense)).abs().max().item()
    assert apart < 0.05, f"the backends differ by {apart}"
    ours, plain = times(lambda: step(tiles), inner=3), times(lambda: step(dense), inner=3)
    values = [b / a for a, b in zip(ours, plain, strict=True)]
    return [figure("flex_vs_dense_sdpa_8k", values, "x", 3.0, 2 * length, "SDPA with a dense mask", digits=1)]


def bench_tokenizer() -> list[Figure]:
    """Pictures per second at 512 pixels through the released tower, and the share of the bf16 peak."""
    config = SigLIPVQConfig.released()
    with torch.device("meta"):
        tokenizer = SigLIPVQ(config)
    tokenizer = random_weights(tokenizer)
    grid, together = Grid(32, 32), GPU_ROWS // 1024
    rows = torch.randn(GPU_ROWS, 768, device="cuda", dtype=torch.bfloat16)
    found = times(lambda: tokenizer._encode_rows(rows, [grid] * together, pad=True), inner=3)
    vision = config.vision_config
    products = vision.depth * (4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size)
    per_picture = 2 * grid.area * products + vision.depth * 4 * grid.area**2 * vision.hidden_size
    rates = [together / t for t in found]
    shares = [100 * rate * per_picture / peaks()[1] for rate in rates]
    return [
        figure("siglip_vq_pictures_512", rates, "1/s", 100, together, "released tower, random weights", digits=0),
        figure("siglip_vq_share_of_peak", shares, "%", 40, together, "dense bf16 peak of the GPU", digits=1),
    ]


def bench_step() -> list[Figure]:
    """A denoising step of one block on cached prefixes, in percent of the time its bytes must take.

    The bytes are counted as in section 3.1: weights that every step reads, the head, the experts that this step's
    routing touched, and the keys and values of the prefix.
    """
    with torch.device("meta"):
        model = Backbone(RELEASED)
    model = random_weights(model)
    bandwidth, _ = peaks()
    block = 32
    ids = torch.randint(RELEASED.vocab_size, (1, block), device="cuda")
    experts = sum(p.nbytes for n, p in model.named_parameters() if ".experts." in n)
    rest = sum(p.nbytes for n, p in model.named_parameters() if ".experts." not in n and "embeddings" not in n)
    figures = []
    for prefix in (1024, 4096, 16384):
        cache = BlockCache(RELEASED, 1, prefix + block, dtype=torch.bfloat16, device="cuda")
        cache.commit(prefix)
        load = model(ids, cache=cache).load
        share = float((load > 0).float().mean())
        read = rest + experts * share + 2 * cache.keys[..., :prefix, :].nbytes
        found = times(recorded(lambda cache=cache: model(ids, cache=cache)))  # type: ignore[misc]
        shares = [100 * read / bandwidth / t for t in found]
        baseline = (
            f"{read / 1e9:.1f} GB, {100 * share:.0f} % of experts, {statistics.median(found) * 1e3:.2f} ms a step"
        )
        figures.append(figure(f"denoise_step_prefix_{prefix}", shares, "%", 50, block, baseline, digits=1))
    return figures


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line))
