"""Reads from a trial what was asked of it: a floor of the accuracy, or one a task, and bands of other metrics.

A trial of several tasks holds the floor of each (``floor.boolq``, 0 where none is asked) beside its accuracy
(``accuracy.boolq``, absent where another task was missed first). Bands stand beside their metric
(``length_ratio.least``). So whether a trial is feasible follows from the trial alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from objectives.evaluation.floor_verdict import exact_decision
from objectives.types import Decision, Verdict
from search.front.metric_limits import limits_on, over
from search.records.trial import TrialRecord

FLOOR = "floor."
_LEAST = re.compile(r"\.least(?=$|\.[^.]+$)")
"""The mark of a band's lower end in the name of a metric, before the name of a task where there are several."""


@dataclass(frozen=True)
class Asked:
    """An accuracy that is asked for, and what a trial has.

    ``task``: its name, empty for the accuracy of the only task, or of the weighted mean of several. ``value``: NaN
    where it was not scored; ``stderr``: 0 where the verdict is exact.
    """

    task: str
    value: float
    stderr: float
    floor: float
    verdict: Verdict

    @property
    def is_kept(self) -> bool:
        """Return whether the floor is kept; where the verdict is open, the estimate decides."""
        decision = self.verdict.decision
        if decision is Decision.OPEN:
            decision = exact_decision(self.value, self.floor)
        return decision is Decision.REACHED

    @property
    def short(self) -> float:
        """Return by how much the accuracy lies below the floor; NaN where it was not scored."""
        return self.floor - self.value


