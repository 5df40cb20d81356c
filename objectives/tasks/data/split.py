"""Divides rows into those that calibrate and those that are scored. The module is free of torch.

With one file, the rows with the smallest hashes of their content calibrate: the same whatever their order, and a row
more moves one row at most. Rows of which a model reads the same text fall on one side, whatever else they hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from objectives.errors import DataError
from objectives.tasks.data.files import read_rows
from objectives.tasks.data.rows import SHOWN, Row
from objectives.tasks.data.txt import Unit

MOST = 0.5
"""Share of the rows of a single file that may calibrate."""


@dataclass(frozen=True)
class Divided:
    """Rows that calibrate and rows that are scored; ``remark``: what was done that nobody asked for, in a line."""

    calibration: Sequence[Row]
    scored: Sequence[Row]
    remark: str = ""


Texts = Callable[[Sequence[Row]], Sequence[str]]
"""Returns the text that a model reads of each row."""


def contents(rows: Sequence[Row]) -> Sequence[str]:
    """Return the content of each row, for tasks that do not tell which text a model reads."""
    return [row.content for row in rows]


def divide(
    data: str,
    calibration: str | None,
    *,
    rows: int,
    limit: int | None = None,
    seed: int = 0,
    unit: Unit = "line",
    texts: Texts = contents,
) -> Divided:
    """Read ``data`` and ``calibration``, and return at most ``rows`` calibration rows and ``limit`` scored ones.

    ``limit`` rows are drawn by ``seed`` and keep the order of the file. A single file of one section is read by line.
    Raises DataError where the same text would calibrate and be scored, and where too little is left.
    """
    scored = read_rows(data, "task.data", unit)
    if calibration is None:
        if unit == "section" and len(set(contents(scored))) < 2:
            scored = read_rows(data, "task.data", "line")
        return divide_one(scored, data, rows=rows, limit=limit, seed=seed, texts=texts)
    first = drawn(read_rows(calibration, "task.calibration", unit), rows, seed)
    _require_disjoint(first, scored, texts)
    return Divided(first, drawn(scored, limit, seed))


def divide_one(
    every: Sequence[Row], data: str, *, rows: int, limit: int | None, seed: int, texts: Texts = contents
) -> Divided:
    """Return at most ``rows`` calibration rows and ``limit`` scored ones of the same source, which is called ``data``.

    Rows of the same text, but for white space, count as one and stay together. Raises DataError where all are alike.
    """
    keys = _keys(every, texts)
    held = _calibrating(every, keys, rows)
    first = [row for row, key in zip(every, keys) if key in held]
    scored = [row for row, key in zip(every, keys) if key not in held]
    if not first:
        raise DataError(
            f"task.data: {data} has no two rows whose texts differ: one must calibrate, the other be scored; give more "
            "rows, or others that calibrate (task.calibration)"
        )
    kept = min(len(scored), limit or len(scored))
    remark = f"task.calibration: none given, so {len(first)} rows of {data} calibrate and {kept} others are scored"
    return Divided(first, drawn(scored, limit, seed), remark)


def drawn(rows: Sequence[Row], limit: int | None, seed: int) -> Sequence[Row]:
    """Return ``limit`` of the rows in their order, drawn by the hash of their content and ``seed``; all for None."""
    if limit is None or limit >= len(rows):
        return rows
    places = sorted(range(len(rows)), key=lambda place: (_rank(rows[place], seed), place))[:limit]
    return [rows[place] for place in sorted(places)]


def _rank(row: Row, seed: int) -> str:
    return hashlib.sha256(f"{seed} {row.content}".encode()).hexdigest()


def _calibrating(rows: Sequence[Row], keys: Sequence[str], most: int) -> set[str]:
    """Return the keys of the rows of a single file that calibrate: at most ``most``, and half of all keys."""
    least: dict[str, str] = {}
    for row, key in zip(rows, keys):
        least[key] = min(row.content, least.get(key, row.content))
    return set(sorted(least, key=lambda key: least[key])[: min(most, int(MOST * len(least)))])


def _keys(rows: Sequence[Row], texts: Texts) -> list[str]:
    """Return the text of each row, alike where texts are but for white space."""
    return [" ".join(text.split()) for text in texts(rows)]


def _require_disjoint(calibration: Sequence[Row], scored: Sequence[Row], texts: Texts) -> None:
    held = dict(zip(_keys(calibration, texts), calibration))
    shared = [(row, held[key]) for row, key in zip(scored, _keys(scored, texts)) if key in held]
    if shared:
        shown = ", ".join(_both(row, other) for row, other in shared[:SHOWN])
        more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        raise DataError(
            f"task.calibration: {len(shared)} of {len(scored)} scored rows calibrate too: {shown}{more}; take them out "
            "of one of the files, or give task.data alone, which is divided"
        )


def _both(scored: Row, held: Row) -> str:
    """Return the places of two rows; files of one name are told apart by the settings that name them."""
    if scored.file != held.file:
        return f"{scored.place} = {held.place}"
    return f"{scored.unit} {scored.number} of task.data = {held.unit} {held.number} of task.calibration"
