"""A second, slow writing of the networks: numpy, float64, loops where a loop is plainest.

It shares no code with `model/`, so agreement means that both follow the fact sheet. Arrays are plain; weights
are a dict from released names (separate experts) to arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """Over the last axis; a row of minus infinities gives zeros."""
    top = np.maximum(x.max(-1, keepdims=True), -1e300)
    e = np.exp(x - top)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def rms(x: Array, weight: Array, eps: float) -> Array:
    return weight * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return weight * centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) + bias


def rotate(x: Array, positions: NDArray[Any], channels: int, theta: float) -> Array:
    """Partial rotation of one head x [T, D]: channel i pairs with i + channels/2."""
    out = x.copy()
    half = channels // 2
    for t, position in enumerate(positions):
        for i in range(half):
            angle = position * theta ** (-2 * i / channels)
            a, b = x[t, i], x[t, i + half]
            out[t, i] = a * np.cos(angle) - b * np.sin(angle)
            out[t, i + half] = b * np.cos(angle) + a * np.sin(angle)
    return out


def attention(w: Weights, prefix: str, c: Any, x: Array, positions: NDArray[Any], may: NDArray[np.bool_]) -> Array:
    """x [T, C], may bool [T, T]."""
    rows = x @ w[prefix + "query_key_value.weight"].T
    d, nq, nk = c.head_dim, c.num_attention_heads, c.num_key_value_heads
    heads = [rows[:, i * d : (i + 1) * d] for i in range(nq + 2 * nk)]
    keys, values = heads[nq : nq + nk], heads[nq + nk :]
    norm_q, norm_k = w[prefix + "query_layernorm.weight"], w[prefix + "key_layernorm.weight"]
    out = []
    for i in range(nq):
        j = i // (nq // nk)
        q = rotate(rms(heads[i], norm_q, c.rms_norm_eps), positions, c.rotary_channels, c.rope_theta)
        k = rotate(rms(keys[j], norm_k, c.rms_norm_eps), positions, c.rotary_channels, c.rope_theta)
        scores = np.where(may, q @ k.T / np.sqrt(d), -np.inf)
        out.append(softmax(scores) @ values[j])
    return np.concatenate(out, -1) @ w[prefix + "dense.weight"].T


def mlp(w: Weights, prefix: str, x: Array) -> Array:
    gate, up, down = (w[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def route(w: Weights, prefix: str, c: Any, token: Array) -> tuple[list[int], Array]:
    """Chosen experts of one token [C], best first, and their weights."""
    sigmoid = 1 / (1 + np.exp(-(w[prefix + "gate.weight"] @ token)))
    selection = sigmoid + w[prefix + "gate.expert_bias"]
    size = c.num_experts // c.n_group
    scores = [np.sort(selection[g * size : (g + 1) * size])[-2:].sum() for g in range(c.n_group)]
    groups = sorted(range(c.n_group), key=lambda g: -scores[g])[: c.topk_group]
    candidates = [e for e in range(c.num_experts) if e // size in groups]
    chosen = sorted(candidates, key=lambda e: -selection[e])[: c.num_experts_per_tok]
    weights = sigmoid[chosen]
    return chosen, weights / (weights.sum() + 1e-20) * c.routed_scaling_factor


def moe(w: Weights, prefix: str, c: Any, x: Array) -> tuple[Array, list[list[int]]]:
    out, chosen_by = np.zeros_like(x), []
    for t, token in enumerate(x):
        chosen, weights = route(w, prefix, c, token)
        chosen_by.append(chosen)
        for e, weight in zip(chosen, weights, strict=True):
            out[t] += weight * mlp(w, f"{prefix}experts.{e}.", token[None])[0]
    if c.num_shared_experts:
        out += mlp(w, prefix + "shared_experts.", x)
    return out, chosen_by


def backbone(
    w: Weights, c: Any, ids: NDArray[Any], positions: NDArray[Any], may: NDArray[np.bool_]
) -> tuple[Array, list[list[list[int]]]]:
    """Logits [T, V] and the chosen experts of every MoE layer, for one row of ids [T]."""
    x = w["model.word_embeddings.weight"][ids]
    chosen = []
    for i in range(c.num_hidden_layers):
        p = f"model.layers.{i}."
        normed = rms(x, w[p + "input_layernorm.weight"], c.rms_norm_eps)
        x = x + attention(w, p + "attention.", c, normed, positions, may)
        normed = rms(x, w[p + "post_attention_layernorm.weight"], c.rms_norm_eps)
        if i < c.first_k_dense_replace:
            x = x + mlp(w, p + "mlp.", normed)
        else:
            y, by = moe(w, p + "mlp.", c, normed)
            x = x + y
            chosen.append(by)
    return rms(x, w["model.norm.weight"], c.rms_norm_eps) @ w["lm_head.weight"].T, chosen


def block_causal(length: int, block: int, documents: list[int] | None = None) -> NDArray[np.bool_]:
    """May query q see key k? Written out pair by pair; blocks count from each document's start."""
    docs = documents or [0] * length
    start = {d: docs.index(d) for d in set(docs)}
    return np.array(
        [
            [
                docs[q] == docs[k] and (k - start[docs[k]]) // block <= (q - start[docs[q]]) // block
                for k in range(length)
            ]
            for q in range(length)
        ]
    )


