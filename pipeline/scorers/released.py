"""Folders as models are released in: `config.json`, weights under the release's own names, tokenizer files.

Nothing here runs code from the folder, unpickles objects or asks a network. What is wrong is said with the file and
the tensor or token at fault, as UserError.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from catalog.errors import UserError
from model.checkpoint import DTYPES, CheckpointError, Slot, StoredTensor, compare, read_tensor, stored_tensors
from model.libraries import library
from pipeline.scorers.checkpoint import read_json

SHOWN = 8
"""Misfits named in a message; the rest is counted."""


class Part(BaseModel):
    """Base of what is read from a release's JSON files; keys that no field names are none of our business."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Config = TypeVar("Config", bound=Part)


@dataclass(frozen=True)
class Place:
    """Where a module's tensor lies in a release: the tensor `name`, or piece `piece` of it, cut along its first axis.

    Pieces of one name may differ in length; they follow one another without gaps.
    """

    name: str
    piece: int = 0


@dataclass(frozen=True)
class Names:
    """How a release names a module's tensors.

    `place`: from a module's own name. `optional`: released names the module can do without, since it computes the same
    values. `ignored`: released names that no module needs.
    """

    place: Callable[[str], Place] = Place
    optional: Callable[[str], bool] = lambda name: False
    ignored: Callable[[str], bool] = lambda name: False


class Tokens(Protocol):
    """A text tokenizer: no special tokens are added."""

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""

    def id_of(self, token: str) -> int | None:
        """The id of one entry of the vocabulary, None when it has none."""


def transformers() -> Any:
    """The library of that name."""
    return library("transformers")


def read_config(folder: Path, model_type: str, schema: type[Config]) -> Config:
    """`config.json` of a release of that architecture.

    Raises UserError: no such file, another `model_type`, LoRA weights alone, or a value that `schema` refuses.
    """
    path = folder / "config.json"
    if not path.exists() and (folder / "adapter_config.json").exists():
        raise UserError(f"{folder}: holds LoRA weights alone; merge them into their base model first")
    data = read_json(path)
    found = data.get("model_type")
    if found != model_type:
        raise UserError(f"{path}: model_type is {found!r}, must be {model_type!r}")
    return parse(path, data, schema)


def parse(path: Path, data: Mapping[str, Any], schema: type[Config]) -> Config:
    """The values of a JSON object as `schema` wants them; raises UserError naming the first that does not fit."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {place}: {first['msg']}" if place else f"{path}: {first['msg']}") from error


def check_fits(module: nn.Module, folder: Path, names: Names = Names()) -> None:
    """Compare what a module needs with what the folder holds, from headers alone.

    Raises UserError naming tensors that are missing, left over, or of another shape or type.
    """
    _fitting(module, folder, names)


def load_released(
    module: nn.Module,
    folder: Path,
    names: Names = Names(),
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Fill a module from a release, in place, tensor by tensor; it comes out in evaluation mode.

    Args:
        module: may stand on the meta device; buffers that its state dict leaves out are the caller's.
        folder: `*.safetensors` or `pytorch_model*.bin`, with an index or alone.
        names: how the release names the tensors.
        device: where they go.
        dtype: the type to compute in.

    Raises:
        UserError: as `check_fits`, before anything is allocated.
    """
    pieces, stored = _fitting(module, folder, names)
    own = module.state_dict()
    # What is not stored was computed when the module was built, and must survive the move.
    kept = {name: own[name].clone() for name in own if names.place(name).name not in stored}
    module.to(dtype)
    module.to_empty(device=device)
    filled = module.state_dict()
    for name, values in kept.items():
        filled[name].copy_(values)
    for released, members in pieces.items():
        values = _read(stored[released])
        start = 0
        for name in members:
            length = len(filled[name]) if len(members) > 1 else None
            filled[name].copy_(values[start : start + length] if length else values)
            start += length or 0
    module.eval().requires_grad_(False)


