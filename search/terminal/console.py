"""Writes to the terminal, even where it is not UTF-8, narrow, closed, or left by its reader.

The result of a study must not be lost because it cannot be shown. A character that the encoding lacks is replaced, a
stream that takes no more discards the rest, and the exit code stays that of the result.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console

from search.terminal.plain_text import InertFormatter

REPLACED = "paretune.replaced"
"""The name under which codecs know :func:`_replaced`."""
_SIGNS = {
    "★": "*", "×": "x", "≥": ">=", "≤": "<=", "±": "+-", "·": "-", "•": "*", "…": "...", "–": "-", "—": "-", "→": "->",
    "µ": "u", "₂": "2", "ε": "eps", "’": "'", "‘": "'", "“": '"', "”": '"', "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
_own: dict[str, TextIO] = {}
"""Our own streams while ``sys.stdout`` and ``sys.stderr`` are others' (:mod:`search.terminal.quiet_log`)."""
NARROWEST, WIDTH_ELSEWHERE = 40, 140
"""Columns: the least width at which a table can be read, and the width where there is no terminal."""


def prepare_streams() -> None:
    """Make stdout and stderr take every text and outlive their readers. Streams that others set are left alone."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: what is opened next must not get its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            setattr(sys, name, tolerant(descriptor, stream.encoding))


def out() -> TextIO:
    """Return the stream for results, whatever ``sys.stdout`` is meanwhile."""
    return _own.get("stdout") or sys.stdout


def err() -> TextIO:
    """Return the stream for progress and errors, whatever ``sys.stderr`` is meanwhile."""
    return _own.get("stderr") or sys.stderr


def console(*, stderr: bool = False) -> Console:
    """Return rich's console for a stream: as wide as its terminal, and never too narrow for a table."""
    stream = err() if stderr else out()
    if not stream.isatty():
        return Console(file=stream, width=WIDTH_ELSEWHERE)
    return Console(file=stream, width=max(NARROWEST, Console(file=stream).width))


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Log warnings to stderr meanwhile, as inert text; handlers that Hydra adds are removed at the end."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    handler = Messages()
    handler.setFormatter(InertFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        yield
    finally:
        for added in (one for one in list(root.handlers) if one not in before):
            root.removeHandler(added)
            added.close()  # a file of Hydra's; a stream stays open
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def owned(streams: Mapping[str, TextIO]) -> Iterator[None]:
    """Let :func:`out` and :func:`err` be ``streams`` (``stdout``, ``stderr``) for a while."""
    before = dict(_own)
    _own.update(streams)
    try:
        yield
    finally:
        _own.clear()
        _own.update(before)


class Messages(logging.StreamHandler):  # type: ignore[type-arg]  # no generic at run time
    """Shows log records; in a terminal each takes the place of the bar that may stand there, which is drawn anew."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record on a line of its own."""
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            self.stream.write("\r\x1b[2K")
        super().emit(record)


class _Tolerant(io.FileIO):
    """A file descriptor that raises no error when it cannot be written any more: the rest is discarded.

    The descriptor itself is left alone: once it is closed, its number may be that of another file.
    """

    lost = False

    def write(self, data: object) -> int:
        """Write, waiting where the reader is slow; returns the bytes that count as written."""
        while not self.lost:
            try:
                written = super().write(data)  # type: ignore[arg-type]
                if written is not None:
                    return written
                select.select([], [self], [])
            except OSError:  # its reader left, the disk is full, it was closed
                self.lost = True
        return len(data)  # type: ignore[arg-type]


def tolerant(descriptor: int, encoding: str = "utf-8") -> TextIO:
    """Return a stream on ``descriptor`` that replaces what its encoding lacks and outlives its reader."""
    raw = _Tolerant(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=REPLACED, line_buffering=True)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded by similar ones, else by ``?``."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    found = "".join(_SIGNS.get(character, "?") for character in text)
    return found.encode(error.encoding, errors="replace").decode(error.encoding), error.end


codecs.register_error(REPLACED, _replaced)
