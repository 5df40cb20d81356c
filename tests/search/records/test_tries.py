"""Which trials count towards a study's limit, and which cells are owed another try."""

from __future__ import annotations

from objectives.types import Reason
from search.records.trial import TrialRecord
from search.records.tries import LOST, Tries

CELL, OTHER = {"a": 1}, {"a": 2}


def record(reason: str = "", params: dict[str, int] | None = None) -> TrialRecord:
    return TrialRecord(0, "u:0", CELL if params is None else params, "failed" if reason else "complete", reason=reason)


def test_a_lost_trial_is_owed_another_and_counts_once() -> None:
    for reason in (Reason.CRASHED, Reason.TIMEOUT):
        tries = Tries([record(reason)])
        assert (tries.spent, tries.owed) == (0, (CELL,))
        tries.add(record())
        assert (tries.spent, tries.owed) == (1, ())


def test_a_cell_that_is_lost_twice_is_owed_nothing_and_counts() -> None:
    tries = Tries([record(Reason.CRASHED), record(Reason.TIMEOUT)])
    assert (tries.spent, tries.owed) == (1, ())


def test_an_interrupted_trial_never_counts() -> None:
    tries = Tries([record(Reason.INTERRUPTED)])
    assert (tries.spent, tries.owed) == (0, (CELL,))
    tries.add(record(Reason.INTERRUPTED))
    assert (tries.spent, tries.owed) == (0, ())


def test_a_trial_that_was_cut_short_before_it_had_a_cell_is_owed_nothing() -> None:
    tries = Tries([record(Reason.INTERRUPTED, {})])
    assert (tries.spent, tries.owed) == (0, ())


def test_what_is_no_chance_counts_at_once() -> None:
    reasons = [reason for reason in Reason if reason not in LOST]
    tries = Tries([record(reason) for reason in reasons])
    assert (tries.spent, tries.owed) == (len(reasons), ())


def test_cells_are_owed_in_the_order_in_which_they_were_lost() -> None:
    tries = Tries([record(Reason.CRASHED, OTHER), record(Reason.CRASHED)])
    assert tries.owed == (OTHER, CELL)
