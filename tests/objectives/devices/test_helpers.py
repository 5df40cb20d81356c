"""What an engine uses in a process of its own counts as ours."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from objectives.devices import helpers
from objectives.devices.stopwatch import WallStopwatch
from objectives.measuring.strain import read_strain

BUSY = """
import sys, time
sys.stdin.readline()
began = time.process_time()
while time.process_time() - began < 0.3: pass
held = bytearray(b"x") * (64 << 20)
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def helper() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        time.sleep(0.2)
        helpers.count(process.pid)
        yield process
        helpers.forget(process.pid)
        process.kill()


def let_run(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_its_cpu_time_is_that_of_a_run(helper: subprocess.Popen[str]) -> None:
    watch = WallStopwatch()
    watch.start(1)
    let_run(helper)
    watch.end_phase("encode")
    assert 0.3 <= watch.timing(1).cpu[0] < 1.0


def test_its_memory_is_ours_beyond_what_it_began_with(helper: subprocess.Popen[str]) -> None:
    before = helpers.sizes_of_all()["RssAnon"]
    let_run(helper)
    assert 60 << 20 < helpers.sizes_of_all()["RssAnon"] - before < 90 << 20


def test_its_threads_run_for_us(helper: subprocess.Popen[str]) -> None:
    before = read_strain()
    let_run(helper)
    assert read_strain().since(before).ran > 0.25


def test_one_that_ended_takes_no_time_and_stops_no_clock(helper: subprocess.Popen[str]) -> None:
    helper.kill()
    helper.wait()
    assert helpers.cpu_seconds() >= time.process_time() - 1
    helpers.forget(helper.pid)
    assert helper.pid not in helpers.pids()