def noisy_clean(length: int, block: int, documents: list[int] | None = None) -> NDArray[np.bool_]:
    """The training rule over [noisy ; clean], pair by pair."""
    docs = documents or [0] * length
    start = {d: docs.index(d) for d in set(docs)}

    def may(q: int, k: int) -> bool:
        (q_clean, i), (k_clean, j) = divmod(q, length), divmod(k, length)
        if docs[i] != docs[j]:
            return False
        a, b = (i - start[docs[i]]) // block, (j - start[docs[j]]) // block
        if q_clean:
            return bool(k_clean) and b <= a
        return b < a if k_clean else b == a

    return np.array([[may(q, k) for k in range(2 * length)] for q in range(2 * length)])


def gelu(x: Array) -> Array:
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def bilinear(table: Array, height: int, width: int) -> Array:
    """table [S, S, C] sampled at the patch centres of a grid, borders clamped: [height * width, C]."""
    side = len(table)
    out = []
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) / height * side - 0.5, (j + 0.5) / width * side - 0.5
            y, x = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            a, b = y - top, x - left
            upper = (1 - b) * table[top, left] + b * table[top, right]
            lower = (1 - b) * table[bottom, left] + b * table[bottom, right]
            out.append((1 - a) * upper + a * lower)
    return np.array(out)


def patch_rows(image: NDArray[np.uint8], p: int) -> Array:
    """uint8 [H, W, 3] -> [patches, 3 * p * p], channel first inside a row, values in -1..1."""
    height, width = image.shape[0] // p, image.shape[1] // p
    return np.array(
        [
            [image[i * p + y, j * p + x, c] / 255 * 2 - 1 for c in range(3) for y in range(p) for x in range(p)]
            for i in range(height)
            for j in range(width)
        ]
    )


def siglip_features(w: Weights, c: Any, image: NDArray[np.uint8]) -> Array:
    """What the quantiser sees for one picture: [patches, embed_dim]."""
    v = c.vision_config
    height, width = image.shape[0] // v.patch_size, image.shape[1] // v.patch_size
    proj = w["model.visual.patch_embed.proj.weight"].reshape(v.hidden_size, -1)
    x = patch_rows(image, v.patch_size) @ proj.T + w["model.visual.patch_embed.proj.bias"]
    table = w["model.visual.embeddings.position_embedding.weight"].reshape(v.table_side, v.table_side, -1)
    x = x + bilinear(table, height, width)
    for i in range(v.depth):
        p = f"model.visual.blocks.{i}."
        normed = layer_norm(x, w[p + "norm1.weight"], w[p + "norm1.bias"], v.layer_norm_eps)
        qkv = normed @ w[p + "attn.qkv.weight"].T + w[p + "attn.qkv.bias"]
        d = v.hidden_size // v.num_heads
        heads = []
        for h in range(v.num_heads):
            q, k, u = (qkv[:, part * v.hidden_size + h * d :][:, :d] for part in range(3))
            heads.append(softmax(q @ k.T / np.sqrt(d)) @ u)
        x = x + np.concatenate(heads, 1) @ w[p + "attn.proj.weight"].T + w[p + "attn.proj.bias"]
        normed = layer_norm(x, w[p + "norm2.weight"], w[p + "norm2.bias"], v.layer_norm_eps)
        inner = gelu(normed @ w[p + "mlp.fc1.weight"].T + w[p + "mlp.fc1.bias"])
        x = x + inner @ w[p + "mlp.fc2.weight"].T + w[p + "mlp.fc2.bias"]
    conv = w["model.vqmodel.quant_conv.weight"][:, :, 0, 0]
    return x @ conv.T + w["model.vqmodel.quant_conv.bias"]


def nearest(w: Weights, z: Array) -> list[int]:
    """Code of each row: squared distances on the unit sphere, one by one."""
    book = w["model.vqmodel.quantize.embedding.weight"]
    book = book / np.linalg.norm(book, axis=1, keepdims=True)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return [int(np.argmin([((row - code) ** 2).sum() for code in book])) for row in z]


def z_rotate(x: Array, positions: NDArray[Any], axes: tuple[int, ...], theta: float) -> Array:
    """x [T, D]: neighbouring channels pair up; each axis of positions [T, 3] owns a run of channels."""
    out = x.copy()
    for t in range(len(x)):
        begin = 0
        for axis, size in enumerate(axes):
            for i in range(0, size, 2):
                angle = positions[t, axis] * theta ** (-i / size)
                a, b = x[t, begin + i], x[t, begin + i + 1]
                out[t, begin + i] = a * np.cos(angle) - b * np.sin(angle)
                out[t, begin + i + 1] = a * np.sin(angle) + b * np.cos(angle)
            begin += size
    return out


