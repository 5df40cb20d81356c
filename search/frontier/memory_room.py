"""Estimates how likely a cell fits into memory, from cells that fitted, were refused by prediction or ran out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy

from search.frontier.known import Observations
from search.frontier.surrogate import Prediction
from search.space.grid import Floats


def chance_of_fitting(known: Observations, guessed: Callable[[Floats], Prediction]) -> Floats:
    """Return, by cell [cells], the chance of fitting into memory.

    ``guessed`` predicts all peaks, in log units, from the known ones that it is given (NaN where not known).

    Refusals by prediction report the available memory. Where cells only ran out of memory, the limit lies between the
    largest peak that fitted and the smallest that did not, with equal chance everywhere. Peaks that did not fit are
    predicted from the cells around them, and are at least as large as what fitted elsewhere.
    """
    if known.memory is None or known.starved is None or not known.starved.any():
        return np.ones(len(known.grid))
    is_known = np.isfinite(known.memory)
    fitted = known.memory[is_known & ~known.starved]
    most = float(fitted.max()) if len(fitted) else -math.inf
    guess = guessed(known.memory)
    low = known.starved & ~is_known & (guess.mean < most)
    if low.any():
        guess = guessed(np.where(low, most, known.memory))
    peaks, unsure = np.where(is_known, known.memory, guess.mean), np.where(is_known, 0.0, guess.deviation)
    limit, doubt = known.room, 0.0
    silent = np.flatnonzero(known.starved & ~is_known)
    if len(silent):
        least = silent[peaks[silent].argmin()]
        below = min(most, float(peaks[least])) if len(fitted) else float(peaks[least])
        middle = (below + float(peaks[least])) / 2
        if not middle > limit:  # there may be less than was said
            limit, doubt = middle, (float(peaks[least]) - below) ** 2 / 12 + unsure[least] ** 2 / 4
    fits: Floats = scipy.special.ndtr((limit - peaks) / np.sqrt(unsure**2 + doubt + 1e-6))
    return fits
