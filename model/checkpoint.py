"""Weights on disk: safetensors with or without an index, both expert layouts, bf16 and the FP8 release.

A module built on the meta device says what it needs; headers say what a folder holds; the two are compared in
full before a byte of weights is read. Loading then copies one piece after another into its place, so the peak
is the model and one piece. Names are those of the released repository.

Expert layouts of the backbone: *separate* (released; `experts.7.gate_proj.weight`) and *merged* (dFactory;
`experts.gate_proj`, stacked along a new first axis). The networks hold the merged form.

FP8 release: routed experts are `float8_e4m3fn` with one fp32 factor per 128 x 128 tile beside them
(`<name>_scale_inv`, a multiplier in spite of its name); `use_fp8_experts` in the config says so. Source:
public notes on the FP8 repository (sgl-project/sglang-omni pull request 1451), not the files themselves. They
are expanded while loading.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.backbone import Backbone
from model.configs import BackboneConfig

Layout = Literal["separate", "merged", "dense"]

FP8_TILE = 128
FP8_LARGEST = 448.0
FP8 = "F8_E4M3"
FACTOR_SUFFIXES = ("_scale_inv", "_scale")
PIECE_BYTES = 64 << 20
MAPPED_BYTES = 256 << 20
SHARD_BYTES = 5_000_000_000
SMALL_BYTES = 64 << 20

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F8_E4M3": torch.float8_e4m3fn}


class CheckpointError(ValueError):
    """A checkpoint that does not fit or cannot be read; the message names every file or tensor at fault."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint, known from its file's header.

    Attributes:
        file: the safetensors file.
        name: its name there.
        shape: axes as stored.
        dtype: safetensors' name of the type, such as `BF16`.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Slot:
    """A place in a module that one stored tensor fills: a whole parameter, or one expert of a merged one."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes that the stored tensor must have."""
        return tuple(self.tensor.shape)


def stored_tensors(folder: Path, preferred: tuple[str, ...] = ()) -> dict[str, StoredTensor]:
    """Every tensor a folder (or one safetensors file) holds, from headers alone.

    Args:
        folder: a folder with `*.safetensors.index.json`, or with safetensors files; or one such file.
        preferred: file names that win when the folder has several files and no index.

    Raises:
        CheckpointError: nothing is there, a file is missing, truncated or damaged, or index and files
        disagree.
    """
    if folder.is_file():
        return _header(folder)
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise CheckpointError(f"{folder}: {len(indices)} index files ({_names(indices)}); keep one")
    if indices:
        return _indexed(indices[0])
    files = sorted(folder.glob("*.safetensors"))
    chosen = [folder / name for name in preferred if folder / name in files][:1] or files
    if not chosen:
        raise CheckpointError(f"{folder}: no safetensors file and no index")
    if len(chosen) > 1:
        raise CheckpointError(f"{folder}: {len(files)} safetensors files ({_names(files)}) without an index")
    return _header(chosen[0])


def layout_of(names: Mapping[str, Any]) -> Layout:
    """Which expert layout a set of tensor names is in; `dense` when there are no routed experts."""
    after = [name.partition(".experts.")[2] for name in names if ".experts." in name]
    if not after:
        return "dense"
    return "separate" if after[0].split(".")[0].isdigit() else "merged"


def slots(module: nn.Module, layout: Layout, rename: Callable[[str], str] = str) -> dict[str, Slot]:
    """What `module` needs, by the names a checkpoint of that layout uses.

    Args:
        module: any module; its tensors may be on the meta device.
        layout: how the checkpoint stores experts.
        rename: from the module's own names to released names, where a library uses others.
    """
    needed: dict[str, Slot] = {}
    for name, tensor in module.state_dict().items():
        stem, _, last = name.rpartition(".")
        if stem.endswith(".experts") and layout != "merged":
            needed |= {rename(f"{stem}.{e}.{last}.weight"): Slot(tensor[e]) for e in range(len(tensor))}
        else:
            needed[rename(name)] = Slot(tensor)
    return needed


