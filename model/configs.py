"""The shapes of LLaDA2.0-Uni's networks: released values, tiny ones, and a reader that refuses the unknown.

Every class mirrors one `config.json` of the released repository, field for field, so a file of the release is
read as it stands. Fields that describe the architecture have no default: a file must state them (the released
remote code has defaults that differ from the released values, so silence would mean another model).
`released()` and `tiny()` build the two presets that everything else starts from.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file, field, value and what to do."""


class ModelConfig(BaseModel):
    """Base of all configurations here: frozen, and unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one `config.json`.

        Raises:
            ConfigError: the file is missing or no JSON object, lacks a field, has a field this class does not
                know (the message offers the nearest known name), or a value the code does not implement.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; a checkpoint folder needs one") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as problem:
            raise ConfigError(f"{path}: not JSON ({problem})") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must hold a JSON object, not {type(values).__name__}")
        return cls.parse(values, str(path))

    @classmethod
    def parse(cls, values: dict[str, Any], origin: str = "config") -> Self:
        """Check `values`, naming `origin` in errors. Raises ConfigError as `read` does."""
        try:
            return cls.model_validate(values)
        except ValidationError as problem:
            lines = [_explain(cls, error) for error in problem.errors()]
            raise ConfigError(f"{origin}: " + "; ".join(lines)) from None

    def write(self, path: Path) -> None:
        """Write the file `read` accepts; keys in field order, absent optional fields left out."""
        text = json.dumps(self.model_dump(by_alias=True, exclude_none=True), indent=2)
        path.write_text(text + "\n", encoding="utf-8")


def _explain(cls: type[BaseModel], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = {field.alias or name for name, field in _fields_at(cls, error["loc"][:-1]).items()}
        near = difflib.get_close_matches(str(error["loc"][-1]), sorted(known), n=1)
        hint = f", did you mean {near[0]!r}?" if near else "; remove it or teach model/configs.py what it means"
        return f"unknown field {where!r} (value {error['input']!r}){hint}"
    if error["type"] == "missing":
        return f"field {where!r} is missing; add it, its value is part of the architecture"
    if not where:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"field {where!r} has value {error['input']!r}: {error['msg']}"


def _fields_at(cls: type[BaseModel], parents: tuple[Any, ...]) -> dict[str, Any]:
    for parent in parents:
        annotation = cls.model_fields[parent].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return {}
        cls = inner[0]
    return cls.model_fields


class RopeParameters(ModelConfig):
    """The newer spelling of the rotary settings that transformers writes beside the older one."""

    rope_type: Literal["default"] = "default"
    rope_theta: float
    partial_rotary_factor: float


class BackboneConfig(ModelConfig):
    """`config.json` of the backbone (model type `llada2_moe`). Only what the release uses is implemented."""

    vocab_size: int = Field(gt=0)
    image_token_offset: int | None = None
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    rms_norm_eps: float = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = Field(gt=0)
    partial_rotary_factor: float = Field(gt=0, le=1)
    pad_token_id: int
    num_experts: int = Field(gt=0)
    num_experts_per_tok: int = Field(gt=0)
    num_shared_experts: int = Field(ge=0)
    n_group: int = Field(gt=0)
    topk_group: int = Field(gt=0)
    routed_scaling_factor: float
    moe_intermediate_size: int = Field(gt=0)
    first_k_dense_replace: int = Field(ge=0)
    initializer_range: float = Field(default=0.02, gt=0)
    torch_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    use_fp8_experts: bool = False

    # Fixed by the architecture: any other value would be another model, so it is refused rather than ignored.
    hidden_act: Literal["silu"] = "silu"
    use_qkv_bias: Literal[False] = False
    use_bias: Literal[False] = False
    use_qk_norm: Literal[True] = True
    score_function: Literal["sigmoid"] = "sigmoid"
    norm_topk_prob: Literal[True] = True
    moe_router_enable_expert_bias: Literal[True] = True
    router_dtype: Literal["fp32", "float32"] = "fp32"
    tie_word_embeddings: Literal[False] = False
    sliding_window: None = None
    rope_scaling: None = None
    rope_parameters: RopeParameters | None = None
    attention_dropout: float = Field(default=0.0, le=0, ge=0)
    embedding_dropout: float = Field(default=0.0, le=0, ge=0)
    output_dropout: float = Field(default=0.0, le=0, ge=0)
    model_type: Literal["llada2_moe", "llada2_moe_veomni"] = "llada2_moe"

    # Bookkeeping of the file format: kept, without effect on the numbers.
    architectures: tuple[str, ...] = ("LLaDA2MoeModelLM",)
    auto_map: dict[str, str] | None = None
    transformers_version: str | None = None
    use_cache: bool = False
    output_router_logits: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    llada_fp8_experts: dict[str, Any] | None = None
    name_or_path: str | None = Field(default=None, alias="_name_or_path")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = [message for wrong, message in self._conditions() if wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _conditions(self) -> list[tuple[bool, str]]:
        per_group, left_over = divmod(self.num_experts, self.n_group)
        spoken = self.rope_parameters
        offset = self.image_token_offset
        return [
            (
                self.num_attention_heads % self.num_key_value_heads != 0,
                f"num_attention_heads {self.num_attention_heads} is no multiple of num_key_value_heads "
                f"{self.num_key_value_heads}",
            ),
            (left_over != 0, f"num_experts {self.num_experts} is no multiple of n_group {self.n_group}"),
            (self.topk_group > self.n_group, f"topk_group {self.topk_group} exceeds n_group {self.n_group}"),
            (
                per_group < 2,
                f"num_experts / n_group is {per_group}; a group is scored by its two best experts",
            ),
            (
                self.num_experts_per_tok > self.topk_group * per_group,
                f"num_experts_per_tok {self.num_experts_per_tok} exceeds the {self.topk_group * per_group} "
                "experts that the chosen groups hold",
            ),
            (
                self.rotary_channels % 2 != 0,
                f"head_dim x partial_rotary_factor = {self.rotary_channels} must be even",
            ),
            (
                offset is not None and not 0 < offset <= self.vocab_size,
                f"image_token_offset {offset} lies outside 1..vocab_size {self.vocab_size}",
            ),
            (
                spoken is not None
                and (spoken.rope_theta, spoken.partial_rotary_factor) != (self.rope_theta, self.partial_rotary_factor),
                "rope_parameters disagrees with rope_theta / partial_rotary_factor; make the spellings equal",
            ),
        ]

    @property
    def rotary_channels(self) -> int:
        """Channels of a head that rotate; the others pass through."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def moe_layers(self) -> range:
        """Indices of the layers whose feed-forward is a mixture of experts."""
        return range(min(self.first_k_dense_replace, self.num_hidden_layers), self.num_hidden_layers)

    @classmethod
    def released(cls) -> BackboneConfig:
        """inclusionAI/LLaDA2.0-Uni: 16.3 B parameters, 256 experts of which 8 serve a token."""
        return cls(
            vocab_size=173568,
            image_token_offset=157184,
            hidden_size=2048,
            intermediate_size=5120,
            num_hidden_layers=20,
            num_attention_heads=16,
            num_key_value_heads=4,
            head_dim=128,
            rms_norm_eps=1e-6,
            max_position_embeddings=8192,
            rope_theta=600000,
            partial_rotary_factor=0.5,
            pad_token_id=156892,
            num_experts=256,
            num_experts_per_tok=8,
            num_shared_experts=1,
            n_group=8,
            topk_group=4,
            routed_scaling_factor=2.5,
            moe_intermediate_size=512,
            first_k_dense_replace=1,
        )

    @classmethod
    def tiny(cls, vocab_size: int = 512, image_token_offset: int = 384, pad_token_id: int = 0) -> BackboneConfig:
        """A backbone of about 0.2 M parameters for tests and the demo; all parts present, three layers."""
        return cls(
            vocab_size=vocab_size,
            image_token_offset=image_token_offset,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            rms_norm_eps=1e-6,
            max_position_embeddings=2048,
            rope_theta=600000,
            partial_rotary_factor=0.5,
            pad_token_id=pad_token_id,
            num_experts=8,
            num_experts_per_tok=2,
            num_shared_experts=1,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
            moe_intermediate_size=32,
            first_k_dense_replace=1,
            torch_dtype="float32",
        )


