"""The price of accuracy, and what is said where nothing keeps the floor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from search.front.accuracy_floor import AccuracyFloor
from search.front.accuracy_price import price_rows
from search.front.advice import advice
from search.front.front import cut
from search.records.trial import TrialRecord


def trial(number: int, accuracy: float, throughput: float, **more: Any) -> TrialRecord:
    metrics = {"accuracy": accuracy, "throughput": throughput, "peak_memory": 1e6}
    return replace(TrialRecord(number, f"u{number}", {}, "complete", metrics), **more)


BASE = trial(0, 0.8, 100.0, is_baseline=True)
RECORDS = [BASE, trial(1, 0.79, 90.0), trial(2, 0.7, 300.0), trial(3, 0.75, 200.0), trial(4, 0.6, 250.0)]


def test_going_down_in_accuracy_every_offer_is_better_than_all_before() -> None:
    found = price_rows(RECORDS, "throughput")
    assert [(offer.trial, offer.accuracy, offer.value) for offer in found] == [
        (0, 0.8, 100.0), (3, 0.75, 200.0), (2, 0.7, 300.0)
    ]  # fmt: skip
    assert [offer.gain for offer in found] == pytest.approx([1, 2, 3])
    assert [offer.share for offer in found] == pytest.approx([1, 0.9375, 0.875])


def test_an_offer_is_the_best_that_keeps_its_accuracy() -> None:
    for offer in price_rows(RECORDS, "throughput"):
        kept = [record.metrics["throughput"] for record in RECORDS if record.metrics["accuracy"] >= offer.accuracy]
        assert offer.value == max(kept)


def test_less_is_better_where_it_is() -> None:
    records = [BASE, trial(1, 0.7, 1.0)]
    records[1] = replace(records[1], metrics={**records[1].metrics, "peak_memory": 5e5})
    assert [offer.gain for offer in price_rows(records, "peak_memory")] == [1.0, 2.0]


def test_without_a_baseline_or_a_measurement_there_is_no_price() -> None:
    assert price_rows([trial(1, 0.7, 1.0)], "throughput") == []
    assert price_rows(RECORDS, "ttft") == []


def said(records: list[TrialRecord], floor: AccuracyFloor) -> tuple[str, ...]:
    absolute = floor.absolute(0.8)
    return advice(records, cut(records, ("throughput",), absolute, lambda *_: 1.0), floor)


def test_the_highest_floor_that_is_named_would_really_have_been_kept() -> None:
    for floor in (AccuracyFloor(epsilon=1.2), AccuracyFloor(epsilon=0.97, relative=False)):
        binds, above, highest = said(RECORDS, floor)
        assert "Nearest: the baseline, " in binds
        assert "lies above the dense model's own accuracy 0.8000" in above
        named = float(highest.partition("epsilon=")[2].split()[0].rstrip("."))
        kept = AccuracyFloor(epsilon=named, relative=floor.relative)
        assert cut(RECORDS, ("throughput",), kept.absolute(0.8), lambda *_: 1.0).front
        assert not cut(RECORDS, ("throughput",), kept.absolute(0.8) + 2e-4, lambda *_: 1.0).front


def test_a_front_needs_no_advice_and_failures_are_counted() -> None:
    assert said(RECORDS, AccuracyFloor(epsilon=0.9)) == ()
    failed = [replace(TrialRecord(5, "f", {}, "failed"), reason="out_of_memory")]
    assert said(failed, AccuracyFloor(epsilon=0.9)) == ("What binds: no trial was measured (out of memory 1x).",)
    assert "and 1 failed" in said([*RECORDS, *failed], AccuracyFloor(epsilon=1.2))[0]
