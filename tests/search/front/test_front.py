from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import noted
from objectives.types import Speed
from search.front.front import by_floor, cut
from search.front.table import frame
from search.front.tradeoff import Chebyshev, Expression, WeightedLogRatio
from search.records.trial import TrialRecord

OBJECTIVES = ("throughput", "peak_memory")


def trial(number: int, speed: float, memory: float, accuracy: float = 0.5, **more: object) -> TrialRecord:
    metrics = {"throughput": speed, "peak_memory": memory, "accuracy": accuracy}
    params = {"pruning.ratio": number / 10, "quantization.bits": 8, "workload.batch_size": 4}
    made = TrialRecord(number, f"u{number}", params, "complete", metrics)
    return replace(made, **more)  # type: ignore[arg-type]


def failed(number: int, reason: str = "out_of_memory") -> TrialRecord:
    params = {"pruning.ratio": 0.3, "quantization.bits": 4, "workload.batch_size": 64}
    return TrialRecord(number, f"u{number}", params, "failed", reason=reason, message="no room")


BASELINE = trial(0, 100, 400, is_baseline=True)


def test_the_front_is_cut_among_the_feasible_and_sorted_best_first() -> None:
    records = [
        BASELINE,
        trial(1, 120, 200),
        trial(2, 300, 390),
        trial(3, 90, 450),
        trial(4, 900, 10, accuracy=0.4),
    ]
    front = cut(records, OBJECTIVES, 0.45, WeightedLogRatio())
    assert front.front == (2, 1)
    assert front.feasible == {0, 1, 2, 3}
    assert front.recommended == 2
    assert front.nearest_miss is None
    assert front.gap is None


def test_a_trial_exactly_at_the_floor_is_feasible() -> None:
    assert cut([BASELINE], OBJECTIVES, 0.5, WeightedLogRatio()).front == (0,)


