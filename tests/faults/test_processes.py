"""Faults of processes: killed, stopped, hung, or out of memory."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.faults.closed_form import calls
from tests.faults.conftest import Study, ended, left_of

pytestmark = pytest.mark.faults

FIRST = "0.5/8/1"


@pytest.mark.row(1, "worker killed (SIGKILL)", "its cell is tried once more and counts once; nothing is lost")
@pytest.mark.parametrize("executor", ["worker", "local"])
def test_a_killed_worker(executor: str, study: Study) -> None:
    study.plan(**{FIRST: ["kill"], "0.5/4/4": ["kill", "kill"]})
    more = ["executor.cpus=2"] if executor == "local" else []
    done = study.run(f"executor={executor}", *more)
    assert done.code == 0, done.err
    study.require_whole(11)
    tries = Counter(record.reason for record in study.records() if record.reason)
    assert tries == {"crashed": 3}
    assert study.measured().count(FIRST) == 1


@pytest.mark.row(2, "SIGTERM, SIGHUP", "it stops within 10 s with exit code 143 or 129; the same command goes on")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_driver_that_is_asked_to_stop(number: signal.Signals, times: int, study: Study) -> None:
    driver = study.plan(seconds=0.3).start()
    study.wait_for(lambda: len(study.measured()) >= 3)
    began = time.monotonic()
    for _ in range(times):
        os.kill(driver.pid, number)
        time.sleep(0.05)
    stopped = ended(driver)
    assert time.monotonic() - began < 10
    assert stopped.code == 128 + number
    assert times == 2 or "the same command resumes" in stopped.err
    assert study.run().code == 0
    study.require_whole()


@pytest.mark.row(3, "Ctrl-C once, twice", "once: a partial report; twice: it leaves at once; the store is whole")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(times: int, study: Study) -> None:
    driver = study.plan(seconds=0.3).start()
    study.wait_for(lambda: len(study.measured()) >= 3)
    began = time.monotonic()
    for _ in range(times):
        os.kill(driver.pid, signal.SIGINT)
        time.sleep(0.05)
    stopped = ended(driver)
    assert time.monotonic() - began < 10
    told = {130} if times == 1 else {130, -signal.SIGINT}  # of both a shell says 130; Python chooses for the second
    assert stopped.code in told, stopped.err
    if times == 1:
        assert list(study.home.glob("reports/*/report.html"))
    assert study.run().code == 0
    study.require_whole()


@pytest.mark.row(4, "sys.exit, os._exit, segmentation fault", "a failed trial with its reason; the study goes on")
def test_a_trial_that_ends_its_process(study: Study) -> None:
    cells = {"0.5/8/1": "sys_exit", "0.5/8/4": "os_exit", "0.5/4/1": "segfault", "0.5/4/4": "raise"}
    done = study.plan(**{cell: [fault] for cell, fault in cells.items()}).run()
    assert done.code == 0, done.err
    study.require_whole(10)  # what raises an exception is no chance, and not tried again
    failed = {f"{r.params['pruning.ratio']:g}/{r.params['quantization.bits']}/{r.params['workload.batch_size']}":
              (r.reason, r.message) for r in study.records() if r.state == "failed"}  # fmt: skip
    assert failed.keys() == cells.keys()
    assert {failed["0.5/8/4"][0], failed["0.5/4/1"][0]} == {"crashed"}
    assert "exit code 3" in failed["0.5/8/4"][1]
    assert "SIGSEGV" in failed["0.5/4/1"][1]


@pytest.mark.row(8, "hung trial", "its process is killed at the limit, its cell tried once more; the study goes on")
def test_a_hung_trial(study: Study) -> None:
    done = study.plan(**{FIRST: ["hang"], "0.5/4/4": ["hang", "hang"]}).run("executor.timeout=2")
    assert done.code == 0, done.err
    study.require_whole(11)
    assert Counter(record.reason for record in study.records() if record.reason) == {"timeout": 3}


@pytest.mark.row(36, "driver killed (SIGKILL)", "its processes end within 2 s; its trial is tried again, once")
@pytest.mark.parametrize("executor", ["worker", "local"])
def test_a_killed_driver_leaves_no_process(executor: str, study: Study) -> None:
    more = [f"executor={executor}", *(["executor.cpus=2"] if executor == "local" else [])]
    slots = 1 if executor == "worker" else 2
    driver = study.plan(seconds=0.8).start(*more)
    study.wait_for(lambda: len(study.measured()) >= 3 and len(study.begun()) - len(study.measured()) == slots)
    children = psutil.Process(driver.pid).children(recursive=True)
    assert children
    os.kill(driver.pid, signal.SIGKILL)
    alive = left_of(children, 2)
    assert alive == []
    before = Counter(line[0] for line in calls(study.home) if line[1] != "done")
    assert study.run(*more).code == 0
    study.require_whole()
    assert {state.name for state in (trial.state for trial in study.trials())} <= {"COMPLETE", "PRUNED", "FAIL"}
    interrupted = [record for record in study.records() if record.reason == "interrupted"]
    assert len(interrupted) == slots
    assert all(record.params for record in interrupted)
    assert max(before.values()) == 1  # nothing was begun twice
    assert set(Counter(study.measured()).values()) == {1}


@pytest.mark.row(24, "restarts and the budget", "n_trials is the total, whatever was killed and begun again")
def test_the_budget_after_crashes(study: Study) -> None:
    study.plan(seconds=0.2, **{FIRST: ["kill"]})
    for least in (2, 5):
        driver = study.start("n_trials=9")
        study.wait_for(lambda least=least: len(study.measured()) >= least)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    assert study.run("n_trials=9").code == 0
    study.require_whole(9)
    assert study.run("n_trials=9").code == 0
    study.require_whole(9)


@pytest.mark.row(35, "driver stopped (SIGSTOP)", "another takes over after the lease; the first writes nothing more")
def test_a_stopped_driver(study: Study) -> None:
    first = study.plan(seconds=0.3).start(LEASE="8")
    study.wait_for(lambda: len(calls(study.home)) == 5)  # in the middle of a trial, and of no commit
    time.sleep(0.1)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        refused = study.run(LEASE="8")
        assert refused.code == 2
        assert "is being run by process" in refused.require_one_line()
        time.sleep(6)
        assert study.run(LEASE="8").code == 0
        count = len(study.trials())
    finally:
        os.kill(first.pid, signal.SIGCONT)
    late = ended(first)
    assert late.code == 1
    assert "was taken over" in late.require_one_line()
    assert len(study.trials()) == count
    study.require_whole()


@pytest.mark.row(23, "two drivers, one study", "one works, the other is refused with who holds it; each cell once")
def test_two_drivers(study: Study, tmp_path: Path) -> None:
    study.storage = f"sqlite:///{study.home / 'studies.db'}"
    other = Study(tmp_path / "elsewhere", study.storage).plan(seconds=0.2)
    first, second = study.plan(seconds=0.2).start(), other.start()
    results = [ended(first), ended(second)]
    study.started += other.started
    codes = sorted(result.code for result in results)
    assert codes == [0, 2], [result.err[-300:] for result in results]
    refused = next(result for result in results if result.code == 2)
    assert "study_name: faulty" in refused.require_one_line()
    study.require_whole()
    assert len(study.measured()) + len(other.measured()) == 12
