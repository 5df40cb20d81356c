"""Handles the signals that end a study, Ctrl-C, SIGTERM and SIGHUP; they differ only in the exit code.

Python runs a signal's handler between any two steps of the main thread, so also between taking a lock and the block
that gives it back. Code that takes a lock that is needed to stop, of a database too, wraps itself in :func:`deferred`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from search.errors import Interrupted


class Terminated(KeyboardInterrupt):
    """SIGTERM came. It is no Exception, since it may come inside a library that wraps those (SQLAlchemy does)."""

    number = signal.SIGTERM


class HungUp(Terminated):
    """SIGHUP came: the terminal of the study was closed."""

    number = signal.SIGHUP


def interrupted(error: KeyboardInterrupt) -> Interrupted:
    """Return the error that a user sees."""
    if isinstance(error, Terminated):
        return Interrupted(f"stopped by {error.number.name}", 128 + error.number)
    return Interrupted("stopped by Ctrl-C")


_KINDS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: HungUp,
}
LATE = 5.0
"""Seconds after which one more signal is deferred no longer: the block may wait for a server that never answers."""

_pending: list[tuple[int, float]] = []
_deferring = 0


def _stop(number: int, _frame: object) -> None:
    now = time.monotonic()
    if _deferring and (not _pending or now - _pending[0][1] < LATE):
        _pending.append((number, now))
        return
    raise _KINDS[number]


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal that comes in this block end the study after the block, which should be short.

    One more that comes seconds after the first ends the block.
    Only the main thread gets signals, so that the blocks of others defer none.
    """
    global _deferring
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        if _pending and not _deferring:
            number = _pending[0][0]
            _pending.clear()
            raise _KINDS[number]


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the signal itself where a library made an error of it, as modules in C do that it met in their import."""
    try:
        yield
    except Exception as error:
        behind = error.__cause__
        while behind is not None and not isinstance(behind, KeyboardInterrupt):
            behind = behind.__cause__
        if behind is None:
            raise
        raise behind from None


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the study as Ctrl-C does, with exit codes 143 and 129.

    A SIGHUP that is ignored already stays ignored: ``nohup`` asks for that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in _KINDS if number != signal.SIGHUP or not ignored]
    before = {number: signal.signal(number, _stop) for number in handled}
    try:
        with unwrapped():
            yield
    except Terminated as error:  # before there was a study
        raise interrupted(error) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
