"""The mathematics of Pareto fronts: domination, hypervolume, knee, coverage. Pure numpy, any number of objectives.

Everything is minimised: the caller turns the sign of what is to be maximised. One point dominates another
when it is nowhere worse and somewhere better, so equal points never dominate each other and stay together.
All functions refuse NaN and infinity, because one infinite coordinate silently wins a place on every front.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def non_dominated(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which points no other point dominates.

    ``values``: [points, objectives], minimised. Returns a mask [points]; equal points are all kept. For two
    objectives O(n log n) as in Kung, Luccio and Preparata 1975 (https://doi.org/10.1145/321906.321910), for
    more O(n * front). Raises ``ValueError`` on NaN, infinity or another shape.
    """
    points = _checked(values)
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    rows, inverse = _distinct(points)
    kept = _sweep(rows) if rows.shape[1] <= 2 else _sieve(rows)
    return kept[inverse]


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume that the points dominate, up to the reference.

    ``points``: [points, objectives], minimised; ``reference``: [objectives]. Points that are not better than
    the reference in every objective add nothing. Exact: a sweep for two objectives, for more the exclusive
    volumes of WFG, sliced along the last objective (While, Bradstreet and Barone 2012,
    https://doi.org/10.1109/TEVC.2010.2077298). Raises ``ValueError`` on NaN, infinity or unequal widths.
    """
    corner = np.asarray(reference, dtype=np.float64)
    rows = _checked(points, objectives=corner.size)
    if corner.ndim != 1 or not np.isfinite(corner).all():
        raise ValueError(f"the reference must be one finite number per objective, got {reference!r}")
    return _volume(rows[(rows < corner).all(axis=1)], corner)


def knee(values: npt.ArrayLike) -> int | None:
    """Return the index of the point of a front beyond which giving up one objective stops buying much of another.

    ``values``: [points, objectives], minimised, mutually non-dominated. Objectives are scaled to [0, 1], in
    log space where all their values are positive; the knee lies farthest from the chord between the extremes
    (from the plane through the unit corners for more objectives), on the side of the ideal point (Das 1999,
    https://doi.org/10.1007/BF01195985). Returns None for fewer than three distinct points and for a
    front that bulges nowhere.
    """
    points = _checked(values)
    if len(points) == 0 or len(_distinct(points)[0]) < 3:
        return None
    distance = (1 - _unit_scaled(points).sum(axis=1)) / math.sqrt(points.shape[1])
    best = int(distance.argmax())
    return best if distance[best] > 1e-9 else None


def epsilon_indicator(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return how far ``points`` fall short of ``reference``: 0 where they cover it, 0.1 where a tenth is missing.

    This is the smallest epsilon >= 0 such that for every reference point some point is at least as good in every
    objective within a factor 1 + epsilon: the multiplicative epsilon-indicator of Zitzler, Thiele, Laumanns, Fonseca
    and da Fonseca 2003 (https://doi.org/10.1109/TEVC.2003.810758) less one, cut at 0. Both are [points, objectives],
    minimised; an objective is positive throughout, or negative throughout where the caller turned its sign. An empty
    reference is always covered (0); no points cover nothing (infinity). Raises ``ValueError`` on NaN, infinity, unequal
    widths and objectives of no single sign.
    """
    wanted = _checked(reference)
    if len(wanted) == 0:
        return 0.0
    found = _checked(points, objectives=wanted.shape[1])
    both = np.concatenate((found, wanted))
    positive = (both > 0).all(axis=0)
    if not (positive | (both < 0).all(axis=0)).all():
        raise ValueError("every objective must be positive throughout, or negative throughout")
    if len(found) == 0:
        return math.inf
    ours, theirs = found[:, None, :], wanted[None, :, :]
    # A turned objective is better the larger its size, so its factor is the inverse.
    factors = np.where(positive, ours / theirs, theirs / ours)
    return max(0.0, float(factors.max(axis=2).min(axis=0).max()) - 1)


def _checked(values: npt.ArrayLike, objectives: int | None = None) -> Floats:
    points = np.asarray(values, dtype=np.float64)
    if points.size == 0 and points.ndim < 2:
        points = points.reshape(0, objectives or 1)
    if points.ndim != 2 or points.shape[1] == 0 or points.shape[1] != (objectives or points.shape[1]):
        raise ValueError(f"points must be [points, {objectives or 'objectives'}], got shape {points.shape}")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise ValueError(f"points must be finite, row {int(bad.argmax())} is {points[bad.argmax()].tolist()}")
    return points


def _distinct(points: Floats) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the distinct rows in lexicographic order, and for every point the index of its row."""
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    first = np.ones(len(points), dtype=np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(points), dtype=np.intp)
    inverse[order] = np.cumsum(first) - 1
    return ordered[first], inverse


def _sweep(rows: Floats) -> npt.NDArray[np.bool_]:
    # Rows are distinct and sorted, so earlier ones are no worse in the first objective: a row survives iff
    # its last objective is below all before it. With one objective only the first row can.
    kept = np.ones(len(rows), dtype=np.bool_)
    kept[1:] = rows[1:, -1] < np.minimum.accumulate(rows[:-1, -1])
    return kept


def _sieve(rows: Floats) -> npt.NDArray[np.bool_]:
    # The first of the sorted rows still in play is dominated by none of the others; it sifts them.
    kept = np.zeros(len(rows), dtype=np.bool_)
    left = np.arange(len(rows))
    while left.size:
        kept[left[0]] = True
        left = left[(rows[left] < rows[left[0]]).any(axis=1)]
    return kept


def _volume(points: Floats, corner: Floats) -> float:
    rows = _distinct(points[non_dominated(points)])[0] if len(points) else points
    if len(rows) == 0:
        return 0.0
    if rows.shape[1] <= 2:
        return _area(rows, corner)
    # From worst to best in the last objective: clipped to the current row, all later rows share its last
    # coordinate, so what they overlap is a slab over a volume of one dimension less.
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    total = 0.0
    for index, row in enumerate(rows):
        clipped = np.maximum(rows[index + 1 :, :-1], row[:-1])
        overlap = _volume(clipped, corner[:-1])
        total += float(corner[-1] - row[-1]) * (float(np.prod(corner[:-1] - row[:-1])) - overlap)
    return total


def _area(rows: Floats, corner: Floats) -> float:
    if rows.shape[1] == 1:
        return float(corner[0] - rows[0, 0])
    above = np.concatenate((corner[1:], rows[:-1, 1]))
    return float(((corner[0] - rows[:, 0]) * (above - rows[:, 1])).sum())


def _unit_scaled(points: Floats) -> Floats:
    positive = (points > 0).all(axis=0)
    scaled = np.where(positive, np.log(np.where(positive, points, 1.0)), points)
    low, high = scaled.min(axis=0), scaled.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray((scaled - low) / span, dtype=np.float64)
