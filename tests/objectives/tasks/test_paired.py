"""The paired interval holds the truth as often as it says, and is as narrow as pairing allows."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from objectives.tasks.paired import Difference, paired_difference
from objectives.types import Score

Values = NDArray[np.float64]
Link = Literal["mean", "exp_minus_mean"]


def score(*domains: Values, link: Link = "mean") -> Score:
    """The score of a task that has these examples by domain."""
    means = np.array([values.mean() for values in domains])
    accuracy = float(np.mean(means if link == "mean" else np.exp(-means)))
    strata = tuple(len(values) for values in domains) if len(domains) > 1 else ()
    examples = tuple(np.concatenate(domains).tolist())
    return Score(accuracy, 0.0, examples, ids=tuple(map(str, range(len(examples)))), strata=strata, link=link)


def between(ours: list[Values], theirs: list[Values], link: Link = "mean") -> Difference:
    found = paired_difference(score(*ours, link=link), score(*theirs, link=link))
    assert found is not None
    return found


def hits(random: np.random.Generator, count: int) -> tuple[Values, Values]:
    """Of a candidate and a baseline that agree on four of five texts; the candidate is 0.02 worse."""
    theirs = random.random(count) < 0.6
    ours = np.where(random.random(count) < 0.8, theirs, random.random(count) < 0.5)
    return ours.astype(float), theirs.astype(float)


def losses(random: np.random.Generator, count: int) -> tuple[Values, Values]:
    """In nats, those of one text alike; the mean of the candidate's is 0.1 higher than the baseline's 2.5."""
    hard = random.gamma(4.0, 0.6, count)
    return hard + 0.2 + random.normal(0.0, 0.2, count), hard + 0.1 + random.normal(0.0, 0.2, count)


def share_that_holds(truth: float, intervals: list[Difference]) -> float:
    return float(np.mean([found.low <= truth <= found.high for found in intervals]))


# ---- coverage


@pytest.mark.parametrize("count", [100, 300, 1000])
def test_the_interval_holds_the_true_difference_of_hits_95_times_in_100(count: int) -> None:
    random = np.random.default_rng(count)
    intervals = [between([ours], [theirs]) for ours, theirs in (hits(random, count) for _ in range(1500))]
    assert 0.93 < share_that_holds(-0.02, intervals) < 0.97


@pytest.mark.parametrize("count", [16, 100])
def test_the_interval_holds_the_true_difference_of_inverse_perplexities(count: int) -> None:
    random = np.random.default_rng(count)
    pairs = [losses(random, count) for _ in range(1500)]
    intervals = [between([ours], [theirs], "exp_minus_mean") for ours, theirs in pairs]
    assert 0.93 < share_that_holds(math.exp(-2.6) - math.exp(-2.5), intervals) < 0.97


def test_the_interval_holds_the_truth_with_domains_of_unlike_size_and_noise() -> None:
    random = np.random.default_rng(7)
    intervals = []
    for _ in range(1500):
        theirs = [random.normal(0.5, 0.2, 6), random.normal(0.4, 0.2, 60)]
        gains = [random.normal(0.10, 0.1, 6), random.normal(-0.02, 0.02, 60)]
        intervals.append(between([a + b for a, b in zip(theirs, gains)], theirs))
    assert 0.93 < share_that_holds(0.04, intervals) < 0.97


# ---- the interval itself


@pytest.mark.parametrize("count", [2, 3, 16, 400])
def test_one_domain_is_the_paired_t_test(count: int) -> None:
    ours, theirs = hits(np.random.default_rng(3), count)
    ours[0], theirs[0], ours[1], theirs[1] = 1.0, 0.0, 1.0, 1.0
    reference = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = between([ours], [theirs])
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))
    assert found.value == pytest.approx(ours.mean() - theirs.mean())


@pytest.mark.parametrize("counts", [(2, 2), (3, 200), (40, 5)])
def test_two_domains_are_welchs_test_of_their_gains(counts: tuple[int, int]) -> None:
    """Mean of two gains = half of (first gain - (-second gain)), which Welch's test gives an interval of."""
    random = np.random.default_rng(5)
    theirs = [random.random(count) for count in counts]
    ours = [values + random.normal(0.1, spread, len(values)) for values, spread in zip(theirs, (0.3, 0.05))]
    gains = [a - b for a, b in zip(ours, theirs)]
    reference = stats.ttest_ind(gains[0], -gains[1], equal_var=False).confidence_interval(0.95)
    found = between(ours, theirs)
    assert (found.low, found.high) == pytest.approx((reference.low / 2, reference.high / 2))


def test_the_interval_of_inverse_perplexities_is_that_of_a_bootstrap() -> None:
    random = np.random.default_rng(1)
    ours, theirs = losses(random, 400)
    drawn = random.integers(0, 400, (4000, 400))
    resampled = np.exp(-ours[drawn].mean(axis=1)) - np.exp(-theirs[drawn].mean(axis=1))
    low, high = np.quantile(resampled, [0.025, 0.975])
    found = between([ours], [theirs], "exp_minus_mean")
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    assert found.value == pytest.approx(math.exp(-ours.mean()) - math.exp(-theirs.mean()))


