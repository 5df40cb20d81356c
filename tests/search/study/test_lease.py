"""A study has one driver: who comes second is refused, who comes back too late writes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy import text, update

from search.errors import ConfigError, LeaseLost, StudyConflict
from search.study.lease import LEASES, Lease

Start = Callable[..., subprocess.Popen[str]]

OPEN = """
import sys, time
import optuna
from optuna.storages import RDBStorage
from search.errors import LeaseLost, StudyConflict
from search.study.lease import Lease
waits = {"connect_args": {"timeout": 60}} if sys.argv[1].startswith("sqlite") else {}
storage = RDBStorage(sys.argv[1], engine_kwargs=waits)
"""
HOLDS = """
with Lease(storage, "mine", float(sys.argv[2])).held():
    print("holds", flush=True)
    time.sleep(60)
"""
WRITES = """
with Lease(storage, "mine").held():
    study = optuna.load_study(study_name="mine", storage=storage)
    trial = study.ask()
    trial.set_user_attr("at", 1)
    print("asked", flush=True)
    sys.stdin.readline()
    for write in (lambda: trial.set_user_attr("at", 2), lambda: study.tell(trial, 1.0)):
        try:
            write()
        except LeaseLost as error:
            print(error, flush=True)
"""
RACES = """
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lease(storage, "mine").held():
        print("drives", flush=True)
        sys.stdin.readline()
except StudyConflict:
    print("refused", flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RDBStorage]:
    """A store without studies and leases, of either kind."""
    if request.param == "sqlite":
        found = RDBStorage(f"sqlite:///{tmp_path}/studies.db", engine_kwargs={"connect_args": {"timeout": 60}})
    else:
        found = RDBStorage(request.getfixturevalue("postgresql").url)
    yield found
    LEASES.drop(found.engine, checkfirst=True)
    for study in found.get_all_studies():
        found.delete_study(study._study_id)
    found.remove_session()
    found.engine.dispose()


def driver_of(storage: RDBStorage) -> int:
    with storage.engine.connect() as connection:
        return connection.execute(LEASES.select().where(LEASES.c.study == "mine")).one().pid  # type: ignore[no-any-return]


@pytest.fixture
def start(storage: RDBStorage) -> Iterator[Start]:
    """Starts other processes on the same store, and waits until they said their first line."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, first: str, *more: object) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", OPEN + script, storage.url, *map(str, more)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert line_of(process) == first
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def set_row(storage: RDBStorage, **values: object) -> None:
    with storage.engine.begin() as connection:
        connection.execute(update(LEASES).values(**values))


def test_a_second_driver_is_told_who_holds_the_study_and_how_long(storage: RDBStorage, start: Start) -> None:
    other = start(HOLDS, "holds", 30)
    assert driver_of(storage) == other.pid
    with pytest.raises(StudyConflict, match=rf"process {other.pid} on .* in (29|30) s"), Lease(storage, "mine").held():
        pass
    with Lease(storage, "another").held():  # a lease is a study's
        pass


def test_a_lease_is_renewed_as_long_as_its_driver_lives(storage: RDBStorage, start: Start) -> None:
    start(HOLDS, "holds", 0.6)
    time.sleep(1.2)
    with pytest.raises(StudyConflict), Lease(storage, "mine").held():
        pass


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_at_once(storage: RDBStorage, start: Start) -> None:
    other = start(HOLDS, "holds", 3600)
    other.kill()
    other.wait()
    with Lease(storage, "mine").held():
        assert driver_of(storage) == os.getpid()


def test_the_lease_of_another_machine_is_taken_when_it_expired_and_not_before(storage: RDBStorage) -> None:
    with Lease(storage, "mine").held():
        pass
    set_row(storage, machine="elsewhere", pid=1, expires=4e9)
    with pytest.raises(StudyConflict), Lease(storage, "mine").held():
        pass
    set_row(storage, expires=time.time() - 0.1)
    with Lease(storage, "mine").held():
        pass


def test_a_driver_that_comes_back_after_another_took_over_writes_nothing(storage: RDBStorage, start: Start) -> None:
    """It is stopped as a suspended machine stops it, with a trial half written, while another takes the study over."""
    study = optuna.create_study(study_name="mine", storage=storage)
    first = start(WRITES, "asked")
    first.send_signal(signal.SIGSTOP)
    set_row(storage, expires=0.0)  # as time would
    with Lease(storage, "mine").held():
        first.send_signal(signal.SIGCONT)
        assert first.stdin is not None
        first.stdin.write("\n")
        first.stdin.flush()
        for _ in range(2):
            assert f"was taken over by process {os.getpid()}" in line_of(first)
        (trial,) = study.get_trials()
        assert trial.user_attrs == {"at": 1}
        assert not trial.state.is_finished()
        study.set_user_attr("goes", "on")


def test_of_processes_that_begin_a_study_at_once_one_drives_it(start: Start) -> None:
    racing = [start(RACES, "ready") for _ in range(4)]
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(map(line_of, racing)) == ["drives", "refused", "refused", "refused"]


def test_a_lease_that_was_lost_is_not_given_back(storage: RDBStorage) -> None:
    with Lease(storage, "mine").held():
        set_row(storage, token=7, expires=4e9)
        with pytest.raises(LeaseLost):
            optuna.create_study(study_name="mine", storage=storage)
    with storage.engine.connect() as connection:
        assert connection.execute(LEASES.select()).first().expires == 4e9  # type: ignore[union-attr]


@pytest.mark.parametrize("is_lost", [True, False])
def test_whatever_fails_after_another_took_over_is_told_as_that(storage: RDBStorage, is_lost: bool) -> None:
    study = optuna.create_study(study_name="mine", storage=storage)
    trial = study.ask()

    def comes_back() -> None:
        with Lease(storage, "mine").held():
            if is_lost:
                set_row(storage, token=7, expires=4e9)
            with storage.engine.begin() as connection:  # as a successor would
                connection.execute(text("UPDATE trials SET state = 'FAIL'"))
            storage.set_trial_user_attr(trial._trial_id, "at", 1)

    with pytest.raises((LeaseLost, UpdateFinishedTrialError)) as raised:
        comes_back()
    assert isinstance(raised.value, LeaseLost) == is_lost


def test_a_database_whose_clock_is_not_known_is_refused(storage: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.engine.dialect, "name", "oracle")
    with pytest.raises(ConfigError, match="storage: expected a database of sqlite, postgresql, mysql, got oracle"):
        Lease(storage, "mine")
