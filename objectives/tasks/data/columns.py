"""Takes the texts of rows from a column, or makes them by a small template. The module is free of torch.

Templates are Jinja's (:mod:`objectives.tasks.data.templates`): ``"Q: {{question}}\\nA:"``.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from objectives.errors import DataError
from objectives.tasks.data.rows import Row, WrongRow, columns_of, require_right
from objectives.tasks.data.templates import Templates

TABLES = (".csv", ".tsv")
"""Files whose first line names the columns."""


def values_of(rows: Sequence[Row], key: str, column: str) -> list[Any]:
    """Return the value of ``column`` in every row. ``key``: the setting that names the column.

    Raises DataError where no row has the column, with those that are there, or where some rows lack it: it is absent,
    null, or a text of white space.
    """
    there = columns_of(rows)
    if column not in there:
        hint = _hint(rows[0], key, column, there)
        raise DataError(f"{key}: {rows[0].file} has no column {column!r}, it has {', '.join(there)}{hint}")
    values = [row.values.get(column) for row in rows]
    wrong = [row.wrong(f"has no {column!r}") for row, value in zip(rows, values) if _is_absent(value)]
    require_right(key, wrong, len(rows))
    return values


def _hint(row: Row, key: str, column: str, there: Sequence[str]) -> str:
    """Return what may be meant by a column that is not there."""
    near = difflib.get_close_matches(column, there, n=1)
    if column.partition(".")[0] in there:
        return f"; {template_key(key)}='\"{{{{{column}}}}}\"' takes it out of a column"
    if near:
        return f"; {key}={near[0]}"
    return "; the first line of a table is read as its header" if row.file.endswith(TABLES) else ""


def _is_absent(value: Any) -> bool:
    """Return whether a value is none: null, white space, or the NaN by which tables fill gaps."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def texts_of(rows: Sequence[Row], key: str, column: str, template: str | None = None) -> list[str]:
    """Return a text for every row: the one in ``column``, or what ``template`` makes of all columns.

    ``key``: the setting that names the column; ``task.text`` stands beside ``task.doc_to_text``, a template. Raises
    DataError for a value that is no text, and for a template that does not fit the columns or makes an empty text.
    """
    if template is not None:
        return rendered(rows, template_key(key), template)
    values = values_of(rows, key, column)
    wrong = [
        row.wrong(f"has the {type(value).__name__} {str(value)[:30]} for {column!r}, not a text")
        for row, value in zip(rows, values)
        if not isinstance(value, str)
    ]
    require_right(key, wrong, len(rows))
    return values


def template_key(key: str) -> str:
    """Return the setting of the template that takes the place of the column that ``key`` names."""
    before, _, name = key.rpartition(".")
    return f"{before}.doc_to_{name}"


def accepted_of(rows: Sequence[Row], key: str, column: str, template: str | None = None) -> list[tuple[str, ...]]:
    """Return the accepted answers of every row: in ``column`` a text, a number or a list, or what a template makes.

    Nothing within a list counts as none, as a table fills lists up. Raises DataError for a row without any, and for one
    with an object, or a list in a list.
    """
    if template is not None:
        return [(text,) for text in rendered(rows, template_key(key), template)]
    listed = [value if isinstance(value, (list, tuple)) else [value] for value in values_of(rows, key, column)]
    answers = [[each for each in some if not _is_absent(each)] for some in listed]
    wrong = [
        row.wrong("has no answer" if not some else f"has the answer {str(some)[:40]}")
        for row, some in zip(rows, answers)
        if not some or not all(_is_answer(each) for each in some)
    ]
    require_right(key, wrong, len(rows), "; a text or a number is expected, or a list of accepted ones")
    floats = [each for some in answers for each in some if isinstance(each, float)]
    if all(each.is_integer() for each in floats):  # so a table writes whole numbers where some are missing
        answers = [[int(each) if isinstance(each, float) else each for each in some] for some in answers]
    return [tuple(map(str, some)) for some in answers]


def _is_answer(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def list_of(value: Any) -> list[Any] | None:
    """Return a list; a cell of a table may hold one as text, in JSON or as Python writes it. None for all else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = literal_of(value)
    return list(value) if isinstance(value, (list, tuple)) else None


def literal_of(text: str) -> Any:
    """Return the value that ``text`` writes in JSON or in Python; None where it writes none."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
            json.dumps(found, ensure_ascii=False, default=str).encode()  # half a character, as \\ud83d alone, is none
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found
    return None


def numbers_of(rows: Sequence[Row], key: str, column: str) -> list[float]:
    """Return the number in ``column`` of every row. Raises DataError where one is none, or not finite."""
    values = values_of(rows, key, column)
    numbers = [_number(value) for value in values]
    wrong = [
        row.wrong(f"has {str(value)[:30]!r} for {column!r}, not a number")
        for row, value, number in zip(rows, values, numbers)
        if not math.isfinite(number)
    ]
    require_right(key, wrong, len(rows))
    return numbers


def rendered(rows: Sequence[Row], key: str, template: str) -> list[str]:
    """Return what ``template`` makes of the columns of every row, null being no text.

    ``row["a name"]`` is a column whose name is no word of Jinja's, unless a column is called ``row``.
    Raises DataError where it does not fit the columns, or makes a text of white space of them.
    """
    templates = Templates()
    try:
        compiled = templates.from_string(template)
    except TemplateError as error:
        raise DataError(
            f"{key}: {template!r} is no template ({error}); "
            "a column whose name is no plain word is written {{row['its name']}}"
        ) from error
    texts: list[str] = []
    wrong: list[WrongRow] = []
    for row in rows:
        try:
            templates.begin()
            texts.append(compiled.render({"row": row.values, **row.values}))
        except Exception as error:  # what a template does to a value may raise anything
            wrong.append(row.wrong(f"does not fit the template ({error})"))
    require_right(key, wrong, len(rows), f" (its columns: {', '.join(columns_of(rows))})")
    empty = [row.wrong("gives an empty text") for row, text in zip(rows, texts) if not text.strip()]
    require_right(key, empty, len(rows), f" (the template is {template[:40]!r})")
    return texts


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
