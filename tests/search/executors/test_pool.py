"""A pool gives each device one candidate at a time, keeps a recipe where its model is, and takes no second kind."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from objectives.errors import ModelError, Unsupported
from objectives.protocols.candidate import Candidate
from objectives.pruning.structured import Structured
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.off import Off
from objectives.runtime.torch import Torch
from objectives.tasks.progress import SoFar
from objectives.types import Failure, Measurement, Reason
from objectives.workloads.generation import Generation
from search.executors.pool import PoolSession
from search.executors.protocol import MeasuresSeveral, slots_of
from tests.search.conftest import FakeExecutor, done


class Member(FakeExecutor):
    """A device whose answers come when the test gives them."""

    def __init__(self, facts: Mapping[str, str] | None = None, error: Exception | None = None) -> None:
        super().__init__()
        self.facts, self.error, self.entered = facts or {"device": "fake"}, error, 0
        self.waiting: list[tuple[Candidate, Future[Any]]] = []
        self.far: SoFar | None = None

    def __enter__(self) -> Member:
        if isinstance(self.error, OSError):
            raise self.error
        self.entered += 1
        return self

    def prepare(self) -> Future[Mapping[str, str]]:
        if self.error is None:
            return done(self.facts)
        future: Future[Any] = Future()
        future.set_exception(self.error)
        return future

    def evaluate(self, candidate: Candidate, gate: Any = None) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((candidate, future))
        return future

    def scoring(self) -> SoFar | None:
        return self.far

    def land(self, outcome: Any = None) -> None:
        self.waiting.pop(0)[1].set_result(outcome or Measurement({}))


def candidate(ratio: float = 0.0, batch: int = 1) -> Candidate:
    workload = Generation(batch_size=batch, prompt_tokens=4, new_tokens=2)
    return Candidate(Structured(ratio=ratio), RoundToNearest(), workload, Off(), Torch())


def test_a_candidate_goes_to_the_device_that_had_its_model_and_else_to_the_one_idle_for_longest() -> None:
    members = [Member() for _ in range(3)]
    with PoolSession(members) as pool:
        assert slots_of(pool) == 3
        for ratio in (0.1, 0.2, 0.3):
            pool.evaluate(candidate(ratio))
        assert [len(each.waiting) for each in members] == [1, 1, 1]
        members[1].land()
        members[0].land()
        pool.evaluate(candidate(0.1, batch=2))
        assert members[0].waiting[0][0].workload.batch_size == 2
        pool.evaluate(candidate(0.1, batch=4))  # its device works
        assert members[1].waiting[0][0].workload.batch_size == 4
        members[1].land(Failure(Reason.CRASHED, "died"))
        members[2].land()
        pool.evaluate(candidate(0.1, batch=4))
        assert [len(each.waiting) for each in members] == [1, 1, 0]


def test_a_failed_candidate_is_tried_elsewhere() -> None:
    members = [Member() for _ in range(2)]
    with PoolSession(members) as pool:
        pool.evaluate(candidate(0.1))
        members[0].land(Failure(Reason.CRASHED, "died"))
        pool.evaluate(candidate(0.1))
        assert len(members[1].waiting) == 1


def test_what_belongs_together_is_measured_on_one_device() -> None:
    members = [Member() for _ in range(2)]
    with PoolSession(members) as pool:
        assert pool.sources().result() == []
        assert len(pool.confirm([candidate(0.1), candidate(0.2)]).result()) == 2
        assert len(pool.predict_losses([candidate()]).result()) == 1
    assert sorted(len(each.confirmed) for each in members) == [0, 2]
    assert [each.left for each in members] == [1, 1]


def test_devices_of_two_kinds_are_refused_together() -> None:
    kinds = [{"device": "cuda", "device_name": "A"}, {"device": "cuda", "device_name": "A"}, {"device": "cpu"}]
    with PoolSession(list(map(Member, kinds[:2]))) as pool:
        assert pool.prepare().result() == kinds[0]
    with PoolSession(list(map(Member, kinds))) as pool, pytest.raises(Unsupported, match=r"devices 0 and 2 are unlike"):
        pool.prepare().result()


def test_a_device_that_cannot_prepare_is_an_error_of_the_study() -> None:
    with PoolSession([Member(), Member(error=ModelError("broken"))]) as pool, pytest.raises(ModelError, match="broken"):
        pool.prepare().result()


def test_devices_that_were_entered_are_left_where_another_cannot_be() -> None:
    members = [Member(), Member(error=OSError("no more processes"))]
    with pytest.raises(OSError, match="no more processes"):
        PoolSession(members).__enter__()
    assert [each.left for each in members] == [1, 0]


def test_a_pool_shows_the_scoring_of_the_first_device_that_scores() -> None:
    members = [Member(), Member()]
    members[1].far = SoFar(1, 2, 3.0)
    assert PoolSession(members).scoring() == SoFar(1, 2, 3.0)
    assert not isinstance(members[0], MeasuresSeveral)
