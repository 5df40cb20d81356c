"""The mathematics of pruning against its definition: remove the channels, look at the output."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives.calibration.moments import Moment
from objectives.pruning.criteria.activation import activation_scores
from objectives.pruning.criteria.magnitude import magnitude_scores
from objectives.pruning.reconstruction import reconstruct

seeds = st.integers(0, 10**6)


def random(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def correlated(seed: int, rows: int, channels: int) -> Tensor:
    """Inputs whose channels lean on each other, differ in power and have means."""
    noise, mix, mean = random(seed, (rows, channels), (channels, channels), (channels,))
    return noise @ mix * torch.logspace(-1, 1, channels) + 3 * mean


def moment_of(inputs: Tensor) -> Moment:
    return Moment(inputs.mean(dim=0), inputs.t() @ inputs / len(inputs))


@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 7))
def test_the_score_is_the_mean_squared_change_of_the_output(seed: int, sets: int, width: int, out: int) -> None:
    inputs = correlated(seed, 40, sets * width)
    (weight,) = random(seed + 1, (out, sets * width))
    scores = activation_scores(weight, moment_of(inputs).second, width)
    for index in range(sets):
        without = inputs.clone()
        without[:, index * width : (index + 1) * width] = 0
        change = ((inputs - without) @ weight.t()).double().square().sum(dim=1).mean()
        assert scores[index].item() == pytest.approx(change.item(), rel=1e-3)


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_the_reference_score_is_the_squared_norm_of_what_is_cut(seed: int, sets: int, width: int) -> None:
    (weight,) = random(seed, (3, sets * width))
    parts = weight.split(width, dim=1)
    torch.testing.assert_close(magnitude_scores(weight, width), torch.stack([part.norm().square() for part in parts]))


def fitted(inputs: Tensor, weight: Tensor, bias: Tensor | None, kept: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The same problem on the explicit data in fp64: ridge rows below the inputs, a column of ones for the bias."""
    inputs, weight = inputs.double(), weight.double()
    target, part = inputs @ weight.t(), inputs[:, kept]
    power = part if bias is None else part - part.mean(dim=0)
    damping = (ridge * len(inputs) * power.square().mean()).sqrt()
    rows = torch.cat([part, damping * torch.eye(len(kept), dtype=torch.float64)])
    target = torch.cat([target, damping * weight[:, kept].t()])
    if bias is None:
        return torch.linalg.lstsq(rows, target).solution.t(), torch.zeros(len(weight))
    ones = torch.cat([torch.ones(len(inputs)), torch.zeros(len(kept))]).double().unsqueeze(1)
    solution = torch.linalg.lstsq(torch.cat([rows, ones], dim=1), target).solution
    return solution[:-1].t(), solution[-1] + bias.double()


@given(seeds, st.booleans(), st.sampled_from([1e-5, 0.01, 1.0, 100.0]), st.integers(1, 7))
def test_reconstruction_is_least_squares_on_the_explicit_data(
    seed: int, with_bias: bool, ridge: float, count: int
) -> None:
    (noise, mean), (weight, shift) = random(seed, (200, 8), (8,)), random(seed + 1, (5, 8), (5,))
    inputs = noise + 0.3 * noise.roll(1, dims=1) + mean
    bias = shift if with_bias else None
    kept = torch.randperm(8, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    got_weight, got_bias = reconstruct(weight, bias, moment_of(inputs), kept, ridge)
    want_weight, want_bias = fitted(inputs, weight, bias, kept, ridge)
    torch.testing.assert_close(got_weight.double(), want_weight, rtol=2e-3, atol=2e-3)
    assert (got_bias is None) == (bias is None)
    if got_bias is not None:
        torch.testing.assert_close(got_bias.double(), want_bias, rtol=2e-3, atol=5e-3)


def error_of(inputs: Tensor, weight: Tensor, bias: Tensor, kept: Tensor, new: Tensor, new_bias: Tensor) -> float:
    change = inputs @ weight.t() + bias - inputs[:, kept] @ new.t() - new_bias
    return change.double().square().sum(dim=1).mean().item()


@given(seeds, st.booleans(), st.sampled_from([1e-4, 0.01, 0.5]), st.integers(1, 9), st.integers(2, 60))
def test_reconstruction_is_never_worse_than_cutting_on_the_calibration_data(
    seed: int, with_bias: bool, ridge: float, count: int, rows: int
) -> None:
    inputs, (weight, shift) = correlated(seed, rows, 10), random(seed + 1, (4, 10), (4,))
    bias = shift if with_bias else torch.zeros(4)
    kept = torch.arange(count)
    new, new_bias = reconstruct(weight, bias if with_bias else None, moment_of(inputs), kept, ridge)
    fit = error_of(inputs, weight, bias, kept, new, bias if new_bias is None else new_bias)
    cut = error_of(inputs, weight, bias, kept, weight[:, kept], bias)
    assert fit <= cut * (1 + 1e-4)


@given(seeds, st.booleans())
def test_channels_that_are_combinations_of_kept_ones_are_not_missed(seed: int, with_bias: bool) -> None:
    free, mix, weight, shift = random(seed, (100, 6), (6, 4), (5, 10), (5,))
    constant = 2.0 if with_bias else 0.0  # a bias can also carry what never changes
    inputs = torch.cat([free, free @ mix + constant], dim=1)
    kept = torch.arange(6)
    new, new_bias = reconstruct(weight, shift if with_bias else None, moment_of(inputs), kept, 1e-7)
    bias = new_bias if new_bias is not None else torch.zeros(5)
    wanted = inputs @ weight.t() + (shift if with_bias else 0.0)
    torch.testing.assert_close(inputs[:, kept] @ new.t() + bias, wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("with_bias", [False, True])
def test_inputs_that_calibration_never_showed_keep_their_weights(with_bias: bool) -> None:
    inputs = torch.zeros(20, 6)
    weight, shift = random(0, (3, 6), (3,))
    kept = torch.tensor([0, 2, 5])
    new, new_bias = reconstruct(weight, shift if with_bias else None, moment_of(inputs), kept, 0.01)
    torch.testing.assert_close(new, weight[:, kept])
    if new_bias is not None:
        torch.testing.assert_close(new_bias, shift)
