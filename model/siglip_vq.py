"""SigLIP-VQ: a vision tower that reads a picture and a code book that names what it read, one code per patch.

Axes in names: N patches of all pictures together in raster order, C channels of the tower, L channels of a
code.

A picture's codes never depend on the pictures beside it. Matrix products round differently for different
numbers of rows, so on CPU every product sees rows of one picture only; on a GPU it sees exactly
`GPU_ROWS` rows, whole pictures packed and the rest padded, so the kernel is the same whatever the company.
Attention always runs picture by picture. Memory is bounded by one such portion, not by the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blank import Conv2d, Embedding, Linear
from model.checkpoint import load_weights, read_tensor, save_weights, stored_dtype, stored_tensors
from model.configs import PreprocessorConfig, QuantiserConfig, SigLIPVQConfig, VisionConfig
from model.image_tokenizer import Codes, Grid, Pixels, TokenizerIdentity, check_pixels

WEIGHTS = "image_tokenizer"
WEIGHT_NAMES = (f"{WEIGHTS}.safetensors", "model.safetensors")
CPU_ROWS = 1024  # bounds memory
GPU_ROWS = 4096
VERSION = 1


class PatchEmbed(nn.Module):
    """The patch convolution, applied to patches that are already cut out."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.proj = Conv2d(config.in_channels, config.hidden_size, kernel_size=side, stride=side)

    def forward(self, rows: Tensor) -> Tensor:
        """[N, 3 x patch x patch] -> [N, C]."""
        return F.linear(rows, self.proj.weight.flatten(1), self.proj.bias)


class Positions(nn.Module):
    """A learned table of positions, sampled bilinearly, so that any grid has positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = config.table_side
        self.position_embedding = Embedding(self.side**2, config.hidden_size)

    def forward(self, grid: Grid) -> Tensor:
        """Positions of one picture, fp32 [height x width, C].

        Patch i of n lies at (i + 0.5) / n of the table's side; borders are clamped.
        """
        table = self.position_embedding.weight.float().view(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        down, across = (
            (torch.arange(side, dtype=torch.float32, device=table.device) + 0.5) / side * 2 - 1
            for side in (grid.height, grid.width)
        )
        where = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1)
        sampled = F.grid_sample(table, where[None], mode="bilinear", padding_mode="border", align_corners=False)
        return sampled[0].flatten(1).T


class VisionAttention(nn.Module):
    """The two projections around attention; the tower runs attention itself, picture by picture."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = Linear(config.hidden_size, config.hidden_size)


class VisionMLP(nn.Module):
    """fc2(gelu(fc1(x))), exact erf form."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] -> [N, C]."""
        mapped: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return mapped


