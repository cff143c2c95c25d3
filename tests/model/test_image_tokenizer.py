from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from model.image_tokenizer import (
    DrawingTokenizer,
    Grid,
    ImageTokenizer,
    check_pixels,
    load_image_tokenizer,
)


def test_a_grid_has_sides_of_at_least_one():
    assert Grid(3, 4).area == 12
    assert str(Grid(3, 4)) == "3x4"
    for sides in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="at least 1"):
            Grid(*sides)


def test_the_embedded_tokenizer_is_chosen_by_name():
    tokenizer = load_image_tokenizer("patch-vq")
    assert isinstance(tokenizer, ImageTokenizer)
    assert isinstance(tokenizer, DrawingTokenizer)
    assert (tokenizer.name, tokenizer.is_embedded, tokenizer.patch, tokenizer.codes) == (
        "patch-vq",
        True,
        16,
        1024,
    )


def test_a_fitted_code_book_is_chosen_by_its_file(tmp_path: Path):
    embedded = load_image_tokenizer("patch-vq")
    embedded.save(tmp_path / "book.npz")
    assert load_image_tokenizer(str(tmp_path / "book.npz")).fingerprint() == embedded.fingerprint()


def test_a_folder_is_a_siglip_vq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class SigLIPVQ:
        @staticmethod
        def load(folder: Path, device: str) -> tuple[Path, str]:
            return folder, device

    fake = types.ModuleType("model.siglip_vq")
    fake.SigLIPVQ = SigLIPVQ
    monkeypatch.setitem(sys.modules, "model.siglip_vq", fake)
    (tmp_path / "config.json").write_text("{}")
    assert load_image_tokenizer(str(tmp_path), device="cuda") == (tmp_path, "cuda")


@pytest.mark.parametrize("spec", ["patchvq", "/nowhere", ""])
def test_anything_else_is_refused_with_the_choices(spec: str):
    with pytest.raises(ValueError, match=f"image tokenizer '{spec}': say 'patch-vq'"):
        load_image_tokenizer(spec)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((16, 17, 3), np.uint8), "17x16 pixels: both sides must be multiples of 16"),
        (np.zeros((0, 16, 3), np.uint8), "multiples of 16"),
        (np.zeros((16, 16, 4), np.uint8), r"got uint8 \[16, 16, 4\]"),
        (np.zeros((16, 16), np.uint8), r"got uint8 \[16, 16\]"),
        (np.zeros((16, 16, 3), np.float32), "got float32"),
    ],
)
def test_pixels_of_a_wrong_shape_are_refused(image: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        check_pixels(image, 16)


def test_this_part_of_the_model_runs_without_torch():
    code = """
import sys
from model import grammar, image_tokenizer, patch_vq, resize, sequences, templates, text_tokenizer, vocabulary
image_tokenizer.load_image_tokenizer("patch-vq")
text_tokenizer.TextTokenizer.embedded()
print([name for name in ("torch", "safetensors", "skimage", "transformers") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
