from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from model.libraries import library

HERE = Path(__file__).parents[2]
needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="no torchvision here")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@needs_torchvision
def test_an_installed_torchvision_poisons_neither_transformers_nor_diffusers_nor_open_clip() -> None:
    code = (
        "from model.libraries import library\n"
        "assert library('transformers').SiglipModel and library('transformers').CLIPModel\n"
        "assert library('diffusers.models.autoencoders.autoencoder_kl').AutoencoderKL\n"
        "assert library('open_clip').create_model_and_transforms\n"
        "import torchvision.transforms.v2; print('fine')"
    )
    assert python(code) == "fine"


def test_a_library_that_is_not_installed_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_library"):
        library("no_such_library")


@needs_torchvision
def test_a_torchvision_of_another_torch_is_named() -> None:
    code = """
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == 'torchvision.extension':
            raise OSError('libcudart.so.13: cannot open shared object file\\nmore of it')
import sys
sys.meta_path.insert(0, Broken())
from model.libraries import library
try:
    library('transformers')
except ImportError as error:
    print(error)
"""
    said = python(code)
    assert said.startswith("torchvision 0.")
    assert "libcudart.so.13: cannot open shared object file; install the torchvision that belongs to" in said


def test_nothing_is_imported_at_import_time() -> None:
    assert python("import model.libraries, sys; print({'torch', 'torchvision'} & set(sys.modules))") == "set()"