class VisionConfig(ModelConfig):
    """`vision_config` of the image tokenizer: a SigLIP tower without a final norm."""

    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    depth: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    patch_size: int = Field(gt=0)
    image_size: int = Field(gt=0)
    in_channels: Literal[3] = 3
    hidden_act: Literal["gelu"] = "gelu"
    attention_bias: Literal[True] = True
    attention_dropout: float = Field(default=0.0, le=0, ge=0)
    layer_norm_eps: float = Field(default=1e-6, gt=0)
    spatial_merge_size: Literal[1] = 1
    initializer_range: float = Field(default=0.02, gt=0)
    model_type: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        return self

    @property
    def table_side(self) -> int:
        """Rows (and columns) of the learned position table, in patches."""
        return self.image_size // self.patch_size


class QuantiserConfig(ModelConfig):
    """`vq_config` of the image tokenizer."""

    num_embeddings: int = Field(gt=1)
    embed_dim: int = Field(gt=0)
    latent_channels: int = Field(gt=0)
    beta: float = Field(default=0.25, ge=0)
    in_channels: int = 3
    initializer_range: float = Field(default=0.02, gt=0)
    model_type: str | None = None


class SigLIPVQConfig(ModelConfig):
    """`image_tokenizer/config.json`."""

    vision_config: VisionConfig
    vq_config: QuantiserConfig
    model_type: str | None = None
    architectures: tuple[str, ...] | None = None
    torch_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    transformers_version: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.vision_config.hidden_size != self.vq_config.latent_channels:
            raise ValueError(
                f"vision_config.hidden_size {self.vision_config.hidden_size} must equal "
                f"vq_config.latent_channels {self.vq_config.latent_channels}"
            )
        return self

    @classmethod
    def released(cls) -> SigLIPVQConfig:
        """The released tokenizer: 488 tensors, 1,199,457,280 parameters."""
        return cls(
            vision_config=VisionConfig(
                hidden_size=1536,
                intermediate_size=6144,
                depth=40,
                num_heads=16,
                patch_size=16,
                image_size=2048,
            ),
            vq_config=QuantiserConfig(num_embeddings=16384, embed_dim=2048, latent_channels=1536),
        )

    @classmethod
    def tiny(cls, codes: int = 128, patch_size: int = 16) -> SigLIPVQConfig:
        """A tower of two blocks for tests and the demo; same patch size as the release."""
        return cls(
            vision_config=VisionConfig(
                hidden_size=48,
                intermediate_size=96,
                depth=2,
                num_heads=4,
                patch_size=patch_size,
                image_size=8 * patch_size,
            ),
            vq_config=QuantiserConfig(num_embeddings=codes, embed_dim=32, latent_channels=48),
        )


