"""``python -m search.executors.reaper``: ends processes that the one which started this leaves behind.

It reads numbers of processes from its input, a line each, and waits for the input's end: the one that writes it closes
it where nothing is left to end, after the word ``done``, or has died, however that was.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

DONE = "done"


def main() -> None:
    """Wait for the end of the input, and kill the processes that it named."""
    lines = [line.strip() for line in sys.stdin]
    if DONE in lines:
        return
    for number in map(int, lines):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(number, signal.SIGKILL)


if __name__ == "__main__":
    main()
