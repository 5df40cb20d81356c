"""Loops of scoring tell how far they are, however they are nested, and whoever leaves them early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from objectives.tasks.batching import by_length
from objectives.tasks.partial_scores import batches
from objectives.tasks.progress import SoFar, expected, followed, one_by_one, steps, unknown


def counts(heard: list[SoFar | None]) -> list[tuple[float, int]]:
    """What was told, each once."""
    return list(dict.fromkeys((far.done, far.total) for far in heard if far is not None))


def test_examples_are_counted_batch_by_batch_until_nothing_is_scored_any_more(heard: list[Any]) -> None:
    with followed():
        assert [list(chosen) for chosen in batches(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert counts(heard) == [(0, 0), (0, 5), (2, 5), (4, 5), (5, 5)]
    assert heard[-1] is None
    assert all(0 <= far.seconds < 10 for far in heard[:-1])


def test_a_step_is_as_far_as_the_loop_inside_it(heard: list[Any]) -> None:
    with followed():
        for chosen in batches(range(8), 4):
            for _ in by_length([1] * 2 * len(chosen), 4):  # two texts an example
                pass
    assert counts(heard) == [(0, 0), (0, 8), (2, 8), (4, 8), (6, 8), (8, 8)]


def test_loops_that_follow_each_other_add_up_to_what_is_expected(heard: list[Any]) -> None:
    with followed(), expected(6):
        for _ in (*by_length([1] * 2, 1), *batches(range(4), 2)):
            pass
    assert counts(heard) == [(0, 0), (0, 6), (1, 6), (2, 6), (4, 6), (6, 6)]


def test_pieces_of_unlike_lengths_weigh_what_they_hold(heard: list[Any]) -> None:
    with followed():
        assert list(steps(["a", "bcd"], 4)) == ["a", "bcd"]
    assert counts(heard) == [(0, 0), (0, 4), (1, 4), (4, 4)]


def test_domains_are_told_as_such(heard: list[Any]) -> None:
    with followed():
        for _ in one_by_one(["de", "fr"], domains=True):
            list(batches(range(4), 1))
    assert {far.domains for far in heard[1:-1]} == {True}
    assert counts(heard)[1:] == [(done / 4, 2) for done in range(9)]


def test_of_several_loops_that_nobody_announced_the_whole_is_not_known(heard: list[Any]) -> None:
    with followed():
        list(batches(range(2), 1))
        list(batches(range(3), 1))
    assert counts(heard) == [(0, 0), (0, 2), (1, 2), (2, 2), (2, 0), (3, 0), (4, 0), (5, 0)]


@pytest.mark.parametrize(
    ("sizes", "told"),
    [([4], [(0, 4), (2, 4), (4, 4)]), ([2, 2], [(2, 0), (4, 0)]), ([4, 4], [(0, 4), (2, 4), (4, 4), (4, 0), (8, 0)])],
)  # fmt: skip
def test_what_a_users_function_reads_is_the_whole_where_it_reads_all_at_once(
    sizes: list[int], told: list[tuple[float, int]], heard: list[Any]
) -> None:
    with followed(), unknown(4):
        for size in sizes:
            list(batches(range(size), 2))
    assert set(told) <= set(counts(heard))
    assert {total for _, total in counts(heard)} == {0, *(total for _, total in told)}


def test_a_function_that_reads_its_rows_twice_makes_no_step_longer(heard: list[Any]) -> None:
    with followed():
        for chosen in batches(range(8), 4):
            with unknown(len(chosen)):
                list(batches(chosen, 2))
                list(batches(chosen, 2))
    assert max(counts(heard)) == (8, 8)
    assert {total for _, total in counts(heard)} == {0, 8}


def parts(order: range) -> Iterator[int]:
    for chosen in batches(order, 2):
        yield len(list(by_length([1] * len(chosen), 1)))


def test_a_race_that_ends_early_leaves_nothing_behind(heard: list[Any]) -> None:
    with followed(may_end_early=True):
        held = parts(range(8))
        next(held)
    assert all(far.may_end_early for far in heard[:-1])
    assert heard[-1] is None
    heard.clear()
    with followed():
        held.close()
        list(batches(range(2), 1))
    assert counts(heard) == [(0, 0), (0, 2), (1, 2), (2, 2)]


def test_scoring_that_fails_is_over(heard: list[Any]) -> None:
    def broken() -> None:
        with followed():
            for _ in batches(range(8), 2):
                raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        broken()
    assert heard[-1] is None


def test_the_baseline_may_be_scored_amid_a_candidate(heard: list[Any]) -> None:
    with followed():
        for _ in batches(range(2), 1):
            with followed():
                list(batches(range(5), 5))
    assert {(0, 5), (5, 5), (1, 2), (2, 2)} <= set(counts(heard))
    assert (6, 5) not in counts(heard)


def test_loops_outside_of_scoring_are_not_told(heard: list[Any]) -> None:
    list(batches(range(4), 1))
    assert heard == []


def test_without_a_listener_the_loops_are_what_they_are() -> None:
    with followed(), expected(3), unknown(1):
        assert [list(chosen) for chosen in by_length([1, 3, 2], 2)] == [[1, 2], [0]]
