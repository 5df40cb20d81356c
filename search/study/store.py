"""Writes trials and facts about a study into the Optuna study, and reads them back; nothing else stores results.

Everything about a trial that Optuna has no place for is one JSON attribute. It is written before Optuna is told the
trial's outcome, so that a driver killed in between loses nothing.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from objectives.measuring.stored_facts import facts_of, measurement_of, stored_measurement, texts_of
from objectives.models.notes import notes_of, stored_notes
from objectives.types import Measurement, Reason
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.space.space import Space
from search.study.confirmation import Confirmation
from search.study.patient_storage import PatientStorage

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

RECORD, SAMPLES, DEFINITION, CONFIG, MACHINE, UID, CONFIRMATION, STOP, LOSSES, SOURCES = (
    "record",
    "samples",
    "definition",
    "config",
    "machine",
    "uid",
    "confirmation",
    "stop_reason",
    "losses",
    "sources",
)


def plain(value: Any) -> Any:
    """Return ``value`` as it comes back from JSON: tuples as lists, keys as texts."""
    return json.loads(json.dumps(value))


def save_stop(study: Study, reason: StopReason) -> None:
    """Store why the study stopped last."""
    study.set_user_attr(STOP, str(reason))


def stop_of(study: Study) -> StopReason:
    """Return why the study stopped last; UNKNOWN where it still runs or was killed, or for another version's word."""
    stored = study.user_attrs.get(STOP)
    return next((reason for reason in StopReason if reason == stored), StopReason.UNKNOWN)


def save_losses(study: Study, losses: Sequence[float]) -> None:
    """Store the predicted losses of the recipes, nats, in the order of their numbers."""
    study.set_user_attr(LOSSES, [loss if math.isfinite(loss) else None for loss in losses])


def losses_of(study: Study) -> list[float] | None:
    """Return the stored losses of the recipes, nats; None where nothing was predicted."""
    stored = study.user_attrs.get(LOSSES)
    return None if stored is None else [math.nan if loss is None else float(loss) for loss in stored]


def save_record(study: Study, trial_number: int, record: TrialRecord, samples: Mapping[str, Any]) -> None:
    """Attach the record and the raw samples to the trial, before Optuna is told its outcome."""
    stored = {**asdict(record), "notes": stored_notes(record.notes), "facts": texts_of(record.facts)}
    attributes = {**({SAMPLES: plain(samples)} if samples else {}), RECORD: plain(stored)}
    storage, trial_id = study._storage, _trial_id(study, trial_number)
    backend = getattr(storage, "_backend", None)  # below Optuna's cache, which knows no attributes of running trials
    if isinstance(backend, PatientStorage):
        backend.set_trial_user_attrs(trial_id, attributes)
        return
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)


def _trial_id(study: Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def saved_record(trial: FrozenTrial) -> TrialRecord | None:
    """Return the record attached to a trial, or None where the trial was cut short before it had one."""
    stored = trial.user_attrs.get(RECORD)
    if stored is None:
        return None
    facts = facts_of(stored.get("facts", {}), stored.get("metrics", {}))
    return TrialRecord(**{**stored, "notes": notes_of(stored["notes"]), "facts": facts})


def records_of(study: Study) -> list[TrialRecord]:
    """Return the records of all finished trials, in the order of their numbers."""
    records = [saved_record(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [record for record in records if record is not None]


def samples_of(study: Study) -> dict[int, Mapping[str, Any]]:
    """Return the raw samples by trial number: timings, and the scores of examples."""
    trials = study.get_trials(deepcopy=False)
    return {trial.number: trial.user_attrs[SAMPLES] for trial in trials if SAMPLES in trial.user_attrs}


def save_confirmation(study: Study, confirmation: Confirmation) -> None:
    """Store what measuring again gave.

    Raw samples become attributes of the study, one per trial, since a finished trial takes no more attributes.
    """
    stored: dict[str, Any] = {"dropped": confirmation.dropped, "failed": confirmation.failed}
    kinds = {"again": confirmation.again, "members": confirmation.members}  # a member's figures are the latest
    for kind, timings in kinds.items():
        stored[kind] = {str(number): plain(stored_measurement(retimed)) for number, retimed in timings.items()}
        for number, retimed in stored[kind].items():
            samples = retimed.pop("samples")
            if samples:  # taken in this run
                study.set_user_attr(f"{SAMPLES}.{number}", samples)
    study.set_user_attr(CONFIRMATION, plain(stored))


def confirmation_of(study: Study) -> Confirmation:
    """Return what measuring again gave when the study ran last."""
    stored = study.user_attrs.get(CONFIRMATION, {})
    members, again = (
        {int(number): _retimed(value) for number, value in stored.get(name, {}).items()}
        for name in ("members", "again")
    )
    dropped = {int(number): why for number, why in stored.get("dropped", {}).items()}
    return Confirmation(members, again, dropped, stored.get("failed", ""))


def _retimed(stored: Mapping[str, Any]) -> Measurement:
    return measurement_of(stored if "metrics" in stored else {"metrics": stored})  # early versions kept these alone


def orphans(study: Study) -> list[FrozenTrial]:
    """Return the trials that a killed driver left running.

    The caller must hold the study's lease: then no other process runs them.
    """
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def drop_waiting(study: Study) -> None:
    """Close the trials that a killed driver enqueued and did not ask for: the next one would get their cells."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def interrupted_record(study: Study, trial: FrozenTrial, space: Space) -> TrialRecord:
    """Return the record of a trial that was left running and never measured, with the cell that it was asked for."""
    is_whole = all(axis.parameter in trial.params for axis in space.axes)
    cell = {axis.path: axis.value(trial.params[axis.parameter]) for axis in space.axes} if is_whole else {}
    return TrialRecord(
        number=trial.number,
        uid=f"{study.user_attrs[UID]}:{trial.number}",
        params=cell,
        state="failed",
        reason=Reason.INTERRUPTED.value,
        message="the study was stopped during this trial",
        started=trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else "",
    )
