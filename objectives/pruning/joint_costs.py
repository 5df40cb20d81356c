"""Scales the removal curves of an encoder to the cost when tokens' errors add up, by one probe per unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from objectives.calibration.token_coherence import Error, error_costs, errors_add_up
from objectives.pruning import reconstruction, surgery
from objectives.pruning.curve import Curve

if TYPE_CHECKING:
    from objectives.calibration.statistics import Statistics
    from objectives.models import LoadedModel

PROBED = 0.4
"""Share of a curve's steps at which it is probed; the factor hardly depends on it."""
RIDGE = 0.01
"""Ridge of the least squares, relative to the activations' power: the default of structured pruning."""


def with_joint_costs(curves: Sequence[Curve], statistics: Statistics) -> list[Curve]:
    """Return the dense model's ``curves`` with losses in its own unit; unchanged if the model answers per token."""
    model = statistics.model
    if not errors_add_up(model):
        return list(curves)
    probed = {curve.unit.key: _step(curve) for curve in curves}
    errors = {curve.unit.key: _left(model, statistics, curve, probed[curve.unit.key]) for curve in curves}
    costs = error_costs(statistics.running, statistics.domains, errors)
    return [_scaled(curve, costs[curve.unit.key], curve.losses[probed[curve.unit.key]]) for curve in curves]


def _step(curve: Curve) -> int:
    last = len(curve.removed) - 1
    return min(last, max(1, round(PROBED * last)))


def _left(model: LoadedModel, statistics: Statistics, curve: Curve, step: int) -> Error:
    """Return the error that least squares leaves at a step."""
    unit = curve.unit
    linear, channels = model.block(unit.block).linear(unit.consumer), surgery.channels_of(curve.kept(step), unit.width)
    weight, bias = reconstruction.reconstruct(linear.weight, linear.bias, statistics.moments[unit.key], channels, RIDGE)
    error = -linear.weight.float()
    error[:, channels] += weight
    return Error(error, None if bias is None else bias - linear.bias.float())


def _scaled(curve: Curve, measured: float, predicted: float) -> Curve:
    if predicted <= 0:  # nothing to remove, or nothing to lose
        return curve
    return replace(curve, losses=tuple(loss * measured / predicted for loss in curve.losses))
