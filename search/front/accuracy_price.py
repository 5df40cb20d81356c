"""The price of accuracy: for every accuracy that a study reached, what the best candidate gives that keeps it.

Going down the table, accuracy is given up and something is gained; a row that gains nothing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.front.feasibility import is_scored
from search.front.front import baseline_of, minimised
from search.records.trial import TrialRecord


@dataclass(frozen=True)
class PriceRow:
    """``accuracy``: what is kept, ``share`` of the baseline's; ``value``: of ``objective``, by ``trial``.

    ``gain``: how many times as good as the baseline, in either direction.
    """

    accuracy: float
    share: float
    objective: str
    value: float
    gain: float
    trial: int


def price_rows(records: Sequence[TrialRecord], objective: str) -> list[PriceRow]:
    """From the most accurate trial down; empty without a measured baseline."""
    baseline = baseline_of(records)
    measured = [
        record
        for record in records
        if is_scored(record) and record.cached_from is None and math.isfinite(record.metrics.get(objective, math.nan))
    ]
    if baseline is None or objective not in baseline.metrics:
        return []
    sizes = minimised(measured, [objective])[:, 0].tolist()
    start = float(minimised([baseline], [objective])[0, 0])
    found, best = [], math.inf
    for record, size in sorted(zip(measured, sizes), key=lambda pair: (-pair[0].metrics["accuracy"], pair[1])):
        if size < best:
            best = size
            found.append(
                PriceRow(
                    accuracy=record.metrics["accuracy"],
                    share=record.metrics["accuracy"] / (baseline.metrics["accuracy"] or 1.0),
                    objective=objective,
                    value=record.metrics[objective],
                    gain=start / size if size > 0 else size / start if start else 1.0,
                    trial=record.number,
                )
            )
    return found
