"""Optuna's own samplers on a grid, told what a careful user would tell them, on the same clock as ours.

"Cached" pays for every model and every accuracy once and for no cell twice; "plain" pays for every trial in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from replay import Grid, Key, needs_of

from search.space.space import Axis

SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=24),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True),
}
CAP = {"gp": 120}
"""Trials that a sampler may have, where they are not as many as there are cells: GP takes a second for each."""

LEVELS = (0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
"""Hypervolumes, as shares of that of the exhaustive front, whose cost is noted."""

Cell = tuple[float, float, int]


class Clock:
    """What trials cost: ``plain`` and ``cached``, in recorded seconds."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.plain, self.cached = 0.0, float(grid.recorded["load_seconds"])
        self._models: set[Key] = set()
        self._cells: set[Cell] = set()
        self._needs: frozenset[str] = frozenset()

    def pay(self, key: Cell, asking: float) -> None:
        """For one trial; ``asking``: what the sampler itself took."""
        own, cell = self._grid.recipes[key[:2]], self._grid.cells[key]
        model, needs = own["compress_seconds"] + own["score_seconds"], needs_of(*key[:2])
        statistics = self._grid.statistics_seconds
        run = cell["time_seconds"] if "metrics" in cell else cell["seconds"]
        self.plain += asking + self._grid.recorded["load_seconds"] + statistics(needs) + model + run
        new_model, new_cell = key[:2] not in self._models, key not in self._cells
        more = statistics(self._needs | needs) - statistics(self._needs)
        self.cached += asking + more + model * new_model + run * new_cell
        self._needs |= needs
        self._models.add(key[:2])
        self._cells.add(key)


def study_of(grid: Grid, sampler: str, seed: int) -> optuna.Study:
    """With the baseline to begin with."""
    found = optuna.create_study(directions=["minimize", "minimize"], sampler=SAMPLERS[sampler](seed))
    found.enqueue_trial({axis.parameter: axis.sampled(axis.first) for axis in grid.axes})
    return found


def asked(trial: optuna.Trial, axes: tuple[Axis, ...]) -> Cell:
    """The cell that a trial stands for."""
    cell = {axis.path: axis.value(trial.suggest_int(axis.parameter, 0, len(axis.values) - 1)) for axis in axes}
    return cell_of(cell)


def cell_of(params: Mapping[str, Any]) -> Cell:
    """By ratio, bits and batch size."""
    return params["pruning.ratio"], float(params["quantization.bits"]), params["workload.batch_size"]


def tell(study: optuna.Study, trial: optuna.Trial, grid: Grid, key: Cell, *, failed: str = "constraint") -> None:
    """What came of it. ``failed``: cells that fail are told with a ``constraint``, or as trials that ``fail``."""
    cell = grid.cells[key]
    if "metrics" in cell:
        trial.set_constraint("accuracy", grid.floor - grid.recipes[key[:2]]["accuracy"])
        study.tell(trial, [-cell["metrics"]["speedup"], cell["metrics"]["peak_memory"]])
    elif failed == "constraint":
        trial.set_constraint("memory", cell.get("severity", 1.0))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


def search(grid: Grid, sampler: str, seed: int) -> dict[str, Any]:
    """Until the last of the hypervolumes is there, or as many trials as there are cells."""
    study, clock, seen = study_of(grid, sampler, seed), Clock(grid), list[Cell]()
    limit, trail = CAP.get(sampler, len(grid.cells)), list[tuple[float, Cell]]()
    while len(seen) < limit and (not seen or grid.share(seen)[0] < LEVELS[-1]):
        began = time.perf_counter()
        trial = study.ask()
        key = asked(trial, grid.axes)
        tell(study, trial, grid, key)
        clock.pay(key, time.perf_counter() - began)
        seen.append(key)
        trail.append((clock.cached, key))
    volume, lacks, _ = grid.share(seen)
    base = grid.exhaustive_seconds
    return {
        "volume": volume, "lacks": lacks, "plain": clock.plain / base, "cached": clock.cached / base,
        "trials": len(seen), "until": until(grid, trail),
    }  # fmt: skip


def until(grid: Grid, trail: Sequence[tuple[float, Cell]]) -> dict[str, float | None]:
    """Share of the exhaustive cost until each hypervolume was there; None where it never was.

    ``trail``: seconds on the clock, and the cell that was known from then on.
    """
    seen, found = list[Cell](), dict[str, float | None]()
    steps = iter([(0.0, None), *trail])
    volume, spent = 0.0, 0.0
    for level in LEVELS:
        while volume < level and (step := next(steps, None)) is not None:
            spent, key = step
            seen += [key] if key is not None else []
            volume = grid.share(seen)[0] if seen else 0.0
        found[str(level)] = spent / grid.exhaustive_seconds if volume >= level else None
    return found
