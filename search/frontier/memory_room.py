"""How likely a cell fits into memory, from what fitted, what was refused by prediction, and what ran out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from search.frontier.known import Observations
from search.frontier.surrogate import Prediction
from search.space.grid import Floats


def chance_of_fitting(known: Observations, guessed: Callable[[Floats], Prediction]) -> Floats:
    """Return [cells] the chance of fitting into memory; ``guessed``: all peaks, in log units, from those given.

    Refusals by prediction report the available memory. Where cells only ran out of memory, the limit lies between the
    largest peak that fitted and the smallest that did not, with equal chance everywhere. The latter are guesses from
    the cells around them, and at least what fitted elsewhere.
    """
    if known.memory is None or known.starved is None or not known.starved.any():
        return np.ones(len(known.grid))
    own = np.isfinite(known.memory)
    fitted = known.memory[own & ~known.starved]
    most = float(fitted.max()) if len(fitted) else -math.inf
    guess = guessed(known.memory)
    low = known.starved & ~own & (guess.mean < most)
    if low.any():
        guess = guessed(np.where(low, most, known.memory))
    peaks, unsure = np.where(own, known.memory, guess.mean), np.where(own, 0.0, guess.deviation)
    limit, doubt = known.room, 0.0
    silent = np.flatnonzero(known.starved & ~own)
    if len(silent):
        least = silent[peaks[silent].argmin()]
        below = min(most, float(peaks[least])) if len(fitted) else float(peaks[least])
        middle = (below + float(peaks[least])) / 2
        if not middle > limit:  # there may be less than was said
            limit, doubt = middle, (float(peaks[least]) - below) ** 2 / 12 + unsure[least] ** 2 / 4
    fits: Floats = ndtr((limit - peaks) / np.sqrt(unsure**2 + doubt + 1e-6))
    return fits
