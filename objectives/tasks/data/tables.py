"""Reads csv and tsv files, whose first line is a header. The module is free of torch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from objectives.errors import DataError
from objectives.tasks.data.rows import Read, Row, WrongRow
from objectives.tasks.data.txt import text_of

_DIVIDERS = ";|\t"
"""Characters that divide columns where commas do not."""


def read_csv(file: Path, name: str) -> Read:
    """Yield the rows of a csv file."""
    yield from _table(text_of(file), name, delimiter=",", strict=True)


def read_tsv(file: Path, name: str) -> Read:
    """Read quoted fields where all quotes fit, as spreadsheets write them; else quotes are characters like others.

    Where every line is a row by itself, no quote reaches over several: in sentences that were split, it would.
    """
    text = text_of(file)
    plain = list(_table(text, name, delimiter="\t", quoting=csv.QUOTE_NONE))
    try:
        quoted = list(_table(text, name, delimiter="\t", strict=True))
    except DataError:
        yield from plain
        return
    fits, is_plain = (not any(isinstance(row, WrongRow) for row in rows) for rows in (quoted, plain))
    yield from quoted if fits and (len(quoted) == len(plain) or not is_plain) else plain


def _table(text: str, name: str, delimiter: str, **dialect: Any) -> Read:
    """Yield the rows of a table, each with its first line. Raises DataError where it cannot be read on."""
    csv.field_size_limit(2**31 - 1)  # documents are longer than its 128 kB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **dialect)
    header: list[str] = []
    first = 1
    try:
        for fields in reader:
            if not header:
                header = _checked_header([field.strip() for field in fields], name, delimiter)
            elif len(fields) == len(header):
                yield Row(dict(zip(header, fields)), name, first)
            elif fields:
                yield WrongRow(name, first, f"has {len(fields)} fields, the header {len(header)}")
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{name}, line {first} cannot be read, nor what follows ({error}); within quotes, a quote is written twice"
        ) from error


def _checked_header(header: list[str], name: str, delimiter: str) -> list[str]:
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise DataError(f"{name}: its first line, the header, names the column {twice[0]!r} twice")
    other = next((mark for mark in _DIVIDERS if len(header) == 1 and mark != delimiter and mark in header[0]), None)
    if other is not None:
        raise DataError(
            f"{name}: columns are divided by {other!r} here, a csv by commas, a tsv by tabs: save it so, or give it "
            "the ending that it has"
        )
    return header
