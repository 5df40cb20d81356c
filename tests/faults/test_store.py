"""Faults of the store: locked, torn, full, away, or made by several at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.study.opening import open_storage
from tests.faults.conftest import Study, ended
from tests.search.study.postgresql import Server

pytestmark = pytest.mark.faults

ROUNDS = 20


def open_at_once(folder: str, home: str, barrier: Any, failures: Any) -> None:
    """Open each of the stores at the same moment as others."""
    for place in range(ROUNDS):
        barrier.wait()
        try:
            open_storage(f"sqlite:///{folder}/{place}.db", Path(home)).engine.dispose()
        except Exception as error:
            failures.put(f"{place}: {error}")


@pytest.mark.row(17, "16 drivers write to one sqlite file", "16 x 25 trials: none lost, none left running")
def test_many_writers(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    words = (*Study(tmp_path, "").words[:1], "device=cpu", "sampler=random", "tracker=none", "confirm=false",
             "executor=in_process", "space.pruning.ratio=[0.0,0.1,0.2,0.3,0.4]", "space.quantization.bits=[16,8,4]",
             "space.workload.batch_size=[1,2,4,8]", "n_trials=25")  # fmt: skip
    studies = [Study(tmp_path / f"home{place}", storage, words).plan() for place in range(16)]
    running = [study.start(f"study_name=study{place}") for place, study in enumerate(studies)]
    results = [ended(process, 400) for process in running]
    assert [result.code for result in results] == [0] * 16, [result.err[-300:] for result in results]
    for place, study in enumerate(studies):
        trials = study.trials(f"study{place}")
        assert len(trials) == 25
        assert not [trial for trial in trials if trial.state is optuna.trial.TrialState.RUNNING]


@pytest.mark.row(18, "a new store opened by 4 at once, 20 times", "no crash: one makes the schema, the others find it")
def test_schemas(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(4), context.Queue()
    homes = [str(tmp_path / f"home{place % 2}") for place in range(4)]  # two homes share the files
    processes = [context.Process(target=open_at_once, args=(str(tmp_path), home, barrier, failures)) for home in homes]
    for process in processes:
        process.start()
    for process in processes:
        process.join(150)
    assert [process.exitcode for process in processes] == [0] * 4
    assert failures.empty(), failures.get()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small disk at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk can be mounted by root alone")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.row(25, "disk full: the store", "one line; the same command goes on once there is room")
def test_a_full_disk_under_the_store(study: Study, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "400k"):
        study.storage = f"sqlite:///{disk / 'studies.db'}"
        assert study.run("n_trials=1").code == 0
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free
        filler.write_bytes(b"x" * max(0, free - 24 * 1024))
        stopped = study.run()
        assert stopped.code == 1, stopped.err
        line = stopped.require_one_line()
        assert "storage" in line
        assert "full" in line
        filler.unlink()
        assert study.run().code == 0
        study.require_whole()


@pytest.mark.row(26, "disk full: the report", "the trials are kept; one line says what was not written")
def test_a_full_disk_under_the_report(study: Study, tmp_path: Path) -> None:
    study.storage = f"sqlite:///{tmp_path / 'studies.db'}"
    reports = study.home / "reports"
    with small_disk(reports, "16k"):
        done = study.run()
        assert done.code == 1, done.err
        assert "report" in done.require_one_line()
        study.require_whole()
    assert study.run().code == 0
    assert list(study.home.glob("reports/*/report.html"))


@pytest.mark.row(27, "torn or overwritten database", "one line; the file is kept aside, and what can be read is kept")
@pytest.mark.parametrize("how", ["cut", "overwritten", "empty"])
def test_a_torn_database(how: str, study: Study) -> None:
    assert study.run("n_trials=10").code == 0
    file = study.home / "studies.db"
    whole = file.read_bytes()
    if how == "cut":
        file.write_bytes(whole[: len(whole) * 9 // 10])
    elif how == "overwritten":
        file.write_bytes(b"\0" * 8192 + whole[8192:])
    else:
        file.write_bytes(b"")
    refused = study.run()
    assert refused.code == 2
    line = refused.require_one_line()
    if how == "empty":  # sqlite takes it for a new one
        assert f"{file} is empty, and its copy {file}.backup holds 1 study" in line
        os.replace(f"{file}.backup", file)
        assert study.run().code == 0
        assert len([record for record in study.records() if record.state == "complete"]) == 12
        return
    assert f"{file} is damaged, and stays as it is" in line
    assert "10 of its trials are in" in line
    found = line.rpartition("storage=")[2]
    assert study.run(f"storage={found}").code == 0
    study.storage = found
    assert {trial.state.name for trial in study.trials()} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert len([record for record in study.records() if record.state == "complete"]) == 12


@pytest.mark.row(28, "PostgreSQL restarts in the middle of a study", "writes wait and are done once; nothing is lost")
def test_a_server_that_restarts(postgresql: Server, study: Study) -> None:
    study.storage = postgresql.url
    driver = study.plan(seconds=0.3).start()
    study.wait_for(lambda: len(study.measured()) >= 3)
    postgresql.stop()
    time.sleep(2)
    postgresql.start()
    study.wait_for(lambda: len(study.measured()) >= 6)
    postgresql.drop_connections()
    done = ended(driver)
    assert done.code == 0, done.err
    study.require_whole()
    assert len(study.trials()) == 12


@pytest.mark.row(37, "lock of a process that is gone", "it stops nobody")
def test_a_stale_lock(study: Study) -> None:
    driver = study.plan(seconds=0.3).start()
    study.wait_for(lambda: len(study.measured()) >= 2)
    os.kill(driver.pid, signal.SIGKILL)
    (study.home / ".studies.lock").touch()
    assert study.run().code == 0
    study.require_whole()
