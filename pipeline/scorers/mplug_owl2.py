"""mPLUG-Owl2 for one forward pass: a picture and a question in, the logits of the next token out.

The architecture behind DeQA-Score and Q-Align: a CLIP ViT-L/14 at 448 pixels, a visual abstractor that turns its
patches into 64 learned queries, and LLaMA-2 in which keys, values and norms have weights of their own for positions
that hold a picture (`multiway`: 0 text, 1 picture). Modules carry the released names, so that weights need no mapping.

Sources: X-PLUG/mPLUG-Owl `mPLUG-Owl2/mplug_owl2/model/` (`visual_encoder.py` of the first release,
`modeling_llama2.py`, `modeling_mplug_owl2.py`) and zhiyuanyou/DeQA-Score `src/model/`.

Axes: b pictures, p patches and the class token, q queries, s positions, h heads, c channels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.scorers.released import Names, Part, check_fits, load_released, read_config

MODEL_TYPE = "mplug_owl2"


class VisionConfig(Part):
    """`visual_config.visual_model`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float = 1e-6
    hidden_act: Literal["quick_gelu"] = "quick_gelu"
    use_cls_token: Literal[True] = True


class AbstractorConfig(Part):
    """`visual_config.visual_abstractor`; `grid_size` is the side of the grid of patches."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_learnable_queries: int
    encoder_hidden_size: int
    layer_norm_eps: float = 1e-6
    grid_size: int | None = None


class VisualConfig(Part):
    """`visual_config`."""

    visual_model: VisionConfig
    visual_abstractor: AbstractorConfig


class OwlConfig(Part):
    """`config.json` of a release."""

    visual_config: VisualConfig
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: None = None
    attention_bias: bool = False
    hidden_act: Literal["silu"] = "silu"
    bos_token_id: int = 1


class _VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        b, p, c = x.shape
        # The release keeps query, key and value of one head together.
        mixed = self.query_key_value(x).view(b, p, self.heads, 3, c // self.heads)
        query, key, value = mixed.permute(3, 0, 2, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.dense(seen.transpose(1, 2).reshape(b, p, c))  # type: ignore[no-any-return]


class _VisionMlp(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))  # type: ignore[no-any-return]


class _VisionLayer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.self_attn = _VisionAttention(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = _VisionMlp(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class _VisionEmbeddings(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        c, side = config.hidden_size, config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        self.patch_embed = nn.Conv2d(3, c, kernel_size=side, stride=side, bias=False)
        self.position_embedding = nn.Parameter(torch.zeros(1, (config.image_size // side) ** 2 + 1, c))
        self.pre_layernorm = nn.LayerNorm(c, config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        return self.pre_layernorm(x + self.position_embedding)  # type: ignore[no-any-return]


class _Layers(nn.Module):
    """A stack under the released name `encoder.layers`."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class VisionModel(nn.Module):
    """Pixels [b, 3, side, side] to features [b, p, c] of all patches and the class token."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = _VisionEmbeddings(config)
        self.encoder = _Layers([_VisionLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)  # type: ignore[no-any-return]


class _AbstractorAttention(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        c, self.heads = config.hidden_size, config.num_attention_heads
        self.query = nn.Linear(c, c)
        self.key = nn.Linear(config.encoder_hidden_size, c)
        self.value = nn.Linear(config.encoder_hidden_size, c)
        self.register_buffer("q_pos_embed", line_positions(c, config.num_learnable_queries))
        self.register_buffer("k_pos_embed", grid_positions(c, config.grid_size or 32))

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        """`queries` [b, q, c] attend to `seen` [b, q + p, c], which begins with the queries themselves."""
        assert isinstance(self.q_pos_embed, Tensor)
        assert isinstance(self.k_pos_embed, Tensor)
        b, q, c = queries.shape
        positions = torch.cat([self.q_pos_embed, self.k_pos_embed])
        query = self._split(self.query(queries + self.q_pos_embed))
        key = self._split(self.key(seen + positions))
        out = F.scaled_dot_product_attention(query, key, self._split(self.value(seen)))
        return out.transpose(1, 2).reshape(b, q, c)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), x.shape[1], self.heads, -1).transpose(1, 2)


class _AbstractorMlp(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_ln = nn.LayerNorm(config.intermediate_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.ffn_ln(F.silu(self.w1(x)) * self.w3(x)))  # type: ignore[no-any-return]


class _AbstractorOutput(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = _AbstractorMlp(config)

    def forward(self, attended: Tensor, x: Tensor) -> Tensor:
        x = x + self.out_proj(attended)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class _CrossAttention(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.attention = _AbstractorAttention(config)
        self.output = _AbstractorOutput(config)
        # These two and norm2 have torch's own epsilon, whatever the config says.
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.normk = nn.LayerNorm(config.encoder_hidden_size)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        # The residual branch starts behind the norm.
        queries = self.norm1(queries)
        attended = self.attention(queries, torch.cat([queries, self.normk(patches)], dim=1))
        return self.output(attended, queries)  # type: ignore[no-any-return]


class _AbstractorLayer(nn.Module):
    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.crossattention = _CrossAttention(config)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        return self.crossattention(queries, patches)  # type: ignore[no-any-return]


class Abstractor(nn.Module):
    """Features of patches [b, p, c] to embeddings [b, q + 1, language c]: the queries and an end mark."""

    def __init__(self, config: AbstractorConfig, language: int) -> None:
        super().__init__()
        self.encoder = _Layers([_AbstractorLayer(config) for _ in range(config.num_hidden_layers)])
        self.visual_fc = nn.Linear(config.hidden_size, language)
        self.query_embeds = nn.Parameter(torch.zeros(1, config.num_learnable_queries, config.hidden_size))
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, language))

    def forward(self, patches: Tensor) -> Tensor:
        """See the class."""
        queries = self.query_embeds.expand(len(patches), -1, -1)
        for layer in self.encoder.layers:
            queries = layer(queries, patches)
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(len(patches), -1, -1)], dim=1)


class _Multiway(nn.Module):
    """Two modules, of which each position takes the one of its modality."""

    def __init__(self, text: nn.Module, picture: nn.Module) -> None:
        super().__init__()
        self.multiway = nn.ModuleList([text, picture])

    def forward(self, x: Tensor, is_picture: Tensor) -> Tensor:
        """`x` [b, s, c], `is_picture` [s] bool."""
        text, picture = self.multiway
        out = text(x)
        out[:, is_picture] = picture(x[:, is_picture])
        return out  # type: ignore[no-any-return]


class _RmsNorm(nn.Module):
    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(x.dtype)


class _LanguageAttention(nn.Module):
    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        c, bias = config.hidden_size, config.attention_bias
        self.size = c // config.num_attention_heads
        narrow = (config.num_key_value_heads or config.num_attention_heads) * self.size
        self.q_proj = nn.Linear(c, c, bias=bias)
        self.k_proj = _Multiway(nn.Linear(c, narrow, bias=bias), nn.Linear(c, narrow, bias=bias))
        self.v_proj = _Multiway(nn.Linear(c, narrow, bias=bias), nn.Linear(c, narrow, bias=bias))
        self.o_proj = nn.Linear(c, c, bias=bias)

    def forward(self, x: Tensor, is_picture: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        b, s, c = x.shape
        query = _rotate(self._split(self.q_proj(x)), rotation)
        key = _rotate(self._split(self.k_proj(x, is_picture)), rotation)
        value = self._split(self.v_proj(x, is_picture))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return self.o_proj(seen.transpose(1, 2).reshape(b, s, c))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.size).transpose(1, 2)


class _LanguageMlp(nn.Module):
    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class _LanguageLayer(nn.Module):
    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        c, epsilon = config.hidden_size, config.rms_norm_eps
        self.self_attn = _LanguageAttention(config)
        self.mlp = _LanguageMlp(config)
        self.input_layernorm = _Multiway(_RmsNorm(c, epsilon), _RmsNorm(c, epsilon))
        self.post_attention_layernorm = _Multiway(_RmsNorm(c, epsilon), _RmsNorm(c, epsilon))

    def forward(self, x: Tensor, is_picture: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x, is_picture), is_picture, rotation)
        return x + self.mlp(self.post_attention_layernorm(x, is_picture))  # type: ignore[no-any-return]


class _LanguageModel(nn.Module):
    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([_LanguageLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = _RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.vision_model = VisionModel(config.visual_config.visual_model)
        self.visual_abstractor = Abstractor(config.visual_config.visual_abstractor, config.hidden_size)


class Owl(nn.Module):
    """The whole model."""

    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _LanguageModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, pixels: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Logits [b, vocabulary] of the token that follows.

        `pixels` [b, 3, side, side]; token ids `before` the picture and `after` it, [n] and [m], the same for all.
        """
        model, count = self.model, len(pixels)
        picture = model.visual_abstractor(model.vision_model(pixels))
        texts = [model.embed_tokens(ids).expand(count, -1, -1) for ids in (before, after)]
        x = torch.cat([texts[0], picture, texts[1]], dim=1)
        is_picture = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
        is_picture[len(before) : len(before) + picture.shape[1]] = True
        rotation = self._rotation(x)
        for layer in model.layers:
            x = layer(x, is_picture, rotation)
        return self.lm_head(model.norm(x[:, -1])).float()  # type: ignore[no-any-return]

    def _rotation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [s, size of a head] of the rotary embedding."""
        size = self.config.hidden_size // self.config.num_attention_heads
        powers = torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size
        places = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        angles = torch.outer(places, 1.0 / self.config.rope_theta**powers)
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


def line_positions(channels: int, count: int) -> Tensor:
    """Sines and cosines [count, channels] of positions 0 to count - 1, the abstractor's fixed table for queries."""
    # On the CPU even where the module is built on the meta device: these values come from nowhere else.
    return _waves(torch.arange(count, dtype=torch.float32, device="cpu"), channels)


