"""Masks: single weights are set to zero, in any place or two of every four.

A dense kernel multiplies the zeros like any other number, so without a sparse kernel a mask makes nothing smaller or
faster: the model is marked as simulated, and only its accuracy is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from objectives.calibration.moments import Moment
from objectives.calibration.statistics import Statistics, moment_of
from objectives.errors import Unsupported
from objectives.models import LoadedModel
from objectives.models.layers import layers_of

Pattern = Literal["unstructured", "2:4"]


def mask_(
    model: LoadedModel,
    statistics: Statistics,
    ratio: float,
    pattern: Pattern,
    masked: Callable[[Tensor, Moment], Tensor],
) -> None:
    """Give every block linear the weight that ``masked`` makes of its own [out, in] and of the moment of its inputs."""
    if pattern == "2:4" and ratio != 0.5:
        raise Unsupported(f"pruning.ratio: pattern 2:4 removes 0.5, got {ratio}")
    for layer in layers_of(model):
        weight = masked(layer.weight, moment_of(model, statistics, layer))
        rows = [linear.out_features for linear in layer.linears]
        for linear, part in zip(layer.linears, torch.split(weight, rows)):
            linear.weight = nn.Parameter(part.to(linear.weight.dtype), requires_grad=False)
    model.simulated, model.pattern = True, pattern  # a device that stores 2:4 makes it real
    model.predicted_loss = float("nan")


def lowest(scores: Tensor, ratio: float, pattern: Pattern) -> Tensor:
    """Mark which entries of each row of ``scores`` [out, in] go: the ``ratio`` lowest, or the two lowest of four."""
    out, width = scores.shape
    if pattern == "2:4":
        if width % 4:
            raise Unsupported(f"pruning.pattern: 2:4 needs a multiple of 4 inputs, got {width}")
        fours = scores.view(out, -1, 4)
        return (
            torch.zeros_like(fours, dtype=torch.bool)
            .scatter_(2, fours.topk(2, dim=2, largest=False).indices, value=True)
            .view(out, width)
        )
    count = round(ratio * width)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(
        1, scores.topk(count, dim=1, largest=False).indices, value=True
    )
