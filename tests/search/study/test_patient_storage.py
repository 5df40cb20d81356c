"""A store that goes away is waited for, and nothing is written twice."""

from __future__ import annotations

import inspect
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, _cached_storage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from search.errors import Interrupted, StoreFailed
from search.executors.signals import sigterm_interrupts
from search.study import patient_storage
from search.study.patient_storage import PatientStorage, is_away
from tests.search.study.postgresql import Server


class Lost(Exception):
    """What a driver of PostgreSQL raises for a connection that broke."""

    sqlstate = None


def lost() -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("COMMIT", {}, Lost("server closed the connection"))
    return error


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "PAUSES", (0.01, 0.02, 0.05))


@pytest.fixture
def storage(tmp_path: Path) -> PatientStorage:
    return PatientStorage(f"sqlite:///{tmp_path}/studies.db")


@pytest.mark.parametrize("name", ["_create_new_trial", "set_trial_state_values", "set_trial_user_attr", "_get_trials"])
@pytest.mark.parametrize("written", [True, False])
def test_a_call_whose_answer_was_lost_counts_once(
    storage: PatientStorage, monkeypatch: pytest.MonkeyPatch, name: str, written: bool
) -> None:
    study = optuna.create_study(storage=storage, directions=["minimize", "minimize"])
    real, left = getattr(RDBStorage, name), [2]

    def losing(self: RDBStorage, *arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            if written:
                real(self, *arguments, **named)
            raise lost()
        return real(self, *arguments, **named)

    monkeypatch.setattr(RDBStorage, name, losing)
    trial = study.ask()
    trial.set_user_attr("record", {"a": 1})
    study.tell(trial, [1.0, 2.0])
    assert left[0] < 2
    (found,) = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert (found.number, found.state, found.values, found.user_attrs) == (
        0, TrialState.COMPLETE, [1.0, 2.0], {"record": {"a": 1}},
    )  # fmt: skip


def test_whatever_optuna_asks_of_a_storage_is_patient() -> None:
    """Its cache calls private methods too, which another version may rename."""
    asked = set(re.findall(r"self\._backend\.(\w+)\(", inspect.getsource(_cached_storage)))
    beats = {name for name in asked if "heartbeat" in name or "stale" in name}  # of its own loop, which is not ours
    assert "_create_new_trial" in asked
    assert {name for name in asked - beats if name not in vars(PatientStorage)} == set()


def test_asking_reads_no_other_trial(storage: PatientStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's own count of trials reads them all, which a study of thousands would feel at every trial."""
    study = optuna.create_study(storage=storage)
    for _ in range(3):
        study.tell(study.ask(), 1.0)
    read: list[int] = []
    real = RDBStorage._get_trials
    monkeypatch.setattr(RDBStorage, "_get_trials", lambda self, *asked: read.append(1) or real(self, *asked))
    storage._create_new_trial(study._study_id)
    assert read == []


def test_an_outcome_that_was_told_otherwise_is_an_error(storage: PatientStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(Exception, match="finished"):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [2.0])


def test_what_is_no_absence_is_raised_at_once(storage: PatientStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fails(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise StorageInternalError("too long")

    study = optuna.create_study(storage=storage)
    monkeypatch.setattr(RDBStorage, "set_study_user_attr", fails)
    with pytest.raises(StoreFailed, match="too long"):
        study.set_user_attr("a", 1)
    assert calls == [1]
    assert not is_away(ValueError("x"))


def test_a_server_that_restarts_is_waited_for(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "PAUSES", (0.1, 0.2, 0.5, 1.0, 2.0, 4.0))
    storage = PatientStorage(postgresql.url)
    study = optuna.create_study(study_name="restarts", storage=storage)

    def restart() -> None:
        time.sleep(0.3)
        postgresql.stop()
        time.sleep(0.5)
        postgresql.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    ends, told = time.monotonic() + 2.0, 0
    while time.monotonic() < ends or restarting.is_alive():
        trial = study.ask()
        trial.set_user_attr("record", told)
        study.tell(trial, float(told))
        told += 1
    restarting.join()
    trials = optuna.load_study(study_name="restarts", storage=storage).trials
    assert [trial.values for trial in trials] == [[float(number)] for number in range(told)]
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    storage.engine.dispose()


@pytest.mark.parametrize("name", ["set_trial_user_attr", "set_trial_state_values", "_get_trials"])
def test_a_signal_leaves_no_transaction_open(
    storage: PatientStorage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A driver that stops writes once more, and would wait for its own lock."""
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    real, reached = getattr(RDBStorage, name), list[str]()

    def struck(self: RDBStorage, *arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        done = real(self, *arguments, **named)
        reached.append("end")
        return done

    def write() -> None:
        with sigterm_interrupts():
            monkeypatch.setattr(RDBStorage, name, struck)
            study.get_trials()
            trial.set_user_attr("at", 1)
            study.tell(trial, 1.0)

    with pytest.raises(Interrupted):
        write()
    assert reached == ["end"]
    monkeypatch.setattr(RDBStorage, name, real)
    study.set_user_attr("goes", "on")
