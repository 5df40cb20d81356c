"""What was gained over the dense model is a type, whoever stored it and whenever it was timed."""

from __future__ import annotations

import pytest

from objectives.measuring.estimate import Estimate
from objectives.measuring.gains import (
    batching_speedup,
    compared_with_own,
    dense_gains,
    dense_speedup,
    gains,
    noted,
    own_gains,
    ratio_of,
    regained,
    speed_of,
)
from objectives.measuring.stored_facts import facts_of, texts_of
from objectives.types import Facts, GainFacts, Size, Speed
from search.front.realised_gain import judged_anew, not_realised, realised, speed_gain
from search.records.trial import TrialRecord

BYTES = {"peak_memory": 50.0, "weight_bytes": 40.0}


def ran(value: float, low: float, high: float, **more: float) -> dict[str, float]:
    return {**noted("speedup", Estimate(value, low, high)), **BYTES, **more}


@pytest.mark.parametrize(
    ("low", "value", "high", "speed"),
    [
        (1.01, 1.27, 1.6, Speed.FASTER), (1.0, 1.27, 1.6, Speed.EQUAL), (0.95, 1.27, 1.61, Speed.EQUAL),
        (0.5, 0.8, 1.0, Speed.EQUAL), (0.5, 0.8, 0.99, Speed.SLOWER), (1.0, 1.0, 1.0, Speed.EQUAL),
    ],
)  # fmt: skip
def test_the_interval_says_whether_it_is_faster(low: float, value: float, high: float, speed: Speed) -> None:
    assert speed_of(noted("compression_speedup", Estimate(value, low, high))) is speed


@pytest.mark.parametrize(
    ("metrics", "speed"),
    [
        ({}, None),
        ({"compression_speedup": 3.0}, Speed.EQUAL),  # without any interval nothing is known
        ({"compression_speedup": 1.27, "compression_speedup.error": 0.3}, Speed.EQUAL),
        ({"compression_speedup": 1.27, "compression_speedup.error": 0.2}, Speed.FASTER),
        ({"compression_speedup": 0.8, "compression_speedup.error": 0.2}, Speed.SLOWER),
    ],
)
def test_older_records_hold_half_an_interval(metrics: dict[str, float], speed: Speed | None) -> None:
    assert speed_of(metrics) is speed


OLD = "no faster than dense (1.27x): dequantised path, 9 rows; no smaller than dense (1.00x): its weights take as much"


@pytest.mark.parametrize(
    ("facts", "metrics", "found"),
    [
        (
            {"realised_gain": "none", "no_realised_gain": OLD},
            {"compression_speedup": 1.27, "compression_speedup.error": 0.5, "compression_memory_ratio": 1.0},
            {
                "speed_gain": "equal", "speed_reason": "dequantised path, 9 rows",
                "memory_gain": "equal", "memory_reason": "its weights take as much",
            },
        ),
        (
            {"realised_gain": "memory", "no_realised_gain": "no faster than dense (1.01x): within the noise of 3.0%"},
            {},
            {"speed_gain": "equal", "memory_gain": "smaller"},
        ),
        ({"realised_gain": "speed, memory"}, {}, {"speed_gain": "faster", "memory_gain": "smaller"}),
        ({"speed_gain": "slower", "memory_gain": "larger"}, {}, {"speed_gain": "slower", "memory_gain": "larger"}),
        ({"stopped": "rounds", "reference": "itself", "clock": "cpu"}, {}, {}),
    ],
)  # fmt: skip
def test_sentences_of_older_studies_are_read_as_types(
    facts: dict[str, str], metrics: dict[str, float], found: dict[str, str]
) -> None:
    read = facts_of(facts, metrics)
    assert texts_of(read) == (found or facts)
    assert facts_of(texts_of(read), metrics) == read


def test_words_hold_the_interval_and_say_slower_only_of_what_is() -> None:
    facts = GainFacts(Speed.EQUAL, Size.SMALLER)
    metrics = noted("compression_speedup", Estimate(1.27, 0.95, 1.61))
    assert (
        not_realised(facts, metrics) == "no measurable difference in speed from the dense model (1.27x, 0.95x to 1.61x)"
    )
    facts = GainFacts(Speed.SLOWER, Size.LARGER, "launch-bound")
    metrics = {**noted("compression_speedup", Estimate(0.7, 0.6, 0.8)), "compression_memory_ratio": 1.1}
    assert (
        not_realised(facts, metrics)
        == "slower than the dense model (0.70x, 0.60x to 0.80x): launch-bound; larger than the dense model (1.10x)"
    )
    assert realised(GainFacts(Speed.FASTER, Size.SMALLER)) == "speed, memory"
    assert realised(GainFacts(Speed.EQUAL, Size.LARGER)) == "none"
    assert realised(None) is None


@pytest.mark.parametrize(
    ("later", "speed"),
    [((3.0, 2.9, 3.1), "faster"), ((2.0, 1.9, 2.1), "equal"), ((1.0, 0.9, 1.1), "slower")],
)
def test_a_later_timing_judges_anew(later: tuple[float, float, float], speed: str) -> None:
    before = {**ran(2.4, 2.3, 2.5), **gains(ran(2.4, 2.3, 2.5), ran(2.0, 1.95, 2.05))}
    now = {**before, **regained(before, Estimate(*later))}
    assert now["compression_speedup"] == pytest.approx(later[0] / 2)
    assert now["compression_speedup.low"] < later[0] / 2 < now["compression_speedup.high"]
    found = judged_anew(GainFacts(Speed.FASTER, Size.SMALLER), now)
    assert found is not None
    assert found.speed == speed
    assert judged_anew(None, now) is None
    record = TrialRecord(1, "u", {}, "complete", now, facts=Facts(gains=found))
    assert speed_gain(record) == speed


def test_a_runtime_keeps_its_own_reference_when_it_is_timed_again() -> None:
    """Recorded passes give 6x over the baseline, and compression 1.5x in them; batches alone give 2x."""
    metrics = {**ran(9.0, 8.9, 9.1), **gains(ran(9.0, 8.9, 9.1), ran(2.0, 1.9, 2.1))}
    own = ran(6.0, 5.9, 6.1)
    metrics |= {**own_gains(metrics, own), **compared_with_own(metrics, own)}
    now = {**metrics, **regained(metrics, Estimate(6.6, 6.5, 6.7))}
    assert now["compression_speedup"] == now["own_speedup"] == pytest.approx(1.1)
    batching = batching_speedup(now)
    assert batching is not None
    assert batching.value == 2.0


def test_older_records_tell_what_the_dense_model_gave() -> None:
    old = {"speedup": 6.0, "speedup.error": 0.02, "compression_speedup": 2.0, "compression_speedup.error": 0.05}
    found = dense_speedup(old)
    assert found is not None
    assert (found.value, found.error) == (3.0, pytest.approx(0.03))
    assert batching_speedup(old) == found
    assert batching_speedup({**old, "own_speedup": 2.0}) is None  # compared with its runtime's, whatever torch's gave
    assert dense_speedup({"speedup": 2.0}) is None
    assert regained(old, Estimate(3.0, 2.9, 3.1)).keys() == {"compression_speedup", "compression_speedup.error"}


def test_the_dense_model_gains_nothing_over_itself() -> None:
    found = dense_gains(ran(2.0, 1.9, 2.1))
    assert ratio_of(found, "compression_speedup") == Estimate(1.0, 1.0, 1.0)
    assert ratio_of(found, "batching_speedup") == Estimate(2.0, 1.9, 2.1)
