"""Several tasks in one study, each with a figure and a floor of its own.

A study of several tasks is composed of this class; the evaluator scores the tasks one by one
(:mod:`objectives.evaluation.task_scores`). They calibrate together, as domains of equal weight. The module is free of
torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, InstanceOf
from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.errors import ModelError
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Banded, Bounded, Labelled, Remarking, Supplied
from objectives.protocols.task import Task
from objectives.tasks.joint import joint_calibration, joint_excerpts, joint_scores, remarks_of, require_all
from objectives.tasks.overlap import Excerpts, Exposed
from objectives.tasks.setting_names import named_below
from objectives.types import Head, Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains as Batches
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""The pattern of a task's name, which is a part of names of metrics."""

PLACE = "tasks"
"""The key below which the settings of several tasks are written."""

TAKEN = frozenset({
    "weights", "mean", "tasks", "epsilon", "relative", "error", "low", "high", "least", "most", "stderr", "difference",
    "replicates", "interval", "kept",
})  # fmt: skip
"""The names that no task may have: settings of floors, and ends of names of metrics."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Several(Task, Bounded, Supplied, Labelled, Remarking, Exposed):
    """Several tasks, by name, all for the same kind of model.

    ``weights``: how much each counts in their mean, 1 where none is given.
    """

    tasks: Annotated[Mapping[str, InstanceOf[Task]], Field(min_length=2)]
    weights: Mapping[str, float] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for a name that is none or taken, and for the weight of a task that is not there."""
        odd = [name for name in self.tasks if not NAME.fullmatch(name)]
        if odd:
            raise ValueError(f"a name has small letters, digits and _, as boolq or my_task_2; got {odd[0]!r}")
        taken = sorted(TAKEN & set(self.tasks))
        if taken:
            raise ValueError(f"{taken[0]!r} is the name of a setting or figure; call the task otherwise")
        unknown = sorted(set(self.weights) - set(self.tasks))
        if unknown:
            raise ValueError(f"weights: no task {unknown[0]!r}; tasks: {', '.join(self.tasks)}")
        wrong = next((name for name, weight in self.weights.items() if not 0.0 < weight < math.inf), None)
        if wrong is not None:
            raise ValueError(f"weights.{wrong}: a number > 0 expected, got {self.weights[wrong]:g}")

    @property
    @override
    def head(self) -> Head:
        """Return the head of the tasks. Raises ModelError where they differ."""
        heads = {name: task.head for name, task in self.tasks.items()}
        if len(set(heads.values())) > 1:
            raise ModelError(f"tasks: they drive different kinds of model: {heads}")
        return next(iter(heads.values()))

    @property
    @override
    def spans(self) -> tuple[Span, ...]:
        return tuple(
            replace(span, settings=tuple(f"{PLACE}.{name}.{setting}" for setting in span.settings))
            for name, task in self.tasks.items()
            if isinstance(task, Bounded)
            for span in task.spans
        )

    @override
    def require_documents(self) -> None:
        """Raise ObjectiveError where a task that can tell has too few documents; it names the task's own settings."""
        require_all(self.tasks, PLACE)

    @override
    def require_labels(self, classes: Sequence[str]) -> None:
        for name, task in self.tasks.items():
            if isinstance(task, Labelled):
                with named_below(f"{PLACE}.{name}", task):
                    task.require_labels(classes)

    @override
    def remarks(self) -> tuple[str, ...]:
        return remarks_of(self.tasks, PLACE)

    @override
    def calibration(self, model: LoadedModel) -> Batches:
        """Return the calibration rows of every task, each as one domain."""
        return joint_calibration(self.tasks, PLACE, model)

    @override
    def excerpts(self, model: LoadedModel) -> Excerpts:
        """Return the rows of all tasks: a row that calibrates in one may not be scored in any other."""
        return joint_excerpts(self.tasks, PLACE, model)

    @override
    def evaluate(self, model: Runner) -> Score:
        """Return the score of the weighted mean; ``extra`` holds ``accuracy.<task>`` and all that the tasks report."""
        (scores,) = joint_scores([(PLACE, self.tasks)], model)
        return combined(scores, weights_of(self))


def place_of(name: str) -> str:
    """Return where the settings of a task are written that is one of several; empty for the only one."""
    return f"{PLACE}.{name}" if name else ""


def tasks_of(task: Task) -> Mapping[str, Task]:
    """Return the tasks by name; one that stands by itself has the empty name."""
    return task.tasks if isinstance(task, Several) else {"": task}


def weights_of(task: Task) -> Mapping[str, float]:
    """Return how much each task counts in the mean; the weights add up to 1."""
    given = {name: task.weights.get(name, 1.0) if isinstance(task, Several) else 1.0 for name in tasks_of(task)}
    whole = math.fsum(given.values())
    return {name: weight / whole for name, weight in given.items()}


def bands_of(task: Task) -> Mapping[str, tuple[float, float]]:
    """Return the bands that a task asks for, none where it has none."""
    return task.bands if isinstance(task, Banded) else {}


def combined(scores: Mapping[str, Score], weights: Mapping[str, float]) -> Score:
    """Return the score of the weighted mean of several tasks; its examples are those of all tasks, in their order."""
    extra: dict[str, Any] = {}
    for name, score in scores.items():
        extra |= {f"{key}.{name}": value for key, value in {"accuracy": score.accuracy, **score.extra}.items()}
    facts = {name: {"accuracy": score.accuracy, "accuracy_stderr": score.stderr} for name, score in scores.items()}
    mean = weighted_mean(facts, weights)
    examples = tuple(example for score in scores.values() for example in score.examples)
    ids = numbered({name: (score.ids, len(score.examples)) for name, score in scores.items()})
    return Score(mean["accuracy"], mean["accuracy_stderr"], examples, extra, ids)


def numbered(ids: Mapping[str, tuple[Sequence[str], int]]) -> tuple[str, ...]:
    """Return ``<task>:<id>`` of the examples of all tasks, given their ids and number; those without are counted."""
    return tuple(f"{task}:{name}" for task, (names, count) in ids.items() for name in (names or map(str, range(count))))


def weighted_mean(metrics: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """Return accuracy, standard error and difference to the baseline of the mean over tasks, from those of each.

    Tasks have examples of their own, so errors add up in quadrature: standard errors, and each side of the paired
    intervals. The difference is absent where that of a task is not known.
    """
    found = {"accuracy": math.fsum(weights[name] * each["accuracy"] for name, each in metrics.items())}
    found["accuracy_stderr"] = math.hypot(*(weights[name] * each["accuracy_stderr"] for name, each in metrics.items()))
    if not all("accuracy_difference" in each for each in metrics.values()):
        return found
    value = math.fsum(weights[name] * each["accuracy_difference"] for name, each in metrics.items())
    found["accuracy_difference"] = value
    for end, sign in (("low", -1), ("high", 1)):
        sides = [
            weights[name] * (each[f"accuracy_difference.{end}"] - each["accuracy_difference"])
            for name, each in metrics.items()
        ]
        found[f"accuracy_difference.{end}"] = value + sign * math.hypot(*sides)
    return found
