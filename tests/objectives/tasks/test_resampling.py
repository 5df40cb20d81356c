"""Replicates are those of a plain bootstrap, the same however they are computed, and their intervals hold the truth."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from objectives.tasks import resampling
from objectives.tasks.paired import Difference, is_resampled, paired_difference
from objectives.tasks.resampling import FEWEST, REPLICATES, replicates_by, replicates_of, spread
from objectives.types import Score

Values = NDArray[np.float64]


def micro_f1(sums: Values) -> Values:
    """F1 of sums [..., 3]: true positives, false positives, false negatives."""
    hit, extra, missed = np.moveaxis(sums, -1, 0)
    return 2 * hit / np.maximum(2 * hit + extra + missed, 1)


def bleu(sums: Values) -> Values:
    """BLEU of one reference, n-grams up to 2, of sums [..., 6]: matched and written of each, lengths of both."""
    first, of_first, second, of_second, said, wanted = np.moveaxis(sums, -1, 0)
    precision = np.sqrt(first / np.maximum(of_first, 1) * (second / np.maximum(of_second, 1)))
    return precision * np.exp(np.minimum(0.0, 1 - wanted / np.maximum(said, 1)))


def decisions(random: np.random.Generator, number: int) -> tuple[Values, Values]:
    """Counts of two models that find some of 0 to 5 spans of each text; what is hard for one is hard for the other."""
    spans, hard = random.integers(0, 6, number), random.beta(2, 2, number)
    both = []
    for skill in (0.80, 0.84):
        found = random.binomial(spans, np.clip(skill + 0.3 * (hard - 0.5), 0, 1))
        both.append(np.stack([found, random.binomial(3, 0.15 * hard), spans - found], axis=-1).astype(float))
    return both[0], both[1]


def translations(random: np.random.Generator, number: int) -> tuple[Values, Values]:
    """Counts of two models that write texts of nearly the wanted length; what is hard for one is hard for the other."""
    wanted, hard = random.integers(4, 30, number), random.beta(2, 2, number)
    both = []
    for skill in (0.60, 0.63):
        said = np.maximum(2, random.binomial(wanted, 0.95))
        first = random.binomial(said, np.clip(skill + 0.4 * (hard - 0.5), 0, 1))
        second = random.binomial(np.maximum(first - 1, 0), 0.5 + 0.2 * (hard - 0.5))
        both.append(np.stack([first, said, second, said - 1, said, wanted], axis=-1).astype(float))
    return both[0], both[1]


METRICS: dict[str, tuple[Callable[..., tuple[Values, Values]], Callable[[Values], Values]]] = {
    "f1": (decisions, micro_f1),
    "bleu": (translations, bleu),
}


def score(counts: Values, metric: Callable[[Values], Values], number: int = REPLICATES) -> Score:
    """The score of a corpus; examples are those of single texts, whose mean is another number."""
    resampled = replicates_of(counts, metric, number)
    alone = tuple(metric(counts).tolist())
    return Score(float(metric(counts.sum(axis=0))), spread(resampled), alone, replicates=resampled)


def between(ours: Values, theirs: Values, metric: Callable[[Values], Values]) -> Difference:
    found = paired_difference(score(ours, metric), score(theirs, metric))
    assert found is not None
    return found


@lru_cache
def corpora(name: str) -> list[tuple[Values, Values, Difference]]:
    """400 simulated corpora of 100 texts, with the difference that replicates give each."""
    drawn, metric = METRICS[name]
    random = np.random.default_rng(23)
    pairs = [drawn(random, 100) for _ in range(400)]
    return [(ours, theirs, between(ours, theirs, metric)) for ours, theirs in pairs]


# ---- coverage


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_holds_the_true_difference_95_times_in_100(name: str) -> None:
    drawn, metric = METRICS[name]
    ours, theirs = drawn(np.random.default_rng(1), 1_000_000)
    truth = float(metric(ours.sum(axis=0)) - metric(theirs.sum(axis=0)))
    found = corpora(name)
    assert 0.92 <= np.mean([each.low <= truth <= each.high for _, _, each in found]) <= 0.98
    assert np.mean([each.low <= 0 <= each.high for _, _, each in found]) < 0.9  # and not whatever it is asked


@pytest.mark.parametrize("name", METRICS)
def test_the_standard_error_is_what_corpora_vary_by(name: str) -> None:
    _, metric = METRICS[name]
    counts = [ours for ours, _, _ in corpora(name)]
    varies = np.std([metric(each.sum(axis=0)) for each in counts], ddof=1)
    assert np.mean([score(each, metric, FEWEST).stderr for each in counts[:100]]) == pytest.approx(varies, rel=0.15)


def test_pairing_narrows_the_interval_of_models_that_fail_alike() -> None:
    random = np.random.default_rng(2)
    theirs = decisions(random, 300)[0]
    ours = theirs.copy()
    ours[:20, 0] += 1  # better on a few texts, the same on all others
    paired, shuffled = (between(each, theirs, micro_f1) for each in (ours, random.permutation(ours)))
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.3 * (shuffled.high - shuffled.low)


# ---- against other ways to the same


@pytest.mark.parametrize("number", [1, 7, 200])
def test_sums_and_places_give_the_same_replicates_as_a_plain_loop(number: int) -> None:
    counts = decisions(np.random.default_rng(3), number)[0]
    drawn: list[list[int]] = []

    def kept(places: NDArray[np.int64]) -> float:
        drawn.append(places.tolist())
        return float(micro_f1(counts[places].sum(axis=0)))

    by_places = replicates_by(kept, number, FEWEST)
    assert replicates_of(counts, micro_f1, FEWEST) == by_places
    naive = []
    for places in drawn:
        hit, extra, missed = (sum(counts[place][column] for place in places) for column in range(3))
        naive.append(2 * hit / max(2 * hit + extra + missed, 1))
    assert by_places == pytest.approx(naive)
    assert {len(places) for places in drawn} == {number}


def test_places_are_drawn_evenly_and_differ_from_resample_to_resample() -> None:
    drawn: list[NDArray[np.int64]] = []
    replicates_by(lambda places: float(drawn.append(places.copy()) or 0), 50, 1000)
    assert len({tuple(places.tolist()) for places in drawn}) == 1000
    assert stats.chisquare(np.bincount(np.concatenate(drawn), minlength=50)).pvalue > 0.001
    assert np.mean([len(set(places.tolist())) for places in drawn]) == pytest.approx(
        50 * (1 - (1 - 1 / 50) ** 50), 0.01
    )


def test_the_interval_is_that_of_scipy() -> None:
    ours, theirs = translations(np.random.default_rng(4), 200)

    def difference(places: Any, axis: int = -1) -> Any:
        each = (bleu(counts[places.astype(int)].sum(axis=-2)) for counts in (ours, theirs))
        return next(each) - next(each)

    reference = stats.bootstrap(
        (np.arange(200),), difference, n_resamples=4000, batch=500, method="percentile", rng=np.random.default_rng(5)
    )
    found, (low, high) = between(ours, theirs, bleu), reference.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    differences = np.subtract(score(ours, bleu).replicates, score(theirs, bleu).replicates)
    assert spread(differences.tolist()) == pytest.approx(reference.standard_error, rel=0.1)


def test_rank_correlation_is_resampled_by_its_places() -> None:
    random = np.random.default_rng(6)
    wanted = random.normal(size=80)
    said = wanted + random.normal(size=80)
    found = replicates_by(lambda places: stats.spearmanr(said[places], wanted[places]).statistic, 80, 300)
    pairs = (said, wanted)
    reference = stats.bootstrap(
        pairs, lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False, n_resamples=600,
        method="percentile", rng=random,
    )  # fmt: skip
    assert spread(found) == pytest.approx(reference.standard_error, rel=0.2)
    assert np.median(found) == pytest.approx(np.median(reference.bootstrap_distribution), abs=0.02)


# ---- the same resamples, however and wherever


@pytest.mark.parametrize("block", [1, 199, 200, 1000, 54_321])
def test_replicates_do_not_depend_on_the_size_of_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = translations(np.random.default_rng(7), 200)[0]
    whole = replicates_of(counts, bleu)
    monkeypatch.setattr(resampling, "_BLOCK", block)
    assert replicates_of(counts, bleu) == whole
    assert replicates_of(counts, bleu, 150) == whole[:150]
    assert replicates_by(lambda places: bleu(counts[places].sum(axis=0)), 200, 150) == whole[:150]


def test_the_draws_are_those_of_all_versions() -> None:
    """Studies keep replicates: with other draws, theirs would be no pairs of new ones."""
    drawn: list[list[int]] = []
    replicates_by(lambda places: float(drawn.append(places.tolist()) or 0), 6, FEWEST)
    assert drawn[:3] == [[3, 2, 2, 5, 4, 4], [1, 0, 1, 4, 2, 1], [5, 4, 4, 0, 4, 5]]


def test_counts_may_have_any_shape_and_ten_thousand_examples_are_quick_and_small() -> None:
    counts = np.arange(10_000 * 50).reshape(10_000, 5, 10) % 7
    shapes: list[tuple[int, ...]] = []

    def share(sums: Values) -> Values:
        shapes.append(sums.shape)
        return sums[:, 0, 0] / sums.sum(axis=(1, 2))

    found = replicates_of(counts, share)
    assert len(found) == sum(shape[0] for shape in shapes) == 1000
    assert max(shape[0] for shape in shapes) * 10_000 <= resampling._BLOCK
    assert {shape[1:] for shape in shapes} == {(5, 10)}
    assert found == replicates_of(counts.reshape(10_000, 50), lambda sums: sums[:, 0] / sums.sum(axis=1))


def test_resampling_imports_no_torch() -> None:
    code = "import sys, objectives.tasks.resampling; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- no replicates, no difference


def test_what_cannot_be_resampled_is_told() -> None:
    with pytest.raises(ValueError, match=r"^replicates: at least 100 give a 95 % interval, got 99$"):
        replicates_of(np.ones((3, 2)), micro_f1, 99)
    with pytest.raises(ValueError, match=r"^examples: there are none to resample$"):
        replicates_of(np.ones((0, 2)), micro_f1)
    with pytest.raises(ValueError, match=r"^finish: sums \[1000, 2\] must become \[1000\], .* got \[1000, 2\]$"):
        replicates_of(np.ones((3, 2)), lambda sums: sums)


def test_scores_without_pairs_of_replicates_have_no_difference() -> None:
    ours, theirs = (score(counts, micro_f1) for counts in decisions(np.random.default_rng(8), 60))
    assert paired_difference(ours, theirs) is not None
    lacking = [(), theirs.replicates[:500], (*theirs.replicates[1:], math.nan)]
    for replicates in lacking:
        assert paired_difference(ours, replace(theirs, replicates=replicates)) is None
        assert paired_difference(replace(ours, replicates=replicates), theirs) is None
    with pytest.raises(ValueError, match="lengths differ"):
        paired_difference(ours, replace(theirs, examples=theirs.examples[1:]))


def test_a_model_does_not_differ_from_itself() -> None:
    one = score(decisions(np.random.default_rng(9), 60)[0], micro_f1)
    assert paired_difference(one, one) == Difference(0.0, 0.0, 0.0)


def test_what_has_replicates_is_compared_by_them_also_where_it_happens_to_be_the_mean_of_its_examples() -> None:
    """Macro-F1 and the share of hits may be the same number, and have other errors."""
    values = np.random.default_rng(10).random((2, 40))
    plain = [Score(float(each.mean()), 0.0, tuple(each.tolist())) for each in values]
    resampled = [replace(each, replicates=replicates_of(each.examples, lambda sums: sums / 40)) for each in plain]
    assert is_resampled(resampled[0])
    found, by_examples = paired_difference(*resampled), paired_difference(*plain)
    assert found is not None
    assert by_examples is not None
    width = by_examples.high - by_examples.low
    assert found != by_examples
    assert (found.low, found.high) == pytest.approx((by_examples.low, by_examples.high), abs=0.15 * width)
    moved = paired_difference(*(replace(each, accuracy=each.accuracy + 0.001) for each in resampled))
    assert moved is not None
    assert (moved.low, moved.high) == (found.low, found.high)