class VisionBlock(nn.Module):
    """One pre-norm block, in the two row-wise halves that lie around attention."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config)

    def before(self, x: Tensor) -> Tensor:
        """Rows [N, C] -> queries, keys and values [N, 3C]."""
        projected: Tensor = self.attn.qkv(self.norm1(x))
        return projected

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """Rows [N, C] and what attention made of them [N, C] -> rows [N, C]."""
        x = x + self.attn.proj(attended)
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class VisionTower(nn.Module):
    """Patches of any number of pictures to features. There is no final norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.patch_embed = PatchEmbed(config)
        self.embeddings = Positions(config)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))

    def forward(self, rows: Tensor, grids: Sequence[Grid], rows_at_once: int = CPU_ROWS) -> Tensor:
        """Features of packed pictures.

        Args:
            rows: [N, 3 x patch x patch], the patch rows of all pictures, one picture after another.
            grids: of each picture; their areas sum to N.
            rows_at_once: rows of every matrix product; the last may have fewer. Padding rows at the end
                belong to no picture.

        Returns:
            [N, C]; padding rows hold nothing of meaning.
        """
        x = _by_rows(self.patch_embed, rows_at_once, rows)
        positions = torch.cat([self.embeddings(grid) for grid in grids])
        x[: len(positions)] += positions.to(x.dtype)
        areas = [grid.area for grid in grids]
        for block in self.blocks:
            assert isinstance(block, VisionBlock)
            qkv = _by_rows(block.before, rows_at_once, x)
            x = _by_rows(block.after, rows_at_once, x, self._attend(qkv, areas))
        return x

    def _attend(self, qkv: Tensor, areas: list[int]) -> Tensor:
        """Full attention inside each picture: [N, 3C] -> [N, C], zeros in padding rows."""
        padding = len(qkv) - sum(areas)
        pieces = []
        for picture in torch.split(qkv, [*areas, padding])[: len(areas)]:
            query, key, value = picture.view(len(picture), 3, self.heads, -1).permute(1, 2, 0, 3)[:, None]
            pieces.append(F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1))
        pieces.append(qkv.new_zeros(padding, qkv.shape[1] // 3))
        return torch.cat(pieces)


class CodeBook(nn.Module):
    """The codes' directions; holds the released name `quantize.embedding`."""

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.embedding = Embedding(config.num_embeddings, config.embed_dim)


class Quantiser(nn.Module):
    """1x1 projections around the code book. `post_quant_conv` serves training; encoding does not use it."""

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.quantize = CodeBook(config)
        self.quant_conv = Conv2d(config.latent_channels, config.embed_dim, kernel_size=1)
        self.post_quant_conv = Conv2d(config.embed_dim, config.latent_channels, kernel_size=1)

    def project(self, x: Tensor) -> Tensor:
        """Features of the tower [N, C] -> what is quantised [N, L]."""
        return F.linear(x, self.quant_conv.weight.flatten(1), self.quant_conv.bias)

    def unproject(self, codes: Tensor) -> Tensor:
        """Directions of codes [N, L] -> [N, C]."""
        return F.linear(codes, self.post_quant_conv.weight.flatten(1), self.post_quant_conv.bias)

    def directions(self) -> Tensor:
        """The code book on the unit sphere, fp32 [codes, L]."""
        return F.normalize(self.quantize.embedding.weight.float(), dim=-1)

    def nearest(self, z: Tensor) -> Tensor:
        """Code of each row [N, L], int64 [N]: least squared distance on the unit sphere, lowest on a tie.

        On the sphere the distance is 2 - 2 cos, so the largest cosine decides. Always in fp32: a rounding of
        the distances to bf16 would make ties of most near neighbours.
        """
        return (F.normalize(z.float(), dim=-1) @ self.directions().T).argmax(-1)


class _Parts(nn.Module):
    """Holds the released name prefix `model.`."""

    def __init__(self, config: SigLIPVQConfig) -> None:
        super().__init__()
        self.visual = VisionTower(config.vision_config)
        self.vqmodel = Quantiser(config.vq_config)


class SigLIPVQ(nn.Module):
    """The released image tokenizer; meets `model.image_tokenizer.ImageTokenizer`."""

    name = "siglip-vq"
    is_embedded = False

    def __init__(self, config: SigLIPVQConfig, preprocessor: PreprocessorConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.preprocessor = preprocessor or PreprocessorConfig(patch_size=config.vision_config.patch_size)
        if self.preprocessor.patch_size != config.vision_config.patch_size:
            raise ValueError(
                f"the preprocessor cuts patches of {self.preprocessor.patch_size} pixels, the tower reads "
                f"{config.vision_config.patch_size}"
            )
        self.model = _Parts(config)
        self._digest: tuple[int, str] | None = None

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", dtype: torch.dtype | None = None) -> SigLIPVQ:
        """The tokenizer of a folder: `image_tokenizer/` of a checkpoint, or the checkpoint's own folder.

        Args:
            folder: holds `config.json`, `preprocessor_config.json` (optional) and
            `image_tokenizer.safetensors`. device: where it runs. dtype: what it computes in; default: as
            stored.

        Raises:
            ConfigError, CheckpointError: name the file, field or tensor at fault.
        """
        folder = _own_folder(Path(folder))
        with torch.device("meta"):
            tokenizer = cls(*_configs(folder))
        load_weights(tokenizer, folder, device=device, dtype=dtype, preferred=WEIGHT_NAMES)
        return tokenizer.eval()

    @classmethod
    def random(cls, config: SigLIPVQConfig, seed: int) -> SigLIPVQ:
        """Seeded random weights: for tests, for the demo, and to start training from."""
        tokenizer = cls(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in tokenizer.named_parameters():
                if parameter.ndim == 1:
                    parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                elif "position_embedding" in name:
                    parameter.normal_(0.0, config.vision_config.initializer_range, generator=generator)
                else:  # so that every layer keeps the scale of its input
                    parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
        return tokenizer.eval()

    def save(self, folder: Path | str) -> None:
        """Write what `load` reads, under the released file names."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write(folder / "config.json")
        self.preprocessor.write(folder / "preprocessor_config.json")
        save_weights(self, folder, name=WEIGHTS)

    @property
    def patch(self) -> int:
        """Pixels per side of a patch."""
        return self.config.vision_config.patch_size

    @property
    def codes(self) -> int:
        """Size of the code book."""
        return self.config.vq_config.num_embeddings

    @property
    def revision(self) -> str:
        """The first 12 hex digits of the fingerprint: the weights are the version."""
        return self.fingerprint()[:12]

    @property
    def packs_pictures(self) -> bool:
        """Whether several pictures share a matrix product: on a GPU, where small products waste it."""
        return self.model.vqmodel.quant_conv.weight.device.type != "cpu"

    def fingerprint(self) -> str:
        """SHA-256 of configuration, preprocessing, number format and all weights (not of the device)."""
        version = sum(tensor._version for tensor in self.state_dict(keep_vars=True).values())
        if self._digest is None or self._digest[0] != version:
            self._digest = (version, self._digest_of(sorted(self.state_dict().items())))
        return self._digest[1]

    @classmethod
    def identify(cls, folder: Path) -> TokenizerIdentity:
        """The identity of what `load` would load, holding one tensor at a time."""
        folder = _own_folder(folder)
        with torch.device("meta"):
            tokenizer = cls(*_configs(folder))
        stored = stored_tensors(folder, WEIGHT_NAMES)
        dtype = stored_dtype(stored)
        digest = tokenizer._digest_of((name, read_tensor(stored[name]).to(dtype)) for name in sorted(stored))
        return TokenizerIdentity(cls.name, digest[:12], digest, tokenizer.codes, cls.is_embedded)

    def _digest_of(self, tensors: Iterable[tuple[str, Tensor]]) -> str:
        digest = hashlib.sha256(f"{self.name} {VERSION} ".encode())
        digest.update(self.config.model_dump_json().encode())
        digest.update(self.preprocessor.model_dump_json().encode())
        for name, tensor in tensors:
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def encode(self, image: Pixels) -> Codes:
        """uint8 RGB [H, W, 3], sides multiples of `patch` -> int32 codes [H / patch, W / patch]."""
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[Pixels]) -> list[Codes]:
        """`encode` of each picture; they may differ in size, and each gets the codes it would get alone.

        Raises:
            ValueError: names the first picture that is no uint8 RGB or whose sides are no whole patches.
        """
        grids = [self._grid(image, i) for i, image in enumerate(images)]
        found: list[Codes] = []
        packed = self.packs_pictures
        for portion in _portions(grids, GPU_ROWS if packed else 0):
            rows = torch.cat([self.patch_rows(images[i]) for i in portion])
            mine = [grids[i] for i in portion]
            areas = [grid.area for grid in mine]
            codes = self._encode_rows(rows, mine, pad=packed)[: sum(areas)]
            for grid, part in zip(mine, torch.split(codes.cpu().int(), areas), strict=True):
                found.append(part.view(grid.height, grid.width).numpy())
        return found

    def _encode_rows(self, rows: Tensor, grids: Sequence[Grid], *, pad: bool) -> Tensor:
        """Codes int64 [N] of patch rows; with `pad`, every product sees exactly `GPU_ROWS` rows."""
        rows_at_once = GPU_ROWS if pad else CPU_ROWS
        if pad:
            rows = F.pad(rows, (0, 0, 0, -len(rows) % rows_at_once))
        return _by_rows(self.model.vqmodel.nearest, rows_at_once, self.features(rows, grids, rows_at_once))

    def features(self, rows: Tensor, grids: Sequence[Grid], rows_at_once: int = CPU_ROWS) -> Tensor:
        """What the quantiser sees: [N, L] for patch rows as in `VisionTower.forward`.

        Raises:
            ValueError: rows of another length than a patch, or fewer of them than the grids have patches.
        """
        patches, numbers = sum(grid.area for grid in grids), 3 * self.patch**2
        if rows.ndim != 2 or rows.shape[1] != numbers or len(rows) < patches:
            raise ValueError(f"rows must be [{patches} or more, {numbers}] for these grids, got {list(rows.shape)}")
        weight = self.model.vqmodel.quant_conv.weight
        x = self.model.visual(rows.to(weight.device, weight.dtype), grids, rows_at_once)
        return _by_rows(self.model.vqmodel.project, rows_at_once, x)

    def patch_rows(self, image: Pixels) -> Tensor:
        """Patches as the tower reads them: uint8 RGB [H, W, 3] -> fp32 [patches, 3 x patch x patch].

        A row runs over channel, pixel row, pixel column; bytes become (x / 255 - 0.5) / 0.5.
        """
        p, given = self.patch, self.preprocessor
        mean, std = (torch.tensor(values)[:, None, None] for values in (given.image_mean, given.image_std))
        pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
        scaled = (pixels * given.rescale_factor - mean) / std
        height, width = image.shape[0] // p, image.shape[1] // p
        return scaled.reshape(3, height, p, width, p).permute(1, 3, 0, 2, 4).reshape(-1, 3 * p * p)

    def _grid(self, image: Pixels, index: int) -> Grid:
        try:
            return check_pixels(image, self.patch)
        except ValueError as problem:
            raise ValueError(f"picture {index} of the batch: {problem}") from None


def _own_folder(folder: Path) -> Path:
    """The tokenizer's folder: `image_tokenizer/` of a checkpoint's, or the folder itself."""
    inner = folder / WEIGHTS
    return inner if (inner / "config.json").is_file() else folder


def _configs(folder: Path) -> tuple[SigLIPVQConfig, PreprocessorConfig | None]:
    config = SigLIPVQConfig.read(folder / "config.json")
    preprocessing = folder / "preprocessor_config.json"
    return config, PreprocessorConfig.read(preprocessing) if preprocessing.is_file() else None


def _portions(grids: Sequence[Grid], rows: int) -> Iterator[list[int]]:
    """Indices of pictures encoded together: as many as fit into `rows` patches, but at least one."""
    portion: list[int] = []
    filled = 0
    for i, grid in enumerate(grids):
        if portion and filled + grid.area > rows:
            yield portion
            portion, filled = [], 0
        portion.append(i)
        filled += grid.area
    if portion:
        yield portion


def _by_rows(function: Callable[..., Tensor], rows_at_once: int, *inputs: Tensor) -> Tensor:
    """Apply a row-wise function to [N, ...] inputs, `rows_at_once` rows at a time."""
    if len(inputs[0]) <= rows_at_once:
        return function(*inputs)
    pieces = zip(*(torch.split(x, rows_at_once) for x in inputs), strict=True)
    return torch.cat([function(*piece) for piece in pieces])
