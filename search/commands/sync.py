"""``paretune sync [study=NAME] [tracker.uri=URI] [home=FOLDER] [storage=URL]``: send a stored study to MLflow.

Sends what is missing: trials that a tracker did not get because it was down, slow or full, or whose runs somebody
deleted. Afterwards MLflow has one run per trial. Measures nothing. ``tracker.uri`` sends the study to another server or
database than that with which it was run.
"""

from __future__ import annotations

from optuna import load_study

from objectives.errors import said
from search.commands.report import info_of
from search.commands.stored_study import StoredStudy, load
from search.errors import ConfigError, ParetuneError
from search.records.storage_url import redacted
from search.reporting.finish import report_folder, written
from search.study import opening, store
from search.study.lease import driver_of
from search.terminal.console import out
from search.terminal.plain_text import inert
from search.terminal.quiet_log import quiet_log
from search.tracking.mlflow_tracker import MlflowTracker
from search.tracking.protocol import StudyHeader, Tracker
from search.tracking.silent import Silent

URI = "tracker.uri"


def main(arguments: list[str]) -> int:
    """Send what a tracker lacks of a stored study. Raises ConfigError, or ParetuneError where the tracker fails."""
    study = load(arguments, options=(URI,))
    if study.recut:
        raise ConfigError("sync: sends a study as it was run; leave the accuracy floor, objectives and trade-off out")
    tracker = _tracker(study)
    config, info = study.config, info_of(study)
    with quiet_log(config.home / "logs"):
        end = written(report_folder(config), info, study.records, study.front, study.machine)
        try:
            line = tracker.open(_header(study)).close(end)
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


def _header(study: StoredStudy) -> StudyHeader:
    config = study.config
    storage = opening.open_storage(config.storage, config.home)
    try:
        driver = driver_of(storage, config.name)
        if driver is not None:
            raise ConfigError(
                f"study: {config.name} is being run by {driver}, and its driver sends it; wait for its end"
            )
        uid = load_study(study_name=config.name, storage=storage).user_attrs[store.UID]
    finally:
        storage.engine.dispose()
    return StudyHeader(uid, config.name, config.project, config.home, config.resolved)
