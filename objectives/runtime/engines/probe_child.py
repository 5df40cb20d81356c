"""Opens an engine, runs it and prints its resting and peak bytes, in the child process of :mod:`.probe`."""

from __future__ import annotations

import gc
import importlib
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.devices.helpers import all_of_us, sizes_of_all
from objectives.runtime.engines import probe_process

if TYPE_CHECKING:
    from objectives.protocols.running import Workload


def _main(folder: Path, threads: int, allowed: Sequence[str]) -> None:
    workload: Workload = pickle.loads(sys.stdin.buffer.read())
    import torch

    from objectives.devices import heap
    from objectives.devices.stopwatch import Unwatched
    from objectives.runtime.engines.folder import read_facts, runtime_of
    from objectives.runtime.engines.runner import EngineRunner
    from objectives.workloads.prompts import prompts  # noqa: F401  what is imported must not be counted

    torch.set_num_threads(threads)
    for package in runtime_of(read_facts(folder), allowed).packages.run:
        importlib.import_module(package)
    with heap.give_back():
        gc.collect()
        heap.trim()
        before = sizes_of_all()
        runner = EngineRunner.open(folder, None, threads, allowed)
        gc.collect()
        heap.trim()
        resting = sizes_of_all()
        for process in all_of_us():
            (process / "clear_refs").write_text("5", encoding="utf-8")
        for excerpt in workload.representative_runs().values():
            excerpt.run(runner, Unwatched())
        after = sizes_of_all()
    libraries = after["RssFile"] - before["RssFile"] - _mapped(folder)
    held = resting["RssAnon"] - before["RssAnon"] + _mapped(folder)
    print(held, max(held, after["VmHWM"] - before["VmRSS"] - max(0, libraries)))


def _mapped(folder: Path) -> int:
    """Return the resident bytes of the engine's own files."""
    total, ours = 0, False
    maps = [(process / "smaps").read_text(encoding="utf-8", errors="replace") for process in all_of_us()]
    for line in "".join(maps).splitlines():
        head = line.split()
        if "-" in head[0]:
            ours = str(folder.resolve()) in line
        elif ours and head[0] == "Rss:":
            total += int(head[1]) * 1024
    return total


if __name__ == "__main__":
    probe_process.begin()
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
