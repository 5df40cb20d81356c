"""How much memory an engine takes, in a process of its own: from before its files are opened to the peak of the run.

Engines allocate by themselves, keep what they allocated, map files and repack weights, so nothing but the resident set
tells what they take; and what an earlier run in the same process left behind would be in it. Pages of libraries that
the run brought in are taken off: they are shared, and torch's are not counted either.
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
"""What the new process runs."""


@dataclass(frozen=True)
class Resident:
    """``resting``: bytes of the opened engine; ``peak``: the most while it ran, resting included."""

    resting: int
    peak: int


def resident(folder: Path, workload: Workload, threads: int, allowed: Sequence[str]) -> Resident:
    """Of the engine of ``folder`` running the excerpts of ``workload``; ``allowed``: see
    :func:`objectives.runtime.engines.folder.runtime_of`. Raises Unsupported, MemoryError.
    """
    ended = probe_process.run(_CHILD, [str(folder), str(threads), *allowed], TIMEOUT, pickle.dumps(workload))
    if ended.out_of_memory:
        raise MemoryError(f"the engine could not be weighed: {ended.how}")
    try:
        resting, peak = map(int, ended.answer.split()[-2:])
    except ValueError as error:
        raise Unsupported(f"the engine could not be weighed in a process of its own ({ended.how})") from error
    return Resident(resting, peak)
