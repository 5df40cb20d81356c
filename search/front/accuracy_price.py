"""The price of accuracy: for every accuracy that a study reached, the best value of an objective among what keeps it.

Going down the table, accuracy falls and the objective improves; rows in which it does not improve are left out.
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
    """The best ``value`` of ``objective``, found by ``trial``, among trials of at least this ``accuracy``.

    ``share``: the accuracy over the baseline's; ``gain``: how many times as good as the baseline's the value is, above
    1 where it is better.
    """

    accuracy: float
    share: float
    objective: str
    value: float
    gain: float
    trial: int


def price_rows(records: Sequence[TrialRecord], objective: str) -> list[PriceRow]:
    """Return the rows, the most accurate first; empty without a measured baseline."""
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
    rows, best = [], math.inf
    for record, size in sorted(zip(measured, sizes), key=lambda pair: (-pair[0].metrics["accuracy"], pair[1])):
        if size < best:
            best = size
            rows.append(
                PriceRow(
                    accuracy=record.metrics["accuracy"],
                    share=record.metrics["accuracy"] / (baseline.metrics["accuracy"] or 1.0),
                    objective=objective,
                    value=record.metrics[objective],
                    gain=start / size if size > 0 else size / start if start else 1.0,
                    trial=record.number,
                )
            )
    return rows
