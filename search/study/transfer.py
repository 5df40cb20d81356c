"""Writes a study as one file, and makes the study again in another store: all trials, samples and facts.

The file is JSON, compressed by gzip. It holds what the store holds, so that the study goes on where it stopped.
"""

from __future__ import annotations

import gzip
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.errors import ConfigError
from search.study import opening
from search.study.store import CONFIG, RECORD, UID

_Trials = Sequence[Mapping[str, Any]]

PARTS = ("name", "directions", "metric_names", "attributes", "trials")
"""The parts of the file besides its form."""
FORMAT = 1
"""The version of the file's form."""


def save(study: Study, file: Path) -> int:
    """Write ``study`` to ``file``, which appears whole, and return the number of its trials."""
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


def load(file: Path, storage: RDBStorage, name: str | None = None) -> Study:
    """Make the study of ``file`` in ``storage``; under another ``name`` it is another study. Raises ConfigError."""
    content = _content(file)
    name = name or str(content["name"])
    if name in {summary.study_name for summary in optuna.get_all_study_summaries(storage)}:
        raise ConfigError(f"study: the storage holds a study {name} already; give it another name, as study={name}-2")
    directions = [StudyDirection[direction] for direction in content["directions"]]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    try:
        attributes, trials = content["attributes"], content["trials"]
        if name != content["name"]:
            attributes, trials = _renamed(attributes, trials)
        attributes = {**attributes, CONFIG: {**attributes[CONFIG], "allow_targets": []}}  # whoever wrote the file
        study.add_trials([_read(trial) for trial in trials])
        if content["metric_names"]:
            opening.name_objectives(study, content["metric_names"])
        for key, value in attributes.items():
            study.set_user_attr(key, value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        optuna.delete_study(study_name=name, storage=storage)
        raise ConfigError(f"file: {file} is damaged: {type(error).__name__}: {error}") from error
    except BaseException:
        optuna.delete_study(study_name=name, storage=storage)
        raise
    return study


def _content(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(gzip.decompress(file.read_bytes()))
        found, _ = content["format"], [content[part] for part in PARTS]
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise ConfigError(f"file: {file} is no study that paretune exported") from error
        raise ConfigError(f"file: cannot read {file}: {error.strerror}") from error
    except (ValueError, EOFError, KeyError, TypeError) as error:
        raise ConfigError(f"file: {file} is no study that paretune exported, or is damaged") from error
    if found != FORMAT:
        raise ConfigError(f"file: {file} has the form {found}, this version reads {FORMAT}; update paretune")
    whole: Mapping[str, Any] = content
    return whole


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
