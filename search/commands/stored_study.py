"""Finds a stored study by ``study=<name>`` and reads it back with its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.storages import RDBStorage

from objectives.errors import said
from objectives.metrics import METRICS
from objectives.tasks.provenance import Source
from search.config.overrides import absolute, expanded, literal
from search.config.study_config import StudyConfig, build_config
from search.config.tasks import spread
from search.errors import ConfigError
from search.front.front import ParetoFront
from search.frontier import certificate
from search.frontier.certificate import Certificate, certify
from search.records.stop_reason import StopReason
from search.records.storage_url import clean_url, redacted, sqlite_path, sqlite_url
from search.records.trial import TrialRecord
from search.samplers.frontier import Forecasting
from search.space.grid import MOST_CELLS, Grid
from search.space.instantiate import nearest
from search.study import opening, store
from search.study.confirmation import Confirmation
from search.study.foreign import has_tables
from search.study.preflight import with_stored_outside
from search.study.state import StudyState
from search.study.warm_start import warm_start_of

RECUT = ("accuracy_floor", "limits", "objectives", "tradeoff")
"""The keys that may be changed afterwards, without a new trial."""
ADMITTED = "allow_targets"
"""The key of modules that a study needs; an imported one admits none itself."""


@dataclass(frozen=True)
class StoredStudy:
    """A study as stored, with its front computed anew.

    ``options``: the command's own keys with their values. ``recut``: whether another floor, limits, objectives or
    another trade-off was asked for. ``losses``: those predicted for the recipes, nats. ``sources``: what scores depend
    on. ``stop_reason``: why it stopped last, at its own floor.
    """

    config: StudyConfig
    state: StudyState
    machine: dict[str, str]
    options: dict[str, str]
    recut: bool
    losses: list[float] | None
    sources: list[Source]
    stop_reason: StopReason

    @cached_property
    def records(self) -> tuple[TrialRecord, ...]:
        """Return the trials as every decision reads them."""
        return tuple(self.state.read())

    @property
    def front(self) -> ParetoFront:
        """Return the front, computed anew."""
        return self.state.front()

    @property
    def confirmation(self) -> Confirmation:
        """Return what measuring again gave when the study ran last."""
        return self.state.confirmation


def load(arguments: Sequence[str], options: Sequence[str] = ()) -> StoredStudy:
    """Read ``study=NAME [home=...] [storage=...] [accuracy_floor.epsilon=...]``; the latest study by default.

    ``options``: further keys that the command takes itself. Raises ConfigError.
    """
    home, url, given = located(arguments)
    own = {name: given.pop(name) for name in options if name in given}
    storage = open_existing(url, home)
    study = optuna.load_study(study_name=named(storage, given.pop("study", "latest")), storage=storage)
    stored = OmegaConf.create(literal({**study.user_attrs[store.CONFIG], "home": str(home), "storage": url}))
    recut = bool(set(given) - {ADMITTED})
    config = build_config(_override(stored, given))
    outside = with_stored_outside(config.space, opening.cells_outside(study, config.space))
    config = replace(config, name=study.study_name, space=outside)
    records = store.records_of(study)
    if recut:
        _require_known(config, records)
    state = StudyState(config, records, store.confirmation_of(study))
    if state.telling.baseline is None:
        raise ConfigError(f"study: {study.study_name} has no measured baseline yet; run it again")
    state.decide_again(store.samples_of(study))
    machine = study.user_attrs.get(store.MACHINE, {})
    return StoredStudy(
        config, state, machine, own, recut, store.losses_of(study), opening.sources_of(study), store.stop_of(study)
    )  # fmt: skip


def _require_known(config: StudyConfig, records: Sequence[TrialRecord]) -> None:
    """Raise ConfigError for an objective or a limit that no trial has: everything would be infeasible."""
    known = {name for record in records for name in record.metrics if name in METRICS}
    for key, names in (("objectives", config.objectives), ("limits", config.metric_limits.limits)):
        for name in names:
            if known and name not in known:
                raise ConfigError(f"{key}: no trial of {config.name} measured {name}{nearest(name, sorted(known))}")


def located(arguments: Sequence[str]) -> tuple[Path, str, dict[str, str]]:
    """Return the home and the URL of the store that ``arguments`` name, and the other words. Raises ConfigError."""
    given = pairs([word.lstrip("+") for word in spread(arguments)])  # of floors of several tasks
    home = absolute(given.pop("home", "mlruns"))
    url = clean_url(given.pop("storage")) if "storage" in given else sqlite_url(home / "studies.db")
    return home, url, given


def open_existing(url: str, home: Path) -> RDBStorage:
    """Connect to a storage that holds studies. Raises ConfigError, also for an sqlite file that is not there.

    Nothing is written to a database that is somebody else's: it has not Optuna's tables.
    """
    file = sqlite_path(url)
    if file is not None and not file.is_file():
        raise ConfigError(f"storage: no studies at {file}; run one, or give home=<folder>")
    if not has_tables(url):
        raise ConfigError(f"storage: {file or redacted(url)} holds no study; run one, or give home=<folder>")
    return opening.open_storage(url, home)


def certificate_of(study: StoredStudy) -> Certificate | None:
    """Certify the front of a stored study, by the forecast of its sampler where that makes one."""
    config, grid, front = study.config, Grid.of(study.config.space), study.front
    sampler = config.sampler(0)
    if not isinstance(sampler, Forecasting) or len(grid) > MOST_CELLS:
        return certify(grid, study.records, front)
    sampler.inform(grid, study.state.known, warm_start_of(config, study.losses))
    return certificate.certificate_of(
        study.records, front, study.state.known(), sampler.forecast(), sampler.error, sampler.resolution
    )  # fmt: skip


def pairs(arguments: Sequence[str]) -> dict[str, str]:
    """Split words of the form ``key=value`` into a dict. Raises ConfigError for any other word."""
    wrong = [argument for argument in arguments if "=" not in argument]
    if wrong:
        raise ConfigError(f"expected key=value, got {wrong[0]!r}")
    return {key: expanded(value) for key, _, value in (argument.partition("=") for argument in arguments)}


def named(storage: optuna.storages.BaseStorage, asked: str) -> str:
    """Return the name of the study that was asked for, ``latest`` for the latest. Raises ConfigError."""
    summaries = [s for s in optuna.get_all_study_summaries(storage) if store.CONFIG in s.user_attrs]
    names = [summary.study_name for summary in summaries]
    if not names:
        raise ConfigError("study: the storage holds no study of paretune")
    if asked == "latest":
        started = [s for s in summaries if s.datetime_start is not None] or summaries
        return max(started, key=lambda s: (s.datetime_start is not None, s.datetime_start, s._study_id)).study_name
    if asked not in names:
        raise ConfigError(f"study: no study named {asked!r}{nearest(asked, names)}; known: {', '.join(names)}")
    return asked


def _override(stored: DictConfig, given: dict[str, str]) -> dict[str, Any]:
    for key in given:
        if key.partition(".")[0] not in (*RECUT, ADMITTED):
            known = ", ".join(("study", "home", "storage", *RECUT, ADMITTED))
            raise ConfigError(f"{key}: cannot be changed after the trials; can be: {known}")
    try:
        merged = OmegaConf.merge(stored, OmegaConf.from_dotlist([f"{key}={value}" for key, value in given.items()]))
        resolved = OmegaConf.to_container(merged, resolve=True)
    except Exception as error:  # OmegaConf's errors and the yaml parser's
        raise ConfigError(f"{' '.join(given)}: {said(error)}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}
