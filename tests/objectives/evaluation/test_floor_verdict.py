"""Verdicts on the accuracy floor: races in pairs with the baseline, and the estimate that goes with them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from objectives.evaluation.floor_verdict import contest, decide, estimated, gains
from objectives.evaluation.sequential_test import AsymptoticRace, Race, interval
from objectives.types import Decision, Score

RNG = np.random.default_rng(0)


def score(examples: np.ndarray, total: int | None = None, start: int = 0, link: str = "mean") -> Score:
    mean = float(np.mean(examples))
    accuracy = math.exp(-mean) if link == "exp_minus_mean" else mean
    ids = tuple(f"e{index}" for index in range(start, start + len(examples)))
    return Score(accuracy, 0.01, tuple(examples.tolist()), {}, ids, link=link, total=total)  # type: ignore[arg-type]


HITS = score((RNG.random(800) < 0.8).astype(float))
LOSSES = score(3 + RNG.standard_normal(400), link="exp_minus_mean")
SHARES = score(RNG.random(300))


def test_hits_are_bet_on_and_what_is_no_hit_is_raced_asymptotically() -> None:
    assert isinstance(contest(HITS, 0.7, 0.05), Race)
    assert isinstance(contest(SHARES, 0.4, 0.05), AsymptoticRace)
    assert isinstance(contest(LOSSES, 0.04, 0.05), AsymptoticRace)


@pytest.mark.parametrize("floor", [0.0, 1.0, 1.2])
def test_a_floor_that_no_race_can_be_about_is_decided_by_all(floor: float) -> None:
    assert contest(HITS, floor, 0.05) is None


def test_several_domains_are_scored_in_full() -> None:
    assert contest(Score(0.5, 0.1, (1.0, 0.0), strata=(1, 1)), 0.4, 0.05) is None


def test_a_score_with_replicates_is_never_raced_though_its_examples_happen_to_average_to_it() -> None:
    assert contest(replace(HITS, replicates=(0.8,) * 100), 0.7, 0.05) is None


def test_a_score_with_replicates_is_decided_exactly_at_any_floor() -> None:
    base = replace(SHARES, accuracy=0.3, replicates=(0.3,) * 100)
    for floor in (0.1, 0.2999, 0.3, 0.3001, 0.9):
        found = decide(base, base, floor, 0.01)
        assert (found.verdict.method, found.certain, found.accuracy) == ("exact", True, 0.3)
        assert found.decision is (Decision.REACHED if floor <= 0.3 else Decision.MISSED)
    assert estimated(base, base) is base


def test_a_gain_in_log_loss_is_what_was_lost_less() -> None:
    better = score(np.array(LOSSES.examples[:3]) - 0.5, 400, link="exp_minus_mean")
    assert gains(better, LOSSES) == pytest.approx([0.5] * 3)


def test_an_example_that_the_baseline_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no example 'e900'"):
        gains(score(np.ones(2), 800, start=900), HITS)


def test_the_estimate_is_the_baseline_plus_the_mean_gain() -> None:
    """Much closer than the mean of a few examples, which are easy or hard by chance."""
    errors = []
    worse = np.array(HITS.examples)
    worse[RNG.permutation(np.flatnonzero(worse == 1))[:40]] = 0
    for _ in range(50):
        chosen = RNG.permutation(800)[:100]
        ids = tuple(f"e{index}" for index in chosen)
        own = Score(float(worse[chosen].mean()), 0.01, tuple(worse[chosen]), {}, ids, total=800)
        errors.append((abs(estimated(own, HITS).accuracy - worse.mean()), abs(own.accuracy - worse.mean())))
    ours, plain = np.mean(errors, axis=0)
    assert ours < 0.7 * plain


@pytest.mark.parametrize(("base", "shift"), [(SHARES, -0.05), (LOSSES, 0.2)])
def test_the_asymptotic_race_decides_and_rightly(base: Score, shift: float) -> None:
    noise = 0.02 * RNG.standard_normal(len(base.examples))
    worse = np.array(base.examples) + shift + noise
    whole = score(worse, link=base.link)
    part = Score(0.0, 0.0, whole.examples[:200], {}, whole.ids[:200], link=base.link, total=len(worse))
    for floor, decision in ((whole.accuracy * 0.97, "reached"), (whole.accuracy * 1.03, "missed")):
        found = decide(part, base, floor, 0.01)
        assert (found.decision, found.verdict.method) == (decision, "asymptotic")
        assert found.accuracy == pytest.approx(whole.accuracy, rel=0.02)


def test_the_asymptotic_race_is_wrong_as_rarely_as_promised() -> None:
    wrong, runs = 0, 300
    gains_ = RNG.standard_normal(400) * 0.1
    gains_ -= gains_.mean() - 1e-4  # just above
    for _ in range(runs):
        race = AsymptoticRace(0.0, 400, 0.1)
        wrong += race.see(RNG.permutation(gains_)) == "missed"
    assert wrong / runs <= 0.1 + 3 * math.sqrt(0.09 / runs)


def test_all_examples_are_exact() -> None:
    found = decide(HITS, HITS, HITS.accuracy, 0.05)
    assert (found.decision, found.certain, found.verdict.method) == ("reached", True, "exact")
    assert found.low == found.high == found.accuracy


def test_an_interval_holds_the_mean_as_often_as_promised_and_is_what_races_leave_open() -> None:
    population = np.concatenate([-np.ones(20), np.ones(10), np.zeros(270)])
    inside = 0
    for _ in range(100):
        seen = RNG.permutation(population)[:120]
        low, high = interval(seen, 300, -1.0, 1.0, 0.05)
        inside += low <= population.mean() <= high
        assert Race(low - 1e-3, 300, -1.0, 1.0, 0.05).see(seen) == "reached"
        assert Race(high + 1e-3, 300, -1.0, 1.0, 0.05).see(seen) == "missed"
        assert Race((low + high) / 2, 300, -1.0, 1.0, 0.05).see(seen) == "open"
    assert inside >= 86


def test_an_interval_of_everything_is_the_mean() -> None:
    assert interval([0.0, 1.0], 2, 0.0, 1.0, 0.05) == (0.5, 0.5)


@pytest.mark.parametrize("base", [HITS, LOSSES, SHARES])
def test_examples_that_do_not_make_the_accuracy_are_not_raced(base: Score) -> None:
    other = replace(base, accuracy=base.accuracy - 0.01)
    assert contest(other, 0.5 * base.accuracy, 0.05) is None
    part = replace(other, examples=base.examples[:30], ids=base.ids[:30], total=len(base.examples))
    assert decide(part, other, 0.5 * base.accuracy, 0.05).decision == "open"
