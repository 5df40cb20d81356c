"""Metrics of a classifier from its confusion matrix: macro-averaged F1, and Matthews' correlation.

Both are those of scikit-learn, where a class that nothing is and nothing is taken for does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.resampling import Indices, replicates_by, spread

Matrix = NDArray[np.float64]
CorpusMetric = Literal["macro_f1", "mcc"]


def macro_f1(matrix: Matrix) -> float:
    """Return the mean of the F1 of all classes; ``matrix`` [right class, answer] holds counts."""
    hits, sums = np.diagonal(matrix), matrix.sum(axis=0) + matrix.sum(axis=1)
    return float(np.mean(2 * hits[sums > 0] / sums[sums > 0])) if sums.any() else 0.0


def mcc(matrix: Matrix) -> float:
    """Return the correlation of right classes and answers, in [-1, 1]; 0 where one of them never varies.

    Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006.
    """
    total, right, answered = matrix.sum(), matrix.sum(axis=1), matrix.sum(axis=0)
    shared = np.trace(matrix) * total - right @ answered
    spreads = (total**2 - right @ right) * (total**2 - answered @ answered)
    return float(shared / math.sqrt(spreads)) if spreads > 0 else 0.0


_METRICS: Mapping[CorpusMetric, Callable[[Matrix], float]] = {
    "macro_f1": macro_f1,
    "mcc": lambda matrix: max(0.0, mcc(matrix)),
}


@dataclass(frozen=True)
class Measured:
    """A metric of a whole corpus, its standard error, and its replicates over resampled examples."""

    value: float
    stderr: float
    replicates: tuple[float, ...]


def measured(metric: CorpusMetric, right: Sequence[int], answered: Sequence[int], classes: int) -> Measured:
    """Return a metric of right classes and answers. A negative correlation counts as 0."""
    cells = np.asarray(right) * classes + np.asarray(answered)
    replicates = replicates_by(lambda places: _of_cells(metric, cells[places], classes), len(cells))
    return Measured(of_answers(metric, right, answered, classes), spread(replicates), replicates)


def of_answers(metric: CorpusMetric, right: Sequence[int], answered: Sequence[int], classes: int) -> float:
    """Return a metric of right classes and answers, by their numbers."""
    return _of_cells(metric, np.asarray(right) * classes + np.asarray(answered), classes)


def _of_cells(metric: CorpusMetric, cells: Indices, classes: int) -> float:
    matrix: Any = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return _METRICS[metric](matrix.astype(np.float64))
