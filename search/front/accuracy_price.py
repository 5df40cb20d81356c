"""The price of accuracy: for every accuracy that a study reached, the best value of an objective among what keeps it.

Going down the table, accuracy falls and the objective improves; rows in which it does not improve are left out. Several
tasks go by the least share of the baseline's accuracy that any of them keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search.front.asked import accuracies_of, least_share, tasks_of
from search.front.feasibility import is_scored
from search.front.front import baseline_of, minimised
from search.front.metric_limits import keeps_limits
from search.records.trial import TrialRecord


@dataclass(frozen=True)
class PriceRow:
    """The best ``value`` of ``objective``, found by ``trial``, among trials of at least this ``accuracy``.

    ``share``: the accuracy over the baseline's; ``gain``: how many times as good as the baseline's the value is, above
    1 where it is better. ``tasks``: the accuracies of several tasks, by name; then ``share`` is the least of any, and
    the rows go by it.
    """

    accuracy: float
    share: float
    objective: str
    value: float
    gain: float
    trial: int
    tasks: Mapping[str, float] = field(default_factory=dict)

    @property
    def flat(self) -> dict[str, object]:
        """Return the row of a table, with a column for each of several tasks."""
        own = {name: value for name, value in vars(self).items() if name != "tasks"}
        return {**own, **{f"accuracy_{name}": value for name, value in self.tasks.items()}}


def price_rows(records: Sequence[TrialRecord], objective: str) -> list[PriceRow]:
    """Return the rows, the most accurate first; empty without a measured baseline."""
    baseline = baseline_of(records)
    measured = [
        record
        for record in records
        if "accuracy" in record.metrics
        and is_scored(record)
        and record.cached_from is None
        and keeps_limits(record.metrics)
        and math.isfinite(record.metrics.get(objective, math.nan))
    ]
    if baseline is None or objective not in baseline.metrics:
        return []
    sizes = minimised(measured, [objective])[:, 0].tolist()
    start = float(minimised([baseline], [objective])[0, 0])
    rows, best = [], math.inf
    several = bool(tasks_of(baseline.metrics))

    def rank(pair: tuple[TrialRecord, float]) -> tuple[float, float]:
        kept = least_share(pair[0].metrics, baseline.metrics) if several else pair[0].metrics["accuracy"]
        return -kept, pair[1]

    for record, size in sorted(zip(measured, sizes), key=rank):
        if size < best:
            best = size
            rows.append(
                PriceRow(
                    accuracy=record.metrics["accuracy"],
                    share=least_share(record.metrics, baseline.metrics),
                    objective=objective,
                    value=record.metrics[objective],
                    gain=start / size if size > 0 else size / start if start else 1.0,
                    trial=record.number,
                    tasks=accuracies_of(record.metrics) if several else {},
                )
            )
    return rows
