"""Signals that end a study: Ctrl-C and SIGTERM, alike but for the exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from search.errors import Interrupted


class Terminated(KeyboardInterrupt):
    """SIGTERM. No Exception: it may come in the midst of a library that wraps those (SQLAlchemy does)."""


def interrupted(error: KeyboardInterrupt) -> Interrupted:
    """The error that a user sees."""
    if isinstance(error, Terminated):
        return Interrupted("stopped by SIGTERM", 128 + signal.SIGTERM)
    return Interrupted("stopped by Ctrl-C")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the study as Ctrl-C does, with exit code 143."""

    def stop(_signal: int, _frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Terminated as error:  # before there was a study
        raise interrupted(error) from None
    finally:
        signal.signal(signal.SIGTERM, before)
