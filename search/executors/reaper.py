"""``python -m search.executors.reaper``: ends processes that the one which started this leaves behind.

It reads processes from its input, a line each with number and time of birth, and waits for the input's end. Who writes
it closes it after the word ``done`` where nothing is left to end, or has died, however that was.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import psutil

DONE = "done"


def main() -> None:
    """Wait for the end of the input, and kill the processes that it named."""
    lines = [line.strip() for line in sys.stdin]
    if DONE in lines:
        return
    for line in lines:
        number, began = line.split()
        with suppress(psutil.Error):
            process = psutil.Process(int(number))
            if abs(process.create_time() - float(began)) < 1.0:  # the number may be another's by now
                process.kill()


if __name__ == "__main__":
    main()
