"""Tells which documents are relevant to which query, from rows of files. The module is free of torch.

Documents of equal text are one. A query that stands in several rows is asked once, and all their documents are relevant
to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from objectives.tasks.data.columns import list_of, values_of
from objectives.tasks.data.rows import Row, require_right


@dataclass(frozen=True)
class Query:
    """A text that is searched for: the row that asks for it first, and the places of its relevant documents."""

    row: Row
    text: str
    relevant: tuple[int, ...]


class Documents:
    """The documents that can be found, each once, by the key under which rows name them."""

    def __init__(self, keys: Sequence[str], texts: Sequence[str]) -> None:
        self.texts = tuple(dict.fromkeys(texts))
        place_of = {text: place for place, text in enumerate(self.texts)}
        self._places = {key: place_of[text] for key, text in zip(keys, texts)}

    def places(self, rows: Sequence[Row], named: Sequence[Sequence[str]], file: str) -> list[tuple[int, ...]]:
        """Return the places of the documents that each row names. Raises DataError for one that is not in ``file``."""
        wrong = [
            row.wrong(_lacks(key, file))
            for row, keys in zip(rows, named)
            for key in (keys or [""])
            if key not in self._places
        ]
        require_right("task.relevant", wrong, len(rows))
        return [tuple(self._places[key] for key in keys) for keys in named]


def queries_of(rows: Sequence[Row], texts: Sequence[str], places: Sequence[tuple[int, ...]]) -> Mapping[str, Query]:
    """Return the queries by their texts, in the order in which they occur first."""
    found: dict[str, Query] = {}
    for row, text, relevant in zip(rows, texts, places):
        known = found.get(text, Query(row, text, ()))
        found[text] = Query(known.row, text, tuple(dict.fromkeys((*known.relevant, *relevant))))
    return found


def document_ids(rows: Sequence[Row], key: str, column: str) -> list[str]:
    """Return the id in ``column`` of every document. Raises DataError for one that another document has."""
    ids = list(map(str, values_of(rows, key, column)))
    first: dict[str, Row] = {}
    wrong = [
        row.wrong(f"has the {column!r} {name!r} of line {first[name].number} again")
        for row, name in zip(rows, ids)
        if first.setdefault(name, row) is not row
    ]
    require_right(key, wrong, len(rows))
    return ids


def ids_of(rows: Sequence[Row], key: str, column: str) -> list[list[str]]:
    """Return the ids that ``column`` of every row holds, one or a list, as texts."""
    return [_listed(value) for value in values_of(rows, key, column)]


def _lacks(key: str, file: str) -> str:
    return f"has the relevant document {key!r}, which {file} lacks" if key else "has no relevant document"


def _listed(value: Any) -> list[str]:
    found = list_of(value)
    return [str(value)] if found is None else list(map(str, found))