def tasks_of(metrics: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the tasks of a trial, given its metrics; none where there is only one."""
    return tuple(name.removeprefix(FLOOR) for name in metrics if name.startswith(FLOOR))


def asked_of(record: TrialRecord, floor: float) -> list[Asked]:
    """Return the accuracies that are asked of a scored trial; ``floor``: of the only task, or of several's mean."""
    names = tasks_of(record.metrics)
    if not names:
        return [_alone(record, floor)]
    found = [_of_task(record, name) for name in names if record.metrics[f"{FLOOR}{name}"] > 0]
    return [*found, *([_of_mean(record, floor)] if floor > 0 or not found else [])]


def _alone(record: TrialRecord, floor: float) -> Asked:
    """Return what is asked of the only task.

    For a floor other than the one that it was raced against, only a full score decides; otherwise the answer is open.
    """
    verdict, value = record.facts.verdict, record.metrics.get("accuracy", math.nan)
    if verdict is None or verdict.method == "exact":
        verdict = Verdict(exact_decision(value, floor))
    elif record.metrics.get("floor") != floor:
        verdict = replace(verdict, decision=Decision.OPEN)
    return Asked("", value, record.metrics.get("accuracy_stderr", math.nan), floor, verdict)


def _of_task(record: TrialRecord, name: str) -> Asked:
    metrics, facts = record.metrics, record.facts.tasks.get(name)
    value, floor = metrics.get(f"accuracy.{name}", math.nan), metrics[f"{FLOOR}{name}"]
    error = metrics.get(f"accuracy_stderr.{name}", math.nan)
    if math.isnan(value):
        return Asked(name, value, error, floor, Verdict(Decision.UNSCORED))
    verdict = None if facts is None else facts.verdict
    if verdict is None or verdict.method == "exact":
        verdict = Verdict(exact_decision(value, floor))
    return Asked(name, value, error, floor, verdict)


def _of_mean(record: TrialRecord, floor: float) -> Asked:
    """Return what is asked of the mean: it decides only where every task was scored in full."""
    value = record.metrics.get("accuracy", math.nan)
    error = record.metrics.get("accuracy_stderr", math.nan)
    if math.isnan(value):
        return Asked("", value, error, floor, Verdict(Decision.UNSCORED))
    facts = record.facts.tasks.values()
    raced = next((each.verdict for each in facts if each.verdict and each.verdict.method != "exact"), None)
    decision = exact_decision(value, floor) if raced is None else Decision.OPEN
    return Asked("", value, error, floor, replace(raced or Verdict(decision), decision=decision))


@dataclass(frozen=True)
class Band:
    """A metric that has to stay within a range, and its value in a trial."""

    metric: str
    value: float
    least: float
    most: float

    @property
    def is_kept(self) -> bool:
        """Return whether the value lies within the range."""
        return self.least <= self.value <= self.most

    @property
    def excess(self) -> float:
        """Return by how much the value lies outside, relative to the end that it passes; at most 0 inside.

        An end at 0 has no size, so the width of the band takes its place.
        """
        beyond, end = max((self.least - self.value, self.least), (self.value - self.most, self.most))
        return beyond / (abs(end) or self.most - self.least or 1.0)


def bands_of(metrics: Mapping[str, float]) -> list[Band]:
    """Return the bands of a trial, given its metrics; none where it was not scored on all examples."""
    return [
        Band(value, metrics[value], metrics[least], metrics[most]) for value, least, most in _names_of_bands(metrics)
    ]


def metrics_of_bands(metrics: Mapping[str, float]) -> frozenset[str]:
    """Return the names of the metrics that have to stay within a range, and those of their ends."""
    return frozenset(name for names in _names_of_bands(metrics) for name in names)


def _names_of_bands(names: Collection[str]) -> list[tuple[str, str, str]]:
    """Return the names of every value that has a band, of its lower and of its upper end.

    ``least`` is a whole part of the name, the last one or the one before a task: ``length_ratio.least.summary``. What
    only looks like it (``accuracy.least_squares``) has no upper end.
    """
    found = []
    for name in names:
        for mark in _LEAST.finditer(name):
            metric, task = name[: mark.start()], name[mark.end() :]
            value, most = f"{metric}{task}", f"{metric}.most{task}"
            if value in names and most in names:
                found.append((value, name, most))
    return found


def shortfall(record: TrialRecord, floor: float) -> float:
    """Return by how much the accuracy that falls shortest lies below its floor, negative where all lie above."""
    known = [each.short for each in asked_of(record, floor) if not math.isnan(each.value)]
    return max(known, default=math.inf)


def accuracies_of(metrics: Mapping[str, float]) -> Mapping[str, float]:
    """Return the accuracy of every task that was scored, by name; the only one has the empty name."""
    names = tasks_of(metrics)
    known = {name: f"accuracy.{name}" for name in names} or {"": "accuracy"}
    return {name: metrics[key] for name, key in known.items() if key in metrics}


def least_share(metrics: Mapping[str, float], start: Mapping[str, float]) -> float:
    """Return the least share of the baseline's accuracy, whose metrics are ``start``, that any task keeps."""
    first = accuracies_of(start)
    return min(value / (first.get(name) or 1.0) for name, value in accuracies_of(metrics).items())


def named_metric(metric: str, task: str) -> str:
    """Return the name of a task's metric: that of the metric, for the only task."""
    return f"{metric}.{task}" if task else metric


def named(task: str, text: str) -> str:
    """Return ``text`` after the name of a task, alone for the only one."""
    return f"{task} {text}" if task else text


def beyond(metrics: Mapping[str, float]) -> list[str]:
    """Return the bands and limits of a trial that it does not keep, as texts."""
    return [*outside(bands_of(metrics)), *over(metrics)]


def distance(record: TrialRecord, floor: float) -> float:
    """Return how far a trial is from what is asked: by its shortfall, or by its largest excess over a limit."""
    return max([shortfall(record, floor), *(each.excess for each in limits_on(record.metrics))])


def missed_by(record: TrialRecord, floor: float) -> str:
    """Return in words what a trial misses: its accuracy; of several tasks, each below its floor; bands; limits."""
    if not tasks_of(record.metrics) and not beyond(record.metrics):
        return f"accuracy {record.metrics['accuracy']:.4f}"
    missed = [each for each in asked_of(record, floor) if not math.isnan(each.value) and not each.is_kept]
    told = [
        f"accuracy{f' of {each.task}' if each.task else ''} {each.value:.4f}, floor {each.floor:.4f}" for each in missed
    ]
    return "; ".join([*told, *beyond(record.metrics)])


def outside(bands: Sequence[Band]) -> list[str]:
    """Return the bands that are missed as texts: ``length ratio of summary 1.24, outside 0.9 to 1.1``."""
    return [
        f"{_in_words(band.metric)} {band.value:.3g}, outside {band.least:g} to {band.most:g}"
        for band in bands
        if not band.is_kept
    ]


def _in_words(metric: str) -> str:
    name, _, task = metric.partition(".")
    return name.replace("_", " ") + (f" of {task}" if task else "")
