"""Predicts the loss that a rounding error of one layer causes, before the model is run.

With D the error of the weight, H the second moment of the inputs and G that of the gradients at the outputs, the loss
grows by about 1/2 tr(G D H D^T); with G's diagonal alone this is a sum over output channels. The unit is nats per token
for decoders, as for the removal curves of pruning, so the two add up to one prediction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from objectives.calibration.statistics import Statistics, moment_of
from objectives.calibration.token_coherence import Error, error_costs, errors_add_up
from objectives.models.layers import Layer, layers_of
from objectives.packing.int8_rounding import round_in_pairs, round_symmetric
from objectives.quantization.layer_codes import codes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from objectives.models import LoadedModel
    from objectives.packing.codes import Codes
    from objectives.quantization.rounding import Rounding
    from objectives.types import Scheme


def sensitivity(error: Tensor, second: Tensor, power: Tensor) -> float:
    """Return the predicted loss of a weight error [out, in]; ``second``: H [in, in]; ``power``: diag(G), [out]."""
    return 0.5 * float((power * ((error @ second) * error).sum(dim=1)).sum())


def output_power(model: LoadedModel, statistics: Statistics, layer: Layer) -> Tensor:
    """Return diag(G) of the outputs that pruning left of a layer, [sum of its linears' outputs]."""
    parts = []
    for path in layer.paths:
        key = layer.block.name, path
        gradient, kept = statistics.gradients.get(key), model.kept_outputs.get(key)
        if gradient is None:  # nothing that the answer depends on has run through it
            parts.append(torch.zeros(layer.block.linear(path).out_features))
            continue
        power = gradient.diagonal() if gradient.dim() == 2 else gradient
        parts.append(power if kept is None else power[kept])
    return torch.cat(parts)


def error_of(layer: Layer, codes: Codes | None, scheme: Scheme) -> Tensor:
    """Return the rounding error of a layer's weight [out, in]; without codes it is that of 8 bits in ``scheme``."""
    weight = layer.weight
    if codes is not None:
        return codes.dequantize() - weight
    if scheme == "fp8":
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / torch.finfo(torch.float8_e4m3fn).max
        return (weight / scale).to(torch.float8_e4m3fn).float().mul_(scale).sub_(weight)
    values, scale = (round_in_pairs if scheme == "w8a8" else round_symmetric)(weight)
    return values.mul_(scale).sub_(weight)


def sensitivity_of(
    model: LoadedModel, statistics: Statistics, layer: Layer, error: Tensor, rounding: Rounding
) -> float:
    """Return the predicted loss of the ``error`` [out, in] that ``rounding`` left in one layer."""
    alone = sensitivity(error, moment_of(model, statistics, layer).second, output_power(model, statistics, layer))
    return alone * token_coherence(statistics, rounding).get(layer.key, 1.0)


def token_coherence(statistics: Statistics, rounding: Rounding) -> Mapping[tuple[str, str], float]:
    """Return, by :attr:`Layer.key`, the loss of rounding relative to what independent errors of the tokens would cost.

    It is measured on the dense model in 4 bits (:mod:`objectives.calibration.token_coherence`); empty for models that
    answer per token.
    """
    dense = statistics.dense
    return dense.memoize((token_coherence, rounding), lambda: _token_coherence(dense, rounding))


def _token_coherence(statistics: Statistics, rounding: Rounding) -> Mapping[tuple[str, str], float]:
    model = statistics.model
    if not errors_add_up(model):
        return {}
    layers = list(layers_of(model))
    errors = {
        layer.key: error_of(layer, codes_of(model, statistics, layer, 4, rounding), "weight_only") for layer in layers
    }
    parts = {
        (layer.block.name, path): Error(part)
        for layer in layers
        for path, part in zip(
            layer.paths, torch.split(errors[layer.key], [linear.out_features for linear in layer.linears])
        )
    }
    costs = error_costs(statistics.running, statistics.domains, parts)
    found = {}
    for layer in layers:
        alone = sensitivity(
            errors[layer.key], moment_of(model, statistics, layer).second, output_power(model, statistics, layer)
        )
        together = sum(costs[layer.block.name, path] for path in layer.paths)
        found[layer.key] = together / alone if alone > 0 else 1.0
    return found


Rounded = dict[tuple[tuple[str, str], int], "Codes"]
"""Codes by (:attr:`Layer.key`, bits)."""


def rounded_loss(
    model: LoadedModel,
    statistics: Statistics,
    layer: Layer,
    bits: int,
    rounding: Rounding,
    scheme: Scheme,
    rounded: Rounded | None = None,
) -> float:
    """Return the predicted loss of storing a layer in ``bits``; infinite where no kernel takes its shape.

    It is computed once per study for the same weights; the codes that it needs are left in ``rounded``.
    """

    def loss() -> float:
        codes = codes_of(model, statistics, layer, bits, rounding) if bits < 8 else None
        if bits < 8 and codes is None:
            return float("inf")
        if codes is not None and rounded is not None:
            rounded[layer.key, bits] = replace(codes, values=codes.values.to(torch.uint8))
        return sensitivity_of(model, statistics, layer, error_of(layer, codes, scheme), rounding)

    if bits >= 16:
        return 0.0
    return statistics.memoize((rounded_loss, rounding, bits, scheme, layer.key, layer.digest()), loss)


def predicted_loss(
    statistics: Statistics, bits: int | Mapping[tuple[str, str], int], rounding: Rounding, scheme: Scheme
) -> float:
    """Return the predicted loss of storing the dense model in ``bits``; a layer that no kernel takes stays in 16."""
    model = statistics.model
    losses = [
        rounded_loss(model, statistics, layer, bits if isinstance(bits, int) else bits[layer.key], rounding, scheme)
        for layer in layers_of(model)
    ]
    return sum(loss for loss in losses if loss != float("inf"))
