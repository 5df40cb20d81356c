"""The composed configuration, checked and turned into the objects of a study, before any model loads."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from objectives.cache import Cache
from objectives.errors import ObjectiveError
from objectives.evaluation.problem import Problem
from objectives.measuring.interleaved import Interleaved
from objectives.models.heads import is_run_alike
from objectives.models.inspection import Inspection
from objectives.protocols.candidate import Model
from objectives.protocols.optional import Threaded
from objectives.protocols.running import Device
from objectives.protocols.task import Task
from objectives.tasks.answers import in_a_line
from objectives.tasks.provenance import Source
from objectives.tasks.reads import Reads
from objectives.tasks.several import tasks_of
from search.config.definition import DEFAULTS, definition_of, hash_of, without_gone
from search.config.limited import metric_limits_of, require_measurable
from search.config.limits import Limits
from search.config.overrides import absolute
from search.config.real_lengths import with_real_lengths
from search.config.scalars import Scalars, scalars_of
from search.config.tasks import build_task, require_floors, with_tasks
from search.errors import ConfigError, ParetuneError
from search.executors.protocol import Executor
from search.front.accuracy_floor import AccuracyFloor
from search.front.metric_limits import MetricLimits
from search.front.tradeoff import Tradeoff
from search.records.secrets import without_secrets
from search.records.storage_url import clean_url, sqlite_url
from search.samplers.distinct import DistinctSampler
from search.samplers.frontier import Informed
from search.space.instantiate import ALLOWED, build, nearest, target_of
from search.space.members import require_members, require_sendable
from search.space.space import PARTS, Cell, Space, build_space
from search.space.supported import unprunable, without_unsupported
from search.tracking.protocol import Tracker

_KINDS = ("model", "task", "timing", "device", "tradeoff", "accuracy_floor", "executor", "tracker")
"""The keys that name one object each."""

PROTOCOLS: Mapping[str, type] = {
    "model": Model,
    "task": Task,
    "device": Device,
    "tradeoff": Tradeoff,
    "executor": Executor,
    "tracker": Tracker,
}
"""The protocol that the object of a key must follow."""

_CONCRETE = {"timing": "time", "accuracy_floor": "absolute"}
"""The member that the object of a key without a protocol must have."""

_SENT = ("model", "task", "timing", "device")
"""The keys whose objects are sent to the worker."""

_OTHERS = {*PARTS, "runtimes", "space", "sampler", "first", "limits", "cache", "allow_targets", "hydra", "experiment"}


@dataclass(frozen=True)
class StudyConfig:
    """Everything a study needs. ``resolved``: the configuration as composed, without secrets; ``read``: files that a
    user's modules and classes opened as they were imported and built; ``inspection``: what the checkpoint's files say,
    where they were asked (:mod:`search.study.preflight`).
    """

    name: str
    project: str
    objectives: tuple[str, ...]
    limits: Limits
    metric_limits: MetricLimits
    confirm: bool
    seed: int
    warm_start: str | None
    first: tuple[Cell, ...]
    home: Path
    storage: str
    model: Model
    task: Task
    floor: AccuracyFloor
    space: Space
    tradeoff: Tradeoff
    sampler: Callable[[int], BaseSampler]
    executor: Executor
    tracker: Tracker
    device: Device
    timing: Interleaved
    cache: Cache | None
    resolved: Mapping[str, Any]
    inspection: Inspection | None = None
    read: tuple[Source, ...] = ()

    @property
    def problem(self) -> Problem:
        """Return the problem: all that an evaluator holds fixed over the trials."""
        baseline = self.space.baseline_candidate()
        return Problem(self.model, self.task, self.device, self.timing, baseline, self.cache)

    @property
    def definition(self) -> dict[str, Any]:
        """Return the definition: a stored study is resumed only where its own definition equals this."""
        return definition_of(self.resolved, self.device.name)


def build_config(resolved: Mapping[str, Any], swept: str = "") -> StudyConfig:
    """Check ``resolved`` (plain dicts and lists) and build its objects. Raises ConfigError.

    ``swept``: in a multirun, what tells this job from the others; appended to an explicit study name.
    """
    reads = Reads()
    try:
        with reads.watched():
            config = _build_config(resolved, swept)
        return replace(config, read=tuple(reads.sources([config.home]))) if resolved.get("allow_targets") else config
    except ObjectiveError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        if isinstance(error, ParetuneError) or not resolved.get("allow_targets"):
            raise
        raise ConfigError(f"a class that allow_targets admits raised {in_a_line(error)}") from error


def _build_config(resolved: Mapping[str, Any], swept: str) -> StudyConfig:
    resolved = with_tasks({**DEFAULTS, **without_gone(resolved)})
    _require_keys(resolved)
    scalars = scalars_of(resolved)
    allowed = (*ALLOWED, *_admitted(resolved.get("allow_targets") or []))
    parts = {key: _part(resolved[key], key, allowed) for key in _KINDS}
    resolved = with_real_lengths(resolved, parts["model"], parts["task"])
    space = build_space(resolved["space"], {part: resolved[part] for part in PARTS}, allowed, resolved["runtimes"])
    _check_kinds(parts["model"], parts["task"], space)
    require_floors(parts["accuracy_floor"], [name for name in tasks_of(parts["task"]) if name])
    _check_widths(space, parts["device"])
    space = without_unsupported(space, parts["model"].head, parts["device"], unprunable(parts["model"]))
    _check_clock(parts["timing"], parts["device"])
    sampler = _sampler(resolved["sampler"], allowed)
    sampler(0)
    limits = metric_limits_of(resolved.get("limits"))
    require_measurable({"objectives": scalars.objectives, "limits": limits.limits}, space.baseline_candidate().workload)
    home = absolute(scalars.home)
    resolved = without_secrets(resolved)
    return StudyConfig(
        name=_study_name(scalars, resolved, swept),
        project=scalars.project,
        objectives=scalars.objectives,
        metric_limits=limits,
        limits=Limits(scalars.n_trials, scalars.max_seconds, scalars.patience),
        confirm=scalars.confirm,
        seed=scalars.seed,
        warm_start=scalars.warm_start,
        first=_first(resolved.get("first"), space),
        home=home,
        storage=clean_url(scalars.storage) if scalars.storage else sqlite_url(home / "studies.db"),
        floor=parts.pop("accuracy_floor"),
        space=space,
        sampler=sampler,
        cache=_cache(resolved.get("cache"), allowed),
        resolved=resolved,
        **parts,
    )


def _require_keys(resolved: Mapping[str, Any]) -> None:
    known = {*Scalars.__dataclass_fields__, *_KINDS, *_OTHERS}
    for key in resolved:
        if key not in known:
            raise ConfigError(f"{key}: unknown setting{nearest(key, sorted(known))}; known: {', '.join(sorted(known))}")
    for key in (*_KINDS, *PARTS, "sampler", "space"):
        if not isinstance(resolved.get(key), Mapping):
            raise ConfigError(f"{key}: required, one of the choices in conf/{key}/; got {resolved.get(key)!r}")


def _admitted(names: Any) -> list[str]:
    """Return the prefixes of the user's own modules. Raises ConfigError."""
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip(".") for name in names):
        raise ConfigError(f"allow_targets: expected a list of module names, got {names!r}")
    return [f"{name.rstrip('.')}." for name in names]


