"""Copies what can be read of a damaged sqlite file of studies into another file.

Tables are read from both ends up to the damage, and then row by row. A finished trial without its record or its values
is taken for one that was cut short: the next driver settles it, and a cell without a record is measured again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from search.records.storage_url import sqlite_url

DEFINITION = "definition"
"""The attribute without which a study cannot go on (:mod:`search.study.store`)."""

BEYOND = 20_000
"""Row numbers that are tried beyond the last row that was read."""

MOST_ROWS = 10_000_000
"""The largest number of a row that is believed."""

log = logging.getLogger(__name__)

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Salvaged:
    """The result: the new ``file``, and how many ``trials`` it holds."""

    file: Path
    trials: int


def salvaged(file: Path) -> Salvaged | None:
    """Copy what can be read of ``file`` beside it; return None where no trial can be read."""
    names = (file.with_name(f"{file.name}.recovered-{place}") for place in count(1))
    new = next(name for name in names if not name.exists())
    try:
        _copy(file, new)
        found = _checked(new)
    except Exception as error:  # whatever a damaged file makes of a library
        log.debug("nothing of %s can be read: %s", file, error)
        found = None
    if found is None:
        new.unlink(missing_ok=True)
    return found


def _copy(file: Path, new: Path) -> None:
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        _pad(file, whole)
        _copy_tables(whole, new)


def _pad(file: Path, whole: Path) -> None:
    """Copy the file, with zeros for the pages that were cut off: sqlite reads nothing of a file that is too short."""
    content = file.read_bytes()
    size, pages = int.from_bytes(content[16:18], "big"), int.from_bytes(content[28:32], "big")
    size = 65536 if size == 1 else size
    whole.write_bytes(content.ljust(size * pages, b"\0"))


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
    last = min(max(found, default=0), MOST_ROWS) + BEYOND  # a torn row may have any number
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


def _checked(new: Path) -> Salvaged | None:
    """Mend what the damage left incoherent, and count the trials that are left."""
    with closing(sqlite3.connect(new)) as copy:
        _drop_strays(copy)
        _reopen_torn(copy)
        _fill_gaps(copy)
        with suppress(sqlite3.DatabaseError):  # of a store that was made before there were any
            copy.execute("DELETE FROM paretune_leases")
        copy.commit()
    return counted(new)


def _drop_strays(copy: sqlite3.Connection) -> None:
    """Delete what Optuna could not read, and what belongs to lost trials: later ones would get their ids, and it."""
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
        for number in sorted(set(range(min(max(numbers), MOST_ROWS))) - numbers):
            copy.execute("INSERT INTO trials (number, study_id, state) VALUES (?, ?, 'FAIL')", (number, study))


def counted(file: Path) -> Salvaged | None:
    """Return what a file holds; None where it is not there, is damaged, or holds no trial."""
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
        trials = sum(len(storage.get_all_trials(study._study_id)) for study in studies)
    finally:
        storage.engine.dispose()
    return Salvaged(file, trials) if trials else None
