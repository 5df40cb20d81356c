"""What records say of a grid, one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from objectives.settings import UNDECLARED
from search.frontier.observations import ObservationBuilder
from search.records.trial import TrialRecord
from search.space.grid import Grid
from search.space.space import Axis

PRUNED, WIDTH = UNDECLARED["pruning"]["ratio"], UNDECLARED["quantization"]["bits"]
GRID = Grid((
    Axis("pruning.ratio", (0.0, 0.2), 0.0, PRUNED),
    Axis("quantization.bits", (4, 16), 16, WIDTH),
    Axis("workload.batch_size", (1, 2, 4), 1),
))  # fmt: skip


def record(ratio: float, bits: int, batch: int, reason: str = "", **metrics: float) -> TrialRecord:
    params = {"pruning.ratio": ratio, "quantization.bits": bits, "workload.batch_size": batch}
    return TrialRecord(0, "u", params, "failed" if reason else "complete", metrics, reason=reason)


def seen(*records: TrialRecord, **more: Any) -> Any:
    evidence = ObservationBuilder(GRID, ("throughput", "peak_memory"), 0.8)
    for each in records:
        evidence.add(each)
    return evidence.known()


def test_what_is_refused_by_prediction_says_what_it_needs_and_how_much_room_there_is() -> None:
    refused = TrialRecord(
        0, "u", record(0.0, 16, 4).params, "failed", {"predicted_peak": 150.0}, reason="out_of_memory", severity=0.5
    )  # fmt: skip
    known = seen(record(0.0, 16, 1, throughput=1.0, peak_memory=80.0, accuracy=0.9), refused)
    index = GRID.index(refused.params)
    assert known.room == pytest.approx(math.log(100))
    assert known.memory[index] == pytest.approx(math.log(150))
    assert known.starved[index]
    assert known.starved.sum() == 1
    assert not known.measured[index]
    assert known.memory[GRID.index(record(0.0, 16, 1).params)] == pytest.approx(math.log(80))


def test_what_ran_out_of_memory_without_a_word_says_no_more_than_that() -> None:
    known = seen(record(0.0, 16, 2, "out_of_memory"))
    assert math.isnan(known.room)
    assert np.isnan(known.memory).all()
    assert known.closed.sum() == 2  # itself and the larger batch


def test_the_least_room_that_was_met_counts() -> None:
    """Memory that other processes hold comes and goes."""
    refused = [
        TrialRecord(0, "u", record(0.0, bits, 4).params, "failed", {"predicted_peak": peak}, reason="out_of_memory",
                    severity=severity)
        for bits, peak, severity in ((16, 150.0, 0.5), (4, 120.0, 0.5), (16, 150.0, 0.25))
    ]  # fmt: skip
    assert seen(*refused).room == pytest.approx(math.log(80))


def test_a_crash_may_be_chance_and_two_are_not() -> None:
    crash = record(0.2, 4, 2, "crashed")
    assert not seen(crash).closed.any()
    closed = seen(crash, crash).closed
    assert closed.sum() == 1
    assert closed[GRID.index(crash.params)]


def test_how_well_a_speed_is_known_is_told_and_memory_is_exact() -> None:
    metrics = {"throughput": 2.0, "peak_memory": 80.0, "accuracy": 0.9, "speedup.error": 0.0392}
    known = seen(record(0.0, 16, 1, **metrics))
    assert known.errors[GRID.index(record(0.0, 16, 1).params)].tolist() == pytest.approx([0.02, 0.0])
