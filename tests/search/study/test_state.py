"""The search, the front and the report read the same trials: as confirmed, on one scale, with their recipe's score."""

from __future__ import annotations

import random
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from objectives.measuring.stored_facts import facts_of
from objectives.types import Measurement
from search.commands.stored_study import load
from search.frontier.certificate import certify
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.space.grid import Grid
from search.study.confirmation import Confirmation
from search.study.state import StudyState
from search.study.study import run_study
from tests.search.conftest import RATIOS, FakeExecutor, Quiet, done, slow_to_score


class Flattered(FakeExecutor):
    """Trials make two cells of five up to a third too fast; shared rounds do not."""

    def __init__(self, seed: int) -> None:
        super().__init__(self.trial)
        self.seed = seed

    def trial(self, candidate: Any) -> Measurement:
        found = slow_to_score(candidate)
        cell = (self.seed, candidate.pruning.ratio, candidate.quantization.bits, candidate.workload.batch_size)
        drawn = random.Random(str(cell))
        luck = drawn.uniform(1.0, 1.5) if drawn.random() < 0.4 else 1.0
        return replace(found, metrics={**found.metrics, "speedup": found.metrics["speedup"] * luck})

    def confirm(self, candidates: Any) -> Future[list[Measurement]]:
        self.confirmed.extend(candidates)
        return done([slow_to_score(candidate) for candidate in candidates])


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_a_study_that_stops_as_complete_has_a_complete_certificate(make_config: Any, seed: int) -> None:
    config = replace(make_config("sampler=frontier", "n_trials=200", RATIOS), executor=Flattered(seed))
    result = run_study(config, Quiet())
    assert result.stop_reason is StopReason.COMPLETE
    assert {record.number for record in result.records if record.confirmed} >= set(result.front.front) - {0}
    stored = load([f"study={config.name}", f"home={config.home}"])
    assert stored.front == result.front
    certificate = certify(Grid(config.space.axes), stored.records, stored.front)
    assert certificate is not None
    assert certificate.complete
    members = [record for record in result.records if record.number in result.front.front]
    last = {tuple(record.params.values()): record for record in result.records}.values()  # of a cell the last word
    bare = [record for record in last if record.state == "complete" and "accuracy" not in record.metrics]
    for record in bare:  # within the resolution
        assert any(
            1.02 * member.metrics["throughput"] >= record.metrics["throughput"]
            and member.metrics["peak_memory"] <= 1.02 * record.metrics["peak_memory"]
            for member in members
        )


@pytest.mark.slow
def test_what_was_left_unscored_behind_a_lucky_member_is_scored_in_the_end(make_config: Any) -> None:
    """Over the seeds, the search went on after it had confirmed, and found more."""
    went_on = 0
    for seed in range(6):
        executor = Flattered(seed)
        config = make_config("sampler=frontier", "n_trials=200", RATIOS, f"study_name=lucky{seed}")
        result = run_study(replace(config, executor=executor), Quiet())
        cells = [tuple(record.params.values()) for record in result.records]
        went_on += len(cells) > len(set(cells))
    assert went_on


def trial(number: int, speedup: float, **more: Any) -> TrialRecord:
    params = {"pruning.ratio": 0.1 * number, "quantization.bits": 16, "workload.batch_size": 1}
    metrics = {
        "speedup": speedup, "throughput": 8 * speedup, "latency.p50": 1 / speedup, "reference_latency": 1.0,
        "peak_memory": 100.0, "accuracy": 0.5, "examples": 10.0,
    }  # fmt: skip
    facts = {"reference": "baseline" if number else "itself"}
    return replace(TrialRecord(number, f"u{number}", params, "complete", metrics, facts=facts_of(facts)), **more)


def test_a_repeat_does_not_undo_what_was_confirmed(make_config: Any) -> None:
    config = make_config("space.pruning.ratio=[0.0,0.1,0.2]")
    records = [trial(0, 1.0, is_baseline=True), trial(1, 2.0)]
    found = StudyState(config, records, Confirmation({1: Measurement({"speedup": 1.5})}))
    index = found.known().grid.index(records[1].params)
    assert found.known().values[index, 0] == pytest.approx(-np.log(8 * 1.5))
    found.add(replace(trial(1, 2.0), number=2, cached_from=1))
    assert found.known().values[index, 0] == pytest.approx(-np.log(8 * 1.5))


def test_new_trials_are_read_at_the_pace_of_those_before(make_config: Any) -> None:
    """The machine had been twice as slow while the baseline was measured; the scale is set when it is first read."""
    config = make_config("space.pruning.ratio=[0.0,0.1,0.2]", "objectives=[latency.p50,peak_memory]")
    slow = {"reference_latency": 2.0, "latency.p50": 2.0, "throughput": 4.0}
    base = trial(0, 1.0, is_baseline=True)
    base = replace(base, metrics={**base.metrics, **slow})
    found = StudyState(config, [base], Confirmation())
    _ = found.known()
    late = trial(1, 2.0)
    found.add(late)
    index = found.known().grid.index(late.params)
    assert found.known().values[index, 0] == pytest.approx(np.log(1.0))  # half of the baseline's 2 s
    found.read_anew()
    base_index = found.known().grid.index(base.params)
    incumbents = found.known().values[base_index, 0] - found.known().values[index, 0]
    assert incumbents == pytest.approx(np.log(2))


def test_an_unscored_trial_takes_the_score_of_its_recipe(make_config: Any) -> None:
    config = make_config("space.pruning.ratio=[0.0,0.1,0.2]")
    scored = replace(
        trial(1, 2.0), facts=facts_of({"reference": "baseline", "verdict": "reached", "verdict_by": "exact"})
    )
    bare = replace(trial(1, 3.0), number=2, params={**scored.params, "workload.batch_size": 4})
    metrics = {name: value for name, value in bare.metrics.items() if name not in ("accuracy", "examples")}
    bare = replace(bare, metrics=metrics, facts=facts_of({"reference": "baseline", "verdict": "unscored"}))
    found = StudyState(config, [trial(0, 1.0, is_baseline=True), scored, bare], Confirmation())
    now = found.read()[2]
    assert now.metrics["accuracy"] == 0.5
    assert any("scored as trial 1" in note.text for note in now.notes)
    assert found.front().front == (2,)
    whole = replace(bare, number=3, metrics={**metrics, "accuracy": 0.5, "examples": 10.0})
    found.add(whole)
    assert "accuracy" not in found.read()[2].metrics  # trial 3 speaks for the cell now
