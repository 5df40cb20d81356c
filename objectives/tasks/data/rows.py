"""Rows as they were read, each with its place, so that an error can say where it is. The module is free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from objectives.errors import DataError

SHOWN = 3
"""Wrong rows that a message shows; it counts the others."""

_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str)


Counted = Literal["line", "row"]
"""The ways in which the rows of a file are counted: by its lines, where people see them, or by themselves."""


@dataclass(frozen=True)
class Row:
    """One example: its values by column, the file it came from, and its (first) line or number there, from 1."""

    values: Mapping[str, Any]
    file: str
    number: int
    unit: Counted = "line"

    @property
    def place(self) -> str:
        """Return the file and the line, for a person."""
        return f"{self.file}, {self.unit} {self.number}"

    @cached_property
    def content(self) -> str:
        """Return the SHA-256 of the values; rows of two files with the same values have the same."""
        text = _JSON.encode(self.values)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def wrong(self, reason: str) -> WrongRow:
        """Return that this row cannot be used."""
        return WrongRow(self.file, self.number, reason, self.unit)


@dataclass(frozen=True)
class WrongRow:
    """A row that cannot be used: its place, and why, as a clause without a subject (``has 2 fields, ...``)."""

    file: str
    number: int
    reason: str
    unit: Counted = "line"

    @property
    def line(self) -> str:
        """Return the place and the reason, for a person."""
        return f"{self.file}, {self.unit} {self.number} {self.reason}"


Read: TypeAlias = Iterator[Row | WrongRow]
"""The rows of a file, in its order."""


def require_right(key: str, wrong: Sequence[WrongRow], total: int, way_out: str = "") -> None:
    """Raise DataError where there are wrong rows, with the first of them, their number and ``way_out``."""
    if wrong:
        shown = "; ".join(each.line for each in wrong[:SHOWN])
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise DataError(f"{key}: {len(wrong)} of {total} rows are wrong: {shown}{more}{way_out}")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the columns that any of the rows has, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row.values))