def z_block(w: Weights, p: str, c: Any, x: Array, positions: NDArray[Any], modulation: Array | None) -> Array:
    """One block of the decoder's transformer: sandwich norms, scales as 1 + s, gates through tanh."""
    scale_a, gate_a, scale_f, gate_f = np.zeros((4, c.dim))
    gate_a, gate_f = gate_a + np.inf, gate_f + np.inf
    if modulation is not None:
        mixed = modulation @ w[p + "adaLN_modulation.0.weight"].T + w[p + "adaLN_modulation.0.bias"]
        scale_a, gate_a, scale_f, gate_f = np.split(mixed, 4)
    normed = rms(x, w[p + "attention_norm1.weight"], c.norm_eps) * (1 + scale_a)
    d, heads = c.dim // c.n_heads, []
    q, k, v = (normed @ w[f"{p}attention.to_{part}.weight"].T for part in "qkv")
    for h in range(c.n_heads):
        part = slice(h * d, (h + 1) * d)
        a = z_rotate(rms(q[:, part], w[p + "attention.norm_q.weight"], 1e-5), positions, c.axes_dims, c.rope_theta)
        b = z_rotate(rms(k[:, part], w[p + "attention.norm_k.weight"], 1e-5), positions, c.axes_dims, c.rope_theta)
        heads.append(softmax(a @ b.T / np.sqrt(d)) @ v[:, part])
    attended = np.concatenate(heads, 1) @ w[p + "attention.to_out.0.weight"].T
    x = x + np.tanh(gate_a) * rms(attended, w[p + "attention_norm2.weight"], c.norm_eps)
    normed = rms(x, w[p + "ffn_norm1.weight"], c.norm_eps) * (1 + scale_f)
    w1, w2, w3 = (w[f"{p}feed_forward.w{i}.weight"] for i in (1, 2, 3))
    fed = (silu(normed @ w1.T) * (normed @ w3.T)) @ w2.T
    return x + np.tanh(gate_f) * rms(fed, w[p + "ffn_norm2.weight"], c.norm_eps)


def z_velocity(w: Weights, c: Any, latent: Array, t: float, condition: Array) -> Array:
    """Velocity [16, 1, H, W] of one latent, given condition tokens [N, cap_feat_dim]."""
    channels, _, height, width = latent.shape
    rows = np.array(
        [
            latent[:, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].transpose(1, 2, 0).ravel()
            for i in range(height // 2)
            for j in range(width // 2)
        ]
    )
    frequencies = np.exp(-np.log(10000) * np.arange(128) / 128) * t * c.t_scale
    time = np.concatenate([np.cos(frequencies), np.sin(frequencies)])
    time = silu(time @ w["t_embedder.mlp.0.weight"].T + w["t_embedder.mlp.0.bias"])
    time = time @ w["t_embedder.mlp.2.weight"].T + w["t_embedder.mlp.2.bias"]

    def padded(x: Array, positions: list[tuple[int, int, int]], pad: str) -> tuple[Array, NDArray[Any]]:
        missing = -len(x) % 32
        x = np.concatenate([x, np.repeat(w[pad], missing, 0)])
        return x, np.array(positions + [(0, 0, 0)] * (len(x) - len(positions)))

    n = len(condition)
    n_padded = n + -n % 32
    x = rows @ w["all_x_embedder.2-1.weight"].T + w["all_x_embedder.2-1.bias"]
    places = [(n_padded + 1, i, j) for i in range(height // 2) for j in range(width // 2)]
    x, x_places = padded(x, places, "x_pad_token")
    for i in range(c.n_refiner_layers):
        x = z_block(w, f"noise_refiner.{i}.", c, x, x_places, time)

    y = rms(condition, w["semantic_embedder.0.weight"], c.norm_eps)
    y = y @ w["semantic_embedder.1.weight"].T + w["semantic_embedder.1.bias"]
    y, y_places = padded(y, [(k + 1, 0, 0) for k in range(n_padded)], "cap_pad_token")
    for i in range(c.n_refiner_layers):
        y = z_block(w, f"context_refiner.{i}.", c, y, y_places, None)

    joined, all_places = np.concatenate([x, y]), np.concatenate([x_places, y_places])
    for i in range(c.n_layers):
        joined = z_block(w, f"layers.{i}.", c, joined, all_places, time)
    last = "all_final_layer.2-1."
    scale = 1 + silu(time) @ w[last + "adaLN_modulation.1.weight"].T + w[last + "adaLN_modulation.1.bias"]
    ones = np.ones(c.dim)
    out = layer_norm(joined, ones, 0 * ones, 1e-6) * scale
    out = out @ w[last + "linear.weight"].T + w[last + "linear.bias"]
    grid = out[: len(rows)].reshape(height // 2, width // 2, 2, 2, channels)
    return grid.transpose(4, 0, 2, 1, 3).reshape(channels, 1, height, width)
