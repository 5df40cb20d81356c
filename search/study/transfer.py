"""Writes a study as one file, and makes the study again in another store: all trials, samples and facts.

The file is JSON, compressed by gzip. It holds what the store holds, so that the study goes on where it stopped.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import uuid
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from objectives.errors import said
from search.config.scalars import Scalars, scalars_of
from search.config.study_config import build_config
from search.errors import ConfigError
from search.records.trial import TrialRecord
from search.study import opening, store
from search.study.store import CONFIG, MACHINE, RECORD, UID

_Trials = Sequence[Mapping[str, Any]]

PARTS = ("name", "directions", "metric_names", "attributes", "trials")
"""The parts of the file besides its form."""
FORMAT = 1
"""The version of the file's form."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LONGEST = 200
"""Characters of a file's own words that a message shows."""


def save(study: Study, file: Path) -> int:
    """Write ``study`` to ``file``, which appears whole, and return the number of its trials. Raises ConfigError."""
    if file.is_dir():
        raise ConfigError(f"file: expected a file to write, got the folder {file}; give file=<name>.study.gz")
    trials = study.get_trials(deepcopy=False)
    content = {
        "format": FORMAT,
        "paretune": version("paretune"),
        "name": study.study_name,
        "directions": [direction.name for direction in study.directions],
        "metric_names": study.metric_names,
        "attributes": study.user_attrs,
        "trials": [_written(trial) for trial in trials],
    }
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return len(trials)


