"""Waits for a trial and shows meanwhile how far the scoring of its model is.

The driver must not disturb what the worker times. So it looks every second while a model is scored, and else every
five, which is far less often than the pool of the worker process does by itself.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from search.executors.protocol import Session, TellsScoring
from search.study.progress import Progress

T = TypeVar("T")

LOOK, IDLE = 1.0, 5.0
"""Seconds between two looks, while a model is scored and else."""


def awaited(future: Future[T], session: Session, progress: Progress) -> T:
    """Return the result of ``future``, or raise its error; show how far the scoring is where ``session`` tells."""
    if not isinstance(session, TellsScoring):
        return future.result()
    far = None
    while True:
        try:
            return future.result(timeout=IDLE if far is None else LOOK)
        except TimeoutError:
            if future.done():  # it may have raised one itself
                return future.result()
        before, far = far, session.scoring()
        if far is not None or before is not None:
            progress.scoring(far)
