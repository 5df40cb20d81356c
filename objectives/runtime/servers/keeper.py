"""Runs a foreign command, and ends it with its owner: ``python -m objectives.runtime.servers.keeper command ...``.

The owner holds the other end of this process's input. When that is closed, for whatever reason, the whole session is
killed, with all that the command started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Thread


def _end_with_owner() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    Thread(target=_end_with_owner, daemon=True).start()
    sys.exit(subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, check=False).returncode)
