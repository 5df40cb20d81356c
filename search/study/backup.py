"""Keeps a copy of an sqlite file of studies as it was when a study ended last, for the day when the file is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from search.records.storage_url import sqlite_path

log = logging.getLogger(__name__)

ENDING, OLD = ".backup", ".old"
MOST_BYTES = 256 << 20
"""The largest file that is copied: about a second."""


def backup_of(file: Path) -> Path:
    """Return where the copy of ``file`` lies."""
    return file.with_name(file.name + ENDING)


def _uids(database: sqlite3.Connection) -> set[str]:
    return {uid for (uid,) in database.execute("SELECT value_json FROM study_user_attributes WHERE key = 'uid'")}


def studies_in(file: Path) -> set[str]:
    """Return the uids of the studies that a file holds; none where it is not there, or cannot be read."""
    if not file.is_file():
        return set()
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            return _uids(database)
    except sqlite3.Error:
        return set()


def back_up(url: str) -> None:
    """Copy the sqlite file that ``url`` names; a failure costs nothing but the copy.

    A copy with a study that the file has lost stays beside the new one, as ``.backup.old``.
    """
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
            uids, last = _uids(copy), backup_of(file)
        if is_whole:
            if studies_in(last) - uids:
                os.replace(last, last.with_name(last.name + OLD))
            os.replace(part, last)
    except (OSError, sqlite3.Error) as error:
        log.debug("%s was not copied: %s", file, error)
    finally:
        part.unlink(missing_ok=True)
