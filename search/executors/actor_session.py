"""Evaluates the candidates of one problem on one actor of Ray; a killed actor gets a successor while there is room."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Lock, Thread, Timer
from types import TracebackType
from typing import Any, Self, TypeVar

from typing_extensions import override

from objectives.types import Failure, Reason
from search.executors.pool import MayBeLost
from search.executors.ray_actor import Answer
from search.executors.remote import RemoteSession

log = logging.getLogger(__name__)

T = TypeVar("T")

_COLOURS = re.compile("\x1b\\[[0-9;]*m")


LOOK = 1.0
"""Seconds between two looks whether a successor has started."""


class Census:
    """Counts the actors of a study; ``room``: returns how many the cluster has room for now."""

    def __init__(self, room: Callable[[], int]) -> None:
        self.room, self.living = room, 0
        self._lock = Lock()

    def may_be_replaced(self) -> bool:
        """Return whether the cluster has room for a successor of an actor that died; else strike the actor off."""
        room = self.room()
        with self._lock:
            if room >= self.living:
                return True
            self.living -= 1
            return False


class Died(Exception):
    """The actor died in the middle of a call."""


class ActorSession(RemoteSession, MayBeLost):
    """One actor. ``make``: asks the cluster for one; ``timeout``: seconds that a trial may take."""

    def __init__(self, make: Callable[[], Any], timeout: float, census: Census) -> None:
        self._make, self._timeout, self._census = make, timeout, census
        self._actor: Any = None
        self.is_lost = self.is_away = False

    def __enter__(self) -> Self:
        """Ask the cluster for an actor."""
        self._actor = self._make()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the actor, also in the middle of a trial."""
        import ray

        self.is_lost = True  # nobody wants a successor
        ray.kill(self._actor)

    @override
    def _called(self, method: str, arguments: tuple[object, ...], timeout: float) -> Future[Any]:
        """Call the actor; the future raises what the call raised, TimeoutError, or Died."""
        import ray

        actor, answer, lock = self._actor, Future[Any](), Lock()
        over, late = Event(), Event()

        def expire() -> None:
            with lock:
                if over.is_set():
                    return
                late.set()
            ray.kill(actor)

        timer = Timer(timeout, expire)
        timer.daemon = True

        def settle(done: Future[Any]) -> None:
            with lock:
                over.set()
            timer.cancel()
            error = done.exception()
            if error is not None:
                self._replace(actor)
                answer.set_exception(TimeoutError() if late.is_set() else Died(_why(error)))
                return
            _pass_on(done.result(), answer)

        def begin(_started: Future[Any]) -> None:
            with lock:
                if not over.is_set():  # waiting for a place is none of the call's time
                    timer.start()

        actor.pid.remote().future().add_done_callback(begin)
        actor.call.remote(method, *arguments).future().add_done_callback(settle)
        return answer

    @override
    def _failure(self, error: BaseException, timeout: float) -> Failure:
        if isinstance(error, TimeoutError):
            return Failure(Reason.TIMEOUT, f"no result within {timeout:g} s; the actor was killed")
        if isinstance(error, Died):
            return Failure(Reason.CRASHED, f"the actor died: {error}")
        log.error("an actor failed", exc_info=error)
        return Failure(Reason.ERROR, f"{type(error).__name__}: {error}")

    def _replace(self, actor: Any) -> None:
        """Ask for a successor of ``actor``, which died."""
        if self.is_lost or actor is not self._actor:
            return
        try:
            self._actor, self.is_away = self._make(), True
        except Exception as error:  # the cluster itself is gone
            log.warning("a device of the cluster is gone: %s", _why(error))
            self.is_lost = True
            return
        Thread(target=self._await, args=(self._actor,), daemon=True).start()

    def _await(self, actor: Any) -> None:
        """Wait until a successor runs; give it up where the machine that had room for it turns out to be gone."""
        import ray

        started = actor.pid.remote()
        while not self.is_lost:
            if ray.wait([started], timeout=LOOK)[0]:
                self.is_away = False
                return
            if not self._census.may_be_replaced():
                self.is_lost = True
                log.warning("a device of the cluster is gone, %d are left", self._census.living)
                ray.kill(actor)


def _pass_on(given: Answer, answer: Future[Any]) -> None:
    """Show an actor's messages, and settle ``answer`` as its call ended."""
    for name, level, text in given.messages:
        logging.getLogger(name).log(level, "%s", text)
    if given.error is None:
        answer.set_result(given.value)
    else:
        answer.set_exception(given.error)


def _why(error: BaseException) -> str:
    """Return the beginning of what Ray says of an actor's death, and its end, which names the cause."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    first = lines[0].partition(",")[0].rstrip(".")
    return first if len(lines) == 1 else f"{first}: {lines[-1]}"
