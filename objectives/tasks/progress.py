"""Tells a listener how far the scoring of a model is. Importing the module imports no torch.

Tasks of ours report from their loops (:func:`steps`); of a task that does not, the time alone is known. Loops are
nested: examples, and inside them the rows that run together. A step is as far as the loop inside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S", bound=Sized)


@dataclass(frozen=True)
class SoFar:
    """The state of a model's scoring: ``done`` of ``total`` examples, ``seconds`` after it began.

    ``done`` has a fraction where examples run together; where the ``total`` is not known (0) it counts what was read.
    ``may_end_early``: the accuracy is raced against a floor. ``domains``: domains are counted, not examples.
    """

    done: float
    total: int
    seconds: float
    may_end_early: bool = False
    domains: bool = False


Listener = Callable[[SoFar | None], None]
"""The function that is told of every step, and of None where scoring is over."""

_listeners: list[Listener] = []
_followed: list[_Scoring] = []
"""The scoring that is followed, last: that of the baseline may come amid a candidate's."""


def listen(listener: Listener | None) -> None:
    """Let ``listener`` be told of all scoring in this process from now on, and nobody else."""
    _listeners[:] = [] if listener is None else [listener]


@contextmanager
def followed(*, may_end_early: bool = False) -> Iterator[None]:
    """Tell the listener of the loops inside, which are those of one model's scoring."""
    if not _listeners:
        yield
        return
    scoring = _Scoring(may_end_early)
    _followed.append(scoring)
    scoring.tell()
    try:
        yield
    finally:
        _followed.remove(scoring)
        for listener in _listeners:
            listener(None)


def steps(pieces: Iterable[S], total: int) -> Iterator[S]:
    """Yield ``pieces``, whose lengths add up to ``total``, and tell of each that is done."""
    return _steps(((piece, len(piece)) for piece in pieces), total)


def one_by_one(items: Sequence[T], *, domains: bool = False) -> Iterator[T]:
    """Yield ``items``, and tell of each that is done."""
    return _steps(((item, 1) for item in items), len(items), domains)


def _steps(sized: Iterable[tuple[T, int]], total: int, domains: bool = False) -> Iterator[T]:
    with _entered(_Loop(total, 0, domains=domains)) as loop:
        for piece, size in sized:
            loop.step = size
            yield piece
            loop.done, loop.step = loop.done + size, 0
            for scoring in _followed[-1:]:
                scoring.tell()


@contextmanager
def expected(total: int) -> Iterator[None]:
    """Count the loops inside as parts of one over ``total``."""
    with _entered(_Loop(total)):
        yield


@contextmanager
def unknown(least: int) -> Iterator[None]:
    """Count what the loops inside have done: a single one of at least ``least`` is the whole, of more nobody knows."""
    with _entered(_Loop(None, least=least)):
        yield


@contextmanager
def _entered(loop: _Loop) -> Iterator[_Loop]:
    if not _followed:
        yield loop
        return
    scoring = _followed[-1]
    scoring.enter(loop)
    try:
        yield loop
    finally:
        scoring.leave(loop)


@dataclass(eq=False)
class _Loop:
    """A loop, of which ``done`` is done: its ``total``, and the size of the ``step`` that is being taken.

    Without a step it counts what the loops inside have done. Without a total it has that of the only loop inside, if
    that is at least ``least``. ``inner``: how many loops there were inside.
    """

    total: int | None
    step: int | None = None
    least: int = 0
    domains: bool = False
    done: float = 0.0
    inner: int = 0


class _Scoring:
    """The scoring of one model, with the loops that run now, from the outermost."""

    def __init__(self, may_end_early: bool) -> None:
        self.began, self.may_end_early = time.monotonic(), may_end_early
        self.loops = [_Loop(None)]

    def enter(self, loop: _Loop) -> None:
        """Let ``loop`` run inside the others."""
        self.loops[-1].inner += 1
        self.loops.append(loop)
        self.tell()

    def leave(self, loop: _Loop) -> None:
        """Forget ``loop`` and those that were left inside it."""
        if loop in self.loops:
            del self.loops[self.loops.index(loop) :]
            if self.loops[-1].step is None:
                self.loops[-1].done += loop.done

    def tell(self) -> None:
        """Tell the listener how far the scoring is."""
        domains = len(self.loops) > 1 and self.loops[1].domains
        seconds = time.monotonic() - self.began
        far = SoFar(self._done(0), self._total(0), seconds, self.may_end_early, domains)
        for listener in _listeners:
            listener(far)

    def _done(self, depth: int) -> float:
        """Return what is done of a loop, with what the loops inside have done of its present step."""
        loop = self.loops[depth]
        if depth + 1 == len(self.loops):
            return loop.done
        inside, whole = self._done(depth + 1), self._total(depth + 1)
        if loop.step is None:
            return loop.done + inside
        return loop.done + (loop.step * min(1.0, inside / whole) if whole else 0.0)

    def _total(self, depth: int) -> int:
        """Return the size of a loop; 0 where it is not known."""
        loop = self.loops[depth]
        if loop.total is not None:
            return loop.total
        if loop.inner != 1:
            return 0
        whole = self._total(depth + 1) if depth + 1 < len(self.loops) else round(loop.done)
        return whole if whole >= loop.least else 0
