"""The certificate of a front: how sure each member is, and why every cell that was not measured was left.

A cell is closed because its recipe misses the floor (scored, or assumed from a milder recipe that misses it), because
it fails or must fail, or because a member is expected to dominate it by a margin. The chances that the other cells
would improve the front by more than the resolution are added up; the front is complete when the study allows that sum.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.front.asked import missed_by
from search.front.feasibility import Certainty, certainty_of, is_open, is_scored
from search.front.front import ParetoFront
from search.front.metric_limits import over
from search.frontier.forecast import Forecast, Forecaster, harder_than
from search.frontier.known import Observations, WarmStart
from search.frontier.observations import implied, known_of
from search.records.trial import TrialRecord
from search.space.grid import MOST_CELLS, Grid, Indices
from search.space.space import Cell

MEASURED, INFEASIBLE, FAILED, MUST_FAIL = "measured", "infeasible", "failed", "must fail"
UNSUPPORTED = "unsupported"
ASSUMED, DOMINATED, OPEN, UNDECIDED = "assumed infeasible", "dominated", "open", "undecided"


@dataclass(frozen=True)
class CellStatus:
    """The ``status`` of one cell, the ``trial`` that shows it, if one does, and ``why`` in words.

    ``chance``: upper bound on the chance that the cell would improve the front by more than the resolution.
    """

    cell: Cell
    status: str
    trial: int | None
    why: str
    chance: float = 0.0


@dataclass(frozen=True)
class Certificate:
    """The certificate of a front at one accuracy floor.

    ``complete``: nothing is left but an ``open`` chance that the study accepts (``error``). ``members``: by trial
    number, how sure it is that each keeps the floor; ``partly_scored``: trials scored on too few examples for this
    floor; ``timed_until_dominated``: members whose timing stopped early because trials dominated them that are not
    feasible at this floor; ``standings``: the status of every cell; ``seconds``: what measuring the open cells would
    take. ``only_baseline``: the baseline is the front's only member.
    """

    complete: bool
    open: float
    error: float
    resolution: float
    members: Mapping[int, Certainty] = field(default_factory=dict)
    partly_scored: tuple[int, ...] = ()
    timed_until_dominated: tuple[int, ...] = ()
    standings: tuple[CellStatus, ...] = ()
    seconds: float = 0.0
    only_baseline: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of cells by status."""
        return dict(Counter(standing.status for standing in self.standings))

    def rows(self) -> list[dict[str, object]]:
        """Return the rows of a table, one per cell of the grid."""
        return [
            {**each.cell, "status": each.status, "trial": each.trial, "why": each.why, "chance": each.chance}
            for each in self.standings
        ]


def certify(
    grid: Grid,
    records: Sequence[TrialRecord],
    front: ParetoFront,
    error: float = 0.05,
    resolution: float = 0.02,
    tolerance: float = 0.005,
    warm_start: WarmStart | None = None,
) -> Certificate | None:
    """Certify ``front`` from its records alone; None where the grid is too large to be enumerated.

    The settings are those of :class:`search.samplers.frontier.FrontierSampler`.
    """
    if len(grid) > MOST_CELLS:
        return None
    known = known_of(grid, records, front.objectives, front.floor)
    forecast = Forecaster(tolerance, resolution, warm_start).look(known)
    return certificate_of(records, front, known, forecast, error, resolution)


def certificate_of(
    records: Sequence[TrialRecord],
    front: ParetoFront,
    known: Observations,
    forecast: Forecast,
    error: float,
    resolution: float,
) -> Certificate:
    """Write the certificate that ``forecast`` gives, which was made from ``known``."""
    grid = known.grid
    trials = {index: record for record in records if (index := grid.index(record.params)) is not None}
    chances = forecast.feasible * forecast.improvement
    left = _open_cells(chances, error)
    writer = _Writer(grid, known, forecast, trials, front.floor, set(left.tolist()))
    by_number = {record.number: record for record in records}
    return Certificate(
        complete=len(left) == 0,
        open=forecast.open,
        error=error,
        resolution=resolution,
        members={number: certainty_of(by_number[number], front.floor) for number in front.front},
        partly_scored=tuple(
            record.number
            for record in records
            if is_scored(record) and record.cached_from is None and is_open(record, front.floor)
        ),
        timed_until_dominated=tuple(number for number in front.front if by_number[number].facts.is_cut_short),
        standings=tuple(writer.standing(index) for index in range(len(grid))),
        seconds=float(forecast.cost[left].sum()),
        only_baseline=bool(front.front) and all(by_number[number].is_baseline for number in front.front),
    )


