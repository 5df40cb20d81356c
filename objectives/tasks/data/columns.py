"""Takes the texts of rows from a column, or makes them by a small template. The module is free of torch.

Templates are Jinja's (:mod:`objectives.tasks.data.templates`): ``"Q: {{question}}\\nA:"``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from objectives.errors import DataError
from objectives.tasks.data.rows import Row, WrongRow, columns_of, require_right
from objectives.tasks.data.templates import Templates


def values_of(rows: Sequence[Row], key: str, column: str) -> list[Any]:
    """Return the value of ``column`` in every row. ``key``: the setting that names the column.

    Raises DataError where no row has the column, with those that are there, or where some rows lack it.
    """
    there = columns_of(rows)
    if column not in there:
        hint = _way_out(key, column, there)
        raise DataError(f"{key}: {rows[0].file} has no column {column!r}, it has {', '.join(there)}{hint}")
    wrong = [
        WrongRow(row.file, row.number, f"has no {column!r}") for row in rows if row.values.get(column) in (None, "")
    ]
    require_right(key, wrong, len(rows))
    return [row.values[column] for row in rows]


def _way_out(key: str, column: str, there: Sequence[str]) -> str:
    """Return what to set, or to mend in the file, where ``column`` is not ``there``."""
    mark = next((mark for mark in ";|\t" if len(there) == 1 and mark in there[0]), None)
    if mark is not None:
        return f"; columns are divided by {mark!r} here, a csv by commas, a tsv by tabs: save it so"
    near = difflib.get_close_matches(column, there, n=1)
    return f"; {key}={near[0] if near else there[0]}" if there else ""


def texts_of(rows: Sequence[Row], key: str, column: str, template: str | None = None) -> list[str]:
    """Return a text for every row: the one in ``column``, or what ``template`` makes of all columns.

    ``key``: the setting that names the column. Raises DataError for a value that is no text, and for a template that
    does not fit the columns or makes an empty text of them.
    """
    if template is not None:
        key = f"{key.rpartition('.')[0]}.doc_to_text"
        texts = rendered(rows, key, template)
        empty = [WrongRow(row.file, row.number, "gives an empty text") for row, text in zip(rows, texts) if not text]
        require_right(key, empty, len(rows), f" (the template is {template[:40]!r})")
        return texts
    values = values_of(rows, key, column)
    wrong = [
        WrongRow(row.file, row.number, f"has the {type(value).__name__} {str(value)[:30]} for {column!r}, not a text")
        for row, value in zip(rows, values)
        if not isinstance(value, str)
    ]
    require_right(key, wrong, len(rows))
    return values


def numbers_of(rows: Sequence[Row], key: str, column: str) -> list[float]:
    """Return the number in ``column`` of every row. Raises DataError where one is none, or not finite."""
    values = values_of(rows, key, column)
    numbers = [_number(value) for value in values]
    wrong = [
        WrongRow(row.file, row.number, f"has {str(value)[:30]!r} for {column!r}, not a number")
        for row, value, number in zip(rows, values, numbers)
        if not math.isfinite(number)
    ]
    require_right(key, wrong, len(rows))
    return numbers


def rendered(rows: Sequence[Row], key: str, template: str) -> list[str]:
    """Return what ``template`` makes of the columns of every row. Raises DataError where it does not fit them."""
    templates = Templates()
    try:
        compiled = templates.from_string(template)
    except TemplateError as error:
        raise DataError(f"{key}: {template!r} is no template ({error})") from error
    texts: list[str] = []
    wrong: list[WrongRow] = []
    for row in rows:
        try:
            templates.begin()
            texts.append(compiled.render(row.values))
        except Exception as error:  # what a template does to a value may raise anything
            wrong.append(WrongRow(row.file, row.number, f"does not fit the template ({error})"))
    require_right(key, wrong, len(rows), f" (its columns: {', '.join(columns_of(rows))})")
    return texts


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
