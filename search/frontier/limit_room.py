"""Estimates how likely a cell keeps the limits on its metrics, from the cells that were measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from search.frontier.known import Observations
from search.frontier.surrogate import Prediction
from search.space.grid import Floats


def chance_of_keeping(known: Observations, guessed: Callable[[str, Floats], Prediction]) -> Floats:
    """Return, by cell [cells], the chance of keeping all limits: the least chance of any, which is an upper bound.

    ``guessed`` predicts all margins of a metric, in log units, from the known ones (NaN where not known).
    """
    chance = np.ones(len(known.grid))
    for name, margin in known.margins.items():
        own = np.isfinite(margin)
        if own.any():
            guess = guessed(name, margin)
            likely = scipy.special.ndtr(guess.mean / np.maximum(guess.deviation, 1e-9))
            chance = np.minimum(chance, np.where(own, margin >= 0, likely))
    return chance
