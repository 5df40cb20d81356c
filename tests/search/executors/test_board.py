"""A board shows the last state that was written on it, never half of one, whatever dies meanwhile."""

from __future__ import annotations

from objectives.tasks.progress import SoFar
from search.executors.board import Board


def test_what_is_written_is_read_with_the_seconds_since_then() -> None:
    board = Board()
    assert board.read() is None
    for far in (SoFar(2.5, 10, 30.0), SoFar(1, 2, 3.0, may_end_early=True), SoFar(1, 2, 3.0, domains=True)):
        board.write(far)
        seen = board.read()
        assert seen is not None
        assert (seen.done, seen.total, seen.may_end_early, seen.domains) == (
            far.done, far.total, far.may_end_early, far.domains,
        )  # fmt: skip
        assert far.seconds <= seen.seconds < far.seconds + 5
    board.write(None)
    assert board.read() is None


def test_a_state_that_was_never_finished_is_not_read_and_is_cleared() -> None:
    board = Board()
    board.write(SoFar(1, 2, 3.0))
    board._cells[0] += 1  # as a process leaves it that is killed while it writes
    assert board.read() is None
    board.clear()
    assert board.read() is None
    board.write(SoFar(1, 2, 3.0))
    assert board.read() is not None
