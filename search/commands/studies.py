"""``paretune studies [home=FOLDER] [storage=URL]``: list what a store holds: state, trials, front, driver.

``paretune studies export [study=NAME] [file=FILE]`` writes a study as one file, by default the latest as
``<name>.study.gz``. ``paretune studies import file=FILE [study=NAME]`` makes it again in this store, under another name
where one is given; the same ``paretune run`` goes on with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudySummary
from optuna.trial import TrialState
from rich.table import Table
from rich.text import Text

from search.commands.stored_study import ADMITTED, load, named, open_existing, pairs
from search.config.overrides import absolute
from search.errors import ConfigError
from search.records.names import bounded
from search.records.stop_reason import StopReason
from search.records.storage_url import clean_url, sqlite_url
from search.space.instantiate import nearest
from search.study import opening, store, transfer
from search.study.lease import driver_of
from search.terminal.console import console, out
from search.terminal.plain_text import inert

log = logging.getLogger(__name__)

ENDING = ".study.gz"


def main(arguments: list[str]) -> int:
    """List the studies of a store, or export or import one. Raises ConfigError."""
    verb, words = ("list", arguments) if not arguments or "=" in arguments[0] else (arguments[0], arguments[1:])
    verbs = {"list": _list, "export": _export, "import": _import}
    if verb not in verbs:
        raise ConfigError(f"studies: unknown word {verb!r}{nearest(verb, list(verbs))}; known: {', '.join(verbs)}")
    verbs[verb](words)
    return 0


@dataclass(frozen=True)
class _Place:
    """A store: its home and its URL, and the command's other ``words``."""

    home: Path
    url: str
    words: dict[str, str]


def _place(words: Sequence[str], known: Sequence[str]) -> _Place:
    given = pairs(list(words))
    home = absolute(given.pop("home", "mlruns"))
    url = clean_url(given.pop("storage")) if "storage" in given else sqlite_url(home / "studies.db")
    wrong = next((key for key in given if key not in known), None)
    if wrong is not None:
        keys = (*known, "home", "storage")
        raise ConfigError(f"studies: unknown key {wrong}{nearest(wrong, keys)}; known: {', '.join(keys)}")
    return _Place(home, url, given)


def _export(words: Sequence[str]) -> None:
    place = _place(words, ("study", "file"))
    storage = open_existing(place.url, place.home)
    try:
        name = named(storage, place.words.get("study", "latest"))
        file = absolute(place.words.get("file", f"{bounded(name)}{ENDING}"))
        count = transfer.save(optuna.load_study(study_name=name, storage=storage), file)
    finally:
        storage.engine.dispose()
    print(inert(f"{count} trials of {name}: {file}"), file=out())


def _import(words: Sequence[str]) -> None:
    place = _place(words, ("study", "file"))
    if "file" not in place.words:
        raise ConfigError("file: required, got nothing; give file=<what paretune studies export wrote>")
    sent = transfer.read(absolute(place.words["file"]), place.words.get("study"))
    storage = opening.open_storage(place.url, place.home)
    try:
        study = transfer.make(sent, storage)
        count = len(study.get_trials(deepcopy=False))
    finally:
        storage.engine.dispose()
    print(
        inert(f"{count} trials of {study.study_name}; paretune report study={study.study_name} shows them"), file=out()
    )


def _list(words: Sequence[str]) -> None:
    place = _place(words, ())
    storage = open_existing(place.url, place.home)
    try:
        summaries = [each for each in optuna.get_all_study_summaries(storage) if store.CONFIG in each.user_attrs]
        rows = [_row(place, storage, summary) for summary in summaries]
    finally:
        storage.engine.dispose()
    if not rows:
        raise ConfigError("storage: it holds no study of paretune; run one, or give home=<folder>")
    table = Table(header_style="bold")
    for name in ("Study", "State", "Trials", "Failed", "On the front", "Begun", "Driver"):
        table.add_column(
            name, overflow="fold", justify="right" if name in ("Trials", "Failed", "On the front") else "left"
        )
    for row in rows:
        table.add_row(*(Text(inert(text)) for text in row))
    console().print(table)


def _row(place: _Place, storage: RDBStorage, summary: StudySummary) -> tuple[str, ...]:
    name = summary.study_name
    study = optuna.load_study(study_name=name, storage=storage)
    driver = driver_of(storage, name)
    reason = store.stop_of(study)
    stopped = "cut short" if reason is StopReason.UNKNOWN else str(reason)
    trials = study.get_trials(deepcopy=False)
    failed = sum(trial.state is TrialState.FAIL for trial in trials)
    began = "" if summary.datetime_start is None else f"{summary.datetime_start:%Y-%m-%d %H:%M}"
    state = "running" if driver is not None else stopped
    return name, state, str(len(trials)), str(failed), _front_size(place, name), began, driver or ""


def _front_size(place: _Place, name: str) -> str:
    try:
        study = load([f"study={name}", f"home={place.home}", f"storage={place.url}", f"{ADMITTED}=[]"])
        return str(len(study.front.front))
    except Exception as error:  # no baseline, modules that a list does not run, or a study that nobody can read
        log.debug("the front of %s cannot be computed: %s", name, error)
        return "-"
