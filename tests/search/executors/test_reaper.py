"""What a killed driver leaves behind is ended; what an orderly one leaves is none of it."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from search.executors.reaper import DONE


@pytest.mark.parametrize("orderly", [False, True])
def test_processes_end_when_the_input_does_unless_all_was_done(orderly: bool) -> None:
    left = subprocess.Popen(["sleep", "60"])
    began = psutil.Process(left.pid).create_time()
    named = [f"{left.pid} {began}", "999999999 1.0", f"{os.getpid()} 1.0"]  # the last number is another's by now
    reaper = subprocess.Popen([sys.executable, "-m", "search.executors.reaper"], stdin=subprocess.PIPE, text=True)
    try:
        reaper.communicate("\n".join([*named, *([DONE] if orderly else [])]) + "\n", timeout=30)
        assert reaper.returncode == 0
        if orderly:
            assert left.poll() is None
        else:
            assert left.wait(timeout=5) == -9
    finally:
        left.kill()
        left.wait()