def compare(needed: Mapping[str, Slot], stored: Mapping[str, StoredTensor]) -> list[str]:
    """Every tensor that is missing, unexpected or of another shape, one line each, in order of names."""
    factors = _factor_names(stored)
    lines = []
    for name in sorted(set(needed) | set(stored) - set(factors.values())):
        if name not in stored:
            lines.append(f"missing tensor {name!r} of shape {list(needed[name].shape)}")
        elif name not in needed:
            lines.append(f"unexpected tensor {name!r} of shape {list(stored[name].shape)}")
        elif stored[name].shape != needed[name].shape:
            lines.append(
                f"tensor {name!r} has shape {list(stored[name].shape)}, the model needs {list(needed[name].shape)}"
            )
        elif stored[name].dtype not in DTYPES:
            lines.append(f"tensor {name!r} has type {stored[name].dtype}; readable are {', '.join(DTYPES)}")
        elif stored[name].dtype == FP8:
            lines.extend(_factor_problems(name, stored, factors))
    return lines


def load_weights(
    module: nn.Module,
    source: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    preferred: tuple[str, ...] = (),
    rename: Callable[[str], str] = str,
) -> None:
    """Fill `module` from a checkpoint, in place, whatever its layout and number format.

    Args:
        module: built on the meta device (nothing is then allocated twice) or anywhere else.
        source: folder or file, as for `stored_tensors`.
        device: where the weights go.
        dtype: their type; default: `stored_dtype`.
        preferred: as for `stored_tensors`.
        rename: as for `slots`.

    Raises:
        CheckpointError: names each missing, unexpected or mis-shaped tensor, before anything is allocated.
    """
    stored = stored_tensors(source, preferred)
    layout = layout_of(stored)
    problems = compare(slots(module, layout, rename), stored)
    if problems:
        raise CheckpointError(f"{source} does not fit the model:\n  " + "\n  ".join(problems))
    module.to(dtype or stored_dtype(stored))
    module.to_empty(device=device)
    _fill(slots(module, layout, rename), stored)


def stored_dtype(stored: Mapping[str, StoredTensor]) -> torch.dtype:
    """The type to compute in: the widest among the matrices that are stored unquantised."""
    factors = set(_factor_names(stored).values())
    found = {
        DTYPES[tensor.dtype]
        for name, tensor in stored.items()
        if len(tensor.shape) > 1 and name not in factors and tensor.dtype in DTYPES and tensor.dtype != FP8
    }
    return max(found or {torch.float32}, key=lambda dtype: (dtype.itemsize, dtype == torch.bfloat16))


def read_tensor(stored: StoredTensor) -> Tensor:
    """The values of one tensor, as stored."""
    tensor: Tensor = _opened(stored.file).get_tensor(stored.name)
    return tensor


