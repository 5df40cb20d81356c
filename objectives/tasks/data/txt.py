"""Reads txt files: an example is a line, a section or the whole file. The module is free of torch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from objectives.tasks.data.rows import Read, Row

Unit = Literal["line", "section", "document"]
"""The kinds of example that a txt file may hold: lines that are not empty, sections, or the whole file."""
SECTION = 4000
"""Characters after which a section ends: at the next empty line, or at the end of a line after twice as many."""


def text_of(file: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark; its ends of lines are as they are."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return stream.read()


def read_txt(file: Path, name: str, unit: Unit) -> Read:
    """Yield the examples of a txt file that are not empty."""
    parts = {"line": _lines, "section": _sections, "document": _document}[unit](text_of(file))
    for number, part in parts:
        if part.strip():
            yield Row({"text": part}, name, number)


def _document(text: str) -> Iterator[tuple[int, str]]:
    yield 1, text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in _numbered(text):
        yield number, line.rstrip("\r\n")


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line of every section, and its text without the empty lines at its end."""
    lines: list[str] = []
    first, size = 1, 0
    for number, line in _numbered(text):
        lines.append(line)
        size += len(line)
        if size >= 2 * SECTION or (size >= SECTION and not line.strip()):
            yield first, "".join(lines).rstrip()
            lines, first, size = [], number + 1, 0
    yield first, "".join(lines).rstrip()


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield every line with its number; as in an editor, a line ends with \n, \r or both, and with nothing else."""
    yield from enumerate(io.StringIO(text, newline=""), start=1)
