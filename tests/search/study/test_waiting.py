"""The driver waits for a trial, and looks only now and then how far its scoring is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from threading import Timer
from typing import Any

import pytest

from objectives.tasks.progress import SoFar
from search.study import waiting
from search.study.waiting import awaited, first_done
from tests.search.conftest import FakeExecutor, done


class Telling(FakeExecutor):
    """A session whose scoring is as far as it is told to be; afterwards the trial has its outcome."""

    def __init__(self, future: Future[Any], *told: SoFar | None, error: Exception | None = None) -> None:
        super().__init__()
        self.future, self.told, self.error = future, list(told), error

    def scoring(self) -> SoFar | None:
        found = self.told.pop(0)
        if not self.told and self.error is not None:
            self.future.set_exception(self.error)
        elif not self.told:
            self.future.set_result("measured")
        return found


class Shown:
    """Progress that keeps what it was shown."""

    def __init__(self) -> None:
        self.scored: list[SoFar | None] = []

    def stage(self, text: str) -> None: ...

    def trial(self, records: Any, front: Any) -> None: ...

    def scoring(self, far: SoFar | None) -> None:
        self.scored.append(far)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How long each wait would have been; none takes longer than a moment."""
    found: list[float | None] = []
    wait = waiting.wait

    def quick(futures: Sequence[Future[Any]], timeout: float | None = None, **how: Any) -> Any:
        found.append(timeout)
        return wait(futures, None if timeout is None else 0.001, **how)

    monkeypatch.setattr(waiting, "wait", quick)
    return found


HALF, MOST = SoFar(5, 10, 8), SoFar(9, 10, 9)


def test_scoring_is_shown_every_second_and_nothing_else_is_looked_at_so_often(waits: list[float | None]) -> None:
    future: Future[str] = Future()
    shown = Shown()
    assert awaited(future, Telling(future, None, HALF, MOST, None, None), shown) == "measured"
    assert shown.scored == [HALF, MOST, None]
    assert waits[:5] == [waiting.IDLE, waiting.IDLE, waiting.LOOK, waiting.LOOK, waiting.IDLE]
    assert (waiting.LOOK, waiting.IDLE) == (1.0, 5.0)


def test_a_quick_trial_is_not_looked_at() -> None:
    shown = Shown()
    assert awaited(done("measured"), Telling(Future()), shown) == "measured"
    assert shown.scored == []


def test_the_first_of_several_ends_the_wait() -> None:
    futures = [Future[str](), done("measured"), Future[str]()]
    for session in (FakeExecutor(), Telling(Future(), None, None)):
        first_done(futures, session, Shown())
    assert [future.done() for future in futures] == [False, True, False]


def test_a_session_that_cannot_tell_is_waited_for_in_one_piece(waits: list[float | None]) -> None:
    future: Future[str] = Future()
    Timer(0.05, future.set_result, ["measured"]).start()
    assert awaited(future, FakeExecutor(), Shown()) == "measured"
    assert waits == [None]


@pytest.mark.parametrize("error", [TimeoutError("of the task"), ValueError("a bug")])
def test_what_the_future_raises_is_raised(error: Exception, waits: list[float | None]) -> None:
    future: Future[str] = Future()
    with pytest.raises(type(error), match=str(error)):
        awaited(future, Telling(future, HALF, error=error), Shown())


def test_a_study_shows_the_scoring_of_its_trials(make_config: Any, waits: list[float | None]) -> None:
    from dataclasses import replace

    from search.study.study import run_study

    class Slow(FakeExecutor):
        """A session whose first trial is scored for a while."""

        def evaluate(self, candidate: Any, gate: Any = None) -> Future[Any]:
            outcome = super().evaluate(candidate, gate)
            if len(self.asked) > 1:
                return outcome
            self.future, self.outcome = Future[Any](), outcome
            return self.future

        def scoring(self) -> SoFar | None:
            self.future.set_result(self.outcome.result())
            return HALF

    shown = Shown()
    run_study(replace(make_config("n_trials=2"), executor=Slow()), shown)
    assert shown.scored == [HALF]