def save_weights(
    module: nn.Module,
    folder: Path,
    *,
    layout: Layout = "separate",
    fp8_experts: bool = False,
    name: str = "model",
    largest_shard: int = SHARD_BYTES,
    rename: Callable[[str], str] = str,
) -> list[Path]:
    """Write a module's weights as safetensors, in one file or in shards with an index.

    Args:
        module: its tensors are written in their own types.
        folder: created when absent.
        layout: how to store experts.
        fp8_experts: quantise routed experts as the FP8 release does (separate layout only).
        name: stem of the files.
        largest_shard: bytes of one file; a fifth of the model is used when that is less (but at least 64
        MiB),
            since some versions of safetensors copy a whole file's tensors while writing.
        rename: as for `slots`.

    Returns:
        The weight files, in order.

    Raises:
        CheckpointError: the folder holds weights of that name in another number of files.
    """
    from safetensors.torch import save_file

    if fp8_experts and layout != "separate":
        raise CheckpointError(f"FP8 experts are written in the separate layout, not in {layout!r}")
    folder.mkdir(parents=True, exist_ok=True)
    places = slots(module, layout, rename)
    total = sum(slot.tensor.nbytes for slot in places.values())
    groups = _groups(places, max(SMALL_BYTES, min(largest_shard, total // 5)))
    files = [folder / _shard_name(name, i, len(groups)) for i in range(len(groups))]
    strangers = sorted(set(folder.glob(f"{name}*.safetensors")) - set(files))
    if strangers:
        raise CheckpointError(f"{folder}: already holds other weights ({_names(strangers)}); save elsewhere")
    where: dict[str, str] = {}
    for file, group in zip(files, groups, strict=True):
        tensors = dict(_encoded(group, fp8_experts))
        save_file(tensors, file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file.name)
    index = folder / f"{name}.safetensors.index.json"
    index.unlink(missing_ok=True)
    if len(files) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}, indent=2)
        index.write_text(text + "\n", encoding="utf-8")
    return files


def quantise_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] as `float8_e4m3fn` [out, in] and fp32 factors [ceil(out/128), ceil(in/128)]."""
    rows, columns = (-(-side // FP8_TILE) for side in weight.shape)
    padded = torch.zeros(rows * FP8_TILE, columns * FP8_TILE)
    padded[: weight.shape[0], : weight.shape[1]] = weight.float()
    largest = padded.view(rows, FP8_TILE, columns, FP8_TILE).abs().amax(dim=(1, 3))
    factors = (largest / FP8_LARGEST).clamp(min=1e-12)
    return (weight.float() / _spread(factors, weight.shape)).to(torch.float8_e4m3fn), factors


def expand_fp8(weight: Tensor, factors: Tensor) -> Tensor:
    """The fp32 numbers that FP8 `weight` [..., out, in] and its factors stand for."""
    return weight.float() * _spread(factors, weight.shape)


def _spread(factors: Tensor, shape: torch.Size) -> Tensor:
    wide = factors.float().repeat_interleave(FP8_TILE, -2).repeat_interleave(FP8_TILE, -1)
    return wide[..., : shape[-2], : shape[-1]]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _header(file: Path) -> dict[str, StoredTensor]:
    with _opened(file) as handle:
        found = {}
        for name in sorted(handle.keys()):
            part = handle.get_slice(name)
            found[name] = StoredTensor(file, name, tuple(part.get_shape()), part.get_dtype())
        return found


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file") from None
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(f"{file}: truncated or damaged ({problem}); fetch it again") from None


def _indexed(index: Path) -> dict[str, StoredTensor]:
    try:
        where = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{index}: no weight_map in it ({problem!r})") from None
    files = {name: _header(index.parent / name) for name in sorted(set(where.values()))}
    stored = {name: tensor for held in files.values() for name, tensor in held.items()}
    problems = [
        f"the index places tensor {name!r} in {file}, which does not hold it"
        for name, file in sorted(where.items())
        if name not in files[file]
    ]
    problems += [
        f"tensor {name!r} is in {tensor.file.name} but not in the index"
        for name, tensor in stored.items()
        if name not in where
    ]
    if problems:
        raise CheckpointError(f"{index}:\n  " + "\n  ".join(problems))
    return stored


def _factor_names(stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """For each FP8 tensor that has them, the name of its factors."""
    return {
        name: name + suffix
        for name, tensor in stored.items()
        if tensor.dtype == FP8
        for suffix in FACTOR_SUFFIXES
        if name + suffix in stored
    }


def _factor_problems(name: str, stored: Mapping[str, StoredTensor], factors: Mapping[str, str]) -> list[str]:
    shape = stored[name].shape
    expected = [*shape[:-2], *(-(-side // FP8_TILE) for side in shape[-2:])]
    if name not in factors:
        return [f"FP8 tensor {name!r} has no factors {name + FACTOR_SUFFIXES[0]!r} of shape {expected}"]
    found = list(stored[factors[name]].shape)
    if found != expected:
        return [f"FP8 factors {factors[name]!r} have shape {found}, {expected} are needed"]
    return []


def _fill(places: Mapping[str, Slot], stored: Mapping[str, StoredTensor]) -> None:
    """Copy every stored tensor into its slot, file by file, piece by piece."""
    factors = _factor_names(stored)
    total = sum(slot.tensor.nbytes for slot in places.values())
    most_mapped, piece = min(MAPPED_BYTES, total // 10), min(PIECE_BYTES, total // 20)
    for file in sorted({stored[name].file for name in places}):
        handle, mapped = _opened(file), 0
        for name in (name for name in places if stored[name].file == file):
            quantised = name in factors
            for part, target in _pieces(places[name].tensor, piece, whole=quantised):
                # Pages of a mapped file count as ours until it is closed, so open it anew now and then.
                mapped += target.nbytes
                if mapped > most_mapped:
                    handle, mapped = _opened(file), target.nbytes
                values = handle.get_slice(name)[part] if target.ndim else handle.get_tensor(name)
                if quantised:
                    beside = stored[factors[name]]
                    values = expand_fp8(values, _opened(beside.file).get_slice(beside.name)[part])
                target.copy_(values)
                del values


def _pieces(target: Tensor, most: int, *, whole: bool) -> Iterator[tuple[Any, Tensor]]:
    """Views of `target` along its first axis, none larger than `most` bytes (or one row).

    A `whole` matrix is not cut (its factors lie on tiles that a cut could split); a stack of them still is.
    """
    if target.ndim < (3 if whole else 2) or target.nbytes <= most:
        yield slice(None), target
        return
    step = max(1, most // (target.nbytes // len(target)))
    for start in range(0, len(target), step):
        yield slice(start, start + step), target[start : start + step]


def _groups(places: Mapping[str, Slot], largest: int) -> list[dict[str, Tensor]]:
    """The tensors in order, cut into groups of at most `largest` bytes (a larger tensor stands alone)."""
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, slot in places.items():
        if groups[-1] and filled + slot.tensor.nbytes > largest:
            groups.append({})
            filled = 0
        groups[-1][name] = slot.tensor
        filled += slot.tensor.nbytes
    return groups


def _shard_name(stem: str, index: int, count: int) -> str:
    if count == 1:
        return f"{stem}.safetensors"
    return f"{stem}-{index + 1:05d}-of-{count:05d}.safetensors"


def _encoded(group: Mapping[str, Tensor], fp8_experts: bool) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in group.items():
        if fp8_experts and ".experts." in name:
            quantised, factors = quantise_fp8(tensor.cpu())
            yield name, quantised
            yield name + FACTOR_SUFFIXES[0], factors
        else:
            yield name, tensor.cpu().contiguous()


def load_backbone(folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Backbone:
    """The backbone of a checkpoint folder, in evaluation mode.

    Args:
        folder: holds `config.json` and the weights, in either layout, plain or FP8.
        device: where the weights go.
        dtype: their type; default: the config's `torch_dtype`.

    Raises:
        ConfigError, CheckpointError: as `BackboneConfig.read` and `load_weights` do.
    """
    config = BackboneConfig.read(folder / "config.json")
    with torch.device("meta"):
        model = Backbone(config)
    load_weights(model, folder, device=device, dtype=dtype or getattr(torch, config.torch_dtype))
    return model.eval()


def save_backbone(
    model: Backbone, folder: Path, *, layout: Layout = "separate", fp8_experts: bool = False
) -> list[Path]:
    """Write `config.json` and the weights; `load_backbone` reads them back. Returns the weight files.

    The config says what was written: `use_fp8_experts`, the type of the weights, and dFactory's model type
    for the merged layout.
    """
    files = save_weights(model, folder, layout=layout, fp8_experts=fp8_experts)
    changes = {
        "use_fp8_experts": fp8_experts,
        "torch_dtype": str(model.lm_head.weight.dtype).removeprefix("torch."),
        "model_type": "llada2_moe_veomni" if layout == "merged" else "llada2_moe",
    }
    model.config.model_copy(update=changes).write(folder / "config.json")
    return files
