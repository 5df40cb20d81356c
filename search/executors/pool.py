"""Lets several sessions, one per device, measure the candidates of one study.

Each measures one candidate at a time. A candidate goes to the device that had its model last, if that is free: it is
still in memory there. What belongs together is measured on one device: the members of a front against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from typing_extensions import override

from objectives.errors import Unsupported
from objectives.evaluation.problem import CheckReport
from objectives.evaluation.recipe import Recipe, recipe_of
from objectives.measuring.fingerprint import unlike
from objectives.protocols.candidate import Candidate
from objectives.tasks.progress import SoFar
from objectives.tasks.provenance import Source
from objectives.types import Failure, Gate, Measurement, Outcome
from search.errors import DevicesLost
from search.executors.protocol import MeasuresSeveral, Session, TellsScoring
from search.executors.signals import deferred

T = TypeVar("T")


@runtime_checkable
class MayBeLost(Protocol):
    """A session whose device may leave while the study runs.

    ``is_lost``: it left for good; ``is_away``: it is being replaced.
    """

    is_lost: bool
    is_away: bool


class PoolSession(Session, TellsScoring, MeasuresSeveral):
    """Sessions of devices of one kind; the first of them does what is done once."""

    def __init__(self, members: Sequence[Session]) -> None:
        self._home: dict[Recipe, int] = {}
        self._lock = Lock()
        self._stack = ExitStack()
        self.admit(members)

    def admit(self, members: Sequence[Session]) -> None:
        """Take ``members`` for the pool's, before it is entered."""
        self._members = members
        self._load = [0] * len(members)
        self._idle = list(range(len(members)))

    def __enter__(self) -> Self:
        """Enter all sessions; leave those that were entered where one fails."""
        with ExitStack() as entered:
            for member in self._members:
                entered.enter_context(member)
            self._stack = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave all sessions."""
        self._stack.__exit__(kind, error, trace)

    @property
    @override
    def slots(self) -> int:
        """Return how many devices are there. Raises DevicesLost where all have left."""
        left = [member for member in self._members if not _is_lost(member)]
        if not left:
            raise DevicesLost("executor: no device is left; the same command goes on where there are some again")
        return max(1, sum(map(_is_here, left)))

    @override
    def prepare(self) -> Future[Mapping[str, str]]:
        return _joined([member.prepare() for member in self._members], _facts_of_one_kind)

    @override
    def sources(self) -> Future[list[Source]]:
        return self._members[0].sources()

    @override
    def check(self) -> Future[CheckReport]:
        return self._members[0].check()

    @override
    def evaluate(self, candidate: Candidate, gate: Gate | None = None) -> Future[Outcome]:
        recipe = recipe_of(candidate)
        chosen = self._home.get(recipe, -1)
        if chosen < 0 or self._load[chosen] or not _is_here(self._members[chosen]):
            chosen = self._longest_idle()
        self._home[recipe] = chosen
        answer = self._ask(chosen, lambda member: member.evaluate(candidate, gate))

        def forget(done: Future[Outcome]) -> None:
            if isinstance(done.result(), Failure):  # another try is made elsewhere
                self._home.pop(recipe, None)

        answer.add_done_callback(forget)
        return answer

    @override
    def predict_losses(self, candidates: Sequence[Candidate]) -> Future[list[float]]:
        return self._ask(self._longest_idle(), lambda member: member.predict_losses(candidates))

    @override
    def confirm(self, candidates: Sequence[Candidate]) -> Future[list[Measurement]]:
        return self._ask(self._longest_idle(), lambda member: member.confirm(candidates))

    @override
    def scoring(self) -> SoFar | None:
        told = (member.scoring() for member in self._members if isinstance(member, TellsScoring))
        return next((far for far in told if far is not None), None)

    def _longest_idle(self) -> int:
        """Return the member that has been idle for longest; where all work, the one with the least to do."""
        here = [place for place in self._idle if _is_here(self._members[place])]
        left = [place for place, member in enumerate(self._members) if not _is_lost(member)]
        return here[0] if here else min(left or range(len(self._load)), key=self._load.__getitem__)

    def _ask(self, chosen: int, ask: Callable[[Session], Future[T]]) -> Future[T]:
        """Ask a member; it is free again before anybody learns of its answer."""
        with deferred(), self._lock:
            if chosen in self._idle:
                self._idle.remove(chosen)
            self._load[chosen] += 1
        answer: Future[T] = Future()

        def settle(done: Future[T]) -> None:
            self._release(chosen)
            error = done.exception()
            if error is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(error)

        try:
            ask(self._members[chosen]).add_done_callback(settle)
        except BaseException:
            self._release(chosen)
            raise
        return answer

    def _release(self, member: int) -> None:
        with self._lock:
            self._load[member] -= 1
            if not self._load[member]:
                self._idle.append(member)


def _is_lost(member: Session) -> bool:
    return isinstance(member, MayBeLost) and member.is_lost


def _is_here(member: Session) -> bool:
    return not (isinstance(member, MayBeLost) and (member.is_lost or member.is_away))


def _facts_of_one_kind(facts: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Return the facts of the first device. Raises Unsupported where another is of another kind."""
    for place, other in enumerate(facts[1:], 1):
        different = unlike(facts[0], other)
        if different:
            shown = ", ".join(f"{name} {one} and {two}" for name, (one, two) in different.items())
            raise Unsupported(
                f"executor: devices 0 and {place} are unlike ({shown}), and their results would not compare; leave one "
                "kind, as by CUDA_VISIBLE_DEVICES, and measure the other in a study of its own with warm_start"
            )
    return facts[0]


def _joined(futures: Sequence[Future[T]], join: Callable[[Sequence[T]], T]) -> Future[T]:
    """Return a future of ``join`` of all results; it raises what the first of them raises."""
    whole: Future[T] = Future()
    left, lock = [len(futures)], Lock()

    def settle(_done: Future[Any]) -> None:
        with lock:
            left[0] -= 1
            if left[0]:
                return
        try:
            whole.set_result(join([future.result() for future in futures]))
        except BaseException as error:
            whole.set_exception(error)

    for future in futures:
        future.add_done_callback(settle)
    return whole
