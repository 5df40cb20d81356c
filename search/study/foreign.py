"""Looks whether a database has Optuna's tables, and writes nothing: it may be somebody else's."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from objectives.errors import said
from search.errors import ConfigError
from search.records.storage_url import redacted, sqlite_path
from search.study.opening import engine_options
from search.study.store_errors import is_damaged, store_failed

TABLES = ("studies", "trials")
"""Tables that every store of Optuna has."""
SECONDS = 60.0
"""Seconds that an sqlite file is waited for which another process locks."""


def has_tables(url: str) -> bool:
    """Return whether the database at ``url`` has Optuna's tables. Raises ConfigError where it cannot be opened."""
    file = sqlite_path(url)
    try:
        return _all_in(create_engine(url, **engine_options(url))) if file is None else _file_has_tables(file)
    except Exception as error:  # of every driver its own
        if is_damaged(error):
            raise store_failed(url, error) from error
        why = f"{type(error).__name__}: {redacted(said(error))}"
        raise ConfigError(f"storage: cannot open {redacted(url)}: {why}") from error


def _all_in(engine: Engine) -> bool:
    try:
        found = inspect(engine)
        return all(found.has_table(name) for name in TABLES)
    finally:
        engine.dispose()


def _file_has_tables(file: Path) -> bool:
    """Read an sqlite file without a lock where no log lies beside it: sqlite would make one, and leave it there."""
    if _is_logged(file) and not file.with_name(f"{file.name}-wal").exists():
        return _all_in(_reading(file, "immutable=1"))
    try:
        return _all_in(_reading(file, "mode=ro"))
    except OperationalError:  # a killed process left a journal, which only a writer may play back
        return _all_in(_reading(file, "immutable=1"))


def _is_logged(file: Path) -> bool:
    """Return whether an sqlite file is kept with a write-ahead log, as bytes 18 and 19 of its header say."""
    with file.open("rb") as stream:
        return stream.read(20)[18:] == b"\x02\x02"


def _reading(file: Path, option: str) -> Engine:
    connect = partial(sqlite3.connect, f"{file.as_uri()}?{option}", uri=True, timeout=SECONDS)
    return create_engine("sqlite://", creator=connect, poolclass=NullPool)
