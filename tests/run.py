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

ORDER = ("tests/test_cli.py", "tests/test_run.py", "tests/search", "tests")
"""Files that take long and wait much come first, so that none is alone at the end."""

if __name__ == "__main__":
    chosen = any(Path(word.partition("::")[0]).exists() for word in sys.argv[1:])
    sys.exit(pytest.main([*OPTIONS, *sys.argv[1:], *(() if chosen else ORDER)]))