@pytest.mark.parametrize("link", ["mean", "exp_minus_mean"])
def test_pairing_narrows_the_interval_of_models_that_fail_alike(link: Link) -> None:
    random = np.random.default_rng(2)
    hard = random.random(200)
    ours, theirs = hard + random.normal(0.01, 0.03, 200), hard + random.normal(0.0, 0.03, 200)
    paired = between([ours], [theirs], link)
    shuffled = between([random.permutation(ours)], [theirs], link)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.2 * (shuffled.high - shuffled.low)


@pytest.mark.parametrize("link", ["mean", "exp_minus_mean"])
def test_domains_weigh_the_same_however_many_examples_they_have(link: Link) -> None:
    random = np.random.default_rng(4)
    theirs = [random.random(4), random.random(400)]
    ours = [theirs[0] + random.normal(0.4, 0.01, 4), theirs[1] + random.normal(0.0, 0.01, 400)]
    found = between(ours, theirs, link)
    assert found.value == pytest.approx(score(*ours, link=link).accuracy - score(*theirs, link=link).accuracy)
    if link == "mean":
        assert found.value == pytest.approx(0.2, abs=0.01)


def test_the_exchanged_models_have_the_mirrored_interval() -> None:
    ours, theirs = losses(np.random.default_rng(6), 30)
    there, back = between([ours], [theirs], "exp_minus_mean"), between([theirs], [ours], "exp_minus_mean")
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize("link", ["mean", "exp_minus_mean"])
def test_a_model_does_not_differ_from_itself(link: Link) -> None:
    values = np.random.default_rng(8).random(33)
    assert between([values[:11], values[11:]], [values[:11], values[11:]], link) == Difference(0.0, 0.0, 0.0)


# ---- no interval


@pytest.mark.parametrize("domains", [[0], [1], [5, 1], [1, 5]])
def test_a_domain_of_one_example_has_no_interval(domains: list[int]) -> None:
    examples = tuple(float(number) for number in range(sum(domains)))
    one = Score(0.5, 0.0, examples, strata=tuple(domains))
    assert paired_difference(one, one) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_has_no_interval(bad: float) -> None:
    good = np.array([0.1, 0.2, 0.3])
    worse = score(np.array([0.1, bad, 0.3]), link="exp_minus_mean")
    assert paired_difference(worse, score(good, link="exp_minus_mean")) is None
    assert paired_difference(score(good, link="exp_minus_mean"), worse) is None


# ---- scores of other examples


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"examples": (0.0, 1.0)}, r"^lengths differ: the candidate has 3 examples, the baseline 2$"),
        ({"ids": ("a", "c", "b")}, r"^ids differ: example 1 is 'b' of the candidate, 'c' of the baseline$"),
        ({"ids": ()}, r"^ids differ: the candidate names 3 examples, the baseline 0$"),
        ({"strata": (1, 2)}, r"^strata or link differ: the candidate has \(\), mean, the baseline \(1, 2\), mean$"),
        ({"link": "exp_minus_mean"}, r"^strata or link differ: .* the baseline \(\), exp_minus_mean$"),
    ],
)
def test_scores_of_other_examples_are_not_compared(other: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = {"examples": (0.0, 1.0, 1.0), "ids": ("a", "b", "c")}
    ours, theirs = Score(0.5, 0.1, **fields), Score(0.5, 0.1, **{**fields, **other})
    with pytest.raises(ValueError, match=words):
        paired_difference(ours, theirs)


def test_strata_that_do_not_hold_all_examples_are_told() -> None:
    odd = Score(0.5, 0.1, (0.0, 1.0, 1.0, 0.0), strata=(2, 3))
    with pytest.raises(ValueError, match=r"^strata \(2, 3\) are of 5 examples, the score has 4$"):
        paired_difference(odd, odd)


def test_comparing_imports_no_torch() -> None:
    code = (
        "import sys; from objectives.types import Score; from objectives.tasks.paired import paired_difference; "
        "paired_difference(Score(0.5, 0.1, (0.0, 1.0)), Score(0.5, 0.1, (1.0, 1.0))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("link", ["mean", "exp_minus_mean"])
def test_an_accuracy_that_its_examples_do_not_make_has_no_interval(link: Link) -> None:
    """A metric of a whole corpus with scores of single texts as examples: their difference is another one."""
    ours, theirs = (score(np.linspace(low, 0.9, 20), link=link) for low in (0.1, 0.2))
    assert paired_difference(ours, theirs) is not None
    assert paired_difference(replace(ours, accuracy=ours.accuracy - 0.01), theirs) is None
    assert paired_difference(ours, replace(theirs, accuracy=theirs.accuracy + 0.01)) is None
