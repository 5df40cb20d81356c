"""Times of trials that ran when the machine was slow or fast are brought to one pace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from objectives.measuring.stored_facts import facts_of
from search.records.trial import TrialRecord
from search.study.timescale import on_time_scale, time_scale_of


def trial(number: int, speedup: float, pace: float, **more: Any) -> TrialRecord:
    """A run of 8 tokens that takes 1 s on a calm baseline, on a machine ``pace`` times as slow."""
    latency = pace / speedup
    metrics = {
        "speedup": speedup, "throughput": 8 * speedup, "latency.p50": latency, "ttft": latency / 4,
        "decode_throughput": 10 / latency, "reference_latency": pace, "peak_memory": 7.0, "drift": pace,
    }  # fmt: skip
    facts = {"reference": "baseline" if number else "itself"}
    return replace(TrialRecord(number, f"u{number}", {}, "complete", metrics, facts=facts_of(facts)), **more)


def scaled(records: list[TrialRecord]) -> list[TrialRecord]:
    return on_time_scale(records, time_scale_of(records))


def test_a_slow_minute_does_not_make_a_candidate_slow() -> None:
    calm, slow, base = trial(1, 2.0, 1.0), trial(2, 2.0, 3.0), trial(0, 1.0, 1.0, is_baseline=True)
    one, two = scaled([base, calm, slow])[1:]
    for name in ("throughput", "latency.p50", "ttft", "decode_throughput"):
        assert one.metrics[name] == pytest.approx(two.metrics[name]), name
    assert one.metrics == pytest.approx(dict(calm.metrics))
    assert two.metrics["drift"] == 3.0
    assert two.metrics["peak_memory"] == 7.0


def test_a_baseline_that_was_measured_in_a_bad_moment_does_not_set_the_scale() -> None:
    base = trial(0, 1.0, 5.0, is_baseline=True)
    base = replace(base, metrics={**base.metrics, "throughput": 8 / 5})
    found = scaled([base, trial(1, 2.0, 1.0), trial(2, 4.0, 1.0)])
    assert [record.metrics["throughput"] for record in found] == pytest.approx([8.0, 16.0, 32.0])
    assert found[0].metrics["latency.p50"] == pytest.approx(1.0)


def test_throughput_and_latency_agree_on_one_scale() -> None:
    found = scaled([trial(0, 1.0, 1.0, is_baseline=True), trial(1, 2.0, 1.3), trial(2, 3.0, 0.8)])
    for record in found:
        assert record.metrics["throughput"] == pytest.approx(8 / record.metrics["latency.p50"])


def test_what_was_timed_beside_a_sentinel_keeps_its_times_and_gets_the_scale_of_throughput() -> None:
    base = trial(0, 1.0, 5.0, is_baseline=True)
    base = replace(base, metrics={**base.metrics, "throughput": 8 / 5})
    other = trial(1, 2.0, 9.0, facts=facts_of({"reference": "sentinel"}))
    failed = TrialRecord(4, "u4", {}, "failed", reason="timeout")
    found = scaled([base, other, trial(2, 1.0, 1.0), trial(3, 1.0, 1.0), failed])
    assert found[1].metrics == {**other.metrics, "throughput": 16.0}
    assert found[4] is failed


def test_repeats_of_a_cell_have_no_vote_on_the_pace() -> None:
    records = [trial(0, 1.0, 1.0, is_baseline=True), trial(1, 2.0, 3.0)]
    records += [trial(number, 2.0, 3.0, cached_from=1) for number in range(2, 9)]
    assert scaled(records)[0].metrics["latency.p50"] == pytest.approx(1.5)


def test_shared_rounds_have_no_vote_where_trials_were_timed_by_themselves() -> None:
    trials = [trial(0, 1.0, 1.0, is_baseline=True), *(trial(number, 2.0, 1.0) for number in range(1, 9))]
    shared = [trials[0], *(trial(number, 2.0, 3.0) for number in range(1, 9))]
    found = on_time_scale(shared, time_scale_of(trials))
    assert found[0].metrics["latency.p50"] == pytest.approx(1.0)
    assert [record.metrics["throughput"] for record in found[1:]] == pytest.approx([16.0] * 8)
