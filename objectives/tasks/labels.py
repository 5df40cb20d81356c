"""Matches the labels of rows with the classes of a model. The module is free of torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from objectives.errors import DataError
from objectives.tasks.data.rows import SHOWN, Row, WrongRow, require_right

_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0*)?")
"""A whole number as json, csv and parquet write it: 1, 1.0."""


def require_classes(classes: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Return the names of the model's classes: ``names`` (``task.labels``) where some are given, else its own.

    Raises DataError where their number differs, and for a model of one class, which gives a number and no class.
    """
    if len(classes) < 2:
        raise DataError(
            f"model: its head has {len(classes)} classes, at least 2 are needed; it gives numbers, no class"
        )
    if names and len(names) != len(classes):
        raise DataError(
            f"task.labels: {len(names)} names, the model has {len(classes)} classes: {shown(classes)}; give one name "
            "for each, in this order"
        )
    return names or classes


def places_of(rows: Sequence[Row], values: Sequence[Any], classes: Sequence[str], key: str = "task.label") -> list[int]:
    """Return which class each of ``values`` is, by its name or by its number from 0.

    ``rows``: the row of each value; one of several values comes as often. ``key``: the setting that names the column.
    Raises DataError, with the file and the lines, for a value that is neither.
    """
    by_name = {name: place for place, name in enumerate(classes)}
    found = [_place(value, by_name) for value in values]
    unknown: dict[str, list[str]] = {}
    at = {row.place: row for row in rows}
    for row, value, place in zip(rows, values, found):
        if place is None:
            unknown.setdefault(row.place, []).append(repr(str(value)[:40]))
    what = key.rpartition(".")[2].removesuffix("s")
    wrong = [
        WrongRow(at[place].file, at[place].number, f"has the {what} {', '.join(list(dict.fromkeys(some))[:SHOWN])}")
        for place, some in unknown.items()
    ]
    odd = next((str(value) for value, place in zip(values, found) if place is None), "")
    near = difflib.get_close_matches(odd, classes, n=1) if odd else ()
    way_out = f"; the model knows {shown(classes)}{f' (nearest: {near[0]})' if near else ''}"
    require_right(key, wrong, len(at), f"{way_out}: task.labels=[...] names its classes in this order")
    return [place for place in found if place is not None]


def _place(value: Any, by_name: dict[str, int]) -> int | None:
    """Return the class that has this name, in any form that files have of it, or this number; None where none has."""
    text = str(value).strip()
    if text in by_name:
        return by_name[text]
    truth = {"true": 1, "false": 0}.get(text.lower())
    whole = _WHOLE.fullmatch(text)
    number = truth if truth is not None else int(whole[1]) if whole else None
    return number if number is not None and number < len(by_name) else None


def shown(classes: Sequence[str]) -> str:
    """Return the classes in a few words."""
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    return ", ".join(classes[:8]) + more