def _written(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": {name: distribution_to_json(each) for name, each in trial.distributions.items()},
        "attributes": trial.user_attrs,
        "system": trial.system_attrs,
        "began": _time(trial.datetime_start),
        "ended": _time(trial.datetime_complete),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


@dataclass(frozen=True)
class Sent:
    """A study as a file holds it. All of it was read and checked; nothing of it is stored yet."""

    file: Path
    name: str
    directions: Sequence[StudyDirection]
    metric_names: Sequence[str] | None
    attributes: Mapping[str, Any]
    trials: Sequence[FrozenTrial]


def read(file: Path, name: str | None = None) -> Sent:
    """Read and check the study of ``file``; under another ``name`` it is another study. Raises ConfigError."""
    content = _content(file)
    name = _named(name or content["name"])
    try:
        attributes, trials = content["attributes"], content["trials"]
        _require_identity(attributes, trials)
        if name != content["name"]:
            attributes, trials = _renamed(attributes, trials)
        attributes = {**attributes, CONFIG: {**attributes[CONFIG], "allow_targets": []}}  # whoever wrote the file
        directions = [StudyDirection[direction] for direction in content["directions"]]
        sent = Sent(file, name, directions, content["metric_names"], attributes, [_read(trial) for trial in trials])
        _rehearse(sent)
    except Exception as error:  # whatever a file holds that somebody wrote
        raise _damaged(file, error) from error
    return sent


def make(sent: Sent, storage: RDBStorage) -> Study:
    """Make the study in ``storage``, whole or not at all. Raises ConfigError."""
    name = sent.name
    if name in {summary.study_name for summary in optuna.get_all_study_summaries(storage)}:
        raise ConfigError(f"study: the storage holds a study {name} already; give it another name, as study={name}-2")
    study = optuna.create_study(study_name=name, storage=storage, directions=sent.directions)
    try:
        _fill(study, sent)
    except BaseException as error:
        optuna.delete_study(study_name=name, storage=storage)
        if isinstance(error, (TypeError, ValueError, ArithmeticError, RecursionError)):  # which only a store refuses
            raise _damaged(sent.file, error) from error
        raise
    return study


def _fill(study: Study, sent: Sent) -> None:
    study.add_trials(sent.trials)
    if sent.metric_names:
        opening.name_objectives(study, sent.metric_names)
    for key, value in sent.attributes.items():
        study.set_user_attr(key, value)


def _damaged(file: Path, error: BaseException) -> ConfigError:
    why = " ".join(f"{type(error).__name__}: {said(error)}".split())[:LONGEST]
    return ConfigError(f"file: {file} is damaged ({why}); export the study again")


def _content(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(gzip.decompress(file.read_bytes()))
        found, _ = content["format"], [content[part] for part in PARTS]
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise ConfigError(f"file: {file} is no study that paretune exported") from error
        raise ConfigError(f"file: cannot read {file}: {error.strerror}") from error
    except (ValueError, EOFError, KeyError, TypeError, zlib.error, RecursionError, MemoryError) as error:
        raise ConfigError(f"file: {file} is no study that paretune exported, or is damaged") from error
    if found != FORMAT:
        raise ConfigError(f"file: {file} has the form {found!r:.40}, this version reads {FORMAT}; update paretune")
    whole: Mapping[str, Any] = content
    return whole


def _named(name: Any) -> str:
    """Return ``name`` where ``paretune run`` would take it as a ``study_name``. Raises ConfigError."""
    rule = get_type_hints(Scalars, include_extras=True)["study_name"]
    try:
        return str(TypeAdapter(rule).validate_python("" if name is None else name))
    except ValidationError as error:
        raise ConfigError(
            "study: expected a name of at most 255 letters, digits and _.,=- that begins with a letter or a digit, got "
            f"{name!r:.{LONGEST}}; give another, as study=imported"
        ) from error


def _require_identity(attributes: Mapping[str, Any], trials: _Trials) -> None:
    """Raise ValueError unless the study has a UUID, and every record the uid that follows from it."""
    uid = attributes.get(UID)
    if not isinstance(uid, str) or not _UUID.fullmatch(uid):
        raise ValueError(f"{UID}: expected a UUID, got {uid!r}")
    records = [trial["attributes"][RECORD] for trial in trials if RECORD in trial["attributes"]]
    for record in records:
        if record["uid"] != f"{uid}:{record['number']}":
            raise ValueError(f"{RECORD}: expected the uid {uid}:{record['number']}, got {record['uid']!r}")
    if len({record["uid"] for record in records}) < len(records):
        raise ValueError(f"{RECORD}: two trials have one number")


def _rehearse(sent: Sent) -> None:
    """Make the study in memory and read it as commands do; what is wrong raises any exception."""
    study = optuna.create_study(directions=sent.directions)
    _fill(study, sent)
    if not all(isinstance(name, str) for name in sent.metric_names or ()):
        raise TypeError(f"metric_names: expected texts, got {sent.metric_names!r}")
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(TrialRecord).items()}
    checked = create_model("TrialRecord", __config__=ConfigDict(strict=True), **fields)
    for trial in study.get_trials(deepcopy=False):
        record = store.saved_record(trial)
        if record is not None:
            checked.model_validate(vars(record))
    for samples in store.samples_of(study).values():
        TypeAdapter(dict[str, Any]).validate_python(samples, strict=True)
    for read_back in (store.confirmation_of, store.losses_of, store.stop_of, opening.sources_of):
        read_back(study)
    TypeAdapter(dict[str, str]).validate_python(study.user_attrs.get(MACHINE, {}), strict=True)
    resolved = {**study.user_attrs[CONFIG], "home": "here", "storage": None}  # a reader's own
    scalars_of(resolved)
    with suppress(ConfigError):  # a module that is not admitted, or a device that is not here: readers say so
        build_config(resolved)


def _renamed(attributes: Mapping[str, Any], trials: _Trials) -> tuple[Mapping[str, Any], _Trials]:
    """Give the study another identity: a tracker must not take its trials for those of the original."""
    uid = str(uuid.uuid4())
    again = []
    for trial in trials:
        kept = dict(trial["attributes"])
        if RECORD in kept:
            kept[RECORD] = {**kept[RECORD], "uid": f"{uid}:{kept[RECORD]['number']}"}
        again.append({**trial, "attributes": kept})
    return {**attributes, UID: uid}, again


def _read(written: Mapping[str, Any]) -> FrozenTrial:
    trial = create_trial(
        state=TrialState[written["state"]],
        values=written["values"],
        params=written["params"],
        distributions={name: json_to_distribution(each) for name, each in written["distributions"].items()},
        user_attrs=written["attributes"],
        system_attrs=written["system"],
    )
    trial.datetime_start, trial.datetime_complete = map(_moment, (written["began"], written["ended"]))
    return trial


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
