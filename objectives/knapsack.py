"""Chooses one option of every layer under a common budget: the exact multiple-choice knapsack.

Each layer offers options, every one with a gain (parameters removed, bytes saved) and a loss. The options chosen
have the least total loss with gains that add up to a target. Gains are integers with a large common divisor, so
dynamic programming over their sum is exact and fast (90 layers of 49 options: 0.2 s). Kellerer, Pferschy & Pisinger,
Knapsack Problems (2004), chapter 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST_SUMS = 20_000


@dataclass(frozen=True)
class Options:
    """The options of one layer: their ``gains`` [n], integers >= 0, and ``losses`` [n]; inf = not offered."""

    gains: Sequence[int]
    losses: Sequence[float]


def cheapest(layers: Sequence[Options], target: float, tolerance: float | None = None) -> list[int] | None:
    """Return the index of the chosen option of each layer; None where the target is out of reach.

    The total gain is at least ``target``, at the least loss. With ``tolerance``, the total gain differs from ``target``
    by no more than that, at the least loss per gain; where no sum lies that close, it is the nearest sum above.
    """
    unit = _unit(layers)
    scaled = [[round(gain / unit) for gain in layer.gains] for layer in layers]
    size = sum(max(gains) for gains in scaled) + 1
    losses, taken = _table(layers, scaled, size)
    total = _best_sum(losses, unit, target, tolerance)
    if total is None:
        return None
    chosen: list[int] = []
    for gains, choice in zip(reversed(scaled), reversed(taken)):
        chosen.append(int(choice[total]))
        total -= gains[chosen[-1]]
    return chosen[::-1]


def _unit(layers: Sequence[Options]) -> int:
    """Return the greatest common divisor of all gains; a coarser unit where exact sums would be too many."""
    divisor = math.gcd(*(gain for layer in layers for gain in layer.gains)) or 1
    most = sum(max(layer.gains) for layer in layers)
    return max(divisor, -(-most // _MOST_SUMS))


def _table(layers: Sequence[Options], scaled: list[list[int]], size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the least loss of every sum of gains, and, by layer, the option taken on the way to each sum."""
    best = np.full(size, np.inf)
    best[0] = 0.0
    taken = []
    for layer, gains in zip(layers, scaled):
        reached, choice = np.full(size, np.inf), np.zeros(size, dtype=np.int32)
        for option, (gain, loss) in enumerate(zip(gains, layer.losses)):
            if not math.isfinite(loss):
                continue
            tried = best[: size - gain] + loss
            better = tried < reached[gain:]
            reached[gain:][better] = tried[better]
            choice[gain:][better] = option
        best = reached
        taken.append(choice)
    return best, taken


def _best_sum(losses: np.ndarray, unit: int, target: float, tolerance: float | None) -> int | None:
    sums = np.flatnonzero(np.isfinite(losses))
    if tolerance is None:
        enough = sums[sums * unit >= target * (1 - 1e-9)]
        return int(enough[losses[enough].argmin()]) if len(enough) else None
    close = sums[np.abs(sums * unit - target) <= tolerance * (1 + 1e-9)]
    if len(close):  # per gain, since the sums differ by rounding
        return int(min(close, key=lambda total: losses[total] / max(total, 1)))
    above = sums[sums * unit >= target]
    return int(above[0]) if len(above) else None