def test_equal_points_are_both_on_the_front_and_the_first_is_recommended() -> None:
    front = cut([BASELINE, trial(2, 200, 200), trial(1, 200, 200)], OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.front == (1, 2)
    assert front.recommended == 1


def test_a_repeat_is_feasible_but_only_the_measured_trial_is_on_the_front() -> None:
    repeat = trial(2, 200, 200, cached_from=1)
    front = cut([BASELINE, trial(1, 200, 200), repeat], OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.front == (1,)
    assert 2 in front.feasible


@pytest.mark.parametrize("accuracy", [None, math.nan, math.inf])
def test_without_a_finite_accuracy_nothing_is_feasible(accuracy: float | None) -> None:
    odd = trial(1, 200, 200)
    metrics = {name: value for name, value in odd.metrics.items() if name != "accuracy"}
    if accuracy is not None:
        metrics["accuracy"] = accuracy
    front = cut([BASELINE, replace(odd, metrics=metrics)], OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.feasible == {0}


def test_a_trial_that_misses_an_objective_is_not_on_the_front() -> None:
    partial = replace(trial(1, 200, 200), metrics={"throughput": 200.0, "accuracy": 0.5})
    front = cut([BASELINE, partial, failed(2)], OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.front == (0,)
    assert 1 not in front.feasible


def test_when_nothing_is_feasible_the_nearest_miss_is_named() -> None:
    records = [BASELINE, trial(1, 200, 200, accuracy=0.7), trial(2, 300, 100, accuracy=0.7), failed(3)]
    front = cut(records, OBJECTIVES, 0.9, WeightedLogRatio())
    assert front.front == ()
    assert front.recommended is None
    assert front.knee is None
    assert front.hypervolume == 0.0
    assert front.nearest_miss == 1
    assert front.gap == pytest.approx(0.2)


def test_no_trials_and_only_failed_trials_give_an_empty_front() -> None:
    for records in ([], [failed(0), failed(1)]):
        front = cut(records, OBJECTIVES, 0.5, WeightedLogRatio())
        assert front.front == ()
        assert front.nearest_miss is None


def test_the_hypervolume_is_read_in_units_of_the_baseline() -> None:
    # Reference: the baseline made 10 % worse, (-0.9, 1.1); the point lies at (-2, 0.5).
    front = cut([BASELINE, trial(1, 200, 200)], OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.hypervolume == pytest.approx(1.1 * 0.6)


def test_a_trial_without_the_tradeoffs_metric_is_not_recommended() -> None:
    with_ttft = replace(BASELINE, metrics={**BASELINE.metrics, "ttft": 0.1})
    front = cut([with_ttft, trial(1, 200, 200)], OBJECTIVES, 0.1, Expression(expression="ttft"))
    assert front.front == (1,)
    assert front.recommended is None
    with pytest.raises(ValueError, match="the trade-off needs 'ttft'"):
        cut([BASELINE, with_ttft], OBJECTIVES, 0.1, Expression(expression="ttft"))


def test_without_a_baseline_there_is_a_front_and_no_recommendation() -> None:
    front = cut([trial(1, 200, 200)], OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.front == (1,)
    assert front.recommended is None


def test_unknown_objectives_and_floors_are_refused() -> None:
    with pytest.raises(ValueError, match="speeed"):
        cut([BASELINE], ("speeed",), 0.1, WeightedLogRatio())
    with pytest.raises(ValueError, match="floor"):
        cut([BASELINE], OBJECTIVES, math.nan, WeightedLogRatio())


def test_the_frame_has_the_promised_columns_first() -> None:
    records = [BASELINE, trial(1, 200, 200), failed(2)]
    table = frame(records, cut(records, OBJECTIVES, 0.1, WeightedLogRatio()))
    assert list(table.columns[:20]) == [
        "trial", "state", "reason", "pruning_ratio", "bits", "batch_size",
        "throughput", "latency_p50", "latency_p95", "ttft", "tpot", "peak_memory",
        "weight_bytes", "accuracy", "accuracy_stderr", "feasible", "on_front", "recommended",
        "speedup", "memory_ratio",
    ]  # fmt: skip
    assert table.speedup.tolist()[:2] == [1.0, 2.0]
    assert table.memory_ratio.tolist()[:2] == [1.0, 0.5]
    assert table.pruning_ratio[2] == 0.3
    assert table.on_front.tolist() == [False, True, False]


def test_measured_gains_and_realised_ratio_win_over_computed_ones() -> None:
    measured = trial(1, 200, 200)
    measured = replace(measured, metrics={**measured.metrics, "speedup": 1.9, "pruning_ratio": 0.09})
    records = [BASELINE, measured]
    row = frame(records, cut(records, OBJECTIVES, 0.1, WeightedLogRatio())).iloc[1]
    assert row.speedup == 1.9
    assert row.pruning_ratio == 0.09
    assert row.nominal_pruning_ratio == 0.1


def test_fixed_variables_fill_their_columns_and_further_ones_get_their_own() -> None:
    searched = replace(trial(1, 200, 200), params={"quantization.bits": 4, "runtime.name": "ort", "trial": 9})
    front = cut([searched], OBJECTIVES, 0.1, WeightedLogRatio())
    row = frame([searched], front, {"workload.batch_size": 16, "quantization.bits": 16, "pruning.ratio": 0.0}).iloc[0]
    assert (row.bits, row.batch_size, row.pruning_ratio) == (4, 16, 0.0)
    assert row.runtime_name == "ort"
    assert (row.trial, row.param_trial) == (1, 9)


# ---- slower than the dense model at its own batch size


def compared(number: int, speed: float, memory: float, gain: float, error: float = 0.05, **more: Any) -> TrialRecord:
    made = trial(number, speed, memory, **more)
    metrics = {**made.metrics, **noted("compression_speedup", Estimate(gain, gain * (1 - error), gain * (1 + error)))}
    return replace(made, metrics=metrics)


BATCHED = [
    BASELINE,
    compared(1, 570, 395, 1.0, error=0.0),  # the dense model at a larger batch
    compared(2, 380, 100, 0.67),  # smaller, and slower than that
]
WEIGHTS = {"throughput": 0.5, "peak_memory": 0.5}


@pytest.mark.parametrize(
    ("tradeoff", "recommended"),
    [
        (WeightedLogRatio(), 1),
        (Chebyshev(), 1),
        (WeightedLogRatio(weights={"throughput": 0.4, "peak_memory": 0.6}), 2),
        (WeightedLogRatio(weights={"throughput": 0.6, "peak_memory": 0.4}), 1),
        (WeightedLogRatio(weights={"peak_memory": 1.0}), 2),
        (Expression(expression="peak_memory / throughput"), 2),
        (lambda metrics, _baseline: metrics["peak_memory"], 2),  # somebody's own
    ],
)
def test_a_slower_candidate_is_recommended_only_where_memory_is_asked_for(tradeoff: Any, recommended: int) -> None:
    front = cut(BATCHED, OBJECTIVES, 0.1, tradeoff)
    assert front.front == (1, 2)
    assert front.recommended == recommended
    assert front.passed_over == ((2,) if recommended == 1 and front.tradeoffs[2] < front.tradeoffs[1] else ())
    assert front.speeds == {1: Speed.EQUAL, 2: Speed.SLOWER}


def test_objectives_without_a_speed_ask_for_memory() -> None:
    records = [BASELINE, compared(1, 570, 395, 1.0, accuracy=0.6), compared(2, 380, 100, 0.67)]
    assert cut(records, ("peak_memory", "accuracy"), 0.1, WeightedLogRatio()).recommended == 2


def test_where_all_are_slower_the_best_of_them_is_recommended_and_the_front_says_so() -> None:
    records = [BASELINE, compared(1, 570, 395, 0.9), compared(2, 380, 100, 0.67)]
    front = cut(records, OBJECTIVES, 0.1, WeightedLogRatio())
    assert (front.recommended, front.passed_over) == (2, ())
    assert front.speeds[2] is Speed.SLOWER


@pytest.mark.parametrize("gain", [0.67, 0.96, 1.3])
@pytest.mark.parametrize("error", [0.02, 0.05, 0.5])
def test_the_interval_decides_who_is_slower(gain: float, error: float) -> None:
    records = [BASELINE, compared(1, 570, 395, 1.0), compared(2, 380, 100, gain, error)]
    front = cut(records, OBJECTIVES, 0.1, WeightedLogRatio())
    assert front.recommended == (1 if gain * (1 + error) < 1 else 2)


def test_what_was_never_compared_is_not_called_slower() -> None:
    assert cut([BASELINE, trial(1, 50, 100)], OBJECTIVES, 0.1, WeightedLogRatio()).speeds == {}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weights", [WEIGHTS, {"peak_memory": 1.0}])
def test_steps_by_floor_are_what_cutting_at_that_floor_finds(seed: int, weights: dict[str, float]) -> None:
    """The page's slider reads these: ties, slower members, repeats and failures included."""
    rng = random.Random(seed)
    records = [BASELINE, failed(90), trial(91, 999, 1, accuracy=0.9, cached_from=3)]
    for number in range(1, 30):
        made = compared(number, rng.choice([90, 150, 200, 300]), rng.choice([100, 200, 390]), rng.choice([0.6, 1.2]))
        made = replace(made, metrics={**made.metrics, "accuracy": rng.choice([0.3, 0.4, 0.45, 0.5, 0.52])})
        records.append(made)
    tradeoff = WeightedLogRatio(weights=weights)
    steps = by_floor(records, cut(records, OBJECTIVES, 0.45, tradeoff))
    for floor in (0.0, 0.3, 0.35, 0.4, 0.45, 0.47, 0.5, 0.51, 0.52, 0.521, 1.0):
        expected = cut(records[:2] + records[3:], OBJECTIVES, floor, tradeoff)
        step = next((step for step in steps if floor <= step.floor), None)
        assert (step.front if step else ()) == expected.front
        assert (step.recommended if step else None) == expected.recommended
