"""Keeps a copy of an sqlite file of studies as it was when a study ended last, for the day when the file is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from search.records.storage_url import sqlite_path

log = logging.getLogger(__name__)

ENDING = ".backup"
MOST_BYTES = 256 << 20
"""The largest file that is copied: about a second."""


def backup_of(file: Path) -> Path:
    """Return where the copy of ``file`` lies."""
    return file.with_name(file.name + ENDING)


def _trials(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT COUNT(*) FROM trials").fetchone()[0])


def _trials_of(file: Path) -> int:
    """Return how many trials a copy holds; 0 where there is none that can be read."""
    if not file.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            return _trials(database)
    except sqlite3.Error:
        return 0


def back_up(url: str) -> None:
    """Copy the sqlite file that ``url`` names; a failure costs nothing but the copy."""
    file = sqlite_path(url)
    if file is None or not file.is_file() or file.stat().st_size > MOST_BYTES:
        return
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with (
            closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as source,
            closing(sqlite3.connect(part)) as copy,
        ):
            source.backup(copy)
            is_whole = copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
            trials = _trials(copy)
        if is_whole and trials >= _trials_of(backup_of(file)):  # an emptied file must not take its copy along
            os.replace(part, backup_of(file))
    except (OSError, sqlite3.Error) as error:
        log.debug("%s was not copied: %s", file, error)
    finally:
        part.unlink(missing_ok=True)
