"""Descent lowers GPTQ's loss step by step, and leaves zeros where they may lie."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objectives.calibration.moments import Moment
from objectives.packing.codes import Codes
from objectives.quantization.descent import chosen_again, descended, fitted
from objectives.quantization.gptq import Gptq, damped
from objectives.quantization.rounding import ZeroPlace

PLACES: tuple[ZeroPlace, ...] = ("free", "whole", "middle")
OUT, IN, GROUP = 24, 128, 32


def problem() -> tuple[Tensor, Tensor]:
    """Return a weight, and a moment of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, IN, generator=generator) @ torch.randn(IN, IN, generator=generator)
    return torch.randn(OUT, IN, generator=generator), inputs.t() @ inputs / 400


def rounded(place: ZeroPlace, descent: int = 0) -> Codes:
    weight, second = problem()
    return Gptq(bits=4, zero=place, descent=descent).round(weight, Moment(torch.zeros(IN), second), 4, GROUP)


def losses(codes: Codes) -> Tensor:
    weight, second = problem()
    error = (codes.dequantize() - weight).double()
    return ((error @ damped(second, 0.01).double()) * error).sum(dim=1)


@pytest.mark.parametrize("place", PLACES)
def test_each_step_lowers_the_loss_of_every_output(place: ZeroPlace) -> None:
    weight, second = problem()
    codes = rounded(place)
    for _ in range(2):
        before, codes = losses(codes), fitted(weight, damped(second, 0.01), codes, place)
        between, codes = losses(codes), chosen_again(weight, damped(second, 0.01), codes)
        assert (between <= before * (1 + 1e-4)).all()
        assert (losses(codes) <= between * (1 + 1e-4)).all()
        assert losses(codes).sum() < before.sum()


@pytest.mark.parametrize("place", PLACES)
def test_two_passes_lose_a_tenth_less_than_gptq(place: ZeroPlace) -> None:
    assert losses(rounded(place, 2)).sum() < 0.9 * losses(rounded(place)).sum()


@pytest.mark.parametrize("place", PLACES)
def test_codes_scales_and_zeros_can_be_stored_as_before(place: ZeroPlace) -> None:
    codes = rounded(place, 2)
    assert codes.values.dtype == torch.int32
    assert 0 <= int(codes.values.min()) <= int(codes.values.max()) <= 15
    assert torch.equal(codes.scale, codes.scale.bfloat16().float())
    points = codes.zero / codes.scale
    if place == "middle":
        assert (codes.zero == 0).all()
    elif place == "whole":
        torch.testing.assert_close(points, points.round(), rtol=0, atol=1e-4)
    else:
        assert torch.equal(codes.zero, codes.zero.bfloat16().float())


def test_every_code_is_the_best_one_given_all_others_before_it() -> None:
    """The fast form with blocks of channels against one that computes the loss for all 16 codes."""
    weight, second = problem()
    second = damped(second, 0.01)
    found = chosen_again(weight[:3], second, rounded("free").rows(slice(3)))
    naive = rounded("free").rows(slice(3))
    values = naive.values.clone()
    for channel in second.diagonal().argsort(descending=True, stable=True).tolist():
        tried = []
        for code in range(16):
            values[:, channel] = code
            error = replace(naive, values=values).dequantize() - weight[:3]
            tried.append(((error @ second) * error).sum(dim=1))
        values[:, channel] = torch.stack(tried).argmin(dim=0).to(torch.int32)
    assert (found.values == values).float().mean() > 0.99  # ties by rounding


def test_no_passes_leave_codes_as_they_are() -> None:
    weight, second = problem()
    codes = rounded("free")
    assert descended(weight, second, codes, 0, "free") is codes
