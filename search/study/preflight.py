"""Checks a study before torch is imported: its device is present, its checkpoint fits, its cells can run.

``run`` and ``plan`` call it. The commands that read stored studies do not: a report needs neither model nor device.
Texts longer than the model's positions are refused where the task, the baseline or a value of an axis could never run.
Single cells that are too long, or larger than the machine's memory, are removed from the space, with the reason.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter
from typing import Any

from objectives.errors import ObjectiveError
from objectives.models.inspection import Inspection
from objectives.models.inspection.spans import Span
from objectives.protocols.optional import Bounded, Detectable, Inspectable, Labelled, Remarking, Supplied
from objectives.protocols.running import Device, Workload
from objectives.protocols.serving import Loading
from objectives.settings import Strength, asks_to_prune, settings_of, strengths_of
from objectives.tasks.provenance import own_code
from search.config.study_config import StudyConfig
from search.errors import ConfigError
from search.executors.protocol import MeasuresElsewhere
from search.records.storage_url import require_driver, sqlite_path
from search.records.trial import Value
from search.space.grid import MOST_CELLS, is_of_recipe
from search.space.instantiate import target_of
from search.space.space import Axis, Cell, Space

log = logging.getLogger(__name__)


def preflighted(config: StudyConfig) -> StudyConfig:
    """Return ``config`` with what its checkpoint's files say and without the cells that cannot run.

    Raises ConfigError for a setting that cannot work.
    """
    require_driver(config.storage)
    elsewhere = isinstance(config.executor, MeasuresElsewhere) and config.executor.is_elsewhere
    absent = config.device.absent() if isinstance(config.device, Detectable) and not elsewhere else None
    if absent is not None:
        raise ConfigError(absent)
    if not elsewhere:
        config.executor.start(config.problem)  # says where the device has no places for it; nothing is started yet
    require_dense(config.space)
    inspection = _inspected(config)
    if inspection is not None:
        _refuse_task(config, inspection)
        try:
            space = _within(config.space, inspection, config.device)
        except ObjectiveError as error:  # a file that the workload reads
            raise ConfigError(str(error)) from error
        config = replace(config, inspection=inspection, space=space)
    _require_documents(config)
    _require_warm_start(config)
    return config


def require_dense(space: Space) -> None:
    """Raise ConfigError for a pruner or quantiser that no setting turns off: the baseline would be compressed."""
    baseline = space.baseline_candidate()
    pruner, width = baseline.pruning, baseline.quantization.bits
    prunes = asks_to_prune(pruner) or not (_strengths(space, "pruning", pruner) or hasattr(pruner, "ratio"))
    rounds = width < 16 and not _strengths(space, "quantization", baseline.quantization)
    for part, wrong, wanted, neutral in (
        ("pruning", prunes, "unpruned", "Annotated[float, Strength(neutral=0.0, harder=1)]"),
        ("quantization", rounds, "in 16 bits", "Annotated[int, Strength(neutral=16, harder=-1)]"),
    ):
        if wrong:
            raise ConfigError(
                f"{part}: the baseline must be {wanted}, but no setting of {space.parts[part]['_target_']} says by "
                f"which value; declare which, as {_likely_strength(space, part)}: {neutral} (objectives/settings.py)"
            )


def _strengths(space: Space, part: str, made: Any) -> Mapping[str, Strength]:
    """Return the strengths that the class or function named by a part declares, or else those of the object made."""
    named = {path: each for path, each in space.strengths.items() if path.startswith(f"{part}.")}
    return named or strengths_of(made.__class__, part)


def _likely_strength(space: Space, part: str) -> str:
    """Return the setting of a part that is likeliest to compress: a number that is searched, or else its first one."""
    searched = (axis.path for axis in space.axes if axis.is_ordinal and axis.path.startswith(f"{part}."))
    settings = settings_of(target_of(space.parts[part], part, space.allowed))
    numbers = (f"{part}.{name}" for name, setting in settings.items() if _is_number(setting))
    return next(itertools.chain(searched, numbers), f"{part}.name").removeprefix(f"{part}.")


def _is_number(setting: Parameter) -> bool:
    if isinstance(setting.default, (int, float)):
        return not isinstance(setting.default, bool)
    return re.search(r"\b(int|float)\b", str(setting.annotation)) is not None


def _inspected(config: StudyConfig) -> Inspection | None:
    """Return what the checkpoint's files say; None for one that is not downloaded yet or of a user's own class."""
    try:
        return config.model.inspect() if isinstance(config.model, Inspectable) else None
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error


def _require_documents(config: StudyConfig) -> None:
    """Raise ConfigError for a task whose corpus is missing, holds too little, or labels that the model does not know.

    What the task remarks is said.

    An exception where a user's own classes take part is ignored here: it comes again, and is explained, when the task
    makes its rows.
    """
    if not isinstance(config.task, Supplied):
        return
    try:
        config.task.require_documents()
        if config.inspection is not None and config.inspection.labels and isinstance(config.task, Labelled):
            if config.inspection.gives_several_classes:
                raise ConfigError(
                    "task: the model's config says multi_label_classification, any number of classes for a text; tasks "
                    "with labels score one class: write task=custom, whose function asks model.runner"
                )
            config.task.require_labels(config.inspection.labels)
        for line in config.task.remarks() if isinstance(config.task, Remarking) else ():
            log.warning(line)
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error
    except Exception:
        if not own_code(config.task):
            raise
        log.debug("the task's corpus fails", exc_info=True)


def _require_warm_start(config: StudyConfig) -> None:
    """Raise ConfigError where ``warm_start`` names a study that does not exist or cannot be used; create nothing."""
    if config.warm_start is None:
        return
    file = sqlite_path(config.storage)
    if file is not None and not file.is_file():
        raise ConfigError(f"warm_start: no study named {config.warm_start!r}: there are no studies at {file}")
    from search.study.warm_start import warm_start_of

    warm_start_of(config)


def _refuse_task(config: StudyConfig, inspection: Inspection) -> None:
    """Raise ConfigError for a task whose scored or calibration texts are longer than the model's positions."""
    beyond = inspection.beyond(config.task.spans) if isinstance(config.task, Bounded) else None
    if beyond is not None:
        setting = beyond[0].settings[0]  # of several tasks it says so
        where = setting if setting.startswith("tasks.") else f"task.{setting}"
        raise ConfigError(f"{where}: {_too_long(*beyond)}")


