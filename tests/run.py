"""``make test``: two processes, whole files each, and a verdict whatever one test does to its process.

These are all options of that run; arguments are pytest's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

OPTIONS = (
    "--config-file", str(Path(__file__).parents[1] / "pyproject.toml"),
    "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder", "--max-worker-restart=8", "-p", "tests.verdict",
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(pytest.main([*OPTIONS, *sys.argv[1:]]))
