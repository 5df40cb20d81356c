"""A foreign command ends with its owner, and takes along what it started."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

_SLEEPER = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"


def test_all_processes_of_a_command_end_when_its_owner_lets_go() -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-m", "objectives.runtime.servers.keeper", sys.executable, "-c", _SLEEPER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    grandchild = psutil.Process(int(keeper.stdout.readline()))
    assert grandchild.is_running()
    keeper.stdin.close()
    keeper.wait(20)
    keeper.stdout.close()
    ends = time.monotonic() + 20
    while grandchild.is_running() and grandchild.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_command_that_ends_by_itself_hands_on_its_code() -> None:
    words = [sys.executable, "-m", "objectives.runtime.servers.keeper", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as keeper:
        assert keeper.wait(20) == 7
