"""What an unmeasured cell may be worth to the front, and how likely it is worth anything.

The gain of a point is by how much it reaches beyond the front: the smallest over all members of its largest advantage
in one objective. In log units 0.02 says that every member is 2 % worse in something, so a front is within 2 % of
complete when no cell has such a gain. Any number of objectives.

Expected gain: the maximin improvement of Svenson and Santner 2016, https://doi.org/10.1016/j.csda.2015.08.011.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

_DRAWS = 64
_CHUNK = 2048


def improvement(points: Floats, front: Floats) -> Floats:
    """Of ``points`` [..., objectives] over ``front`` [members, objectives], minimised; infinite without a member."""
    if len(front) == 0:
        return np.full(points.shape[:-1], np.inf)
    found: Floats = (front - points[..., None, :]).max(axis=-1).min(axis=-1)
    return np.maximum(found, 0.0)


def expected_improvement(mean: Floats, deviation: Floats, front: Floats) -> Floats:
    """[cells]: over independent normal objectives of ``mean`` and ``deviation`` [cells, objectives]."""
    from scipy.stats import qmc  # half a second, which no other command should pay

    draws = ndtri(qmc.Sobol(mean.shape[1], scramble=True, rng=0).random(_DRAWS))
    chunks = range(0, len(mean), _CHUNK)
    found = [
        improvement(mean[start : start + _CHUNK, None] + deviation[start : start + _CHUNK, None] * draws, front).mean(
            axis=1
        )
        for start in chunks
    ]
    return np.concatenate(found) if found else np.zeros(0)


def chance_of_improvement(mean: Floats, deviation: Floats, front: Floats, resolution: float) -> Floats:
    """[cells]: how likely is a gain above ``resolution``; at most so likely, for other than two objectives."""
    if len(front) == 0:
        return np.ones(len(mean))
    edges, deviation = front - resolution, np.maximum(deviation, 1e-12)
    return _chance_of_two(mean, deviation, edges) if mean.shape[1] == 2 else _bound(mean, deviation, edges)


def _chance_of_two(mean: Floats, deviation: Floats, edges: Floats) -> Floats:
    """Between two members' values of the one objective, the other has to be better than the first of them has it."""
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    below = ndtr((edges[:, 0] - mean[:, :1]) / deviation[:, :1])  # [cells, members]
    better = ndtr((edges[:, 1] - mean[:, 1:]) / deviation[:, 1:])
    between = np.diff(below, axis=1, append=1.0)
    found: Floats = below[:, 0] + (between * np.minimum.accumulate(better, axis=1)).sum(axis=1)
    return np.clip(found, 0.0, 1.0)


def _bound(mean: Floats, deviation: Floats, edges: Floats) -> Floats:
    """To gain over the front is to gain over every member: at most, of any one of them, the sum of the chances in each
    objective. That one is taken whose best chance in an objective is least.
    """
    least, found = np.full(len(mean), np.inf), np.full(mean.shape, np.inf)
    for edge in edges:
        away = (edge - mean) / deviation
        best = away.max(axis=1)
        closer = best < least
        least[closer], found[closer] = best[closer], away[closer]
    bound: Floats = np.minimum(ndtr(found).sum(axis=1), 1.0)
    return bound
