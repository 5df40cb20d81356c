"""Computes how much an unmeasured cell may improve the front, and how likely it improves it at all.

The gain of a point says how far it reaches beyond the front: its largest advantage in one objective over a member, and
of these the smallest over all members. In log units, a gain of 0.02 says that every member is 2 % worse in some
objective, so a front is within 2 % of complete when no cell has such a gain. Any number of objectives is allowed.

Expected gain: the maximin improvement of Svenson and Santner 2016, https://doi.org/10.1016/j.csda.2015.08.011.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DRAWS = 64
_CHUNK = 2048


def improvement(points: Floats, front: Floats) -> Floats:
    """Return the gains [...] of ``points`` [..., objectives] over ``front`` [members, objectives], both minimised.

    They are infinite over a front without members.
    """
    if len(front) == 0:
        return np.full(points.shape[:-1], np.inf)
    gains: Floats = (front - points[..., None, :]).max(axis=-1).min(axis=-1)
    return np.maximum(gains, 0.0)


def expected_improvement(mean: Floats, deviation: Floats, front: Floats) -> Floats:
    """Return, by cell [cells], the expected gain over ``front``.

    Objectives are independent and normal, with ``mean`` and ``deviation`` [cells, objectives].
    """
    draws = scipy.special.ndtri(scipy.stats.qmc.Sobol(mean.shape[1], scramble=True, rng=0).random(_DRAWS))
    chunks = range(0, len(mean), _CHUNK)
    gains = [
        improvement(mean[start : start + _CHUNK, None] + deviation[start : start + _CHUNK, None] * draws, front).mean(
            axis=1
        )
        for start in chunks
    ]
    return np.concatenate(gains) if gains else np.zeros(0)


def chance_of_improvement(mean: Floats, deviation: Floats, front: Floats, resolution: float) -> Floats:
    """Return, by cell [cells], the chance of a gain above ``resolution``.

    It is exact for two objectives, else an upper bound.
    """
    if len(front) == 0:
        return np.ones(len(mean))
    edges, deviation = front - resolution, np.maximum(deviation, 1e-12)
    return _chance_of_two(mean, deviation, edges) if mean.shape[1] == 2 else _bound(mean, deviation, edges)


def _chance_of_two(mean: Floats, deviation: Floats, edges: Floats) -> Floats:
    """Return, by cell [cells], the exact chance for two objectives.

    ``edges`` [members, 2]: each member's values less the resolution. A point whose first objective lies between those
    of two neighbouring members has to be better in the second objective than every member before it.
    """
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    below = scipy.special.ndtr((edges[:, 0] - mean[:, :1]) / deviation[:, :1])  # [cells, members]
    better = scipy.special.ndtr((edges[:, 1] - mean[:, 1:]) / deviation[:, 1:])
    between = np.diff(below, axis=1, append=1.0)
    chance: Floats = below[:, 0] + (between * np.minimum.accumulate(better, axis=1)).sum(axis=1)
    return np.clip(chance, 0.0, 1.0)


def _bound(mean: Floats, deviation: Floats, edges: Floats) -> Floats:
    """Return, by cell [cells], an upper bound on the chance, for any number of objectives.

    To gain over the front is to gain over every member. So the chance is at most that of any one member, which is at
    most the sum of the chances in each objective. The member whose best chance in an objective is least is taken.
    """
    least, chosen = np.full(len(mean), np.inf), np.full(mean.shape, np.inf)
    for edge in edges:
        away = (edge - mean) / deviation
        best = away.max(axis=1)
        closer = best < least
        least[closer], chosen[closer] = best[closer], away[closer]
    bound: Floats = np.minimum(scipy.special.ndtr(chosen).sum(axis=1), 1.0)
    return bound
