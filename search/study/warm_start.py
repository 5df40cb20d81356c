"""Predicts the cells of a study from another study's trials, as a warm start of the surrogate.

The surrogate starts from these predictions and is corrected by what is measured here. They are never reported. Only
gains over the other study's own baseline are taken over, so that another device, model or list of batch sizes does no
more harm than a wrong guess. Values that only one of the two studies has are placed among the others on a common axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna

from search.config.study_config import StudyConfig
from search.errors import ConfigError
from search.front.asked import accuracies_of, named_metric
from search.front.feasibility import is_scored
from search.front.front import baseline_of
from search.frontier.forecast import GAP, OBJECTIVE
from search.frontier.known import WarmStart
from search.frontier.observations import minimised_log
from search.frontier.surrogate import Prior, Surrogate
from search.records.trial import TrialRecord, Value
from search.space.grid import Grid, coordinates, is_of_recipe
from search.space.instantiate import nearest
from search.space.product_grid import Floats, ProductGrid
from search.space.space import Axis, Cell
from search.study import opening, store
from search.study.confirmation import Confirmation
from search.study.state import StudyState

FEWEST = 3
"""The fewest trials from which anything is concluded."""


def warm_start_of(config: StudyConfig, losses: Sequence[float] | None = None) -> WarmStart:
    """Return the warm start from the study that ``config.warm_start`` names and from ``losses``; empty without both.

    The study must lie in the same storage. ``losses``: those predicted for the recipes, nats. Raises ConfigError for a
    study that does not exist or cannot be used.
    """
    name = config.warm_start
    warm_start = (
        WarmStart()
        if name is None
        else warm_start_from(Grid.of(config.space), config.objectives, _records(config, name), name)
    )
    return warm_start if losses is None else replace(warm_start, losses=np.array(losses))


def first_cells(config: StudyConfig) -> tuple[Cell, ...]:
    """Return the cells of this study that are on the front of the warm start's study, at this study's floor."""
    if config.warm_start is None:
        return ()
    state = StudyState(config, _records(config, config.warm_start), Confirmation())
    if state.telling.baseline is None:
        return ()
    return tuple(record.params for record in state.members if record.params in config.space)


def _records(config: StudyConfig, name: str) -> list[TrialRecord]:
    storage = opening.open_storage(config.storage, config.home)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    names = [each for each in names if each != config.name]
    if name not in names:
        raise ConfigError(
            f"warm_start: no study named {name!r}{nearest(name, names)}; known: {', '.join(names) or 'none'}"
        )
    return store.records_of(optuna.load_study(study_name=name, storage=storage))


def warm_start_from(grid: Grid, objectives: Sequence[str], records: Sequence[TrialRecord], name: str) -> WarmStart:
    """Return the warm start for the cells of ``grid``, from ``records``, the trials of the study ``name``.

    Raises ConfigError where that study varies other settings, has no baseline, or has fewer than ``FEWEST`` usable
    trials.
    """
    baseline = baseline_of(records)
    ours = {axis.path for axis in grid.axes}
    theirs = {path for record in records for path in record.params}
    if theirs and theirs != ours:
        varied = f"{name} varies {', '.join(sorted(theirs))}, this study {', '.join(sorted(ours))}"
        raise ConfigError(f"warm_start: {varied}")
    usable = [record for record in records if record.state == "complete" and set(record.params) == ours]
    if baseline is None or len(usable) < FEWEST:
        raise ConfigError(f"warm_start: {name} has {len(usable)} measured trials, needed are {FEWEST} and its baseline")
    joint = [_joined(axis, usable) for axis in grid.axes]
    values = [_guessed(grid, joint, _gains(usable, baseline, each), OBJECTIVE) for each in objectives]
    scored = [record for record in usable if is_scored(record)]
    by_recipe = [axis for axis in joint if is_of_recipe(axis)]
    recipes = Grid(tuple(axis for axis in grid.axes if is_of_recipe(axis)))

    def lost(task: str) -> Floats:
        name = named_metric("accuracy", task)
        known = [(each, each.metrics[name] - baseline.metrics[name]) for each in scored if name in each.metrics]
        return _guessed(recipes, by_recipe, known, GAP)

    tasks = {task: lost(task) for task in accuracies_of(baseline.metrics) if task}
    return WarmStart(np.stack(values, axis=1), lost(""), tasks=tasks)


def _joined(axis: Axis, records: Sequence[TrialRecord]) -> Axis:
    """Return the axis with the values of both studies."""
    values: dict[Value, None] = dict.fromkeys(axis.values)
    values.update(dict.fromkeys(record.params[axis.path] for record in records))
    joint = replace(axis, values=tuple(values))
    return replace(joint, values=tuple(sorted(values))) if joint.is_ordinal else joint  # type: ignore[type-var]


def _gains(records: Sequence[TrialRecord], baseline: TrialRecord, objective: str) -> list[tuple[TrialRecord, float]]:
    """Return the trials with their gains over the baseline, in log units, smaller is better.

    Trials that did not measure the objective are left out.
    """
    start = minimised_log(baseline.metrics, objective)
    gains = [(record, minimised_log(record.metrics, objective) - start) for record in records]
    return [(record, gain) for record, gain in gains if np.isfinite(gain)]


def _guessed(grid: Grid, joint: Sequence[Axis], known: Sequence[tuple[TrialRecord, float]], prior: Prior) -> Floats:
    """Return the predicted values [cells]; NaN in all cells where fewer than ``FEWEST`` trials are known."""
    if len(known) < FEWEST:
        return np.full(len(grid), np.nan)
    places = {axis.path: {value: place for place, value in enumerate(axis.values)} for axis in joint}
    tables = {axis.path: coordinates(axis) for axis in joint}
    points = np.array([_point(record.params, joint, places, tables) for record, _ in known])
    product = ProductGrid(
        tuple(tables[axis.path][[places[axis.path][value] for value in axis.values]] for axis in grid.axes)
    )
    return Surrogate(points, np.array([value for _, value in known]), prior).predict(product).mean


def _point(
    params: Mapping[str, Value],
    joint: Sequence[Axis],
    places: Mapping[str, Mapping[Value, int]],
    tables: Mapping[str, Floats],
) -> Floats:
    return np.concatenate([tables[axis.path][places[axis.path][params[axis.path]]] for axis in joint])
