"""One study: its words, its rows, and the other code that scores a runner on these rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.assets import locate
from tests.studies import independent

Row = dict[str, Any]
Rows = Sequence[Row]
Divided = tuple[Rows, Rows]
"""Rows that are scored, and rows that calibrate."""


def no_more(_folder: Path) -> None:
    """Lay nothing beside the rows."""


@dataclass(frozen=True)
class Case:
    """A study of ``words``, in a folder with the files of ``rows`` and what ``beside`` lays there.

    ``score``: the metric of a runner on the scored rows. ``has_files``: whether the task reads files. ``resampled``:
    whether the metric is one of all rows together. ``tolerance``: how far one answer that another order of sums
    decides otherwise moves the metric.
    """

    words: tuple[str, ...]
    rows: Callable[[], Divided]
    score: Callable[[Any, Rows], float]
    floor: float = 0.8
    suffix: str = "jsonl"
    has_files: bool = True
    resampled: bool = False
    tolerance: float = 0.035
    beside: Callable[[Path], None] = no_more

    def prepared(self, folder: Path, rows: Divided) -> tuple[str, ...]:
        """Lay the files of a study in ``folder``, and return the words of its command."""
        for part, some in zip(("test", "train"), rows):
            if some:
                lay(folder, f"{part}.{self.suffix}", some)
        self.beside(folder)
        files = (f"task.data=test.{self.suffix}", f"task.calibration=train.{self.suffix}", "task.limit=null")
        return (*self.words, *(files if self.has_files else ()))


def lines(asset: str, file: str) -> list[Row]:
    """Return the rows of a file of an asset."""
    return independent.rows_of(locate(asset) / file)


def cut(rows: Rows, scored: int, held: int = 32) -> Divided:
    """Return ``scored`` rows after the first ``held``, and those."""
    return rows[held : held + scored], rows[:held]


def lay(folder: Path, name: str, rows: Rows) -> None:
    """Write rows as jsonl, csv or tsv."""
    file = folder / name
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def all_cases(*groups: Mapping[str, Case]) -> dict[str, Case]:
    """Return the cases of several files."""
    return {name: case for group in groups for name, case in group.items()}
