"""Sends what other libraries print, warn and log to a file, while our own messages are still shown.

torch, its extensions, MLflow and tokenizers speak through Python's warnings and logging, through ``print``, and from C
and C++ straight to the descriptors 1 and 2. So the descriptors themselves are pointed at the log, and our own streams
write to copies of what they were. Processes that are started meanwhile inherit the log. They are handed such a copy for
our messages alone (:class:`Shown`).
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from multiprocessing import reduction
from pathlib import Path
from typing import Any, TextIO

from search.terminal import console as terminal
from search.terminal.plain_text import InertFormatter

OURS = ("search", "objectives", "paretune", "__main__")
"""First parts of the names of our loggers."""
MOST = 20
"""Log files that are kept in a folder."""
ENVIRONMENT = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


@contextmanager
def quiet_log(folder: Path) -> Iterator[Path]:
    """Send all output that is not ours to a new file below ``folder`` meanwhile; remove the file where it stays empty.

    Where no file can be written, that output is lost.
    """
    path = _new_file(folder)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1) as log, ExitStack() as undo:
            streams = {name: undo.enter_context(_diverted(name, number, log)) for name, number in _STREAMS.items()}
            undo.enter_context(terminal.owned(streams))
            undo.enter_context(_logging_of_ours(streams, log))
            yield path
    finally:
        if path.is_file() and path.stat().st_size == 0:
            remove_log(path)


def remove_log(path: Path) -> None:
    """Remove a log, and its folder where it was the only file in it; the null device stays."""
    with suppress(OSError):
        if path.is_file():
            path.unlink()
            path.parent.rmdir()


_STREAMS = {"stdout": 1, "stderr": 2}


def _new_file(folder: Path) -> Path:
    """Make and return a new file named after the time and the process; the oldest logs beyond ``MOST`` are removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: -MOST + 1]:
            old.unlink(missing_ok=True)
        path = folder / f"{datetime.now():%Y-%m-%d-%H-%M-%S-%f}-{os.getpid()}.log"
        path.touch()
    except OSError:
        return Path(os.devnull)
    return path


@contextmanager
def _diverted(name: str, descriptor: int, log: TextIO) -> Iterator[TextIO]:
    """Let a descriptor and ``sys``'s stream write to ``log``; yield a stream to where they pointed before."""
    stream = getattr(sys, name)
    stream.flush()
    try:
        kept = os.dup(descriptor)
    except OSError:  # closed by the caller
        kept = os.open(os.devnull, os.O_WRONLY)
    own = terminal.tolerant(kept, stream.encoding) if _number(stream) == descriptor else stream
    os.dup2(log.fileno(), descriptor)
    setattr(sys, name, log)
    try:
        yield own
    finally:
        setattr(sys, name, stream)
        log.flush()
        with suppress(ValueError):
            own.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


def _number(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):
        return None


@contextmanager
def _logging_of_ours(streams: dict[str, TextIO], log: TextIO) -> Iterator[None]:
    """Let root's handlers for the terminal show our records alone; others' go to ``log``."""
    root, others = logging.getLogger(), logging.StreamHandler(log)
    others.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    others.addFilter(lambda record: not _is_ours(record))
    changed: list[tuple[logging.StreamHandler[Any], TextIO]] = []
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            number = _number(handler.stream)
            own = streams["stdout"] if number == 1 else streams["stderr"] if number == 2 else handler.stream
            changed.append((handler, handler.stream))
            handler.stream = own
            handler.addFilter(_is_ours)
    root.addHandler(others)
    try:
        yield
    finally:
        root.removeHandler(others)
        for handler, stream in changed:
            handler.removeFilter(_is_ours)
            handler.stream = stream


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS


class Shown:
    """A descriptor on which our messages are shown; it can be handed to a process that is being spawned."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Keep ``descriptor``, by default that of our own stderr."""
        number = _number(terminal.err())
        self.descriptor = descriptor if descriptor is not None else 2 if number is None else number

    def __reduce__(self) -> tuple[Callable[[Any], Shown], tuple[Any]]:
        """Pickle as a copy of the descriptor, which only works while a process is spawned."""
        return _received, (reduction.DupFd(self.descriptor),)

    def show_messages(self) -> None:
        """Show the records of our loggers on the descriptor from now on, although the process writes to a log."""
        handler = terminal.Messages(terminal.tolerant(self.descriptor))
        handler.setFormatter(InertFormatter("%(levelname)s %(message)s"))
        for name in OURS[:2]:
            logging.getLogger(name).addHandler(handler)


def _received(copy: Any) -> Shown:
    return Shown(copy.detach())
