"""Copies what can be read of a damaged sqlite file of studies into another file.

Tables are read from both ends up to the damage, and then row by row. A finished trial without its record or its values
is taken for one that was cut short: the next driver settles it, and a cell without a record is measured again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search.records.storage_url import sqlite_url

DEFINITION, RECORD = "definition", "record"
"""The attributes without which a study cannot go on, and a trial says nothing (:mod:`search.study.store`)."""

BEYOND = 20_000
"""Numbers of rows and trials that are believed beyond as many as were read: a torn row may have any."""

log = logging.getLogger(__name__)

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Salvaged:
    """The result: the ``file``, and how many finished ``trials`` with their records it holds."""

    file: Path
    trials: int


def salvaged(file: Path) -> Salvaged | None:
    """Copy what can be read of ``file`` beside it; return None where no trial can be read.

    The copy is named by what the file holds, so that whoever meets the damage again, or at the same moment, finds it.
    """
    found = None
    try:
        with file.open("rb") as content:
            new = file.with_name(f"{file.name}.recovered-{hashlib.file_digest(content, 'sha256').hexdigest()[:8]}")
        if not new.exists():
            _make(file, new)
        found = counted(new)
    except Exception as error:  # whatever a damaged file makes of a library
        log.debug("nothing of %s can be read: %s", file, error)
    return found


def _make(file: Path, new: Path) -> None:
    """Write the copy, which appears whole, and only where it holds a trial."""
    part = new.with_name(f".{new.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with TemporaryDirectory(dir=file.parent) as folder:
            whole = Path(folder) / "whole"
            _pad(file, whole)
            _copy_tables(whole, part)
        _mend(part)
        if counted(part) is not None:
            os.replace(part, new)
    finally:
        part.unlink(missing_ok=True)


def _pad(file: Path, whole: Path) -> None:
    """Copy the file, with a hole for the pages that were cut off: sqlite reads nothing of a file that is too short."""
    shutil.copyfile(file, whole)
    with whole.open("r+b") as copy:
        head = copy.read(32)
        size, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
        copy.truncate(max((65536 if size == 1 else size) * pages, whole.stat().st_size))


def _copy_tables(whole: Path, new: Path) -> None:
    with closing(sqlite3.connect(whole)) as damaged, closing(sqlite3.connect(new)) as copy:
        schema = damaged.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        for kind, name, made in sorted(schema, key=lambda each: each[0] != "table"):
            if name.startswith("sqlite_"):
                continue
            copy.execute(made)
            if kind == "table":
                _fill(copy, name, _rows(damaged, name))
        copy.commit()


def _rows(damaged: sqlite3.Connection, table: str) -> dict[int, Row]:
    """Return the rows of a table that can be read, by number: those before and behind a torn page too."""
    found: dict[int, Row] = {}
    for order in ("ASC", "DESC"):
        found |= dict(_until_damage(damaged, f'SELECT rowid, * FROM "{table}" ORDER BY rowid {order}'))
    one = f'SELECT rowid, * FROM "{table}" WHERE rowid = ?'
    last = min(max(found, default=0), len(found)) + BEYOND
    for number in set(range(1, last)) - set(found):
        found |= dict(_until_damage(damaged, one, number))
    return found


def _until_damage(damaged: sqlite3.Connection, query: str, *values: int) -> Iterator[tuple[int, Row]]:
    with suppress(sqlite3.DatabaseError):
        for number, *row in damaged.execute(query, values):
            yield number, tuple(row)


def _fill(copy: sqlite3.Connection, table: str, rows: dict[int, Row]) -> None:
    for number in sorted(rows):
        row = rows[number]
        try:
            copy.execute(f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(row))})', row)
        except sqlite3.DatabaseError as error:  # twice, by a torn page
            log.debug("a row of %s is left out: %s", table, error)


def _mend(new: Path) -> None:
    """Settle what the damage left incoherent."""
    with closing(sqlite3.connect(new)) as copy:
        _drop_strays(copy)
        _reopen_torn(copy)
        _fill_gaps(copy)
        with suppress(sqlite3.DatabaseError):  # of a store that was made before there were any
            copy.execute("DELETE FROM paretune_leases")
        copy.commit()


def _drop_strays(copy: sqlite3.Connection) -> None:
    """Remove what Optuna could not read, and what belongs to lost trials: later ones would get their ids, and it."""
    most = copy.execute("SELECT COUNT(*) FROM trials").fetchone()[0] + BEYOND
    copy.execute("DELETE FROM trials WHERE NOT (typeof(number) = 'integer' AND number BETWEEN 0 AND ?)", (most,))
    tables = [name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = {row[1] for row in copy.execute(f'PRAGMA table_info("{table}")')}
        if "trial_id" in columns and table != "trials":
            copy.execute(f'DELETE FROM "{table}" WHERE trial_id NOT IN (SELECT trial_id FROM trials)')
        if "value_json" in columns:
            copy.execute(f'DELETE FROM "{table}" WHERE NOT json_valid(value_json)')


def _reopen_torn(copy: sqlite3.Connection) -> None:
    """Make trials without their record, or without their values, running ones: the next driver settles them."""
    recorded = "SELECT trial_id FROM trial_user_attributes WHERE key = 'record'"
    valued = "SELECT trial_id FROM trial_values"
    copy.execute(
        "UPDATE trials SET state = 'RUNNING' WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL') AND "
        f"(trial_id NOT IN ({recorded}) OR (state = 'COMPLETE' AND trial_id NOT IN ({valued})))"
    )


def _fill_gaps(copy: sqlite3.Connection) -> None:
    """Put failed trials in the places of those that could not be read: Optuna numbers a new trial by counting them."""
    read = copy.execute("SELECT study_id, number FROM trials").fetchall()
    for study in {study for study, _ in read}:
        numbers = {number for one, number in read if one == study}
        gaps = sorted(set(range(max(numbers))) - numbers)
        copy.executemany(
            "INSERT INTO trials (number, study_id, state) VALUES (?, ?, 'FAIL')", [(gap, study) for gap in gaps]
        )


def counted(file: Path) -> Salvaged | None:
    """Return what a file holds; None where it is not there, is damaged, or holds no finished trial."""
    if not file.is_file():
        return None
    try:
        return _count(file)
    except Exception as error:  # whatever a damaged file makes of a library
        log.debug("%s cannot be read: %s", file, error)
        return None


def _count(file: Path) -> Salvaged | None:
    storage = optuna.storages.RDBStorage(sqlite_url(file))
    try:
        studies = [study for study in storage.get_all_studies() if DEFINITION in study.user_attrs]
        trials = sum(_is_recorded(trial) for study in studies for trial in storage.get_all_trials(study._study_id))
    finally:
        storage.engine.dispose()
    return Salvaged(file, trials) if trials else None


def _is_recorded(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and RECORD in trial.user_attrs