def _part(node: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> Any:
    """Build one part and check that it is of the kind its key asks for."""
    part = build_task(node, allowed) if key == "task" else build(node, key, allowed)
    member = _CONCRETE.get(key)
    if member is None:
        require_members(part, key, key, PROTOCOLS[key])
    elif not hasattr(part, member):
        raise ConfigError(f"{key}._target_: {node.get('_target_')!r} is no {key} (it has no {member})")
    if key in _SENT:
        require_sendable(part, key)
    return part


def _check_kinds(model: Model, task: Task, space: Space) -> None:
    workload = space.baseline_candidate().workload
    for key, part, fits in (
        ("task", task, task.head == model.head), ("workload", workload, is_run_alike(workload.head, model.head)),
    ):  # fmt: skip
        if not fits:
            raise ConfigError(f"{key}: {type(part).__name__} drives {part.head} models, but model.head is {model.head}")


def _sampler(node: Mapping[str, Any], allowed: tuple[str, ...]) -> Callable[[int], BaseSampler]:
    """Return a function that builds the sampler for a seed: a resumed study must not draw its first trials again."""
    makes = target_of(node, "sampler", allowed)
    more = {"constant_liar": True} if "constant_liar" in inspect.signature(makes).parameters else {}

    def make(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE and QMC; their results are ours
            sampler = build({**more, **node, "seed": node.get("seed", seed)}, "sampler", allowed)
        if not isinstance(sampler, BaseSampler):
            raise ConfigError(f"sampler._target_: expected an Optuna sampler, got {type(sampler).__name__}")
        return sampler if isinstance(sampler, Informed) else DistinctSampler(sampler, seed)

    return make


def _check_widths(space: Space, device: Device) -> None:
    """Raise ConfigError for bits that no kernel of the device stores, unless they are to be simulated."""
    for axis in space.axes:
        if axis.strength is not None and axis.path.startswith("quantization."):
            for bits in axis.values:
                quantizer = space.candidate({**space.baseline(), axis.path: bits}).quantization
                if not quantizer.stored <= device.bits:
                    raise ConfigError(
                        f"space.{axis.path}: {device.name} stores {sorted(device.bits)}, got {bits}; "
                        "quantization.simulate=true measures the accuracy of other widths"
                    )


def _check_clock(timing: Interleaved, device: Device) -> None:
    """Raise ConfigError for CPU time as clock of several threads: it adds up over them and tells no speed."""
    if timing.clock == "cpu" and not (isinstance(device, Threaded) and device.threads == 1):
        raise ConfigError(f"timing.clock: cpu needs device=cpu device.threads=1, got {device}; choose wall")


def _cache(node: Any, allowed: tuple[str, ...]) -> Cache | None:
    """Build the cache; return None for null. Raises ConfigError."""
    if node is None:
        return None
    if not isinstance(node, Mapping):
        raise ConfigError(f"cache: null, or a mapping that names _target_; got {node!r}")
    built = build(node, "cache", allowed)
    if not isinstance(built, Cache):
        raise ConfigError(f"cache._target_: {node.get('_target_')!r} is no cache")
    return replace(built, folder=str(absolute(built.folder)))


def _first(listed: Any, space: Space) -> tuple[Cell, ...]:
    """Return the cells to measure first. Raises ConfigError for one that is no cell of the space.

    A setting that a listed cell does not name has the baseline's value.
    """
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise ConfigError(f"first: expected a list of cells, as [{{pruning.ratio: 0.1}}], got {listed!r}")
    start = {axis.path: value for axis in space.axes if (value := space.baseline()[axis.path]) is not None}
    cells = []
    for each in listed:
        cell = {**start, **each}
        if cell not in space:
            values = "; ".join(f"{axis.path}: {list(axis.values)}" for axis in space.axes)
            raise ConfigError(f"first: {dict(each)} is no cell of the space; there are {values}")
        cells.append(space.own(cell))
    return tuple(cells)


def _study_name(scalars: Scalars, resolved: Mapping[str, Any], swept: str) -> str:
    if scalars.study_name:
        return f"{scalars.study_name}-{swept}" if swept else scalars.study_name
    return f"{scalars.project}-{hash_of(resolved)}"
