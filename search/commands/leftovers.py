"""Removes what a refused command left behind: Hydra makes a job's folder before its settings are checked."""

from __future__ import annotations

import shutil
from itertools import takewhile
from pathlib import Path

from search.errors import ConfigError, ParetuneError

_HYDRAS = {".hydra", "multirun.yaml"}
"""The files that Hydra writes into a job's folder, besides the job's log."""


def clear_refused(error: ParetuneError, folder: Path, home: Path, was_there: bool = False) -> None:
    """Remove the job's ``folder`` after a bad setting, and the folders up to ``home`` that this leaves empty.

    ``was_there``: whether the home existed before; then it stays. A folder stays that holds a log or any file that
    Hydra did not write, or that lies outside ``home``.
    """
    if error.exit_code != ConfigError.exit_code or not folder.is_dir() or home not in folder.parents:
        return
    if all(path.name in _HYDRAS or (path.suffix == ".log" and not path.stat().st_size) for path in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
    last = home if was_there else home.parent
    for parent in takewhile(lambda parent: parent != last, folder.parents):
        if _holds_only(parent, "multirun.yaml"):
            (parent / "multirun.yaml").unlink(missing_ok=True)
        try:
            parent.rmdir()
        except OSError:  # it holds something, or is not ours to remove
            return


def _holds_only(folder: Path, name: str) -> bool:
    return folder.is_dir() and {path.name for path in folder.iterdir()} == {name}
