"""llama.cpp's server of a measured file: the same tokens, real bytes, and an end with its owner."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from objectives.devices import helpers
from objectives.devices.stopwatch import WallStopwatch
from objectives.errors import ProcessLost, RequestFailed
from objectives.models import LoadedModel
from objectives.protocols.serving import Capacity
from objectives.runtime.engines.llama_engine import LlamaDecoder
from objectives.runtime.formats import gguf_weights
from objectives.runtime.servers import http, kept, llama_server
from objectives.runtime.servers.kept import KeptServers, memory_under_load
from objectives.runtime.servers.server import ProcessServer
from objectives.workloads.serving import Serving
from tests.objectives.runtimes import compressed, rounded

IDS = np.random.default_rng(3).integers(2, 128, (2, 20))


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    return compressed(tiny("llama"), None, rounded(16))


@pytest.fixture(scope="module")
def file(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("gguf") / "model.gguf"
    gguf_weights.write(model, written)
    return written


def started(file: Path, model: LoadedModel, slots: int = 2) -> ProcessServer:
    return llama_server.start(file, model.tokenizer, model.vocabulary, 1, Capacity(slots, 64), 16, True)


@pytest.fixture(scope="module")
def server(file: Path, model: LoadedModel) -> ProcessServer:
    return started(file, model)


def served(server: ProcessServer, model: LoadedModel, stored: int = 0) -> Any:
    return SimpleNamespace(
        server=lambda _: server, vocabulary=model.vocabulary, tokenizer=model.tokenizer, stored_bytes=stored
    )


def test_it_writes_the_tokens_that_the_measured_engine_writes(
    server: ProcessServer, file: Path, model: LoadedModel
) -> None:
    wanted = np.zeros((2, 8), np.int64)
    LlamaDecoder(file, "", 1, 16, True).generate(IDS, wanted, None, None)
    for row, expected in zip(IDS.tolist(), wanted.tolist()):
        body = {"prompt": row, "n_predict": 8, "temperature": 0, "return_tokens": True, "ignore_eos": True}
        headers = {"Content-Type": "application/json", **server.endpoint.headers}
        request = urllib.request.Request(f"{server.endpoint.url}/completion", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["tokens"] == expected


def test_who_does_not_know_the_key_is_refused(server: ProcessServer) -> None:
    assert server.endpoint.key not in repr(server.endpoint)
    assert server.endpoint.key not in " ".join(psutil.Process(server._pids[0]).cmdline())
    request = urllib.request.Request(f"{server.endpoint.url}/v1/completions", b'{"prompt": "a", "max_tokens": 1}')
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value:
        assert caught.value.code == 401


def test_a_load_gets_every_token_and_its_time_and_memory_count(server: ProcessServer, model: LoadedModel) -> None:
    load = Serving(concurrency=2, prompt_tokens=9, new_tokens=40, burst=6)
    timing = load.timed(served(server, model), WallStopwatch())
    assert [answer.written for answer in timing.answers] == [40] * 6
    assert [answer.read for answer in timing.answers] == [9] * 6
    assert server._process.pid in helpers.pids()
    memory = memory_under_load(served(server, model), load)
    assert memory.peak > memory.extra["resident_peak"] >= 0
    assert 2**18 < memory.peak < 2**28


def test_a_request_beyond_its_slots_is_told(server: ProcessServer, model: LoadedModel) -> None:
    load = Serving(concurrency=1, prompt_tokens=300, new_tokens=40, burst=1)
    with pytest.raises(RequestFailed, match="400"):
        load.timed(served(server, model), WallStopwatch())


def test_it_ends_with_the_object_and_leaves_nothing_behind(
    file: Path, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = started(file, model, slots=1)
    process = server._process
    assert http.is_healthy(server.endpoint.url)
    assert not list(tmp_path.iterdir())  # a process that is killed could not remove it
    del server
    assert process.poll() is not None
    assert process.pid not in helpers.pids()


def test_it_ends_when_its_owner_is_killed(file: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from objectives.runtime.servers import llama_server\n"
        "from objectives.protocols.serving import Capacity\n"
        "server = llama_server.start(Path(sys.argv[1]), None, 128, 1, Capacity(1, 64), 16, True)\n"
        "print(server._process.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    ends = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_file_that_it_cannot_open_is_told_in_a_line(tmp_path: Path, file: Path, model: LoadedModel) -> None:
    broken = tmp_path / "broken.gguf"
    from gguf import GGUFWriter

    writer = GGUFWriter(broken, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ProcessLost, match="did not start") as caught:
        started(broken, model)
    assert "\n" not in str(caught.value)


@dataclass
class Held:
    """A server that only says how much it holds."""

    slots: int
    resting: int = 0
    is_running: bool = True


def test_servers_are_kept_by_capacity_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_SERVERS", 2)
    servers, made = KeptServers(), list[int]()

    def start(capacity: Capacity) -> Any:
        made.append(capacity.slots)
        return Held(capacity.slots)

    for slots in (1, 2, 1, 3, 1, 2):
        servers.get(Capacity(slots, 64), start)
    assert made == [1, 2, 3, 2]


def test_a_server_that_ended_is_started_again() -> None:
    servers, made = KeptServers(), list[Held]()

    def start(capacity: Capacity) -> Any:
        made.append(Held(capacity.slots))
        return made[-1]

    first = servers.get(Capacity(1, 64), start)
    assert servers.get(Capacity(1, 64), start) is first
    made[0].is_running = False
    assert servers.get(Capacity(1, 64), start) is made[1]


def test_the_servers_of_all_runners_share_one_budget_and_end_with_their_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SHARE", 0.25)
    size = psutil.virtual_memory().total // 10
    runners, made = [KeptServers() for _ in range(3)], list[int]()

    def start(capacity: Capacity) -> Any:
        made.append(capacity.slots)
        return Held(capacity.slots, size)

    for owner, slots in ((0, 1), (1, 2), (2, 3), (1, 2), (0, 1), (0, 1)):
        runners[owner].get(Capacity(slots, 64), start)
    assert made == [1, 2, 3]  # 0.2 of the memory allow one more, which makes 0.3
    runners[0].get(Capacity(4, 64), start)
    assert [server.slots for server in kept._running.values()] == [2, 1, 4]  # the one that was not used for longest
    del runners[0]
    gc.collect()
    assert [server.slots for server in kept._running.values()] == [2]
