"""Faults of the tracker: a server that hangs, dies, loses answers, or is asked for with a password."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.faults.closed_form import calls
from tests.faults.conftest import Study, ended
from tests.search.study.postgresql import Server

pytestmark = pytest.mark.faults

CANARY = "canary7password"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def hung_server() -> Iterator[int]:
    """Accept connections and never answer."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        for each in (server, *kept):
            each.close()


class MlflowServer:
    """A real server of MLflow on loopback, with its database in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            try:
                with urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("MLflow did not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def runs(self, project: str = "ci_tiny") -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(project)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def require_one_run_for_each(self, trials: int) -> None:
        runs = self.runs()
        children = Counter(run.data.params["trial"] for run in runs if "mlflow.parentRunId" in run.data.tags)
        assert children == Counter(map(str, range(trials)))
        assert len(runs) == trials + 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    server = MlflowServer(folder)
    yield server
    if server.process.poll() is None:
        server.kill()


@pytest.mark.row(9, "MLflow accepts and never answers", "no trial waits longer than 1 s; one warning")
def test_a_hung_tracker(study: Study, tmp_path: Path) -> None:
    quick = study.run("study_name=quick")
    began = time.monotonic()
    with hung_server() as port:
        hung = study.run("tracker=mlflow", f"tracker.uri=http://127.0.0.1:{port}")
    assert time.monotonic() - began < 40
    assert hung.code == quick.code == 0, hung.err
    assert (hung.out + hung.err).count("the tracker failed") == 1
    assert "paretune sync study=faulty" in hung.out
    assert longest_pause(study, 12, 24) < longest_pause(study, 0, 12) + 1.0
    study.require_whole()


@pytest.mark.row(10, "MLflow dies in the middle of a study", "no result is lost; sync makes exactly one run per trial")
def test_a_tracker_that_dies(study: Study, server: MlflowServer) -> None:
    driver = study.plan(seconds=0.5).start("tracker=mlflow", f"tracker.uri={server.uri}")
    study.wait_for(lambda: len(study.measured()) >= 4)
    server.kill()
    done = ended(driver)
    assert done.code == 0, done.err
    study.require_whole()
    server.start()
    sent = study.run("study=faulty", f"tracker.uri={server.uri}", verb="sync")
    assert sent.code == 0, sent.err
    server.require_one_run_for_each(12)


def longest_pause(study: Study, first: int, last: int) -> float:
    """Return the most seconds between the end of a trial and the beginning of the next, of some trials in order."""
    times = [float(line[-2]) for line in calls(study.home)][2 * first : 2 * last]
    return max(begun - ended for ended, begun in zip(times[1::2], times[2::2]))


class Losing:
    """Passes connections on to a server, and drops the answer to every third request that creates a run."""

    def __init__(self, port: int) -> None:
        self.target, self.created, self.lost = port, 0, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as upstream:
            dropping = threading.Event()

            def back() -> None:
                while answer := upstream.recv(65536):
                    if dropping.is_set():
                        self.lost += 1
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    client.sendall(answer)

            threading.Thread(target=back, daemon=True).start()
            try:
                while asked := client.recv(65536):
                    if b"runs/create" in asked:
                        self.created += 1
                        if self.created % 3 == 0:
                            dropping.set()
                    upstream.sendall(asked)
            except OSError:
                return


@pytest.mark.row(11, "MLflow's answers are lost", "exactly one run per trial afterwards")
def test_lost_answers(study: Study, server: MlflowServer) -> None:
    proxy = Losing(server.port)
    done = study.plan(seconds=0.2).run("tracker=mlflow", f"tracker.uri=http://127.0.0.1:{proxy.port}")
    assert done.code == 0, done.err
    assert proxy.lost >= 1
    proxy.server.close()
    assert study.run("study=faulty", f"tracker.uri={server.uri}", verb="sync").code == 0
    server.require_one_run_for_each(12)


@pytest.mark.row(38, "passwords in URLs and in the environment", "found in no file, store, log, report or terminal")
def test_canaries(study: Study, postgresql: Server) -> None:
    study.storage = postgresql.url.replace("paretune:secret@", f"paretune:{CANARY}1@")
    with hung_server() as port:
        words = ["tracker=mlflow", f"tracker.uri=http://someone:{CANARY}2@127.0.0.1:{port}"]
        told = [study.run(*words, "study_name=secret", MLFLOW_TRACKING_TOKEN=f"{CANARY}3")]
    told += [
        study.run("study=secret", verb="report"),
        study.run(verb="studies"),
        study.run("study=secret", "tracker.uri=http://a:b@127.0.0.1:9", verb="sync"),
        study.run("-m", "study_name=swept", "accuracy_floor.epsilon=0.5,0.6", "n_trials=2"),
        study.run("nonsense=1"),
    ]
    assert [each.code for each in told] == [0, 0, 0, 1, 0, 2], [each.err[-300:] for each in told]
    assert [each for each in told if CANARY in each.out + each.err] == []
    files = [file for file in study.home.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert [file for file in files if CANARY.encode() in file.read_bytes()] == []
    stored = subprocess.run(
        ["grep", "-rlaF", CANARY, postgresql.folder / "data"], capture_output=True, text=True
    ).stdout.splitlines()
    assert stored == []