def grid_positions(channels: int, side: int) -> Tensor:
    """The same for a grid, columns in the first half of the channels, behind a row of zeros for the class token."""
    places = torch.arange(side, dtype=torch.float32, device="cpu")
    columns, rows = places.repeat(side), places.repeat_interleave(side)
    table = torch.cat([_waves(columns, channels // 2), _waves(rows, channels // 2)], dim=1)
    return torch.cat([torch.zeros(1, channels, device="cpu"), table])


def _waves(places: Tensor, channels: int) -> Tensor:
    half = channels // 2
    powers = torch.arange(half, dtype=torch.float32, device="cpu") / half
    angles = torch.outer(places, torch.exp(-math.log(10000.0) * powers))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


NAMES = Names(
    optional=lambda name: name.endswith((".q_pos_embed", ".k_pos_embed")),
    ignored=lambda name: name.endswith(".rotary_emb.inv_freq"),
)
"""Fixed tables may be left out of a release; older ones carry the rotary frequencies, which follow from the config."""


def read_owl_config(folder: Path) -> OwlConfig:
    """The config of a release; raises UserError."""
    return read_config(folder, MODEL_TYPE, OwlConfig)


def check_owl(folder: Path) -> OwlConfig:
    """Compare a release's weights with its config, from headers alone; raises UserError."""
    config = read_owl_config(folder)
    check_fits(_empty(config), folder, NAMES)
    return config


def load_owl(folder: Path, device: str, dtype: torch.dtype) -> Owl:
    """The model of a release, in evaluation mode; raises UserError."""
    owl = _empty(read_owl_config(folder))
    load_released(owl, folder, NAMES, device=device, dtype=dtype)
    return owl


def _empty(config: OwlConfig) -> Owl:
    with torch.device("meta"):
        return Owl(config)
