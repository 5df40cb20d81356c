"""``make test`` itself: a verdict, and not a good one, whatever a test does to its process; planted tests show it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
ENDLESS = "import collections, itertools, pathlib\n\ndef test_hangs():\n    pathlib.Path({began!r}).touch()\n    collections.deque(itertools.repeat(0), maxlen=0)  # in C, with Python's lock held\n"  # noqa: E501
PLANTED = {
    "divides": "import os, signal\n\ndef test_ends(): os.kill(os.getpid(), signal.SIGFPE)\n",
    "killed": "import os, signal\n\ndef test_ends(): os.kill(os.getpid(), signal.SIGKILL)\n",
    "leaves": "import os\n\ndef test_ends(): os._exit(0)\n",
}
AFTER = "\ndef test_before(): pass\n\ndef test_after(): pass\n"


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command of ``make test`` on the tests of ``folder``."""
    command = [sys.executable, "-m", "tests.run", str(folder), f"--rootdir={folder}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def plant(folder: Path, **tests: str) -> None:
    for name, text in tests.items():
        (folder / f"test_{name}.py").write_text(text)


def closing(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_make_test_is_this_command() -> None:
    assert "$(BIN)/python -m tests.run\n" in (ROOT / "Makefile").read_text()
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()


def test_a_run_ends_with_a_verdict_that_names_every_test_that_ended_or_hung_its_process(tmp_path: Path) -> None:
    plant(tmp_path, **{name: text + AFTER for name, text in PLANTED.items()}, fine=AFTER)
    plant(tmp_path, hangs=ENDLESS.format(began=str(tmp_path / "began")) + AFTER)
    run = started(tmp_path, "-o", "timeout=4", "-o", "faulthandler_timeout=6")
    text, _ = run.communicate(timeout=230)
    assert run.returncode == 1
    assert re.fullmatch(r"4 failed, 10 passed in .*", closing(text))
    for name, test in {**dict.fromkeys(PLANTED, "ends"), "hangs": "hangs"}.items():
        assert re.search(rf"crashed while running 'test_{name}\.py::test_{test}'", text)


@pytest.mark.slow
def test_a_run_that_takes_too_long_ends_and_says_what_was_running(tmp_path: Path) -> None:
    plant(tmp_path, hangs=ENDLESS.format(began=str(tmp_path / "began")), fine=AFTER)
    run = started(tmp_path, "--run-limit=25")
    text, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "the run took longer than 25 s" in text
    begun = (tmp_path / "began").exists()  # two processes start in 5 s, but where much else runs
    assert re.fullmatch(r"1 failed, .*in \d.*" if begun else r"(no tests ran|.* passed) in \d.*", closing(text))
    assert bool(re.search(r"test_hangs\.py::test_hangs\b.*\n?.*still running", text)) == begun


@pytest.mark.slow
def test_ctrl_c_ends_a_run_within_seconds(tmp_path: Path) -> None:
    plant(tmp_path, hangs=ENDLESS.format(began=str(tmp_path / "began")), fine=AFTER)
    run = started(tmp_path)
    while not (tmp_path / "began").exists():
        assert run.poll() is None
        time.sleep(0.2)
    workers = psutil.Process(run.pid).children(recursive=True)
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    text, _ = run.communicate(timeout=120)
    assert time.monotonic() - began < 40
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert re.fullmatch(r".*(passed|failed|no tests ran) .*in .*|no tests ran in .*|2 passed in .*", closing(text))
    assert not [one for one in workers if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
