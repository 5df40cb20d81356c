"""Bootstrap replicates: a metric of a whole corpus over resampled examples, which says how sure the metric is.

BLEU or F1 is no mean of examples, so no formula gives its error. The bootstrap (Efron 1979,
https://doi.org/10.1214/aos/1176344552) draws as many examples as there are, with replacement, and computes the metric
of those; the spread over many resamples is the metric's own. Resample i depends on i and on the number of examples,
and on nothing else. So replicate i of any two models is about the same examples, and their differences are a paired
bootstrap (Koehn 2004, https://aclanthology.org/W04-3250/), though neither knew of the other. The module is free of
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Values = NDArray[np.float64]
Finish = Callable[[Values], ArrayLike]

REPLICATES = 1000
"""The usual number. 25 of them lie beyond either end of a 95 % interval, so chance moves an end by some 0.08 standard
errors; 1000 numbers are about 20 kB of a study for each recipe."""

FEWEST = 100
"""The fewest that give an interval: 2.5 lie beyond either end, and chance moves it by some 0.27 standard errors."""

_SEED = 20041101
_BLOCK = 2**20
"""The most draws that are held at once: 8 MiB each as draws, as places and as weights."""


def replicates_of(counts: ArrayLike, finish: Finish, replicates: int = REPLICATES) -> tuple[float, ...]:
    """Return the metric over resampled examples, for a metric that is a function of sums over examples.

    ``counts``: [examples, ...], what each example adds: matched n-grams, hits and misses of a class. ``finish``: turns
    sums [resamples, ...] into metrics [resamples]; a sum may be 0 where a resample lacks the examples that had some.
    Raises ValueError for other shapes, and for fewer than ``FEWEST`` replicates.
    """
    table = np.asarray(counts, dtype=np.float64)
    flat = table.reshape(_require_some(len(table)), -1)
    found: list[float] = []
    for drawn in _blocks(len(table), _require_enough(replicates)):
        sums = (_weights(drawn) @ flat).reshape(len(drawn), *table.shape[1:])
        metrics = np.asarray(finish(sums), dtype=np.float64)
        if metrics.shape != (len(drawn),):
            raise ValueError(
                f"finish: sums {list(sums.shape)} must become {[len(drawn)]}, one metric for each resample, "
                f"got {list(metrics.shape)}"
            )
        found += metrics.tolist()
    return tuple(found)


def replicates_by(metric: Callable[[Indices], float], examples: int, replicates: int = REPLICATES) -> tuple[float, ...]:
    """Return the metric over resampled examples, for any metric: ``metric`` is asked once for every resample.

    ``metric`` gets the places [examples] of the examples that were drawn, repeated ones several times. A slow one may
    have fewer ``replicates``. Raises ValueError for fewer than ``FEWEST``.
    """
    blocks = _blocks(_require_some(examples), _require_enough(replicates))
    return tuple(float(metric(places)) for drawn in blocks for places in drawn)


def spread(replicates: Sequence[float]) -> float:
    """Return the standard error that ``replicates`` give a metric."""
    return float(np.std(replicates, ddof=1))


def _blocks(examples: int, replicates: int) -> Iterator[Indices]:
    """Yield the places that are drawn, [resamples, examples], some resamples at a time.

    Numbers come from PCG64's raw stream, which numpy keeps the same in all its versions, as it does not the stream of
    ``Generator.integers`` (NEP 19): replicates that a study stored years ago are about the same resamples. The highest
    32 bits times the number of examples, shifted back, are uniform up to a relative error of examples / 2^32.
    """
    stream = np.random.PCG64(_SEED)
    rows = max(1, _BLOCK // examples)
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        raw = np.asarray(stream.random_raw(count * examples), dtype=np.uint64).reshape(count, examples)
        raw >>= np.uint64(32)
        raw *= np.uint64(examples)
        raw >>= np.uint64(32)
        yield raw.view(np.int64)


def _weights(drawn: Indices) -> Values:
    """Return [resamples, examples]: how often each example was drawn."""
    rows, examples = drawn.shape
    places = drawn + np.arange(rows)[:, None] * examples
    return np.bincount(places.ravel(), minlength=rows * examples).reshape(rows, examples).astype(np.float64)


def _require_some(examples: int) -> int:
    if not examples:
        raise ValueError("examples: there are none to resample")
    return examples


def _require_enough(replicates: int) -> int:
    if replicates < FEWEST:
        raise ValueError(f"replicates: at least {FEWEST} give a 95 % interval, got {replicates}")
    return replicates
