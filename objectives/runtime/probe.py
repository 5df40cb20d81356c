"""How much memory an engine takes, in a process of its own: from before its files are opened to the peak of the run.

Engines allocate by themselves, keep what they allocated, map files and repack weights, so nothing but the resident set
tells what they take; and what an earlier run in the same process left behind would be in it. Pages of libraries that
the run brought in are taken off: they are shared, and torch's are not counted either.
"""

from __future__ import annotations

import gc
import importlib
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.errors import Unsupported
from objectives.runtime import probe_process

if TYPE_CHECKING:
    from objectives.protocols.running import Workload

TIMEOUT = 300.0
"""Seconds for opening and running once."""


@dataclass(frozen=True)
class Resident:
    """``resting``: bytes of the opened engine; ``peak``: the most while it ran, resting included."""

    resting: int
    peak: int


def resident(folder: Path, workload: Workload, threads: int, allowed: Sequence[str]) -> Resident:
    """Of the engine of ``folder`` running the excerpts of ``workload``; ``allowed``: see
    :func:`objectives.runtime.folder.runtime_of`. Raises Unsupported, MemoryError.
    """
    ended = probe_process.run(__name__, [str(folder), str(threads), *allowed], TIMEOUT, pickle.dumps(workload))
    if ended.out_of_memory:
        raise MemoryError(f"the engine could not be weighed: {ended.how}")
    try:
        resting, peak = map(int, ended.answer.split()[-2:])
    except ValueError as error:
        raise Unsupported(f"the engine could not be weighed in a process of its own ({ended.how})") from error
    return Resident(resting, peak)


def _main(folder: Path, threads: int, allowed: Sequence[str]) -> None:
    workload: Workload = pickle.loads(sys.stdin.buffer.read())
    import torch

    from objectives.devices import heap
    from objectives.measuring.prompts import prompts  # noqa: F401  what is imported must not be counted
    from objectives.measuring.stopwatch import Unwatched
    from objectives.runtime.folder import read_facts, runtime_of
    from objectives.runtime.runner import EngineRunner

    torch.set_num_threads(threads)
    for package in runtime_of(read_facts(folder), allowed).packages.run:
        importlib.import_module(package)
    with heap.give_back():
        gc.collect()
        heap.trim()
        before = _status()
        runner = EngineRunner.open(folder, None, threads, allowed)
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
    probe_process.begin()
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
