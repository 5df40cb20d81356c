"""What malloc does with freed memory, seen in the page faults of using it again."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from objectives.devices import heap

PAGES = 20 * 1024 * 1024 // resource.getpagesize()


def faults() -> int:
    """Of a block of 20 MiB that is written, freed, and had again; fewer where numpy asked for huge pages before."""

    def use() -> None:
        b"x" * (PAGES * resource.getpagesize())

    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def alone(code: str) -> list[int]:
    """What ``code`` prints in a process of its own: a hole that other tests left in the heap would be used first."""
    head = "import psutil; from objectives.devices import heap; from tests.objectives.devices.test_heap import faults\n"
    ran = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True)
    return list(map(int, ran.stdout.split()))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_freed_memory_is_had_again_without_page_faults_unless_it_was_given_back() -> None:
    before, meanwhile, after = alone(
        "heap.keep_freed()\nprint(faults())\nwith heap.give_back(): print(faults())\nprint(faults())"
    )
    assert before < PAGES // 100
    assert meanwhile >= PAGES
    assert after < PAGES // 100


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_what_is_kept_can_be_given_back_by_hand() -> None:
    rss = "print(psutil.Process().memory_info().rss)"
    kept, left = alone(f"heap.keep_freed(); faults()\n{rss}\nheap.trim()\n{rss}")
    assert kept - left >= 15 * 1024 * 1024


def test_a_libc_without_such_settings_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objectives.devices.heap.ctypes.CDLL", lambda _name: SimpleNamespace())
    heap.keep_freed()
    heap.trim()
    with heap.give_back():
        pass
