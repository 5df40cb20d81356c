"""Measures the memory of an engine in a child process, from before its files are opened to the peak of the run.

Engines allocate by themselves, keep what they allocated, map files and repack weights, so only the resident set tells
what they take. In one process for all, it would hold what an earlier run left behind. Pages of libraries that the run
brought in are subtracted: they are shared, and torch's are not counted either.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.errors import Unsupported
from objectives.runtime.engines import probe_process

if TYPE_CHECKING:
    from objectives.protocols.running import Workload

TIMEOUT = 300.0
"""Seconds for opening and running once."""


_CHILD = "objectives.runtime.engines.probe_child"
"""The module that the child runs."""


@dataclass(frozen=True)
class Resident:
    """The memory of an engine.

    ``resting``: bytes of the opened engine; ``peak``: the most bytes while it ran, resting included.
    """

    resting: int
    peak: int


def resident(folder: Path, workload: Workload, threads: int, allowed: Sequence[str]) -> Resident:
    """Measure the engine of ``folder`` while it runs the excerpts of ``workload``. Raises Unsupported, MemoryError.

    ``allowed``: see :func:`objectives.runtime.engines.folder.made`.
    """
    ended = probe_process.run(_CHILD, [str(folder), str(threads), *allowed], TIMEOUT, pickle.dumps(workload))
    if ended.out_of_memory:
        raise MemoryError(f"the engine could not be weighed: {ended.how}")
    try:
        resting, peak = map(int, ended.answer.split()[-2:])
    except ValueError as error:
        raise Unsupported(f"the engine could not be weighed in a process of its own ({ended.how})") from error
    return Resident(resting, peak)
