"""Strain: what else wanted the processor, as the system counts it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from mmap import PAGESIZE, mmap
from pathlib import Path

import pytest

from objectives.measuring.strain import Contention, read_strain

STAT = "cpu  100 5 50 800 7 0 3 35 9 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def proc(root: Path, threads: dict[str, str], stat: str | None = STAT) -> Path:
    """A tree such as Linux shows."""
    for name, text in threads.items():
        folder = root / "self" / "task" / name
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(text)
    if stat is not None:
        (root / "stat").write_text(stat)
    return root


def test_all_threads_are_counted_in_seconds(tmp_path: Path) -> None:
    found = read_strain(proc(tmp_path, {"7": "1500000000 250000000 12\n", "8": "500000000 750000000 3\n"}))
    assert (found.ran, found.waited) == (2.0, 1.0)
    assert found.wait == pytest.approx(1 / 3)


def test_stolen_ticks_are_a_share_of_all_ticks_without_counting_guests_twice(tmp_path: Path) -> None:
    found = read_strain(proc(tmp_path, {}))
    assert (found.stolen, found.passed) == (35, 1000)
    assert found.steal == 0.035


def test_a_thread_that_ends_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    root = proc(tmp_path, {"7": "1000000000 0 1\n"})
    (root / "self" / "task" / "8").mkdir()
    (root / "self" / "task" / "8" / "schedstat").symlink_to(root / "gone")
    assert read_strain(root).ran == 1.0


@pytest.mark.parametrize("stat", [None, "", "cpu  1 2 3\n"])
def test_a_system_that_does_not_count_shows_no_strain(tmp_path: Path, stat: str | None) -> None:
    found = read_strain(proc(tmp_path, {}, stat))
    assert replace(found, faults=0.0) == Contention()
    assert (found.wait, found.steal) == (0.0, 0.0)


def test_a_page_that_is_touched_first_is_a_fault() -> None:
    written = b"x" * 1000 * PAGESIZE
    before = read_strain()
    with mmap(-1, len(written)) as block:
        block.write(written)
    assert 1000 <= read_strain().since(before).faults < 1100


def test_strain_between_two_readings_is_what_was_added() -> None:
    earlier, later = Contention(1.0, 2.0, 3.0, 100.0), Contention(4.0, 3.0, 13.0, 200.0)
    added = later.since(earlier)
    assert added == Contention(3.0, 1.0, 10.0, 100.0)
    assert (added.wait, added.steal) == (0.25, 0.1)
    assert earlier + added == later
    assert added.since(added) == Contention()


def test_counters_that_step_back_are_no_strain() -> None:
    """A thread that ended takes its counters with it."""
    assert Contention(1.0, -0.5, -2.0, 10.0).wait == 0.0
    assert Contention(1.0, -0.5, -2.0, 10.0).steal == 0.0
    assert Contention(-2.0, 1.0).wait == 0.0


SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
print("ready", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end:
    pass
"""
WATCH = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from objectives.measuring.strain import read_strain
before, end = read_strain(), time.monotonic() + 1.0
while time.monotonic() < end:
    pass
print(read_strain().since(before).wait)
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waiting")
def test_a_busy_process_on_the_same_processor_makes_us_wait() -> None:
    """Two that spin on one processor each wait about half of the time, whatever else the machine does."""
    cpu = str(min(os.sched_getaffinity(0)))
    spinning = subprocess.Popen([sys.executable, "-c", SPIN, cpu], stdout=subprocess.PIPE, text=True)
    try:
        assert spinning.stdout is not None
        assert spinning.stdout.readline() == "ready\n"
        watched = subprocess.run(
            [sys.executable, "-c", WATCH, cpu], capture_output=True, text=True, check=True, timeout=60
        )
    finally:
        spinning.kill()
        spinning.communicate()
    assert 0.3 < float(watched.stdout) < 0.95
