"""Pictures <-> grids of codes: the interface, and which tokenizer a recipe's one line chooses."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Codes = NDArray[np.int32]

PATCH = 16  # pixels per side of one token, in SigLIP-VQ as in the embedded quantiser


@dataclass(frozen=True, order=True)
class Grid:
    """Height and width of a picture counted in patches; both at least 1."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"grid {self.height}x{self.width}: both sides must be at least 1")

    @property
    def area(self) -> int:
        """Number of image tokens."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@runtime_checkable
class ImageTokenizer(Protocol):
    """Turns a picture into codes, one per patch in raster order; the same picture gives the same codes."""

    @property
    def name(self) -> str:
        """Short name, such as `patch-vq`."""

    @property
    def revision(self) -> str:
        """Version of its weights."""

    @property
    def is_embedded(self) -> bool:
        """True for the stand-in that ships with the project; outputs made with it say so."""

    @property
    def patch(self) -> int:
        """Pixels per side of a patch."""

    @property
    def codes(self) -> int:
        """Size of the code book."""

    def fingerprint(self) -> str:
        """Stable identity (hex) of everything that decides the codes."""

    def encode(self, image: Pixels) -> Codes:
        """uint8 RGB [height, width, 3], sides multiples of `patch` -> int32 [height/patch, width/patch]."""

    def encode_batch(self, images: Sequence[Pixels]) -> list[Codes]:
        """`encode` for several pictures, of any sizes; equal to encoding them one by one."""


@runtime_checkable
class DrawingTokenizer(ImageTokenizer, Protocol):
    """An image tokenizer that can also draw its codes back."""

    def decode(self, codes: Codes) -> Pixels:
        """int32 [grid height, grid width] -> uint8 RGB [grid height * patch, grid width * patch, 3]."""


def check_pixels(image: Pixels, patch: int) -> Grid:
    """Grid of a picture. Raises ValueError unless it is uint8 [H, W, 3] with H and W multiples of `patch`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    if height == 0 or width == 0 or height % patch or width % patch:
        raise ValueError(f"picture of {width}x{height} pixels: both sides must be multiples of {patch}; resize first")
    return Grid(height // patch, width // patch)


def load_image_tokenizer(spec: str, device: str = "cpu") -> ImageTokenizer:
    """The tokenizer a recipe names: `patch-vq` (embedded), a fitted `.npz`, or the folder of a SigLIP-VQ.

    `device` is where a SigLIP-VQ runs. Raises ValueError for anything else.
    """
    from model.patch_vq import PatchVQ

    if spec == "patch-vq":
        return PatchVQ.embedded()
    path = Path(spec)
    if path.suffix == ".npz" and path.is_file():
        return PatchVQ.load(path)
    if _holds_siglip_vq(path):
        # The real tokenizer needs torch, which the small install lacks.
        siglip_vq = importlib.import_module("model.siglip_vq")
        return cast("ImageTokenizer", siglip_vq.SigLIPVQ.load(path, device=device))
    raise ValueError(
        f"image tokenizer {spec!r}: say 'patch-vq' for the embedded one, or give a fitted .npz file "
        "or the folder of a SigLIP-VQ (with config.json)"
    )


def _holds_siglip_vq(path: Path) -> bool:
    return (path / "config.json").is_file() or (path / "image_tokenizer" / "config.json").is_file()


@dataclass(frozen=True)
class TokenizerIdentity:
    """What a plan must know of an image tokenizer: nothing of it is loaded into memory for that."""

    name: str
    revision: str
    fingerprint: str
    codes: int
    is_embedded: bool


def identify_image_tokenizer(spec: str) -> TokenizerIdentity:
    """The identity of what `load_image_tokenizer` would load; raises ValueError as it does."""
    path = Path(spec)
    if spec != "patch-vq" and _holds_siglip_vq(path):
        siglip_vq = importlib.import_module("model.siglip_vq")
        return cast("TokenizerIdentity", siglip_vq.SigLIPVQ.identify(path))
    tokenizer = load_image_tokenizer(spec)
    return TokenizerIdentity(
        tokenizer.name, tokenizer.revision, tokenizer.fingerprint(), tokenizer.codes, tokenizer.is_embedded
    )
