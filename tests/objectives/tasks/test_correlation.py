"""Correlations and their replicates are those of scipy, with ties; where scipy has none they are 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from objectives.tasks.correlation import correlation_score, pearson, spearman
from objectives.tasks.paired import is_resampled
from objectives.tasks.resampling import replicates_by

THEIRS: dict[Any, Any] = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}


def pairs(number: int, seed: int = 0) -> Any:
    """Cosines and labels [pairs] that belong together, of which many are equal."""
    drawn = np.random.default_rng(seed)
    hidden = drawn.normal(size=number)
    return np.round(hidden + drawn.normal(size=number), 1), np.round(hidden + drawn.normal(size=number))


@pytest.mark.parametrize("number", [5, 10, 300])
def test_correlations_are_those_of_scipy(number: int) -> None:
    cosines, labels = pairs(number, 1)
    assert spearman(cosines, labels) == pytest.approx(stats.spearmanr(cosines, labels).statistic, abs=1e-9)
    assert pearson(cosines, labels) == pytest.approx(stats.pearsonr(cosines, labels).statistic, abs=1e-9)


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
def test_replicates_are_scipys_correlations_of_the_pairs_that_are_drawn(metric: Any) -> None:
    cosines, labels = pairs(30)
    score = correlation_score(metric, cosines, labels)
    wanted = replicates_by(lambda places: THEIRS[metric](cosines[places], labels[places]).statistic, 30)
    assert min(wanted) < 0
    clipped = np.maximum(wanted, 0)
    assert score.replicates == pytest.approx(clipped, abs=1e-9)
    assert score.stderr == pytest.approx(np.std(clipped, ddof=1))
    assert score.accuracy == pytest.approx(THEIRS[metric](cosines, labels).statistic, abs=1e-9)
    assert score.examples == tuple(cosines)
    assert is_resampled(score)


def test_a_negative_correlation_is_an_accuracy_of_0_and_told_as_it_is() -> None:
    cosines, labels = pairs(30)
    score = correlation_score("spearman", -cosines, labels)
    assert score.accuracy == 0.0
    assert np.mean(np.equal(score.replicates, 0.0)) > 0.9
    assert score.extra["spearman"] == pytest.approx(stats.spearmanr(-cosines, labels).statistic, abs=1e-9)
    assert score.extra["pearson"] == pytest.approx(stats.pearsonr(-cosines, labels).statistic, abs=1e-9)


def test_values_that_are_all_equal_correlate_with_nothing() -> None:
    assert spearman(np.ones(5), np.arange(5.0)) == pearson(np.arange(5.0), np.ones(5)) == 0.0
    score = correlation_score("spearman", np.array([0.1, 0.2]), np.array([1.0, 2.0]))
    assert score.accuracy == 1.0
    assert set(score.replicates) == {0.0, 1.0}  # a resample may hold one pair twice


def test_a_cosine_that_is_no_number_makes_the_score_none() -> None:
    score = correlation_score("spearman", np.array([0.1, math.nan, 0.2]), np.arange(3.0))
    assert math.isnan(score.accuracy)
    assert score.replicates == ()