class PreprocessorConfig(ModelConfig):
    """`image_tokenizer/preprocessor_config.json`: how bytes become numbers. No resize happens here."""

    patch_size: int = Field(gt=0)
    temporal_patch_size: Literal[1] = 1
    merge_size: Literal[1, 2] = 1
    do_rescale: Literal[True] = True
    rescale_factor: float = 1 / 255
    do_normalize: Literal[True] = True
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    do_resize: bool = False
    do_convert_rgb: bool | None = None
    resample: int | None = None
    size: dict[str, int] | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    image_processor_type: str | None = None
    processor_class: str | None = None


class DecoderConfig(ModelConfig):
    """`decoder/config.json`: the Z-Image transformer that turns codes into latents."""

    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_refiner_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    in_channels: int = Field(gt=0)
    cap_feat_dim: int = Field(gt=0)
    axes_dims: tuple[int, int, int]
    axes_lens: tuple[int, int, int] = (32768, 1024, 1024)
    all_patch_size: tuple[int, ...] = (2,)
    all_f_patch_size: tuple[int, ...] = (1,)
    norm_eps: float = 1e-5
    qk_norm: bool = True
    rope_theta: float = 256.0
    t_scale: float = 1000.0
    siglip_feat_dim: None = None
    class_name: str = Field(default="ZImageTransformer2DModel", alias="_class_name")
    diffusers_version: str | None = Field(default=None, alias="_diffusers_version")
    name_or_path: str | None = Field(default=None, alias="_name_or_path")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.dim % self.n_heads or sum(self.axes_dims) != self.dim // self.n_heads:
            raise ValueError(f"axes_dims {self.axes_dims} must sum to dim / n_heads = {self.dim / self.n_heads:g}")
        if self.n_heads != self.n_kv_heads:
            raise ValueError(f"n_kv_heads {self.n_kv_heads} must equal n_heads {self.n_heads}")
        if self.all_patch_size != (2,) or self.all_f_patch_size != (1,):
            raise ValueError(
                f"patch sizes {self.all_patch_size}, {self.all_f_patch_size} are unknown, only (2,), (1,) is"
            )
        return self

    @classmethod
    def released(cls) -> DecoderConfig:
        """The released decoder: about 6.2 B parameters."""
        return cls(
            dim=3840,
            n_layers=30,
            n_refiner_layers=2,
            n_heads=30,
            n_kv_heads=30,
            in_channels=16,
            cap_feat_dim=4096,
            axes_dims=(32, 48, 48),
        )

    @classmethod
    def tiny(cls, cap_feat_dim: int = 32) -> DecoderConfig:
        """A decoder of two layers for tests and the demo."""
        return cls(
            dim=64,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            in_channels=16,
            cap_feat_dim=cap_feat_dim,
            axes_dims=(8, 12, 12),
            axes_lens=(1024, 64, 64),
        )
