"""What the search itself costs: a look at grids of several sizes, and a trial late in a long study."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from objectives.protocols.candidate import Candidate
from objectives.settings import UNDECLARED
from objectives.types import Decision, Facts, Gate, Measurement, Outcome, Verdict
from search.config.study_config import StudyConfig
from search.frontier.forecast import Forecaster
from search.frontier.known import Observations, WarmStart
from search.space.grid import Grid
from search.space.space import Axis
from search.study.study import run_study

PRUNED, WIDTH = UNDECLARED["pruning"]["ratio"], UNDECLARED["quantization"]["bits"]


def grid_of(ratios: int, bits: int, batches: int) -> Grid:
    """Of so many values an axis."""
    return Grid((
        Axis("pruning.ratio", tuple(np.linspace(0.0, 0.7, ratios).tolist()), 0.0, PRUNED),
        Axis("quantization.bits", tuple(range(2, 2 + bits)), 2, WIDTH),
        Axis("workload.batch_size", tuple(range(1, 1 + batches)), 1),
    ))  # fmt: skip


def known_of(grid: Grid, measured: int, *, hard: bool = False) -> Observations:
    """A made-up state of a study: so many cells measured, half of the recipes feasible.

    ``hard``: three objectives, and a tenth of what was tried ran out of memory.
    """
    rng, points = np.random.default_rng(0), grid.lattice.points
    recipes = grid.recipe_lattice.points
    speed = 0.3 * points[:, 0] - points[:, -1] + 0.02 * rng.standard_normal(len(grid))
    truth = np.stack([speed, points @ np.linspace(-0.4, 0.5, points.shape[1])], axis=1)
    own = rng.permutation(len(grid))[:measured]
    scored = np.unique(grid.recipes[own])
    gaps, verdicts = np.full(len(recipes), np.nan), np.zeros(len(recipes), np.int_)
    gaps[scored] = 0.05 - 0.1 * recipes[scored, 0]
    verdicts[scored] = np.where(gaps[scored] > 0, 1, -1)
    values = np.full((len(grid), 2), np.nan)
    values[own] = np.where(verdicts[grid.recipes[own], None] > 0, truth[own], np.nan)
    nothing = np.zeros(len(grid), np.bool_)
    known = Observations(
        grid, values, gaps, np.zeros(len(recipes)), verdicts, nothing, np.zeros(len(recipes), np.bool_)
    )
    if not hard:
        return known
    starved = np.isin(np.arange(len(grid)), own[: measured // 10])
    third = values[:, :1] * 0.7 + 0.02 * rng.standard_normal((len(grid), 1))
    values = np.where(starved[:, None], np.nan, np.concatenate([values, third], axis=1))
    return replace(known, values=values, memory=values[:, 1], starved=starved, closed=starved.copy())


def look_seconds(grid: Grid, measured: int, looks: int = 5, *, hard: bool = False) -> float:
    """Median of a look, the first, which fits from scratch, left out. ``hard``: see above, with losses predicted."""
    losses = np.random.default_rng(1).uniform(0.0, 0.5, len(grid.recipe_lattice)) if hard else None
    forecaster, found = Forecaster(warm_start=WarmStart(losses=losses)), []
    for _ in range(looks + 1):
        known = known_of(grid, measured, hard=hard)
        began = time.perf_counter()
        forecaster.look(known)
        found.append(time.perf_counter() - began)
    return median(found[1:])


@dataclass
class Instant:
    """An executor and runner that knows every answer; ``left``: seconds between two questions."""

    space: Any
    left: list[float] = field(default_factory=list)

    def start(self, _problem: object) -> Instant:
        return self

    def __enter__(self) -> Instant:
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prepare(self) -> Future[Mapping[str, str]]:
        return _done({"device": "none"})

    def sources(self) -> Future[list[Any]]:
        return _done([])

    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        self.left.append(time.perf_counter() - self._since)
        ratio, bits = candidate.pruning.ratio, float(candidate.quantization.bits)
        speed = candidate.workload.batch_size / (1 - ratio / 2) * (16 / bits) ** 0.3
        metrics = {
            "accuracy": 0.9 - ratio**2 / 10, "accuracy_stderr": 0.01, "speedup": speed, "throughput": speed,
            "peak_memory": (1 - ratio) * bits + 0.1 * candidate.workload.batch_size, "examples": 100.0,
        }  # fmt: skip
        outcome = Measurement(metrics, {"accuracy": (0.9,)}, (), Facts(verdict=Verdict(Decision.REACHED)), ("a",))
        self._since = time.perf_counter()
        return _done(outcome)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Silent:
    """Progress that nobody watches."""

    def stage(self, text: str) -> None:
        """See ``search.study.study.Progress``."""

    def scoring(self, far: Any) -> None:
        """See ``search.study.study.Progress``."""

    def trial(self, records: Any, front: Any) -> None:
        """See ``search.study.study.Progress``."""


def long_study(config: StudyConfig, trials: int, window: int = 250) -> tuple[float, float]:
    """Median seconds of asking and telling, early (after ``window`` trials) and in the last ``window``."""

    with tempfile.TemporaryDirectory() as home:
        executor = Instant(config.space)
        limits = replace(config.limits, n_trials=trials)
        storage = f"sqlite:///{home}/studies.db"
        own = replace(config, executor=executor, limits=limits, home=Path(home), storage=storage)
        run_study(own, Silent())
    return median(executor.left[window : 2 * window]), median(executor.left[-window:])
