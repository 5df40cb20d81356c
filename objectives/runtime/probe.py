"""How much memory an engine takes, in a process of its own: from before its files are opened to the peak of the run.

Engines allocate by themselves, keep what they allocated, map files and repack weights, so nothing but the resident set
tells what they take; and what an earlier run in the same process left behind would be in it. Pages of libraries that
the run brought in are taken off: they are shared, and torch's are not counted either.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.errors import ObjectiveError

if TYPE_CHECKING:
    from objectives.types import Workload

TIMEOUT = 300.0
"""Seconds for opening and running once."""


@dataclass(frozen=True)
class Resident:
    """``resting``: bytes of the opened engine; ``peak``: the most while it ran, resting included."""

    resting: int
    peak: int


def resident(folder: Path, workload: Workload, threads: int) -> Resident:
    """Of the engine of ``folder`` running the excerpts of ``workload``. Raises ObjectiveError, MemoryError."""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", __name__, str(folder), str(threads)]
    try:
        done = subprocess.run(
            command, input=pickle.dumps(workload), capture_output=True, timeout=TIMEOUT, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise ObjectiveError(f"the engine could not be weighed within {TIMEOUT:.0f} s") from error
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        kind = MemoryError if "MemoryError" in last or "out of memory" in last.lower() else ObjectiveError
        raise kind(f"the engine in {folder.name} could not be weighed: {last}")
    resting, peak = map(int, done.stdout.split()[-2:])
    return Resident(resting, peak)


def _main(folder: Path, threads: int) -> None:
    workload: Workload = pickle.loads(sys.stdin.buffer.read())
    import torch

    from objectives.devices import heap
    from objectives.measuring.prompts import prompts  # noqa: F401  what is imported must not be counted
    from objectives.measuring.stopwatch import Unwatched
    from objectives.runtime.folder import read_facts, runtime_of
    from objectives.runtime.runner import EngineRunner

    torch.set_num_threads(threads)
    for package in runtime_of(read_facts(folder)).packages.run:
        importlib.import_module(package)
    with heap.give_back():
        gc.collect()
        heap.trim()
        before = _status()
        runner = EngineRunner.open(folder, None, threads)
        gc.collect()
        heap.trim()
        resting = _status()
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        for excerpt in workload.excerpts().values():
            excerpt.run(runner, Unwatched())
        after = _status()
    libraries = after["RssFile"] - before["RssFile"] - _mapped(folder)
    held = resting["RssAnon"] - before["RssAnon"] + _mapped(folder)
    print(held, max(held, after["VmHWM"] - before["VmRSS"] - max(0, libraries)))


def _status() -> dict[str, int]:
    """Bytes by name."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value.split()[0]) * 1024
    return found


def _mapped(folder: Path) -> int:
    """Resident bytes of the engine's own files."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head = line.split()
        if "-" in head[0]:
            ours = str(folder.resolve()) in line
        elif ours and head[0] == "Rss:":
            total += int(head[1]) * 1024
    return total


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
