"""Rounds the weight of one layer to codes, in the largest group that its width allows."""

from __future__ import annotations

from objectives.calibration.statistics import Statistics, moment_of
from objectives.models import LoadedModel
from objectives.models.layers import Layer
from objectives.packing.codes import Codes
from objectives.quantization.rounding import Rounding

GROUP_SIZES = (128, 64, 32)


def group_size_for(layer: Layer, wanted: int) -> int | None:
    """Return the largest group, of at most ``wanted`` inputs, that divides the width; None where no kernel takes it."""
    linears = layer.linears
    if any(linear.out_features % 16 for linear in linears):
        return None
    return next((size for size in GROUP_SIZES if size <= wanted and linears[0].in_features % size == 0), None)


def codes_of(model: LoadedModel, statistics: Statistics, layer: Layer, bits: int, rounding: Rounding) -> Codes | None:
    """Round a layer to fewer than 8 bits and return its codes; None where no kernel takes its shape."""
    size = group_size_for(layer, rounding.group_size)
    if size is None:
        return None
    return rounding.round(layer.weight, moment_of(model, statistics, layer), bits, size)
