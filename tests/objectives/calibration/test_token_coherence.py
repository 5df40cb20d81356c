"""Costs of known errors against the model itself with those errors made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from objectives.calibration.statistics import Statistics
from objectives.calibration.token_coherence import Error, error_costs
from objectives.models import LoadedModel
from objectives.pruning.joint_costs import with_joint_costs
from objectives.pruning.structured import Structured
from objectives.quantization.gptq import Gptq
from objectives.quantization.sensitivity import token_coherence
from tests.objectives.conftest import Tiny
from tests.objectives.families import answer

Statistics_ = Callable[[str], Statistics]
ENCODERS = ["bert", "distilbert"]


def embeddings(model: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    return normalize(answer(model, ids).double().mean(dim=1), dim=1)


@pytest.mark.parametrize("family", ENCODERS)
def test_the_cost_of_an_error_is_how_far_it_moves_the_embeddings(tiny: Tiny, family: str) -> None:
    model = tiny(family).copy()
    model.module.float()
    ids = torch.randint(2, 128, (256, 8), generator=torch.Generator().manual_seed(7))
    clean = embeddings(model, ids)
    for unit in model.block(f"{model.family.stacks[0].layers}.0").units:
        linear = model.block(unit.block).linear(unit.consumer)
        generator = torch.Generator().manual_seed(8)
        error = Error(
            1e-3 * torch.randn(linear.weight.shape, generator=generator), 1e-3 * torch.ones(len(linear.weight))
        )
        predicted = error_costs(model, {"random": [ids] * 4}, {unit.key: error})[unit.key]
        with torch.no_grad():
            linear.weight += error.weight
            linear.bias += error.bias
            moved = 0.5 * (embeddings(model, ids) - clean).square().sum(dim=1).mean().item()
            linear.weight -= error.weight
            linear.bias -= error.bias
        assert predicted == pytest.approx(moved, rel=0.2)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoders_predictions_are_costs_per_text(statistics: Statistics_, family: str) -> None:
    """Independent tokens would make them as many times too small as a text has tokens, at least."""
    found = statistics(family)
    factors = token_coherence(found, Gptq(bits=4))
    assert min(factors.values()) > 1
    pruner = Structured(ratio=0.2)
    assert pruner.predict(found) > 0


def test_a_decoders_curves_stay_as_they_are(statistics: Statistics_) -> None:
    found = statistics("llama")
    assert token_coherence(found, Gptq(bits=4)) == {}
    curves = Structured(ratio=0.2)._curves(found)
    assert with_joint_costs(curves, found) == curves


def test_a_curve_that_costs_nothing_is_not_scaled(statistics: Statistics_) -> None:
    found = statistics("bert")
    free = [replace(curve, losses=tuple(0.0 for _ in curve.losses)) for curve in Structured(ratio=0.2)._curves(found)]
    assert [curve.losses for curve in with_joint_costs(free, found)] == [curve.losses for curve in free]
