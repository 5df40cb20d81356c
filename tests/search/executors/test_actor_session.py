"""A killed actor gets a successor while its cluster has room, and its session is lost where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from objectives.types import Failure, Measurement, Reason
from search.errors import DevicesLost, Unmeasured
from search.executors import actor_session
from search.executors.actor_session import ActorSession, Census, Died
from search.executors.pool import PoolSession
from search.executors.ray_actor import Answer

ray = pytest.importorskip("ray")


class Call:
    """A method of an actor; its answers come when the test gives them."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def remote(self, *_arguments: object) -> SimpleNamespace:
        self.asked.append(Future())
        return SimpleNamespace(future=lambda: self.asked[-1])


class Running(Call):
    """A method that answers at once."""

    def remote(self, *_arguments: object) -> SimpleNamespace:
        found = super().remote()
        self.asked[-1].set_result(1)
        return found


class Actor:
    """An actor that runs, and is told what to do by the test."""

    def __init__(self) -> None:
        self.call, self.pid = Call(), Running()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A cluster with room for ``room`` actors, whose successors run once ``runs`` is set."""
    found = SimpleNamespace(room=1, runs=Event(), made=[], killed=[])

    def make() -> Actor:
        found.made.append(Actor())
        return found.made[-1]

    def wait(references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return (references, []) if found.runs.wait(timeout) else ([], references)

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "kill", found.killed.append)
    monkeypatch.setattr(actor_session, "LOOK", 0.01)
    census = Census(lambda: found.room)
    census.living = 1
    found.session = ActorSession(make, 60.0, census)
    with PoolSession([found.session]) as pool:
        found.pool = pool
        yield found
    found.runs.set()


def until(happened: Any) -> None:
    for _ in range(500):
        if happened():
            return
        Event().wait(0.01)
    raise AssertionError("it did not happen")


def test_an_answer_is_passed_on_with_its_messages(cluster: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    answer = cluster.session.evaluate("candidate")
    cluster.made[0].call.asked[0].set_result(Answer(Measurement({}), None, (("search.test", 30, "beware"),)))
    assert answer.result(timeout=5) == Measurement({})
    assert "beware" in caplog.text
    answer = cluster.session.evaluate("candidate")
    cluster.made[0].call.asked[1].set_result(Answer(None, ValueError("a bug")))
    assert answer.result(timeout=5) == Failure(Reason.ERROR, "ValueError: a bug")


def test_a_killed_actor_is_replaced(cluster: SimpleNamespace) -> None:
    answer = cluster.session.evaluate("candidate")
    cluster.made[0].call.asked[0].set_exception(RuntimeError("The actor died, unexpectedly\nCause: killed"))
    failure = answer.result(timeout=5)
    assert failure.reason is Reason.CRASHED
    assert failure.message == "the actor died: The actor died: Cause: killed"
    assert len(cluster.made) == 2
    assert cluster.session.is_away
    assert cluster.pool.slots == 1
    cluster.runs.set()
    until(lambda: not cluster.session.is_away)
    assert not cluster.session.is_lost


def test_without_room_the_session_is_lost_and_the_study_has_no_device(cluster: SimpleNamespace) -> None:
    cluster.room = 0
    cluster.session.evaluate("candidate")
    cluster.made[0].call.asked[0].set_exception(RuntimeError("node died"))
    until(lambda: cluster.session.is_lost)
    assert cluster.killed == [cluster.made[1]]
    with pytest.raises(DevicesLost):
        _ = cluster.pool.slots


def test_a_machine_that_turns_out_to_be_gone_ends_the_wait_for_a_successor(cluster: SimpleNamespace) -> None:
    cluster.session.evaluate("candidate")
    cluster.made[0].call.asked[0].set_exception(RuntimeError("node died"))
    Event().wait(0.05)
    assert not cluster.session.is_lost
    cluster.room = 0  # now the cluster has noticed
    until(lambda: cluster.session.is_lost)


def test_an_actor_that_takes_too_long_is_killed(cluster: SimpleNamespace) -> None:
    cluster.session._timeout = 0.05
    answer = cluster.session.evaluate("candidate")
    until(lambda: cluster.killed)
    cluster.made[0].call.asked[0].set_exception(RuntimeError("killed"))
    assert answer.result(timeout=5).reason is Reason.TIMEOUT


def test_waiting_for_a_place_is_none_of_a_trials_time(cluster: SimpleNamespace) -> None:
    cluster.session._timeout = 0.05
    cluster.made[0].pid = Call()  # nowhere yet
    answer = cluster.session.evaluate("candidate")
    Event().wait(0.2)
    assert cluster.killed == []
    cluster.made[0].call.asked[0].set_result(Answer(Measurement({})))
    assert answer.result(timeout=5) == Measurement({})


def test_a_confirmation_that_fails_says_so(cluster: SimpleNamespace) -> None:
    answer = cluster.session.confirm(["one", "two"])
    cluster.made[0].call.asked[0].set_exception(RuntimeError("killed"))
    with pytest.raises(Unmeasured, match="the actor died"):
        answer.result(timeout=5)
    assert issubclass(Died, Exception)
