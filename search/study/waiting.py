"""Waits for a trial, or the first of several, and shows meanwhile how far the scoring of a model is.

The driver must not disturb what the worker times. So it looks every second while a model is scored, and else every
five, which is far less often than the pool of the worker process does by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from search.executors.protocol import Session, TellsScoring
from search.study.progress import Progress

T = TypeVar("T")

LOOK, IDLE = 1.0, 5.0
"""Seconds between two looks, while a model is scored and else."""


def awaited(future: Future[T], session: Session, progress: Progress) -> T:
    """Return the result of ``future``, or raise its error; show how far the scoring is where ``session`` tells."""
    first_done([future], session, progress)
    return future.result()


def first_done(futures: Sequence[Future[Any]], session: Session, progress: Progress) -> None:
    """Wait until one of ``futures`` is done; show how far the scoring is where ``session`` tells."""
    if not isinstance(session, TellsScoring):
        wait(futures, return_when=FIRST_COMPLETED)
        return
    far = None
    while not wait(futures, timeout=IDLE if far is None else LOOK, return_when=FIRST_COMPLETED).done:
        before, far = far, session.scoring()
        if far is not None or before is not None:
            progress.scoring(far)
