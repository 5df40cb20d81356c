"""What was asked of a trial follows from the names of its metrics, whatever tasks and metrics are called."""

from __future__ import annotations

import pytest

from search.front.asked import Band, bands_of
from search.front.feasibility import is_feasible, verdict_of, with_scores_of_recipe
from search.records.trial import TrialRecord

TOXIC = {"toxicity": 0.5, "toxicity.least": 0.0, "toxicity.most": 0.1}


def trial(number: int, batch: int, **metrics: float) -> TrialRecord:
    return TrialRecord(number, f"u{number}", {"bits": 4, "workload.batch_size": batch}, "complete", metrics)


def test_a_trial_that_takes_a_score_over_takes_every_band_over() -> None:
    scored, bare = trial(1, 1, accuracy=0.9, perplexity=3.0, **TOXIC), trial(2, 8, speedup=2.0)
    taken = with_scores_of_recipe([scored, bare])[1]
    assert bands_of(taken.metrics) == bands_of(scored.metrics) == [Band("toxicity", 0.5, 0.0, 0.1)]
    assert not is_feasible(taken, 0.8)
    assert verdict_of(taken, 0.8) == verdict_of(scored, 0.8)
    assert "perplexity" not in taken.metrics


def test_a_band_of_one_of_several_tasks_is_taken_over() -> None:
    names = {f"{name}.news": value for name, value in TOXIC.items()}
    scored = trial(1, 1, **{"accuracy.news": 0.9, "accuracy": 0.9, "floor.news": 0.1, **names})
    taken = with_scores_of_recipe([scored, trial(2, 8)])[1]
    assert [band.metric for band in bands_of(taken.metrics)] == ["toxicity.news"]


@pytest.mark.parametrize("task", ["least_squares", "leastwise", "most_used"])
def test_a_task_may_have_a_name_that_begins_like_an_end(task: str) -> None:
    metrics = {f"accuracy.{task}": 0.9, f"floor.{task}": 0.5, f"length_ratio.{task}": 1.0}
    ends = {f"length_ratio.least.{task}": 0.9, f"length_ratio.most.{task}": 1.1}
    assert bands_of(metrics) == []
    assert bands_of({**metrics, **ends}) == [Band(f"length_ratio.{task}", 1.0, 0.9, 1.1)]


def test_a_band_of_a_domain_keeps_the_names_of_domain_and_task() -> None:
    metrics = {"length_ratio.de": 1.2, "length_ratio.de.least": 0.9, "length_ratio.de.most": 1.1}
    assert bands_of(metrics) == [Band("length_ratio.de", 1.2, 0.9, 1.1)]
    of_task = {f"{name}.news": value for name, value in metrics.items()}
    assert bands_of(of_task) == [Band("length_ratio.de.news", 1.2, 0.9, 1.1)]


@pytest.mark.parametrize(
    ("least", "most", "value", "excess"),
    [
        (0.9, 1.1, 0.45, 0.5),
        (0.9, 1.1, 1.32, 0.2),
        (0.0, 1.1, 1.32, 0.2),
        (0.0, 1.1, -0.55, 0.5),
        (-2.0, 0.0, 1.0, 0.5),
        (-2.0, -1.0, -3.0, 0.5),
        (0.0, 0.0, 0.25, 0.25),
    ],
)
def test_the_excess_is_relative_to_the_end_that_is_passed(
    least: float, most: float, value: float, excess: float
) -> None:
    assert Band("m", value, least, most).excess == pytest.approx(excess)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.1])
def test_a_value_within_the_band_has_no_excess(value: float) -> None:
    assert Band("m", value, 0.0, 1.1).excess <= 0.0