_KEEPS: Mapping[Certainty, str] = {"certain": "certainly", "likely": "probably", "undecided": "possibly"}
"""The adverb for how sure it is that a front member keeps the floor."""


def summary_lines(certificate: Certificate) -> list[str]:
    """Return lines for people: how complete the front is, how sure its members are, and what became of the cells."""
    counts = ", ".join(f"{count} {status}" for status, count in certificate.counts.items())
    sure = Counter(certificate.members.values())
    floor = ", ".join(f"{sure[kind]} {how}" for kind, how in _KEEPS.items() if sure[kind])
    lines = [_completeness(certificate), f"Of {counted(len(certificate.standings), 'cell', 'cells')}: {counts}."]
    if floor:
        lines.append(f"Members of the front that keep the accuracy floor: {floor}.")
    if certificate.partly_scored:
        trials = _listed(certificate.partly_scored)
        lines.append(
            f"Scored on too few examples to decide this floor: {trials}. A study with this floor goes on scoring."
        )
    if certificate.timed_until_dominated:
        trials = _listed(certificate.timed_until_dominated)
        lines.append(f"Timed briefly, because trials dominated them that are not feasible at this floor: {trials}.")
    return lines


def _compared(margin: float, member: int | None) -> str:
    """Say how a cell compares with a front member; ``margin``: by how much it is worse, in its best objective."""
    if margin >= 5e-4:
        return f"at least {margin:.1%} worse than trial {member} in every objective"
    if margin > -5e-4:
        return f"no better than trial {member} in any objective"
    return f"at most {-margin:.1%} better than trial {member} in any objective"


def _listed(numbers: Sequence[int]) -> str:
    """Return ``trial 3`` or ``trials 3, 5``."""
    return f"{'trial' if len(numbers) == 1 else 'trials'} {', '.join(map(str, numbers))}"


def _completeness(certificate: Certificate) -> str:
    """Say what the search can still change; an empty front, or the baseline alone, is worded differently."""
    by_more = f"by more than {float(f'{certificate.resolution:.2g}'):.0%}"
    if not certificate.members:
        so_far, does, may = "nothing that was measured is feasible", "is", "be"
    elif certificate.only_baseline:
        so_far = "nothing that was measured is feasible and improves on the baseline"
        does, may = f"does {by_more}", f"do so {by_more}"
    else:
        so_far, does, may = "", f"improves the front {by_more}", f"improve the front {by_more}"
    left = sum(standing.status in (OPEN, UNDECIDED) for standing in certificate.standings)
    so_far = f"{so_far}; " if so_far else ""
    if certificate.complete:
        if certificate.open <= 0:
            return (
                f"Complete: {so_far}no cell is left that may change that."
                if so_far
                else ("Complete: no cell is left that may improve the front.")
            )
        chance = f"{certificate.open:.1%}" if certificate.open >= 1e-3 else "0.1%"
        return f"Complete: {so_far}at most {chance} chance that an unmeasured cell {does}."
    if not left:
        return f"Not complete: {so_far}{certificate.open:.1%} chance is left that some cell {does}."
    minutes = max(1, round(certificate.seconds / 60))
    cells, one = ("1 cell is", "it") if left == 1 else (f"{left} cells are", "one of them")
    return f"Not complete: {so_far}{cells} open, and {one} may {may}. Measuring what is open takes about {minutes} min."


def counted(count: int, one: str, more: str) -> str:
    """Return a count with its noun: ``1 cell is``, ``2 cells are``."""
    return f"{count} {one if count == 1 else more}"


def _open_cells(chances: np.ndarray, error: float) -> Indices:
    """Return the likeliest cells: as few as leave the others a total chance of at most ``error``."""
    order = np.argsort(-chances, kind="stable")
    rest = chances.sum() - np.concatenate([[0.0], np.cumsum(chances[order])])
    return order[: int(np.argmax(rest <= error + 1e-12))]


