"""Says in a line what is wrong with a store that fails, and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from objectives.errors import said
from search.errors import StoreFailed
from search.records.storage_url import redacted, sqlite_path, sqlite_url
from search.study.backup import backup_of
from search.study.salvage import counted, salvaged

FULL = "SQLITE_FULL"
DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}
"""Names of sqlite's errors for a file that is torn, or no database."""


def store_failed(url: str, error: BaseException) -> StoreFailed:
    """Return the error that a user sees for ``error`` of the store at ``url``."""
    names = {name for each in causes(error) if (name := _name(each))}
    file = sqlite_path(url)
    if file is not None and names & DAMAGED:
        return _damaged(file)
    if file is not None and FULL in names:
        return StoreFailed(
            f"storage: the disk of {file} is full; what was stored is kept: make room, and the same command goes on"
        )
    shown = redacted(url)
    return StoreFailed(
        f"storage: {shown} failed ({_gist(error)}); what was stored is kept: once it is back, the same command goes on"
    )


def is_damaged(error: BaseException) -> bool:
    """Return whether ``error`` says that an sqlite file is torn, or no database."""
    return any(_name(each) in DAMAGED for each in causes(error))


def _damaged(file: Path) -> StoreFailed:
    """Say what can be read of the damaged file, which stays as it is, or of its copy; the richer one wins."""
    there = [found for found in (counted(backup_of(file)), salvaged(file)) if found is not None]
    if there:
        most = max(there, key=lambda each: each.trials)
        url = sqlite_url(most.file)
        way = f"{most.trials} of its trials are in {most.file}: go on with storage={url}"
    else:
        way = "nothing of it can be read: put back a copy, or move it away and begin anew"
    return StoreFailed(f"storage: {file} is damaged, and stays as it is; {way}", 2)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _name(error: BaseException) -> str:
    """Return sqlite's name of an error, of its own exceptions and of SQLAlchemy's around them."""
    own = getattr(error, "orig", None) or error
    return str(getattr(own, "sqlite_errorname", ""))


def _gist(error: BaseException) -> str:
    *_, first = causes(error)
    return redacted(" ".join(f"{type(first).__name__}: {said(first)}".split()))[:300]
