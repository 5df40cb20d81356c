"""Several tasks of one model that calibrate and are scored together, one after the other.

The settings of each stand below a ``place`` (``tasks``, ``task.served``), and all that it says names them so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from objectives.protocols.optional import Remarking, Supplied
from objectives.protocols.task import Task
from objectives.tasks.answers import calibrated, scored
from objectives.tasks.overlap import Excerpt, Excerpts, Exposed
from objectives.tasks.progress import one_by_one
from objectives.tasks.setting_names import named_below, renamed
from objectives.types import Score

if TYPE_CHECKING:
    from objectives.calibration.moments import Domains
    from objectives.models import LoadedModel
    from objectives.protocols.running import Runner


def require_all(tasks: Mapping[str, Task], place: str) -> None:
    """Raise ObjectiveError where one of the tasks that can tell has too few documents."""
    for name, task in tasks.items():
        if isinstance(task, Supplied):
            with named_below(f"{place}.{name}", task):
                task.require_documents()


def remarks_of(tasks: Mapping[str, Task], place: str) -> tuple[str, ...]:
    """Return what the tasks remark."""
    told = ((name, task) for name, task in tasks.items() if isinstance(task, Remarking))
    return tuple(renamed(line, task, f"{place}.{name}") for name, task in told for line in task.remarks())


def joint_calibration(tasks: Mapping[str, Task], place: str, model: LoadedModel) -> Domains:
    """Return the calibration rows of every task, each as one domain."""
    found: dict[str, list[Any]] = {}
    for name, task in tasks.items():
        with named_below(f"{place}.{name}", task):
            found[name] = [batch for batches in calibrated(task, model).values() for batch in batches]
    return found


def joint_excerpts(tasks: Mapping[str, Task], place: str, model: LoadedModel) -> Excerpts:
    """Return the rows of every task that can tell them, named ``<task>:<row>``, and what it remarks of them."""
    calibration: list[Excerpt] = []
    scored: list[Excerpt] = []
    copies: list[tuple[str, str]] = []
    remarks: list[str] = []
    for name, task in tasks.items():
        if not isinstance(task, Exposed):
            continue
        with named_below(f"{place}.{name}", task):
            rows = task.excerpts(model)
        calibration += [replace(each, name=f"{name}:{each.name}") for each in rows.calibration]
        scored += [replace(each, name=f"{name}:{each.name}") for each in rows.scored]
        copies += [(f"{name}:{copy}", f"{name}:{other}") for copy, other in rows.left_out]
        remarks += [renamed(line, task, f"{place}.{name}") for line in rows.remarks]
    return Excerpts(calibration, scored, copies, remarks)


def joint_scores(places: Sequence[tuple[str, Mapping[str, Task]]], model: Runner) -> list[dict[str, Score]]:
    """Return the scores of the tasks below every place."""
    found: list[dict[str, Score]] = [{} for _ in places]
    all_of_them = [
        (scores, f"{place}.{name}", name, task)
        for scores, (place, tasks) in zip(found, places)
        for name, task in tasks.items()
    ]
    for scores, place, name, task in one_by_one(all_of_them, domains=True):
        with named_below(place, task):
            scores[name] = scored(task, task.evaluate(model))
    return found