class _Writer:
    """Writes the status of every cell."""

    def __init__(
        self,
        grid: Grid,
        known: Observations,
        forecast: Forecast,
        trials: Mapping[int, TrialRecord],
        floor: float,
        left: set[int],
    ) -> None:
        self.grid, self.known, self.forecast, self.trials, self.left = grid, known, forecast, trials, left
        self.floor = floor
        self.harder = harder_than(grid)
        self.scored = {int(grid.recipes[index]): record for index, record in trials.items() if is_scored(record)}
        self.front = known.front
        self.failures = [(index, record) for index, record in trials.items() if record.state == "failed"]

    def standing(self, index: int) -> CellStatus:
        """Return the status of the cell with number ``index``."""
        cell, trial = self.grid.cell(index), self.trials.get(index)
        if index in self.grid.outside:
            return CellStatus(cell, UNSUPPORTED, None, self.grid.outside[index])
        chance = float(self.forecast.feasible[index] * self.forecast.improvement[index])
        done = trial is not None and trial.state == "complete"
        missed = self.known.verdicts[self.grid.recipes[index]] == -1
        if trial is not None and done and (self.known.measured[index] or (self.known.closed[index] and not missed)):
            return self._measured(index, cell, trial, chance)
        if self.known.closed[index] and not done:
            return self._failed(index, cell, trial)
        recipe = int(self.grid.recipes[index])
        if self.known.verdicts[recipe] == -1:
            scorer = self.scored[recipe]
            return CellStatus(cell, INFEASIBLE, scorer.number, missed_by(scorer, self.floor))
        if index in self.left:
            return CellStatus(
                cell, OPEN, None, f"feasible with a chance of {self.forecast.feasible[index]:.0%}", chance
            )
        if self.forecast.feasible[index] <= self.forecast.improvement[index] or not len(self.front):
            return self._assumed(recipe, cell, chance)
        member, margin = self._dominator(index)
        return CellStatus(cell, DOMINATED, member, f"expected to be {_compared(margin, member)}", chance)

    def _measured(self, index: int, cell: Cell, trial: TrialRecord, chance: float) -> CellStatus:
        wrong = over(trial.metrics)
        if wrong:
            return CellStatus(cell, INFEASIBLE, trial.number, "; ".join(wrong))
        if is_scored(trial):
            if index in self.left:
                return CellStatus(cell, UNDECIDED, trial.number, "scored on too few examples for this floor", chance)
            return CellStatus(cell, MEASURED, trial.number, "")
        if index in self.left or not len(self.front):
            return CellStatus(cell, UNDECIDED, trial.number, "timed, and never scored", chance)
        member, margin = self._dominator(index)
        return CellStatus(cell, MEASURED, trial.number, f"not scored: {_compared(margin, member)}")

    def _failed(self, index: int, cell: Cell, trial: TrialRecord | None) -> CellStatus:
        if trial is not None and trial.state == "failed":
            return CellStatus(cell, FAILED, trial.number, trial.reason)
        cause = next(record for other, record in self.failures if implied(self.grid, other, record)[index])
        return CellStatus(cell, MUST_FAIL, cause.number, f"{cause.reason} with less work")

    def _assumed(self, recipe: int, cell: Cell, chance: float) -> CellStatus:
        likely = f"feasible with a chance of {self.forecast.feasible[self.grid.recipes == recipe].max():.1%}"
        for milder, record in self.scored.items():
            missed = any(each.verdicts[milder] == -1 for each in self.known.floors.values())
            if missed and recipe in self.harder[milder].tolist():
                return CellStatus(cell, ASSUMED, record.number, f"{likely}: a milder recipe misses the floor", chance)
        return CellStatus(cell, ASSUMED, None, f"{likely}, by the recipes around it", chance)

    def _dominator(self, index: int) -> tuple[int | None, float]:
        """Return the trial of the member that is expected to dominate by the largest margin, and that margin."""
        ahead = (self.forecast.mean[index] - self.known.values[self.front]).min(axis=1)
        best = int(ahead.argmax())
        return self.trials[int(self.front[best])].number, math.expm1(float(ahead[best]))
