"""Racing: wrong answers are as rare as promised, whenever one looks, and certainty is certain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.evaluation.sequential_test import Race


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=12), st.floats(-1.0, 1.0))
def test_all_examples_always_decide_and_rightly(examples: list[float], threshold: float) -> None:
    race = Race(threshold, len(examples), -1.0, 1.0, error=1e-9)
    decision = race.see(examples)
    mean = float(np.mean(examples))
    if abs(mean - threshold) > 1e-7:
        assert decision == ("reached" if mean > threshold else "missed")
    else:
        assert decision != "open"


def test_a_mean_equal_to_the_threshold_reaches_it() -> None:
    assert Race(0.25, 4, 0.0, 1.0, 0.05).see([1.0, 0.0, 0.0, 0.0]) == "reached"


@given(st.lists(st.integers(0, 1), min_size=1, max_size=10), st.integers(0, 10))
def test_certain_is_said_exactly_when_no_rest_can_change_the_answer(examples: list[int], ones: int) -> None:
    """Against every possible rest."""
    total = 12
    threshold = ones / total
    race = Race(threshold, total, 0.0, 1.0, error=1e-12)
    race.see(examples)
    seen = race.seen
    left = total - seen
    ends = {sum(examples[:seen]) + rest >= ones for rest in range(left + 1)}
    assert race.certain == (len(ends) == 1)


@pytest.mark.parametrize("truth", ["reached", "missed"])
@pytest.mark.parametrize("flips", [0.02, 0.2])
def test_wrong_answers_are_at_most_as_many_as_allowed(truth: str, flips: float) -> None:
    """The mean lies just on the other side of the threshold, where mistakes are likeliest; every example is a look."""
    rng, total, error, wrong, runs = np.random.default_rng(0), 400, 0.1, 0, 400
    ups = round(total * flips / 2)
    gains = np.concatenate([np.ones(ups), -np.ones(ups), np.zeros(total - 2 * ups)])
    threshold = 0.0 if truth == "reached" else 1 / total
    for _ in range(runs):
        race = Race(threshold, total, -1.0, 1.0, error)
        wrong += race.see(rng.permutation(gains)) != truth
    assert wrong / runs <= error + 3 * (error * (1 - error) / runs) ** 0.5


def test_a_clear_answer_needs_few_examples() -> None:
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(20):
        race = Race(-0.0085, 2000, -1.0, 1.0, 0.025)
        assert race.see(rng.permutation(np.concatenate([-np.ones(200), np.ones(10), np.zeros(1790)]))) == "missed"
        seen.append(race.seen)
    assert np.mean(seen) < 400


def test_examples_one_by_one_or_in_batches_give_the_same() -> None:
    gains = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=300, p=[0.1, 0.8, 0.1])
    whole, single = (Race(0.05, 300, -1.0, 1.0, 0.05) for _ in range(2))
    whole.see(gains)
    for gain in gains:
        single.see([gain])
    assert (whole.decision, whole.seen) == (single.decision, single.seen)


def test_after_the_decision_nothing_changes() -> None:
    race = Race(0.5, 3, 0.0, 1.0, 0.05)
    assert race.see([1.0, 1.0, 0.0]) == "reached"
    assert (race.seen, race.certain) == (2, True)
    assert race.see(itertools.repeat(0.0, 1)) == "reached"


def test_an_example_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5, outside \[0.0, 1.0\]"):
        Race(0.5, 10, 0.0, 1.0, 0.05).see([1.5])


@pytest.mark.parametrize("given", [(0.5, 0, 0.0, 1.0, 0.05), (0.5, 9, 1.0, 1.0, 0.05), (0.5, 9, 0.0, 1.0, 0.0)])
def test_senseless_races_are_refused(given: tuple[float, int, float, float, float]) -> None:
    with pytest.raises(ValueError, match="need low < high"):
        Race(*given)
