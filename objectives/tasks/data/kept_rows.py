"""Writes rows that a program holds in memory as a file, named by its content.

From there on they go the way of all files. Equal rows are one file, which is written once. The module is free of torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from objectives.errors import DataError

DIGITS = 16
"""Hexadecimal digits of a SHA-256 that name a file or folder."""


def keep_rows(rows: Iterable[Mapping[str, Any]], key: str, folder: Path) -> Path:
    """Write ``rows``, values by column, as JSON lines into ``folder`` and return the file; ``key``: for messages.

    Missing numbers (NaN) become null. Raises DataError where a row is no mapping, where JSON does not hold a value, and
    where there are no rows.
    """
    lines = [_line(row, f"{key}: row {number}") for number, row in enumerate(rows)]
    if not lines:
        raise DataError(f"{key}: no rows; give a list with a mapping from columns to values for each example")
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")  # JSON's escape of a surrogate
    file = folder / f"{hashlib.sha256(content).hexdigest()[:DIGITS]}.jsonl"
    if not (file.is_file() and file.read_bytes() == content):
        _write(file, content)
    return file


def _line(row: Any, place: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{place} is no mapping from columns to values, but {type(row).__name__} {str(row)[:30]!r}")
    return json.dumps(_plain(row, place), ensure_ascii=False, allow_nan=False)


def _plain(value: Any, place: str) -> Any:
    """Return ``value`` as JSON holds it; arrays and numbers of numpy are lists and numbers."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and not math.isinf(value):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {_column(name, place): _plain(item, f"{place}, {name!r}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, place) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), place)
    raise DataError(
        f"{place} has the {type(value).__name__} {str(value)[:30]!r}; texts, numbers, true or false, and lists of them "
        "are read: write it as a text"
    )


def _column(name: Any, place: str) -> str:
    if not isinstance(name, str):
        raise DataError(f"{place} has a column called {name!r}; the names of columns are texts")
    return name


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, whoever else writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(part, 0o644)  # mkstemp makes it private
        os.replace(part, file)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
