"""The headline compares like with like, holds its intervals, and its words are true of the study at hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import compared_with_own, dense_gains, gains, noted, own_gains
from objectives.measuring.stored_facts import facts_of
from objectives.types import Speed
from search.front.front import cut
from search.front.table import frame
from search.front.tradeoff import WeightedLogRatio
from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.reporting.files import write_report
from search.reporting.headline import Gain, Limit, headline_of, numbers
from search.reporting.sentences import gain_text, result
from search.reporting.study_info import StudyInfo
from search.reporting.tables import rows_of

OBJECTIVES = ("throughput", "peak_memory")
FLOOR = 0.45


def metrics(value: float, error: float, memory: float, accuracy: float = 0.5, **more: float) -> dict[str, float]:
    speed = noted("speedup", Estimate(value, value * (1 - error), value * (1 + error)))
    return {
        **speed, "throughput": 100 * value, "peak_memory": memory, "weight_bytes": 0.9 * memory, "accuracy": accuracy,
        "accuracy_stderr": 0.01, **more,
    }  # fmt: skip


def record(number: int, batch: int, found: dict[str, float], **more: Any) -> TrialRecord:
    params = {"pruning.ratio": 0.05, "quantization.bits": 4, "workload.batch_size": batch}
    return replace(TrialRecord(number, f"u{number}", params, "complete", found), **more)


def baseline(**more: float) -> TrialRecord:
    params = {"pruning.ratio": 0.0, "quantization.bits": 16, "workload.batch_size": 1}
    found = metrics(1.0, 0.0, 400, 0.51, **{"latency.p50": 1.0, "latency.p95": 1.1})
    return TrialRecord(0, "u0", params, "complete", {**found, **dense_gains(found), **more}, is_baseline=True)


def batched(gain: float, error: float = 0.02, dense_error: float = 0.02, **more: float) -> dict[str, float]:
    """At batch 8, where dense 16 bits have 2.7x: ``gain`` of that."""
    own, dense = metrics(2.7 * gain, error, 200, **more), metrics(2.7, dense_error, 320)
    return {**own, **gains(own, dense), "latency_ratio": 8 / own["speedup"]}


def told(
    *records: TrialRecord, objectives: tuple[str, ...] = OBJECTIVES, floor: float = FLOOR, **more: Any
) -> list[str]:
    """The result of a study in words."""
    info, front = study(*records, objectives=objectives, floor=floor, **more)
    return result(info, rows_of(frame(records, front)), front, ())


def study(
    *records: TrialRecord, objectives: Any = OBJECTIVES, floor: float = FLOOR, **more: Any
) -> tuple[StudyInfo, Any]:
    front = cut(records, objectives, floor, more.pop("tradeoff", WeightedLogRatio()))
    info = StudyInfo(
        name="s", title="t", objectives=objectives, floor=floor, epsilon=0.9, relative=True, baseline=0, model="m",
        task="toy", device="cpu", stop_reason=StopReason.BUDGET, n_trials=9, gains=headline_of(records, front), **more,
    )  # fmt: skip
    return info, front


# ---- figures and ranges


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        (Gain(1.92, 1.85, 1.99), "1.92× ±3.6 %"),
        (Gain(1.0, 0.9, 1.1), "0.90× to 1.10×"),  # it may be none
        (Gain(1.27, 0.95, 1.61), "0.95× to 1.61×"),
        (Gain(3.8, 1.7, 5.9), "1.70× to 5.90×"),  # no figure at 55 %
        (Gain(3.8, 0.0, 7.6), "at most 7.60×"),
        (Gain(1.2, 1.0, 1.4), "1.00× to 1.40×"),
        (Gain(1.25, 1.001, 1.499), "1.25× ±20 %"),
        (Gain(0.0042, 0.004, 0.0044), "0.00420× ±4.8 %"),
        (Gain(123.4, 120.0, 126.8), "123.4× ±2.8 %"),
        (Gain(1.0, 1.0, 1.0), "1.00×"),
    ],
)
def test_a_wide_gain_or_one_that_may_be_none_is_a_range(gain: Gain, text: str) -> None:
    assert gain_text(gain) == text


def test_compression_and_batch_size_are_told_apart_with_their_intervals() -> None:
    lines = told(baseline(), record(1, 8, batched(1.9)))
    assert lines == [
        "Recommended: trial 1, 5 % pruned, 4 bit, batch 8.",
        "Compression: 1.90× ±2.8 % the speed of the dense model at batch 8, 0.62× its peak memory.",
        "Batch size: with the dense model, batch 8 instead of 1 gives 2.70× ±2 % the speed. A request takes "
        "1.56× ±2 % as long as the baseline's.",
        "Together: 5.13× ±2 % the speed of the baseline, 0.50× its peak memory.",
        "Accuracy: 0.5000 ≥ floor 0.4500.",
    ]


def test_at_the_baselines_batch_size_compression_is_all_there_is() -> None:
    own = metrics(1.9, 0.02, 200)
    lines = told(baseline(), record(1, 1, {**own, **gains(own, baseline().metrics), "latency_ratio": 1 / 1.9}))
    assert lines[1] == "Compression: 1.90× ±2 % the speed of the dense model at batch 1, 0.50× its peak memory."
    assert not [line for line in lines if line.startswith(("Batch", "Together", "A request"))]


@pytest.mark.parametrize(
    ("gain", "error", "words"),
    [
        (1.9, 0.02, "1.90× ±2.8 % the speed"),
        (1.01, 0.02, "the speed does not differ measurably from that of the dense model at batch 8 (0.98× to 1.04×)"),
        (0.67, 0.02, "at batch 8, 0.62× its peak memory: slower than the dense model at batch 8"),
        (1.9, 0.5, "between 0.95× and 2.85× the speed"),
        (1.9, 1.0, "at most 3.80× the speed"),
    ],
)
def test_the_words_for_compression_follow_the_interval(gain: float, error: float, words: str) -> None:
    line = told(baseline(), record(1, 8, batched(gain, error)))[1]
    assert words in line
    assert ("slower" in line) == (gain < 0.9)


@pytest.mark.parametrize(
    ("found", "facts", "reasons"),
    [
        ({"contended": 1.0}, {}, ["the machine was busy"]),
        ({"dense_contended": 1.0}, {}, ["the machine was busy"]),
        ({}, {"stopped": "seconds"}, ["the timing reached timing.max_seconds"]),
        ({"contended": 1.0}, {"stopped": "rounds"}, ["the machine was busy", "the timing reached timing.max_rounds"]),
        ({}, {"stopped": "precision"}, []),
    ],
)
@pytest.mark.parametrize("error", [0.02, 0.5])
def test_a_range_says_once_why_it_is_one(found: dict[str, float], facts: Any, reasons: list[str], error: float) -> None:
    lines = told(baseline(), record(1, 8, {**batched(1.9, error), **found}, facts=facts_of(facts)))
    why = [line for line in lines if line.startswith("The speed is given as a range")]
    assert len(why) == (1 if reasons and error > 0.2 else 0)
    assert all(reason in why[0] for reason in reasons if why)


def test_a_dense_model_that_was_not_measured_is_said() -> None:
    own = {**metrics(5.0, 0.02, 200), "latency_ratio": 1.6}
    lines = told(baseline(), record(1, 8, own, facts=facts_of({"reference": "sentinel"})))
    assert "because the dense model at batch 8 was not timed: memory cannot hold both models" in lines[1]
    assert lines[2].startswith(
        "Batch size: the gain of batch 8 instead of 1 was not measured by itself. A request takes 1.60×"
    )
    assert lines[3].startswith("Together: 5.00× ±2 %")


def test_what_is_only_simulated_has_neither_speed_nor_memory() -> None:
    found = {"accuracy": 0.5, "accuracy_stderr": 0.01, "sparsity": 0.5, "perplexity": 9.0}
    start = replace(baseline(), metrics={**baseline().metrics, "perplexity": 10.0})
    lines = told(start, record(1, 1, found), objectives=("perplexity",), tradeoff=lambda m, _b: m["perplexity"])
    assert "Neither speed nor memory was measured" in lines[1]


def test_a_runtime_is_told_apart_from_compression_and_batch_size() -> None:
    """6x of recorded passes at batch 8, where batches alone give 2x, and compression 1.5x in them."""
    found = {**metrics(9.0, 0.01, 200), **gains(metrics(9.0, 0.01, 200), metrics(2.0, 0.01, 320))}
    own = metrics(6.0, 0.01, 320)
    found |= {**own_gains(found, own), **compared_with_own(found, own), "latency_ratio": 8 / 9}
    lines = told(baseline(), record(1, 8, found))
    assert lines[1].startswith("Compression: 1.50× ±1.4 % the speed of the same runtime's dense model at batch 8")
    assert lines[2].startswith("Runtime: 3.00× ±1.4 % the speed of torch")
    assert lines[3].startswith("Batch size: with the dense model, batch 8 instead of 1 gives 2.00× ±1 %")
    assert lines[4].startswith("Together: 9.00× ±1 %")


# ---- who is recommended


def test_the_baseline_itself_claims_no_gain() -> None:
    for others in ((), (record(1, 1, metrics(0.5, 0.01, 800)),)):
        assert told(baseline(), *others) == [
            "Recommended: the baseline as it is, unpruned, 16 bit, batch 1: nothing measured keeps the floor and is "
            "better in an objective.",
            "Accuracy: 0.5100 ≥ floor 0.4500.",
        ]


def test_a_smaller_and_slower_model_leaves_the_baseline_recommended() -> None:
    own = metrics(0.67, 0.02, 100)
    lines = told(baseline(), record(1, 1, {**own, **gains(own, baseline().metrics)}))
    assert lines[0].startswith("Recommended: the baseline as it is")
    assert "the compressed candidates are slower than the dense model at the same batch size" in lines[0]
    assert "slower than the dense model at its own batch size (0.67× its speed)" in lines[-1]
    assert len(lines) == 3


def test_who_was_passed_over_is_named_with_the_way_to_take_it() -> None:
    dense = metrics(2.7, 0.02, 390)
    of_dense = record(1, 8, {**dense, **dense_gains(dense), "latency_ratio": 8 / 2.7}, facts=facts_of({}))
    lines = told(baseline(), of_dense, record(2, 8, batched(0.67)))
    assert lines[0].startswith("Recommended: trial 1")
    assert lines[1] == "Compression: none, this is the dense model at batch 8."
    assert lines[-1].startswith("Passed over: trial 2 (5 % · 4 bit · b8), slower than the dense model")
    assert "A trade-off that weighs memory more than speed would recommend it" in lines[-1]


@pytest.mark.parametrize("weights", [{"throughput": 0.5, "peak_memory": 0.5}, {"peak_memory": 1.0}])
def test_where_all_are_slower_it_is_said_unless_memory_was_asked_for(weights: dict[str, float]) -> None:
    start = replace(baseline(), metrics={**baseline().metrics, "accuracy": 0.2})  # the floor lies above it
    lines = told(start, record(1, 8, batched(0.67)), tradeoff=WeightedLogRatio(weights=weights))
    said = [line for line in lines if line.startswith("Every member of the front is slower")]
    assert len(said) == (1 if "throughput" in weights else 0)


def test_an_interrupted_study_recommends_so_far() -> None:
    info, front = study(baseline(), record(1, 8, batched(1.9)))
    records = (baseline(), record(1, 8, batched(1.9)))
    words = result(replace(info, stop_reason=StopReason.INTERRUPTED), rows_of(frame(records, front)), front, ())
    assert words[0].startswith("Recommended so far: trial 1")


def test_objectives_beside_speed_and_memory_stand_beside_the_baselines() -> None:
    found = {**batched(1.9), "latency.p95": 0.55}
    assert "Latency p95 550 ms (0.50× the baseline's)." in told(
        baseline(), record(1, 8, found), objectives=("latency.p95",)
    )
    alone = told(baseline(), record(1, 8, {**found, "latency.p95": 1.65}), objectives=("latency.p95",))
    assert "Latency p95 1.10 s." in alone  # the baseline's own


# ---- accuracy


def difference(value: float, low: float, high: float) -> dict[str, float]:
    name = "accuracy_difference"
    return {name: value, f"{name}.low": low, f"{name}.high": high}


RACED = {"verdict": "reached", "verdict_by": "betting"}
OPEN = {"verdict": "open", "verdict_by": "betting"}


@pytest.mark.parametrize(
    ("found", "facts", "words"),
    [
        ({}, {}, "0.5000 ≥ floor 0.4500."),
        ({"examples": 64.0}, RACED, "about 0.5000 on 64 examples; the floor 0.4500 is kept."),
        ({"examples": 64.0, "accuracy": 0.44}, RACED, "about 0.4400 on 64 examples; the floor 0.4500 is kept."),
        ({"accuracy": 0.4501}, OPEN, "about 0.4501; the floor 0.4500 may be kept or missed."),
        (difference(-0.01, -0.02, 0.001), {}, "; no measurable difference from the baseline's."),
        (difference(-0.01, -0.015, -0.005), {}, "; 0.0100 below the baseline's (95 % interval 0.0050 to 0.0150)."),
        (difference(0.01, 0.005, 0.015), {}, "; 0.0100 above the baseline's (95 % interval 0.0050 to 0.0150)."),
        (difference(0.0, 0.0, 0.0), {}, "; equal to the baseline's."),
    ],
)
def test_accuracy_is_told_as_far_as_it_is_known(found: dict[str, float], facts: Any, words: str) -> None:
    own = record(1, 8, {**batched(1.9), "floor": FLOOR, **found}, facts=facts_of(facts))
    (line,) = [line for line in told(baseline(), own) if line.startswith("Accuracy")]
    assert words in line


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, ()),
        ({"accuracy_replicates": 0.0}, ("The task gives no replicates, so no interval says how far chance moves it.",)),
        (
            {"accuracy_replicates": 1000.0, **difference(-0.01, -0.015, -0.005)},
            ("Its standard error is 0.0100, from 1000 resamples of the examples.",),
        ),
    ],
)
def test_a_metric_of_the_corpus_is_told_with_how_sure_it_is(found: dict[str, float], words: tuple[str, ...]) -> None:
    lines = told(baseline(), record(1, 8, {**batched(1.9), "floor": FLOOR, **found}))
    before = "The accuracy is a metric of all examples together, not their mean, so it was always scored in full. "
    assert [line for line in lines if line.startswith("The accuracy")] == [before + each for each in words]
    assert any(line.startswith("Accuracy: 0.5000 ≥ floor 0.4500") for line in lines)


@pytest.mark.parametrize(
    ("accuracy", "verdict", "words"),
    [
        (0.3, {}, "with accuracy 0.3000, 0.1500 below."),
        (0.44999, {}, "with accuracy 0.4500, less than 0.0001 below."),
        (
            0.46,
            {"verdict": "missed", "verdict_by": "betting"},
            "which reaches the floor by its estimate, but misses it in the comparison example by example.",
        ),
    ],
)
def test_the_nearest_miss_is_never_zero_below(accuracy: float, verdict: Any, words: str) -> None:
    start = replace(baseline(), metrics={**baseline().metrics, "accuracy": 0.2})
    (line,) = told(start, record(1, 8, {**batched(1.9), "accuracy": accuracy, "floor": FLOOR}, facts=facts_of(verdict)))
    assert words in line


# ---- typed, for programs


def test_json_and_metrics_hold_the_same_gains_as_types(tmp_path: Path) -> None:
    records = (baseline(), record(1, 8, batched(1.9), facts=facts_of({"stopped": "seconds"})))
    info, front = study(*records)
    write_report(tmp_path, info, records, front)
    found = json.loads((tmp_path / "pareto.json").read_text())["headline"]
    assert found["compression"]["value"] == pytest.approx(1.9)
    assert found["compression"]["low"] < 1.9 < found["compression"]["high"]
    assert (found["compression"]["limits"], found["speed"], found["batch_size"]) == (["seconds"], "faster", 8)
    assert found["latency"]["value"] == pytest.approx(8 / 5.13)
    assert info.gains is not None
    metrics = numbers(info.gains)
    assert metrics["headline.batching.high"] == pytest.approx(2.7 * 1.02)
    assert metrics["headline.together"] == pytest.approx(5.13)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "1.90× ±2.8 % the speed of the dense model at batch 8" in text


def test_records_of_older_studies_have_a_headline_too() -> None:
    old = {
        "speedup": 5.13, "speedup.error": 0.02, "compression_speedup": 1.9, "compression_speedup.error": 0.04,
        "throughput": 513.0, "peak_memory": 200.0, "accuracy": 0.5, "accuracy_stderr": 0.01, "latency.p50": 1.56,
    }  # fmt: skip
    records = (baseline(), record(1, 8, old))
    info, _ = study(*records)
    found = info.gains
    assert found is not None
    assert found.compression == Gain(1.9, pytest.approx(1.824), pytest.approx(1.976))
    assert found.batching is not None
    assert (found.batching.value, found.batching.error) == (pytest.approx(2.7), pytest.approx(0.02))
    assert found.latency == Gain(1.56, 0.0, math.inf)
    assert found.speed is Speed.FASTER
    assert Limit.BUSY not in found.compression.limits
