"""Tells whether a file is as it was when it was read, so that what was made of it need not be made again.

The module is free of torch.
"""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

State = tuple[object, ...]

GRAIN = 20_000_000
"""Nanoseconds within which two changes of a file may have the same time: a clock of file systems ticks every 10 ms."""

_moments = count(1)


def state_of(file: Path) -> State:
    """Return what is another once the file is written anew: place, size and times of change.

    The file is opened, so that a study notes it as an input (:mod:`objectives.tasks.reads`) though nobody reads it
    again. One that was changed within :data:`GRAIN`, or that cannot be opened, is in another state at every call.
    """
    try:
        with file.open("rb") as stream:
            facts = os.fstat(stream.fileno())
    except OSError:  # whoever reads it says why
        return str(file), next(_moments)
    is_settled = time.time_ns() - max(facts.st_mtime_ns, facts.st_ctime_ns) > GRAIN
    times = facts.st_mtime_ns, facts.st_ctime_ns, 0 if is_settled else next(_moments)
    return str(file), facts.st_dev, facts.st_ino, facts.st_size, *times
