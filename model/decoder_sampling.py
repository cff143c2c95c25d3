"""How the decoder's velocity field becomes latents, and how it is trained.

Time t runs from 0 (noise x0) to 1 (data x1); x_t = t x1 + (1 - t) x0 and the network predicts v = x1 - x0.
The diffusers schedulers count sigma = 1 - t; their `shift` 6 is the released warp t / (t + 6 - 6t). Sources:
PAPER 2.3; released `decoder/transport`, `decoder/decode.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.libraries import library

Velocity = Callable[[Tensor, Tensor], Tensor]

NORMAL_STEPS = 50  # points of the time grid, one more than evaluations
TURBO_STEPS = 8  # evaluations
WARP = 6.0
GUIDANCE = 1.0


def guided(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Guidance with the norm clipped: pos + scale (pos - null), no longer than pos, sample by sample.

    Args:
        conditional: velocities [B, ...] given the condition.
        null: velocities [B, ...] given zeros.
        scale: 0 gives `conditional` back.
    """
    positive, negative = conditional.float(), null.float()
    pushed = positive + scale * (positive - negative)
    limit, length = (torch.linalg.vector_norm(x.flatten(1), dim=1) for x in (positive, pushed))
    shrink = torch.where(length > limit, limit / length, torch.ones_like(limit))
    return pushed * shrink.view(-1, *[1] * (pushed.ndim - 1))


def euler(velocity: Velocity, noise: Tensor, steps: int = NORMAL_STEPS) -> list[Tensor]:
    """Normal mode: Euler along the warped time grid, in fp32.

    Args:
        velocity: v(x [B, ...], t [B]) -> [B, ...].
        noise: x at t = 0, [B, ...].
        steps: points of the time grid; steps - 1 evaluations.

    Returns:
        x at every point of the grid, noise first.

    Raises:
        ValueError: fewer than 2 points.
    """
    library("diffusers")
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    if steps < 2:
        raise ValueError(f"steps is {steps}; a time grid has at least 2 points")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=WARP)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, steps)[:-1].tolist(), device=noise.device)
    trajectory = [noise.float()]
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        x = trajectory[-1]
        v = velocity(x, (1 - sigma).expand(len(x))).float()
        trajectory.append(scheduler.step(-v, timestep, x, return_dict=False)[0])
    return trajectory


def turbo(velocity: Velocity, noise: Tensor, fresh: Callable[[], Tensor], steps: int = TURBO_STEPS) -> Tensor:
    """Turbo mode for the distilled decoder: jump to the estimate of x1, re-noise to the next time, in fp64.

    The grid is uniform (the warp is not applied) and there is no guidance. Each step re-noises with FRESH
    noise, also the last one, whose noise has weight zero. (diffusers' stochastic Euler does the same in fp32
    with one generator for the whole batch; here every picture keeps its own.)

    Args:
        velocity: as for `euler`.
        noise: x at t = 0, [B, ...].
        fresh: draws the next fp64 noise, [B, ...].
        steps: evaluations.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; turbo takes at least 1")
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64).to(noise.dtype).to(torch.float64).tolist()
    x = noise.to(torch.float64)
    for now, later in itertools.pairwise(times):
        t = torch.full((len(x),), now, dtype=torch.float32, device=x.device)
        v = velocity(x, t)
        data = x + (1 - now) * v.to(torch.float64)
        x = later * data + (1 - later) * fresh()
    return x


def training_times(uniform: Tensor, tokens: int) -> Tensor:
    """Uniform times bent towards noise, more so for larger pictures.

    The log-shift is linear in the number of image tokens, through (256, 0.5) and (4096, 1.15).

    Args:
        uniform: draws in (0, 1), any shape.
        tokens: image tokens of the latents (patches of 2 x 2 latent pixels).
    """
    shift = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
    return uniform / (uniform + math.exp(shift) * (1 - uniform))


def flow_matching_loss(velocity: Velocity, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Mean squared error of the velocity at x_t = t data + (1 - t) noise: fp32 [B].

    Args:
        velocity: as for `euler`.
        data: latents x1, [B, ...].
        noise: x0, [B, ...].
        t: times [B].
    """
    weight = t.view(-1, *[1] * (data.ndim - 1))
    mixed = weight * data + (1 - weight) * noise
    error = velocity(mixed, t).float() - (data - noise).float()
    return error.square().flatten(1).mean(1)
