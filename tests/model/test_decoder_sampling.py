from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.decoder_sampling import euler, flow_matching_loss, guided, training_times, turbo
from tests.model import parity


def test_guidance_is_never_longer_than_the_conditional_velocity() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, null = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    null[1] = positive[1] * 1.5  # pushing away from it shortens
    result = guided(positive, null, 2.0)
    pushed = positive + 2 * (positive - null)
    assert torch.allclose(result[0].norm(), positive[0].norm())
    assert torch.allclose(result[0] / result[0].norm(), pushed[0] / pushed[0].norm())
    assert torch.equal(result[1], pushed[1])
    assert torch.equal(guided(positive, null, 0.0), positive)
    assert torch.equal(guided(torch.zeros(1, 2), torch.zeros(1, 2), 1.0), torch.zeros(1, 2))


def test_euler_follows_the_warped_grid() -> None:
    seen: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t.item())
        return torch.full_like(x, 2.0)

    noise = torch.tensor([[1.0]])
    trajectory = euler(velocity, noise, 5)
    grid = np.linspace(0, 1, 5)
    warped = grid / (grid + 6 - 6 * grid)
    assert np.allclose(seen, warped[:-1], atol=1e-6)
    assert np.allclose([x.item() for x in trajectory], 1 + 2 * warped, atol=1e-6)


def test_a_straight_field_is_integrated_exactly_by_both_samplers() -> None:
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    # The field of a single data point: from any x at time t it leads straight to it.
    field = lambda x, t: (data - x) / (1 - t)[:, None]  # noqa: E731
    assert torch.allclose(euler(field, noise, 7)[-1], data, atol=1e-5)
    final = turbo(field, noise, lambda: torch.randn(2, 3, generator=generator, dtype=torch.float64), 4)
    assert final.dtype == torch.float64
    assert torch.allclose(final.float(), data, atol=1e-5)


def test_turbo_re_noises_to_each_next_time() -> None:
    states, draws = [], iter(torch.tensor([[10.0], [20.0]], dtype=torch.float64))

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        states.append((t.item(), x.item()))
        return torch.ones_like(x)

    final = turbo(velocity, torch.tensor([3.0]), lambda: next(draws), 2)
    # x1 estimate 3 + 1 = 4; then 0.5 * 4 + 0.5 * 10 = 7; estimate 7 + 0.5; the last noise has weight zero.
    assert states == [(0.0, 3.0), (0.5, 7.0)]
    assert final.item() == 7.5


def test_training_times_bend_more_for_larger_pictures() -> None:
    u = torch.linspace(0.01, 0.99, 9)
    small, large = training_times(u, 256), training_times(u, 4096)
    assert (large < small).all()
    assert (small < u).all()
    assert torch.allclose(small, u * np.exp(-0.5) / (1 - u + u * np.exp(-0.5)))


def test_the_loss_is_zero_for_the_true_velocity_only() -> None:
    data, noise, t = torch.ones(2, 4), torch.zeros(2, 4), torch.tensor([0.25, 0.5])
    true = flow_matching_loss(lambda x, t: (data - x) / (1 - t)[:, None], data, noise, t)
    assert torch.allclose(true, torch.zeros(2), atol=1e-12)
    assert torch.equal(flow_matching_loss(lambda x, t: torch.zeros_like(x), data, noise, t), torch.ones(2))


@pytest.mark.parametrize(("sampler", "steps"), [(euler, 1), (turbo, 0)])
def test_too_few_steps_are_refused(sampler: object, steps: int) -> None:
    arguments = (None, torch.zeros(1), steps) if sampler is euler else (None, torch.zeros(1), None, steps)
    with pytest.raises(ValueError, match=f"steps is {steps}; "):
        sampler(*arguments)  # type: ignore[operator]


@pytest.mark.golden
def test_time_shift_matches_the_reference() -> None:
    stored = parity.numbers(parity.golden_folder("decoder") / "io.json")["training_time_shift"]
    found = training_times(torch.tensor(stored["inputs"]), stored["mu_from_seq_len"])
    parity.close("decoder/training_time_shift", found, stored["outputs"])
