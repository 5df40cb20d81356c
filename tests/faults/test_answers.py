"""Faults of answers: numbers that are none, floors that nobody reaches, and what a resumed study asks again."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.faults.conftest import Study

pytestmark = pytest.mark.faults

LARGER = ("space.pruning.ratio=[0.0,0.1,0.2,0.3,0.4]", "space.workload.batch_size=[1,2,4,8]")


@pytest.mark.row(12, "NaN, None or text for a metric", "a failed trial with its reason; the study goes on")
@pytest.mark.parametrize("executor", ["worker", "in_process"])
def test_no_number(executor: str, study: Study) -> None:
    cells = {"0.5/8/1": "nan", "0.5/8/4": "none", "0.5/4/1": "text", "0.5/4/4": "no_memory"}
    done = study.plan(**{cell: [fault] * 2 for cell, fault in cells.items()}).run(f"executor={executor}")
    assert done.code == 0, done.err
    study.require_whole(8)
    failed = [record for record in study.records() if record.state == "failed"]
    assert len({tuple(record.params.values()) for record in failed}) == 4
    assert all(record.message for record in failed)


@pytest.mark.row(13, "infinite metric", "a failed trial; never on the front")
def test_infinite(study: Study) -> None:
    done = study.plan(**{"0.5/8/1": ["inf"] * 2}).run()
    assert done.code == 0, done.err
    study.require_whole(11)
    assert {record.reason for record in study.records() if record.state == "failed"} == {"not_finite"}


@pytest.mark.row(14, "accuracy NaN, missing, or 2", "a failed trial; never feasible, and the study goes on")
def test_no_accuracy(study: Study) -> None:
    cells = {"0.5/8/1": "accuracy_nan", "0.5/8/4": "no_accuracy", "0.5/4/1": "accuracy_two"}
    done = study.plan(**{cell: [fault] * 2 for cell, fault in cells.items()}).run("accuracy_floor.epsilon=0.1")
    assert done.code == 0, done.err
    study.require_whole(9)
    assert {record.state for record in study.records() if record.params["pruning.ratio"] == 0.5} == {
        "complete",
        "failed",
    }


@pytest.mark.row(15, "floor that nobody reaches", "exit code 3 and the nearest miss; a floor above 1 is refused")
def test_a_floor_out_of_reach(study: Study) -> None:
    refused = study.run("accuracy_floor=absolute", "accuracy_floor.epsilon=1.01")
    assert refused.code == 2
    assert "accuracy_floor" in refused.require_one_line()
    missed = study.run("accuracy_floor=absolute", "accuracy_floor.epsilon=0.9", "study_name=high")
    assert missed.code == 3
    assert "0.4" in missed.out + missed.err


@pytest.mark.row(16, "accuracy within its noise of the floor", "the front says how sure each member is")
def test_noise_at_the_floor(study: Study) -> None:
    done = study.run("accuracy_floor.epsilon=0.99")
    assert done.code == 0
    assert re.search(r"keep the accuracy floor: \d+ (certainly|likely|undecided)", done.out)


@pytest.mark.row(19, "a study's name with another definition", "refused, with the difference and the way out")
def test_another_definition(study: Study) -> None:
    assert study.run("n_trials=2").code == 0
    for word, said in (("accuracy_floor.epsilon=0.5", "epsilon"), ("objectives=[latency.p95]", "objectives")):
        refused = study.run("n_trials=3", word)
        assert refused.code == 2
        assert said in refused.require_one_line()
    assert len(study.trials()) == 2


@pytest.mark.row(20, "resumed with another space", "refused, with the difference")
def test_another_space(study: Study) -> None:
    assert study.run("n_trials=2").code == 0
    refused = study.run("n_trials=3", "space.pruning.ratio=[0.0,0.4]")
    assert refused.code == 2
    assert "space" in refused.require_one_line()
    assert len(study.trials()) == 2


@pytest.mark.row(21, "resumed with the same seed", "no trial is asked for again")
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_trial_again(sampler: str, study: Study) -> None:
    for count in (8, 16):
        assert study.run(f"sampler={sampler}", f"n_trials={count}", *LARGER).code == 0
    assert len(study.measured()) == len(set(study.measured())) == 16


@pytest.mark.row(22, "60 trials of 60 cells", "no cell is measured twice, whatever the sampler")
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "qmc", "exhaustive"])
def test_no_cell_twice(sampler: str, study: Study) -> None:
    assert study.run(f"sampler={sampler}", "n_trials=60", "executor=in_process", *LARGER).code == 0
    assert set(Counter(study.measured()).values()) == {1}
    assert len(study.measured()) == 60
