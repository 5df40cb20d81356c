"""Which cells need no further trial, against a plain look through all records."""

from __future__ import annotations

import itertools
import random

from objectives.types import Reason
from search.records.trial import TrialRecord
from search.study.closed_cells import ClosedCells


def record(number: int, cell: dict, **more) -> TrialRecord:
    return TrialRecord(number, f"u:{number}", cell, **more)


def test_cells_are_settled_by_what_was_measured_and_by_what_must_fail(make_config) -> None:
    space = make_config("space.workload.batch_size=[1,2,4,8]").space
    closed_cells = ClosedCells(space, ())
    cell = {"pruning.ratio": 0.5, "quantization.bits": 8, "workload.batch_size": 2}
    closed_cells.add(record(0, cell, state="failed", reason=str(Reason.CRASHED)))
    assert (len(closed_cells), closed_cells.by(cell)) == (0, None)
    closed_cells.add(record(1, cell, state="failed", reason=str(Reason.OUT_OF_MEMORY)))
    assert len(closed_cells) == 3  # batch sizes 2, 4 and 8
    assert closed_cells.by(cell).number == 1
    assert closed_cells.by({**cell, "workload.batch_size": 4}) is None
    closed_cells.add(record(2, {**cell, "workload.batch_size": 1}, state="complete", metrics={"accuracy": 0.5}))
    assert len(closed_cells) == 4
    closed_cells.add(record(3, {**cell, "pruning.ratio": 0.3}, state="complete", metrics={"accuracy": 0.5}))
    assert len(closed_cells) == 4  # not of this space
    other = {**cell, "quantization.bits": 4}
    closed_cells.add(record(4, other, state="failed", reason=str(Reason.UNSUPPORTED)))
    assert len(closed_cells) == 8  # the recipe, whatever the batch size


def test_what_was_not_scored_is_settled_but_answers_nothing(make_config) -> None:
    space = make_config().space
    closed_cells, cell = ClosedCells(space, ()), space.baseline()
    closed_cells.add(record(0, dict(cell), state="complete", metrics={"throughput": 1.0}))
    assert (len(closed_cells), closed_cells.by(cell)) == (1, None)
    closed_cells.add(record(1, dict(cell), state="complete", metrics={"throughput": 1.0, "accuracy": 0.5}))
    assert (len(closed_cells), closed_cells.by(cell).number) == (1, 1)


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
    closed_cells = ClosedCells(space, ())
    for count, one in enumerate(records, 1):
        closed_cells.add(one)
        assert len(closed_cells) == len(ClosedCells(space, records[:count]))
    for cell in itertools.islice(cells, 10):
        assert closed_cells.by(cell) == ClosedCells(space, records).by(cell)
