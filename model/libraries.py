"""The one door to libraries that look for torchvision: transformers, diffusers, open_clip.

PyPI's torchvision is built for CUDA. Beside a torch without it, its import fails over shape rules for operators
whose compiled part cannot be loaded, and merely being installed it takes transformers and diffusers down with it.
Declaring those operators is enough for the import and for transforms, which are plain torch; the operators
themselves stay missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

OPERATORS = ("nms", "qnms")
"""Operators that torchvision registers shape rules for as it is imported."""

_declared: list[Any] = []  # declarations last as long as the objects do


def library(name: str) -> ModuleType:
    """The module of that name (`transformers`, `diffusers.schedulers...`, `open_clip`), torchvision put right first.

    Raises ImportError where the module is not installed, or where the installed torchvision does not fit torch.
    """
    mend_torchvision()
    return importlib.import_module(name)


@cache
def mend_torchvision() -> None:
    """Make an installed torchvision importable, once per process; nothing happens where there is none.

    Raises ImportError, naming both versions, for a torchvision that cannot be imported for another reason.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    import torch

    try:
        importlib.import_module("torchvision")
        return
    except (ImportError, OSError, RuntimeError) as error:
        if "torchvision::" not in str(error) or torch.version.cuda is not None:
            raise _misfit(error) from error
    _forget_torchvision()
    _declare(torch)
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        raise _misfit(error) from error


def _declare(torch: Any) -> None:
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(declared)


def _forget_torchvision() -> None:
    """Drop what a failed import left behind."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _misfit(error: Exception) -> ImportError:
    from importlib.metadata import version

    pair = f"torchvision {version('torchvision')} beside torch {version('torch')}"
    first = str(error).strip().split("\n", maxsplit=1)[0]
    return ImportError(f"{pair} cannot be imported: {first}; install the torchvision that belongs to this torch")
