"""``make test``: two processes, whole files each, and a verdict whatever one test does to its process.

These are all options of that run; arguments are pytest's own.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

OPTIONS = (
    "--config-file", str(Path(__file__).parents[1] / "pyproject.toml"),
    "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder", "--max-worker-restart=8", "-p", "tests.verdict",
    "-o", "tmp_path_retention_policy=failed", "-o", "tmp_path_retention_count=1",
)  # fmt: skip

MEMORY = Path("/dev/shm")
"""Where there is room, files of the tests lie there: studies write theirs through to the disk a thousand times."""
ROOM = 2 << 30


def runs_code(folder: Path) -> bool:
    """Return whether what is compiled into ``folder`` can be loaded from there."""
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


if __name__ == "__main__":
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM and runs_code(MEMORY):
        os.environ.setdefault("TMPDIR", str(MEMORY))
    sys.exit(pytest.main([*OPTIONS, *sys.argv[1:]]))
