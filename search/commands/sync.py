"""``paretune sync [study=NAME] [tracker.uri=URI] [home=FOLDER] [storage=URL]``: send a stored study to MLflow.

Sends what is missing: trials that a tracker did not get because it was down, slow or full, or whose runs somebody
deleted. Afterwards MLflow has one run per trial. Measures nothing. ``tracker.uri`` sends the study to another server or
database than that with which it was run. Nobody else may run or send the study meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from optuna import load_study
from optuna.storages import RDBStorage

from objectives.errors import said
from search.commands.report import info_of
from search.commands.stored_study import StoredStudy, load, located, named, open_existing
from search.errors import ConfigError, ParetuneError, StudyConflict
from search.records.storage_url import redacted
from search.reporting.finish import report_folder, written
from search.study import store
from search.study.lease import Lease, driver_of
from search.terminal.console import out
from search.terminal.plain_text import inert
from search.terminal.quiet_log import quiet_log
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.protocol import StudyHeader, Tracker
from search.tracking.silent import Silent

URI = "tracker.uri"


def main(arguments: list[str]) -> int:
    """Send what a tracker lacks of a stored study. Raises ConfigError, or ParetuneError where the tracker fails."""
    home, url, given = located(arguments)
    storage = open_existing(url, home)
    try:
        name = named(storage, given.get("study", "latest"))
        with _held(storage, name):
            return _send(load([*arguments, f"study={name}"], options=(URI,)), storage)
    finally:
        storage.engine.dispose()


@contextmanager
def _held(storage: RDBStorage, name: str) -> Iterator[None]:
    """Hold the study's lease meanwhile: two that send it would make every run twice. Raises ConfigError."""
    _require_free(storage, name)
    with ExitStack() as stack:
        try:
            stack.enter_context(Lease(storage, name).held())
        except StudyConflict as error:  # who was quicker may have ended meanwhile
            _require_free(storage, name)
            raise ConfigError(f"study: another process took {name} at the same moment; try again") from error
        yield


def _require_free(storage: RDBStorage, name: str) -> None:
    driver = driver_of(storage, name)
    if driver is not None:
        raise ConfigError(f"study: {name} is being run or sent by {driver}; its end sends it: wait, then sync again")


def _send(study: StoredStudy, storage: RDBStorage) -> int:
    if study.recut:
        raise ConfigError("sync: sends a study as it was run; leave the accuracy floor, objectives and trade-off out")
    tracker = _tracker(study)
    config, info = study.config, info_of(study)
    uid = load_study(study_name=config.name, storage=storage).user_attrs[store.UID]
    header = StudyHeader(uid, config.name, config.project, config.home, config.resolved)
    with quiet_log(config.home / "logs"):
        end = written(report_folder(config), info, study.records, study.front, study.machine)
        try:
            line = tracker.open(header).close(end)
        except Exception as error:
            raise ParetuneError(f"{URI}: {type(error).__name__}: {redacted(said(error))}") from error
    print(inert(f"{len(study.records)} trials of {config.name} are in {line}"), file=out())
    return 0


def _tracker(study: StoredStudy) -> Tracker:
    """Return the tracker with which the study was run, or MLflow at another URI."""
    if URI in study.options:
        return MlflowTracker(uri=study.options[URI])
    if isinstance(study.config.tracker, Silent):
        raise ConfigError(
            f"{URI}: {study.config.name} was run without a tracker; say where to, as {URI}=http://host:5000"
        )
    return study.config.tracker
