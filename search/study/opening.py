"""Opens a study in its storage, and checks that its definition, machine and inputs are those that it began with."""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from objectives.errors import said
from objectives.measuring.fingerprint import HARDWARE, KIND, unlike
from objectives.metrics import METRICS
from objectives.tasks.provenance import Kind, Source, changes, merged
from search.config.study_config import StudyConfig
from search.errors import ConfigError, StoreFailed, StudyConflict
from search.records.storage_url import clean_url, redacted, sqlite_path
from search.records.trial import Value
from search.samplers.distinct import GRID, OUTSIDE
from search.space.space import Space, same
from search.study.backup import back_up, backup_of, studies_in
from search.study.patient_storage import PatientStorage
from search.study.store import CONFIG, DEFINITION, MACHINE, SOURCES, UID, plain
from search.study.store_errors import is_damaged, store_failed
from search.study.writer_storage import WriterStorage

PAUSES = (0.1, 0.4, 1.6)
"""Seconds between attempts to create the schema of a server."""

SILENCE = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
"""The times after which a server that says nothing is taken for one that is away, as libpq names them."""

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(url: str, home: Path, kind: type[PatientStorage] = PatientStorage) -> RDBStorage:
    """Connect to the storage, as one of ``kind``. Raises ConfigError."""
    url = clean_url(url)
    options = engine_options(url)
    file = sqlite_path(url)
    key, folder = ("home", home) if file is None or not file.parent.is_dir() else ("storage", file.parent)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / ".studies.lock")):
            _require_not_emptied(file)
            return _with_schema(partial(kind, url, engine_kwargs=options), PAUSES if file is None else ())
    except OSError as error:
        raise ConfigError(f"{key}: cannot write to {folder}: {error.strerror}") from error
    except StoreFailed:
        raise
    except Exception as error:
        if is_damaged(error):
            raise store_failed(url, error) from error
        why = f"{type(error).__name__}: {redacted(said(error))}"
        raise ConfigError(f"storage: cannot open {redacted(url)}: {why}") from error


def _require_not_emptied(file: Path | None) -> None:
    """Raise StoreFailed where an sqlite file has nothing in it, and its copy has: sqlite takes it for a new one."""
    if file is None or not file.is_file() or file.stat().st_size:
        return
    copy = backup_of(file)
    count = len(studies_in(copy))
    if count:
        raise StoreFailed(
            f"storage: {file} is empty, and its copy {copy} holds {count} {'study' if count == 1 else 'studies'}: "
            f"put it back (mv {copy} {file}), or remove both to begin anew", 2,
        )  # fmt: skip


def engine_options(url: str) -> dict[str, Any]:
    """Return how to connect; what the URL says itself counts more."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    if not url.startswith("postgresql"):
        return {"pool_pre_ping": True}
    given = make_url(url).query
    return {"pool_pre_ping": True, "connect_args": {key: SILENCE[key] for key in SILENCE.keys() - given.keys()}}


@contextmanager
def connected(config: StudyConfig) -> Iterator[RDBStorage]:
    """Connect to the storage of a study meanwhile, as its only writer, and keep a copy afterwards.

    Raises ConfigError.
    """
    storage = open_storage(config.storage, config.home, WriterStorage)
    try:
        yield storage
        back_up(config.storage)
    finally:
        storage.engine.dispose()


def _with_schema(connect: Callable[[], RDBStorage], pauses: Sequence[float]) -> RDBStorage:
    """Connect, and create the schema where there is none.

    Jobs that start at the same time would race on it. They wait for each other beside the database, which those of
    other homes may use too. On a server, where there is no such place, who was too late finds the schema after a pause.
    """
    for pause in pauses:
        try:
            return connect()
        except (IntegrityError, ProgrammingError):  # another job made a table at the same moment
            time.sleep(pause)
    return connect()


def open_study(config: StudyConfig, sampler: Callable[[int], BaseSampler], storage: RDBStorage | None = None) -> Study:
    """Create the study, or load it after checking that it is the same one. Raises StudyConflict.

    ``sampler``: by seed; a resumed study gets another seed, or it would draw its first trials again. ``storage``: the
    one whose lease is held.
    """
    storage = storage or open_storage(config.storage, config.home)
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = [up if METRICS[name].higher_is_better else down for name in config.objectives]
    known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
    if config.name in known:
        study = optuna.load_study(study_name=config.name, storage=storage)
        if DEFINITION not in study.user_attrs and not study.get_trials(deepcopy=False):
            _define(study, config)  # its creator was killed half-way
        _require_same(study, config)
        study.sampler = sampler(config.seed + len(study.get_trials(deepcopy=False)))
        return study
    study = optuna.create_study(
        study_name=config.name, storage=storage, sampler=sampler(config.seed), directions=directions
    )
    _define(study, config)
    return study


def _define(study: Study, config: StudyConfig) -> None:
    """Store what the study is; the definition last, as it says that the rest is there."""
    name_objectives(study, config.objectives)
    study.set_user_attr(UID, str(uuid.uuid4()))
    study.set_user_attr(CONFIG, plain(config.resolved))
    study.set_user_attr(GRID, {axis.parameter: _choices(axis) for axis in config.space.axes})
    study.set_user_attr(OUTSIDE, _outside(config.space))
    study.set_user_attr(DEFINITION, plain(config.definition))


def name_objectives(study: Study, names: Sequence[str]) -> None:
    """Name the objectives for Optuna's dashboard; nothing depends on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(names))


