"""The limits of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord

GROWTH = 1e-3
"""The least relative growth of the hypervolume that counts as growth."""


@dataclass(frozen=True)
class Limits:
    """The limits of a study, which count over all its runs.

    ``n_trials``: number of trials. ``max_seconds``: seconds of all trials together. ``patience``: trials without growth
    of the hypervolume. None means no limit.
    """

    n_trials: int
    max_seconds: float | None = None
    patience: int | None = None

    def reached(self, records: Sequence[TrialRecord], spent: int, flying: int, grown: int) -> StopReason | None:
        """Return the reason to stop, or None.

        ``spent``: trials that count (:mod:`search.records.tries`); ``flying``: those in flight; ``grown``: how many
        had counted when the hypervolume grew last.
        """
        if spent + flying >= self.n_trials:
            return StopReason.BUDGET
        if self.max_seconds is not None and sum(record.seconds for record in records) >= self.max_seconds:
            return StopReason.TIME
        if self.patience is not None and spent - grown >= self.patience:
            return StopReason.HYPERVOLUME_STALLED
        return None
