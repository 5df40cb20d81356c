"""Matches the labels of rows with the classes of a model. The module is free of torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from objectives.errors import DataError
from objectives.tasks.data.rows import SHOWN, Row, require_right

_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0*)?")
"""A whole number as json, csv and parquet write it: 1, 1.0."""
_DIGITS = re.compile("[0-9]+")


def require_classes(classes: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Return the names of the model's classes: ``names`` (``task.labels``) where some are given, else its own.

    Raises DataError where their number differs, and for a model of one class, which gives a number and no class.
    """
    if len(classes) < 2:
        raise DataError(
            f"model: its head has {len(classes)} classes, at least 2 are needed; it gives numbers, no class"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"task.labels: {twice!r} is named {names.count(twice)} times; each class has a name of its own")
    if names and len(names) != len(classes):
        raise DataError(
            f"task.labels: {len(names)} names, the model has {len(classes)} classes: {shown(classes)}; give one name "
            "for each, in this order"
        )
    return names or classes


def places_of(rows: Sequence[Row], values: Sequence[Any], classes: Sequence[str], key: str = "task.label") -> list[int]:
    """Return which class each of ``values`` is: all by their names, or all by their numbers from 0.

    Names are compared as files write them: white space and case do not count where classes differ in more, and 1.0 is
    the name 1. ``rows``: the row of each value; one of several values comes as often. ``key``: the setting that names
    the column. Raises DataError, with the file and the lines, for a value that is neither, and for numbers that the
    names of other classes hold.
    """
    named = _names(classes)
    texts = [_written(value) for value in values]
    ways = [
        [named.get(text, named.get(text.casefold())) for text in texts],
        [_number(text, len(classes)) for text in texts],
    ]
    found = min(ways, key=lambda places: places.count(None))  # of equal ones, names
    if found is ways[1]:
        _require_own_numbers(texts, classes, key)
    at = {row.place: row for row in rows}
    unknown: dict[str, list[str]] = {}
    for row, value, place in zip(rows, values, found):
        if place is None:
            unknown.setdefault(row.place, []).append(repr(str(value)[:40]))
    what = key.rpartition(".")[2].removesuffix("s")
    wrong = [
        at[place].wrong(f"has the {what} {', '.join(list(dict.fromkeys(some))[:SHOWN])}")
        for place, some in unknown.items()
    ]
    odd = next((text for text, place in zip(texts, found) if place is None), "")
    near = difflib.get_close_matches(odd, classes, n=1) if odd else ()
    way_out = f"; the model knows {shown(classes)}{f' (nearest: {near[0]})' if near else ''}"
    require_right(key, wrong, len(at), f"{way_out}: task.labels=[...] names its classes in this order")
    return [place for place in found if place is not None]


def _names(classes: Sequence[str]) -> Mapping[str, int]:
    """Return the class of every name that it alone has, as it is written and without case."""
    written = [_written(name) for name in classes]
    folded = [name.casefold() for name in written]
    found = {name: place for place, name in enumerate(written) if written.count(name) == 1}
    return {name: place for place, name in enumerate(folded) if folded.count(name) == 1} | found


def _written(value: Any) -> str:
    """Return a label as a text; a whole number is written without a point."""
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _number(text: str, classes: int) -> int | None:
    """Return the class that has this number from 0, false and true being 0 and 1; None where none has."""
    truth = {"true": 1, "false": 0}.get(text.casefold())
    number = truth if truth is not None else int(text) if _WHOLE.fullmatch(text) else None
    return number if number is not None and number < classes else None


def _require_own_numbers(labels: Sequence[str], classes: Sequence[str], key: str) -> None:
    """Raise DataError where labels without 0 are numbers that other classes' names hold: ``1`` beside ``1 star``."""
    for label in () if "0" in labels else dict.fromkeys(labels):
        place = _number(label, len(classes))
        owners = [name for name in classes if label in _DIGITS.findall(name)]
        if place is not None and owners and classes[place] not in owners:
            raise DataError(
                f"{key}: the label {label} is, counted from 0, the class {classes[place]!r}, and by its name "
                f"{owners[0]!r}; task.labels=[...] says which number is which class: 0, 1, ... or 1, 2, ... in the "
                f"order {shown(classes)}"
            )


def shown(classes: Sequence[str]) -> str:
    """Return the classes in a few words."""
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    return ", ".join(classes[:8]) + more
