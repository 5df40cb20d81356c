"""Studies on several devices: answers come late and out of order, and no cell and no model is made twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock, Timer
from typing import Any

import pytest

from objectives.protocols.candidate import Candidate
from objectives.types import Failure, Measurement, Outcome, Reason
from search.records.stop_reason import StopReason
from search.study.study import StudyResult, run_study
from tests.search.conftest import RATIOS, FakeExecutor, Quiet, closed_form

Cell = tuple[float, float, int]


def cell_of(candidate: Candidate) -> Cell:
    return candidate.pruning.ratio, candidate.quantization.bits, candidate.workload.batch_size


class Fleet(FakeExecutor):
    """Devices whose answers come after a moment, in a random order; it notes what was in flight together."""

    seconds = 0.15
    """What asking takes is less."""

    def __init__(self, slots: int, answer: Callable[[Candidate], Outcome] = closed_form, seed: int = 0) -> None:
        super().__init__(answer)
        self.slots, self.most = slots, 0
        self.clashes: list[str] = []
        self._random, self._lock = random.Random(seed), Lock()
        self._flying: list[Cell] = []
        self._scored: set[tuple[float, float]] = set()

    def evaluate(self, candidate: Candidate, gate: Any = None) -> Future[Outcome]:
        cell, future = cell_of(candidate), Future[Outcome]()
        outcome = super().evaluate(candidate, gate).result()
        with self._lock:
            recipes = [other[:2] for other in self._flying]
            if cell in self._flying or (cell[:2] in recipes and cell[:2] not in self._scored):
                self.clashes.append(f"{cell} beside {self._flying}")
            self._flying.append(cell)
            self.most = max(self.most, len(self._flying))

        def land() -> None:
            with self._lock:
                self._flying.remove(cell)
                if isinstance(outcome, Measurement) and "accuracy" in outcome.metrics:
                    self._scored.add(cell[:2])
            future.set_result(outcome)

        Timer(self.seconds * (1 + self._random.random()), land).start()
        return future


def front_of(result: StudyResult) -> set[tuple[Any, ...]]:
    return {tuple(each.params.values()) for each in result.records if each.number in result.front.front}


@pytest.fixture
def study(make_config: Callable[..., Any]) -> Callable[..., StudyResult]:
    def run(executor: Any, *words: str) -> StudyResult:
        return run_study(replace(make_config(RATIOS, *words), executor=executor), Quiet())

    return run


@pytest.mark.parametrize("sampler", ["frontier", "tpe", "random", "exhaustive", "gp", "nsga2", "qmc"])
def test_no_cell_and_no_model_is_in_flight_twice_and_the_limit_counts_what_flies(
    sampler: str, study: Callable[..., StudyResult]
) -> None:
    fleet = Fleet(4)
    result = study(fleet, f"sampler={sampler}", "n_trials=14", "study_name=flying")
    assert fleet.clashes == []
    assert fleet.most > 1  # all four on a quiet machine
    assert len(result.records) <= 14
    assert sampler == "frontier" or len(result.records) == 14
    assert len({record.number for record in result.records}) == len(result.records)
    cells = Counter(tuple(record.params.values()) for record in result.records)
    assert max(cells.values()) == 1


@pytest.mark.parametrize("slots", [2, 8])
@pytest.mark.parametrize("sampler", ["frontier", "exhaustive"])
def test_a_complete_front_has_the_same_members_on_several_devices(
    sampler: str, slots: int, study: Callable[..., StudyResult]
) -> None:
    words = (f"sampler={sampler}", "n_trials=200")
    one = study(FakeExecutor(), *words, "study_name=one")
    fleet = Fleet(slots)
    fleet.seconds = 0.02
    several = study(fleet, *words, "study_name=several")
    assert one.stop_reason is several.stop_reason is StopReason.COMPLETE
    assert front_of(several) == front_of(one)


@pytest.mark.parametrize("reason", [Reason.CRASHED, Reason.TIMEOUT])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_lost_trial_is_tried_once_more_and_counts_once(
    reason: Reason, slots: int, study: Callable[..., StudyResult]
) -> None:
    tries: Counter[Cell] = Counter()

    def answer(candidate: Candidate) -> Outcome:
        cell = cell_of(candidate)
        tries[cell] += 1
        once, always = cell[1] == 8, cell[1] == 4
        return Failure(reason, "lost") if always or (once and tries[cell] == 1) else closed_form(candidate)

    fleet = Fleet(slots, answer)
    fleet.seconds = 0.02
    result = study(fleet, "sampler=exhaustive", "n_trials=20", "study_name=lost", "confirm=false")
    lost = [record for record in result.records if record.reason == reason]
    assert fleet.clashes == []
    assert lost
    assert {tries[cell] for cell in tries if cell[1] == 16} == {1}
    assert {tries[cell] for cell in tries if cell[1] != 16} == {2}
    assert len(tries) == 20
    assert result.stop_reason is StopReason.BUDGET


def test_a_signal_keeps_what_has_landed_and_the_rest_is_tried_again(make_config: Callable[..., Any]) -> None:
    class Signalled(Fleet):
        def evaluate(self, candidate: Candidate, gate: Any = None) -> Future[Outcome]:
            if len(self.asked) == 6:
                raise KeyboardInterrupt
            return super().evaluate(candidate, gate)

    config = make_config(RATIOS, "sampler=exhaustive", "n_trials=12", "study_name=signalled")
    first = run_study(replace(config, executor=Signalled(4)), Quiet())
    cut = [record for record in first.records if record.reason == Reason.INTERRUPTED]
    assert first.interrupted is not None
    assert len(cut) >= 1
    assert all(record.params for record in cut)
    second = run_study(replace(config, executor=Fleet(4)), Quiet())
    measured = Counter(tuple(record.params.values()) for record in second.records if record.state == "complete")
    assert sum(measured.values()) == 12
    assert set(measured.values()) == {1}
    assert {tuple(record.params.values()) for record in cut} <= set(measured)
