"""Layers born without weights: a checkpoint or a seeded `initialise` fills them, so torch need not draw any.

Besides wasted work, torch's own drawing costs seconds of imports on the meta device.
"""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """nn.Linear without its random start."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Embedding(nn.Embedding):
    """nn.Embedding without its random start."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Conv2d(nn.Conv2d):
    """nn.Conv2d without its random start."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""
