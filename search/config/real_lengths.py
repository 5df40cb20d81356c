"""``workload.tokens=task``: the lengths at which a model is timed follow from the texts that it is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from objectives.models.inspection import Inspection
from objectives.models.inspection.folders import cached_folder, local_folder
from objectives.protocols.candidate import Model
from objectives.protocols.optional import Inspectable, Readable
from objectives.protocols.task import Task
from objectives.tasks.setting_names import named_below
from objectives.tasks.several import place_of, tasks_of
from search.errors import ConfigError

TASK = "task"
"""The word that stands for a length of the task's texts."""
READ = ("tokens", "prompt_tokens", "source_tokens")
"""The settings of workloads that say how long a text is that a model reads."""


def with_real_lengths(resolved: Mapping[str, Any], model: Model, task: Task) -> Mapping[str, Any]:
    """Return ``resolved`` with numbers in place of the word ``task`` among the workload's lengths.

    The number is the mean over the scored texts, of several tasks over those of all. Raises ConfigError where texts or
    tokenizer are not known yet.
    """
    workload = resolved["workload"]
    names = [name for name, value in workload.items() if value == TASK]
    if not names:
        return resolved
    if names[0] not in READ:
        raise ConfigError(f"workload.{names[0]}: a number expected, got task; task goes with {', '.join(READ)}")
    tokens = _mean(names[0], model, task)
    return {**resolved, "workload": {**workload, **dict.fromkeys(names, tokens)}}


def _mean(name: str, model: Model, task: Task) -> int:
    """Return the mean over the texts of all tasks, each cut as its own task does. Raises ConfigError."""
    from objectives.tasks.lengths import mean_tokens

    tasks = {named: _readable(name, each, place_of(named)) for named, each in tasks_of(task).items()}
    inspection = model.inspect() if isinstance(model, Inspectable) else None
    folder = local_folder(model.path) or cached_folder(model.path, getattr(model, "revision", None))
    if folder is None:
        raise ConfigError(f"workload.{name}=task: {model.path} is not here yet: paretune fetch, or give a number")
    read, asked = 0, 0.0
    for named, each in tasks.items():
        with named_below(place_of(named), tasks_of(task)[named]):
            texts = each.texts()
        read += len(texts)
        asked += len(texts) * mean_tokens(texts, folder, _most(inspection, each))
    return max(1, round(asked / read))


def _readable(name: str, task: Task, place: str) -> Readable:
    """Return ``task``; ``place``: its key among several. Raises ConfigError where it does not tell its texts."""
    if isinstance(task, Readable):
        return task
    who = f"{type(task).__name__}{f' ({place})' if place else ''}"
    raise ConfigError(f"workload.{name}=task: {who} does not tell its texts; give a number")


def _most(inspection: Inspection | None, task: Readable) -> int:
    """Return how many tokens of a text are read at most."""
    held = None if inspection is None else inspection.positions
    return min(task.longest, held or task.longest)
