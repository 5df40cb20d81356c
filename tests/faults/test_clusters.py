"""Faults of many devices: processes are killed while a study runs, and a machine leaves."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from tests.faults.closed_form import calls
from tests.faults.conftest import Study, ended, left_of

pytestmark = pytest.mark.faults

CELLS = 60
WORDS = (
    "space.pruning.ratio=[0.0,0.1,0.2,0.3,0.4]", "space.quantization.bits=[16,8,4]",
    "space.workload.batch_size=[1,2,4,8]", "n_trials=60",
)  # fmt: skip


@contextmanager
def killing(victims: Callable[[], list[psutil.Process]], every: float = 2.0) -> Iterator[list[int]]:
    """Kill one of the victims, chosen at random, every so many seconds; yield whom."""
    over, killed, chosen = Event(), list[int](), random.Random(0)

    def kill() -> None:
        while not over.wait(every):
            alive = victims()
            if alive:
                victim = chosen.choice(alive)
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)

    thread = Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def workers_of(study: Study) -> Callable[[], list[psutil.Process]]:
    """Return a function that returns the processes which measure for a study, but for those at a second try.

    A cell that is lost twice is given up, which is promised too, and another test's.
    """

    def found() -> list[psutil.Process]:
        begun = [line for line in calls(study.home) if line[1] != "done"]
        tries = Counter(line[0] for line in begun)
        at = {int(line[-1]): line[0] for line in begun[-16:]}
        return [psutil.Process(pid) for pid, cell in at.items() if tries[cell] == 1 and psutil.pid_exists(pid)]

    return found


def front(study: Study) -> set[tuple[Any, ...]]:
    """Return the cells whose trials Optuna holds for the best."""
    import optuna

    storage = optuna.storages.RDBStorage(study.url)
    try:
        best = optuna.load_study(study_name="faulty", storage=storage).best_trials
        return {tuple(sorted(trial.params.items())) for trial in best}
    finally:
        storage.engine.dispose()


@pytest.mark.row(39, "8 workers, one killed every 2 s", "none lost, none doubled, none left running; the same front")
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_killed_workers(executor: str, study: Study, tmp_path: Any) -> None:
    clean = Study(tmp_path / "clean", "").plan()
    assert clean.run("executor=in_process", *WORDS).code == 0
    more = ["executor.devices=8"] if executor == "ray" else ["executor.cpus=1"]
    driver = study.plan(seconds=1.0).start(f"executor={executor}", *more, *WORDS, PLACES="8")
    study.wait_for(lambda: len(study.measured()) >= 2)
    with killing(workers_of(study)) as killed:
        done = ended(driver, 200)
    assert done.code == 0, done.err
    assert len(killed) >= 2
    study.require_whole(CELLS)
    assert set(Counter(study.measured()).values()) == {1}
    assert front(study) == front(clean)


@pytest.mark.row(40, "a machine of the cluster leaves", "the study goes on with the others; nothing is lost")
def test_a_machine_that_leaves(study: Study) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=4)
        words = ("executor=ray", f"executor.address={cluster.address}", *WORDS)
        driver = study.plan(seconds=1.0).start(*words)
        study.wait_for(lambda: len(study.measured()) >= 10)
        assert len(set(study.begun())) - len(study.measured()) > 4  # on both machines
        cluster.remove_node(node, allow_graceful=False)
        done = ended(driver, 200)
    finally:
        cluster.shutdown()
    assert done.code == 0, done.err
    study.require_whole(CELLS)


@pytest.mark.row(41, "driver of actors killed (SIGKILL)", "its actors and its own cluster end within 2 s")
def test_a_killed_driver_of_actors(study: Study) -> None:
    driver = study.plan(seconds=1.0).start("executor=ray", "executor.devices=2")
    study.wait_for(lambda: len(study.measured()) >= 3)
    children = psutil.Process(driver.pid).children(recursive=True)
    measuring = [psutil.Process(int(line.split()[-1])) for line in (study.home / "calls").read_text().splitlines()[-2:]]
    os.kill(driver.pid, signal.SIGKILL)
    began = time.monotonic()
    alive = left_of({*measuring, *children}, 2)
    assert alive == [], f"after {time.monotonic() - began:.1f} s"
    assert study.run().code == 0
    study.require_whole()
