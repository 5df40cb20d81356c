"""Which cells need no further trial, against a plain look through all records."""

from __future__ import annotations

import itertools
import random

from objectives.types import Reason
from search.records.trial import TrialRecord
from search.study.closed_cells import Settled


def record(number: int, cell: dict, **more) -> TrialRecord:
    return TrialRecord(number, f"u:{number}", cell, **more)


def test_cells_are_settled_by_what_was_measured_and_by_what_must_fail(make_config) -> None:
    space = make_config("space.workload.batch_size=[1,2,4,8]").space
    settled = Settled(space, ())
    cell = {"pruning.ratio": 0.5, "quantization.bits": 8, "workload.batch_size": 2}
    settled.add(record(0, cell, state="failed", reason=str(Reason.CRASHED)))
    assert (len(settled), settled.by(cell)) == (0, None)
    settled.add(record(1, cell, state="failed", reason=str(Reason.OUT_OF_MEMORY)))
    assert len(settled) == 3  # batch sizes 2, 4 and 8
    assert settled.by(cell).number == 1
    assert settled.by({**cell, "workload.batch_size": 4}) is None
    settled.add(record(2, {**cell, "workload.batch_size": 1}, state="complete", metrics={"accuracy": 0.5}))
    assert len(settled) == 4
    settled.add(record(3, {**cell, "pruning.ratio": 0.3}, state="complete", metrics={"accuracy": 0.5}))
    assert len(settled) == 4  # not of this space
    other = {**cell, "quantization.bits": 4}
    settled.add(record(4, other, state="failed", reason=str(Reason.UNSUPPORTED)))
    assert len(settled) == 8  # the recipe, whatever the batch size


def test_what_was_not_scored_is_settled_but_answers_nothing(make_config) -> None:
    space = make_config().space
    settled, cell = Settled(space, ()), space.baseline()
    settled.add(record(0, dict(cell), state="complete", metrics={"throughput": 1.0}))
    assert (len(settled), settled.by(cell)) == (1, None)
    settled.add(record(1, dict(cell), state="complete", metrics={"throughput": 1.0, "accuracy": 0.5}))
    assert (len(settled), settled.by(cell).number) == (1, 1)


def test_one_by_one_is_as_all_at_once(make_config) -> None:
    space = make_config("space.workload.batch_size=[1,2,4,8]").space
    rng, cells = random.Random(0), list(space.cells())
    reasons = [str(reason) for reason in Reason]
    records = [
        record(number, dict(rng.choice(cells)), state="complete", metrics={"accuracy": 0.5})
        if rng.random() < 0.5
        else record(number, dict(rng.choice(cells)), state="failed", reason=rng.choice(reasons))
        for number in range(40)
    ]
    settled = Settled(space, ())
    for count, one in enumerate(records, 1):
        settled.add(one)
        assert len(settled) == len(Settled(space, records[:count]))
    for cell in itertools.islice(cells, 10):
        assert settled.by(cell) == Settled(space, records).by(cell)