def _within(space: Space, inspection: Inspection, device: Device) -> Space:
    """Return ``space`` without the workloads that cannot run.

    Raises ConfigError where the baseline can never run, some value of an axis cannot, or no cell can.
    """
    baseline = space.baseline()
    reason = reason_beyond(space, baseline, inspection, device)
    if reason is not None:
        raise ConfigError(reason)
    axes = [axis for axis in space.axes if not is_of_recipe(axis)]
    beyond = {values: reason for values, reason in _workloads(space, axes, inspection, device) if reason is not None}
    _refuse_useless(space, axes, inspection)
    if not beyond or len(space) > MOST_CELLS:
        return space
    places = [space.axes.index(axis) for axis in axes]
    outside = dict(space.outside)
    for cell in space.cells():
        values = tuple(cell.values())
        reason = beyond.get(tuple(values[place] for place in places))
        if reason is not None:
            outside.setdefault(values, reason)
    if len(outside) == len(space):
        raise ConfigError(f"space: no cell can be run; {next(iter(beyond.values()))}")
    return replace(space, outside=outside)


def _workloads(
    space: Space, axes: Sequence[Axis], inspection: Inspection, device: Device
) -> Iterator[tuple[tuple[Value, ...], str | None]]:
    """Yield every combination of the workload's values with the reason why it cannot run, or None.

    Yields nothing where there are more than ``MOST_CELLS`` combinations.
    """
    if math.prod(len(axis.values) for axis in axes) > MOST_CELLS:
        return
    for values in itertools.product(*(axis.values for axis in axes)):
        cell = {**space.baseline(), **dict(zip((axis.path for axis in axes), values))}
        yield values, reason_beyond(space, cell, inspection, device)


def _refuse_useless(space: Space, axes: Sequence[Axis], inspection: Inspection) -> None:
    """Raise ConfigError for a value that is too long whatever it is combined with."""
    shortest = {axis.path: axis.values[0] for axis in axes if axis.is_ordinal}
    for axis in axes:
        for value in axis.values:
            cell = {**space.baseline(), **shortest, axis.path: value}
            beyond = _beyond(space.candidate(cell).workload, inspection)
            if beyond is not None:
                raise ConfigError(f"{_setting(space, beyond[0], axis.path)}: {_too_long(*beyond)}")


def reason_beyond(space: Space, cell: Cell, inspection: Inspection, device: Device) -> str | None:
    """Return why the model cannot run the workload of ``cell``, in a line that begins with the setting, or None."""
    workload = space.candidate(cell).workload
    beyond = _beyond(workload, inspection)
    if beyond is not None:
        return f"{_setting(space, beyond[0])}: {_too_long(*beyond)}"
    room = device.total_memory() if isinstance(device, Detectable) else None
    needed = inspection.least_bytes(workload.batch_size, workload.spans) if isinstance(workload, Bounded) else 0
    if room is None or needed <= room:
        return None
    named = _key(space, "workload.concurrency" if isinstance(workload, Loading) else "workload.batch_size")
    size = f"{needed / 2**30:,.0f} GiB at least by prediction"
    return f"{named}: {workload.batch_size} requests take {size}, {device.name} has {room / 2**30:,.1f} GiB"


def _beyond(workload: Workload, inspection: Inspection) -> tuple[Span, int] | None:
    return inspection.beyond(workload.spans) if isinstance(workload, Bounded) else None


def _too_long(span: Span, limit: int) -> str:
    return f"{' + '.join(map(str, span.parts))} tokens, the model has {limit} positions"


def _setting(space: Space, span: Span, asked: str = "") -> str:
    """Return the setting to blame: the one that was ``asked`` for, else one that is searched, else the largest."""
    paths = [f"workload.{name}" for name in span.settings]
    searched = {axis.path for axis in space.axes}
    largest = max(zip(span.parts, paths), key=lambda each: each[0])[1]
    first = asked if asked in paths else next((path for path in paths if path in searched), largest)
    return _key(space, first)


def _key(space: Space, path: str) -> str:
    return f"space.{path}" if any(axis.path == path for axis in space.axes) else path


def with_stored_outside(space: Space, cells: Sequence[Mapping[str, Value]]) -> Space:
    """Return ``space`` without ``cells``, the cells that were left out when the study began."""
    known = {tuple(cell[axis.path] for axis in space.axes): "left out when the study began" for cell in cells}
    return replace(space, outside={**known, **space.outside})