def _fitting(module: nn.Module, folder: Path, names: Names) -> tuple[dict[str, list[str]], dict[str, StoredTensor]]:
    """Module names by the released tensor that fills them (pieces in order), and what is stored under those."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the checkpoint of this model is a folder")
    own = module.state_dict()
    pieces: dict[str, list[str]] = {}
    for name in sorted(own, key=lambda name: names.place(name).piece):
        pieces.setdefault(names.place(name).name, []).append(name)
    stored = {name: tensor for name, tensor in _stored(folder).items() if not names.ignored(name)}
    pieces = {name: members for name, members in pieces.items() if name in stored or not names.optional(name)}
    needed = {name: Slot(_joined([own[member] for member in members])) for name, members in pieces.items()}
    problems = compare(needed, stored)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise UserError(f"{folder} does not fit the model: " + "; ".join(problems[:SHOWN] + more))
    return pieces, stored


def _joined(tensors: list[Tensor]) -> Tensor:
    """A tensor of the shape that these have one after the other; nothing is allocated."""
    first = tensors[0]
    rows = (sum(len(tensor) for tensor in tensors),) if first.ndim else ()
    return torch.empty((*rows, *first.shape[1:]), device="meta")


def _stored(folder: Path) -> dict[str, StoredTensor]:
    try:
        if not any(folder.glob("*.safetensors")) and any(folder.glob("pytorch_model*.bin")):
            return _stored_bin(folder)
        return stored_tensors(folder)
    except CheckpointError as error:
        raise UserError(" ".join(str(error).split())) from error


def _stored_bin(folder: Path) -> dict[str, StoredTensor]:
    index = folder / "pytorch_model.bin.index.json"
    files = {"pytorch_model.bin"}
    if index.exists():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not where:
            raise UserError(f"{index}: no weight_map in it")
        files = set(where.values())
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    return {
        name: StoredTensor(folder / file, name, tuple(tensor.shape), kinds.get(tensor.dtype, str(tensor.dtype)))
        for file in sorted(files)
        for name, tensor in _tensors_of(folder / file).items()
    }


def _tensors_of(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.bin` file, mapped and not read; a file that holds anything else is refused."""
    try:
        stat = file.stat()
        return _mapped(file, stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file, and the index names it") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).split("\n", maxsplit=1)[0]
        raise UserError(f"{file}: damaged, or holds more than tensors: {first}") from error


@lru_cache(maxsize=16)
def _mapped(file: Path, _size: int, _mtime_ns: int) -> dict[str, Tensor]:
    """Kept, so that a file is not opened anew for every tensor."""
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file}: holds more than tensors")
    return found


def _read(stored: StoredTensor) -> Tensor:
    if stored.file.suffix == ".bin":
        return _tensors_of(stored.file)[stored.name]
    return read_tensor(stored)


def read_tokens(folder: Path, extra: str) -> Tokens:
    """The tokenizer of a release: `tokenizer.json`, SentencePiece's `tokenizer.model`, or Qwen's vocabulary and merges.

    `extra`: what brings SentencePiece. Raises UserError.
    """
    if (folder / "tokenizer.json").exists():
        return _tokens_from_json(folder / "tokenizer.json")
    if (folder / "tokenizer.model").exists():
        return _SentencePieces(folder / "tokenizer.model", extra)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _tokens_of_qwen(folder)
    raise UserError(f"{folder}: no tokenizer.json, tokenizer.model, or vocab.json with merges.txt")


@dataclass(frozen=True)
class _FastTokens:
    """A tokenizer of the `tokenizers` library."""

    tokenizer: Any

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def id_of(self, token: str) -> int | None:
        found: int | None = self.tokenizer.token_to_id(token)
        return found


def _tokens_from_json(path: Path) -> Tokens:
    from tokenizers import Tokenizer

    try:
        return _FastTokens(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: cannot be read as a tokenizer: {error}") from error


def _tokens_of_qwen(folder: Path) -> Tokens:
    try:
        return _FastTokens(
            transformers().Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
        )
    except Exception as error:  # the library raises whatever its parts raise
        raise UserError(f"{folder}: its tokenizer cannot be read: {error}") from error


class _SentencePieces:
    """LLaMA's tokenizer as its release reads it: SentencePiece, with a space before the text."""

    def __init__(self, path: Path, extra: str) -> None:
        if importlib.util.find_spec("sentencepiece") is None:
            raise UserError(f"{path} needs sentencepiece; install it with: pip install 'unifactory[{extra}]'")
        sentencepiece = importlib.import_module("sentencepiece")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be read as a SentencePiece model: {error}") from error

    def ids(self, text: str) -> list[int]:
        return list(self._pieces.encode(text))

    def id_of(self, token: str) -> int | None:
        found: int = self._pieces.piece_to_id(token)
        return None if found == self._pieces.unk_id() else found


def token_ids(tokens: Tokens, wanted: Iterable[str], folder: Path, what: str) -> list[int]:
    """The ids of vocabulary entries, all there and all different; raises UserError naming the first that is not."""
    found: dict[int, str] = {}
    for token in wanted:
        number = tokens.id_of(token)
        if number is None:
            raise UserError(f"{folder}: the tokenizer has no token {token!r}, {what}")
        if number in found:
            raise UserError(f"{folder}: {token!r} and {found[number]!r} are one token, {what}")
        found[number] = token
    return list(found)


def word_ids(tokens: Tokens, words: Iterable[str], folder: Path, what: str) -> list[int]:
    """The ids of words that are one token each, at the beginning of a word; raises UserError naming the first that is
    not."""
    found: dict[int, str] = {}
    for word in words:
        numbers = tokens.ids(word)
        if len(numbers) != 1:
            raise UserError(f"{folder}: {word!r}, {what}, is {len(numbers)} tokens of its tokenizer, must be one")
        if numbers[0] in found:
            raise UserError(f"{folder}: {word!r} and {found[numbers[0]]!r} are one token, {what}")
        found[numbers[0]] = word
    return list(found)


def expectation(logits: Tensor, values: Iterable[float]) -> tuple[float, list[float]]:
    """The mean of `values` [n] under softmax(`logits` [n]), within their range, and the probabilities; in float64."""
    scale = torch.tensor(list(values), dtype=torch.float64)
    shares = torch.softmax(logits.to("cpu", torch.float64), -1)
    mean = (shares @ scale).clamp(scale.min(), scale.max())
    return float(mean), shares.tolist()
