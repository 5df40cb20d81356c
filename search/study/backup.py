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


def back_up(url: str) -> None:
    """Copy the sqlite file that ``url`` names; a failure costs nothing but the copy."""
    file = sqlite_path(url)
    if file is None or not file.is_file() or file.stat().st_size > MOST_BYTES:
        return
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with (
            closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as source,
            closing(sqlite3.connect(part)) as copy,
        ):
            source.backup(copy)
        os.replace(part, backup_of(file))
    except (OSError, sqlite3.Error) as error:
        log.debug("%s was not copied: %s", file, error)
    finally:
        part.unlink(missing_ok=True)