def _outside(space: Space) -> list[list[Any]]:
    """Return the cells that are left out of the space, as Optuna's parameters in the order of the grid."""
    return [[axis.sampled(value) for axis, value in zip(space.axes, values)] for values in space.outside]


def cells_outside(study: Study, space: Space) -> list[dict[str, Value]]:
    """Return the cells that were left out when the study began; none where ``space`` has other axes."""
    listed = study.user_attrs.get(OUTSIDE, [])
    try:
        return [{axis.path: axis.value(each) for axis, each in zip(space.axes, values)} for values in listed]
    except (IndexError, TypeError):  # of other axes
        return []


def _choices(axis: Any) -> list[Any]:
    return list(range(len(axis.values))) if axis.is_ordinal else list(axis.values)


def _require_same(study: Study, config: StudyConfig) -> None:
    stored, wanted = study.user_attrs.get(DEFINITION), plain(config.definition)
    if stored is None:
        raise StudyConflict(f"study_name: {config.name} exists in the storage, but paretune did not make it")
    changed = list(_differences(stored, wanted))
    if changed:
        raise StudyConflict(
            f"study_name: {config.name} exists with another definition ({'; '.join(changed[:3])}). "
            "Choose another study_name; another floor or objectives need no new trials: paretune report "
            f"study={config.name} <key>=<value>"
        )


def _differences(stored: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        for name in {**stored, **wanted}:
            yield from _differences(stored.get(name), wanted.get(name), f"{path}.{name}" if path else name)
    elif not _alike(stored, wanted):
        yield f"{path}: stored {stored!r}, now {wanted!r}"


def _alike(stored: Any, wanted: Any) -> bool:
    """Return whether two settings are the same up to rounding, in lists too."""
    if isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
        return all(_alike(one, other) for one, other in zip(stored, wanted))
    return bool(stored == wanted) or same(stored, wanted)


def settle_machine(study: Study, machine: Mapping[str, str]) -> None:
    """Store on which machine the study runs.

    Raises StudyConflict for other weights under the same path, and for a device of another kind. Other facts about the
    hardware, and other versions, cost a warning. A fact that the store lacks is no difference: the study was stored
    by an earlier version.
    """
    stored = study.user_attrs.get(MACHINE, {})
    changed = {name: (old, machine.get(name, "-")) for name, old in stored.items() if old != machine.get(name)}
    if "model_sha256" in changed:
        raise StudyConflict(
            f"model.path: the weights differ from those that study {study.study_name} was started with; "
            f"{_ways_out(study.study_name)}"
        )
    hardware = {name: pair for name, pair in unlike(stored, machine).items() if name in stored}
    kind = {name: pair for name, pair in hardware.items() if name in KIND}
    if kind and any(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)):
        name = study.study_name
        raise StudyConflict(
            f"device: study {name} was measured on another kind of device ({_told(kind)}), and results of two kinds do "
            f"not compare; begin another that knows this one: study_name={name}-2 warm_start={name}"
        )
    if hardware:
        log.warning("the study was started on other hardware, timings may not compare: %s", _told(hardware))
    versions = {name: pair for name, pair in changed.items() if name not in (*HARDWARE, "git_revision")}
    if versions:
        log.warning("the study was started with other versions, results may differ: %s", _told(versions))
    study.set_user_attr(MACHINE, dict(machine))


def settle_sources(study: Study, sources: Sequence[Source]) -> None:
    """Store ``sources``, the inputs that scores depend on, beside the stored ones. Raises StudyConflict for a change.

    A study that was stored before inputs were kept has none, and takes these.
    """
    stored = sources_of(study)
    require_unchanged(study.study_name, stored, sources)
    study.set_user_attr(SOURCES, [asdict(source) for source in merged(stored, sources)])


def sources_of(study: Study) -> list[Source]:
    """Return the inputs as they were when the study began; none where an earlier version stored it."""
    return [Source(**{**each, "kind": Kind(each["kind"])}) for each in study.user_attrs.get(SOURCES, [])]


def require_unchanged(name: str, stored: Sequence[Source], now: Sequence[Source]) -> None:
    """Raise StudyConflict where an input changed since study ``name`` began; it names the change and both remedies."""
    changed = changes(stored, now)
    if changed:
        shown = [f"{change.source.label} {change.how}" for change in changed[:4]]
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise StudyConflict(
            f"study_name: {name} was begun with other inputs: {', '.join(shown)}{more}; {_ways_out(name)}"
        )


def _ways_out(name: str) -> str:
    return f"put back what it was, or begin another study, e.g. study_name={name}-2"


def _told(changed: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())


def discard_if_empty(study: Study) -> None:
    """Discard a study that has no trial: it could not even start."""
    if not study.get_trials(deepcopy=False):
        optuna.delete_study(study_name=study.study_name, storage=study._storage)
