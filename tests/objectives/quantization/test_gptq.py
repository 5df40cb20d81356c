"""GPTQ against its own definition: greedy rounding with the optimal compensation of the open channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from objectives.calibration.moments import Moment
from objectives.packing.codes import Codes
from objectives.quantization.gptq import Gptq, compensated
from objectives.quantization.grid import codes_on_grid, grid_of
from objectives.quantization.round_to_nearest import RoundToNearest


def problem(seed: int, out: int = 5, width: int = 96) -> tuple[Tensor, Tensor]:
    """A weight [out, in] and the moment [in, in] of correlated inputs of unequal power."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) * torch.rand(width, generator=generator)
    rows = torch.randn(400, width, generator=generator) @ mix
    return torch.randn(out, width, generator=generator), rows.t() @ rows / 400


def greedy(weight: Tensor, second: Tensor, scale: Tensor, zero: Tensor, bits: int, damping: float, order: Tensor):
    """One channel at a time, the inverse of the open channels' H taken anew: slow and plain, in fp64."""
    weight, count = weight.double().clone(), weight.shape[1]
    damped = second.double() + damping * second.diagonal().double().mean() * torch.eye(count, dtype=torch.float64)
    size = count // scale.shape[1]
    values = torch.empty(weight.shape, dtype=torch.int32)
    for position, channel in enumerate(order.tolist()):
        open_ = order[position:]
        inverse = torch.linalg.inv(damped[open_][:, open_])
        s, z = scale[:, channel // size].double(), zero[:, channel // size].double()
        half = 2 ** (bits - 1)
        code = torch.round((weight[:, channel] - z) / s).clamp(-half, half - 1)
        error = (weight[:, channel] - (code * s + z)) / inverse[0, 0]
        weight[:, open_] -= error[:, None] * inverse[0][None, :]
        values[:, channel] = (code + half).to(torch.int32)
    return values


def output_error(codes: Codes, weight: Tensor, second: Tensor) -> float:
    difference = (codes.dequantize() - weight).double()
    return (difference @ second.double() @ difference.t()).trace().item()


@pytest.mark.parametrize("by_activation", [False, True])
@pytest.mark.parametrize("bits", [4, 3])
def test_the_codes_are_those_of_the_plain_algorithm(bits: int, by_activation: bool) -> None:
    weight, second = problem(1)
    scale, zero = grid_of(weight, second.diagonal(), bits, 32, (1.0, 0.8))
    order = second.diagonal().argsort(descending=True) if by_activation else torch.arange(96)
    found = compensated(weight, second, scale, zero, bits, 0.01, order)
    wanted = greedy(weight, second, scale, zero, bits, 0.01, order)
    assert (found == wanted).float().mean() > 0.995  # fp32 may fall on the other side of a tie
    assert output_error(Codes(found, scale, zero, bits), weight, second) == pytest.approx(
        output_error(Codes(wanted, scale, zero, bits), weight, second), rel=1e-2
    )


@pytest.mark.parametrize("seed", range(3))
def test_compensation_lowers_the_output_error_of_rounding_to_nearest(seed: int) -> None:
    weight, second = problem(seed)
    moment = Moment(torch.zeros(96), second)
    nearest = RoundToNearest(bits=4, group_size=32).round(weight, moment, 4, 32)
    ours = Gptq(bits=4, group_size=32).round(weight, moment, 4, 32)
    assert output_error(ours, weight, second) < 0.7 * output_error(nearest, weight, second)


def test_with_independent_inputs_it_rounds_to_nearest() -> None:
    weight, _ = problem(3)
    second = torch.diag(torch.rand(96, generator=torch.Generator().manual_seed(4)) + 0.1)
    scale, zero = grid_of(weight, second.diagonal(), 4, 32, (1.0,))
    nearest = codes_on_grid(weight.view(5, 3, 32), scale, zero, 4).view(5, 96).to(torch.int32)
    assert torch.equal(compensated(weight, second, scale, zero, 4, 0.01), nearest)


def test_channels_that_are_always_zero_do_no_harm() -> None:
    weight, second = problem(5)
    second[:, 7] = second[7] = 0.0
    codes = Gptq(bits=4).round(weight, Moment(torch.zeros(96), second), 4, 32)
    assert codes.dequantize().isfinite().all()
    assert (codes.values >= 0).all()
    assert (codes.values <= 15).all()
