"""Metrics of ranks are those of scikit-learn and of plain loops; guessing is what random orders reach."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from objectives.tasks.ranking import RankMetric, guessed, ranks, rated

METRICS: tuple[Any, ...] = get_args(RankMetric)


def drawn(seed: int, documents: int, relevant: int) -> tuple[Any, list[int]]:
    random = np.random.default_rng(seed)
    similarities, right = random.normal(size=documents), random.choice(documents, relevant, replace=False)
    similarities[right] += 1
    return similarities, right.tolist()


def plainly(metric: str, similarities: Any, relevant: list[int]) -> float:
    """By another way: go down the order of all documents; of equal ones the relevant come last."""
    order = sorted(range(len(similarities)), key=lambda place: (-similarities[place], place in relevant))
    hits = [place in relevant for place in order]
    if metric == "mrr":
        return 1 / (1 + hits.index(True))
    if metric == "ndcg@10":
        gained = sum(hit / math.log2(2 + place) for place, hit in enumerate(hits[:10]))
        return gained / sum(1 / math.log2(2 + place) for place in range(min(10, len(relevant))))
    return float(any(hits[: int(metric.partition("@")[2])]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("documents", "relevant"), [(2, 1), (7, 3), (40, 1), (40, 15), (12, 12), (300, 4)])
def test_metrics_are_those_of_a_plain_loop(metric: Any, documents: int, relevant: int) -> None:
    for seed in range(20):
        similarities, right = drawn(seed, documents, relevant)
        for values in (similarities, np.round(similarities)):  # without and with equal ones
            assert rated(metric, ranks(values, right)) == pytest.approx(plainly(metric, values, right))


@pytest.mark.parametrize(("documents", "relevant"), [(7, 3), (40, 15), (300, 4)])
def test_ndcg_is_that_of_scikit_learn(documents: int, relevant: int) -> None:
    found = []
    for seed in range(20):
        similarities, right = drawn(seed, documents, relevant)
        truth = np.isin(np.arange(documents), right).astype(float)
        found.append(rated("ndcg@10", ranks(similarities, right)))
        assert found[-1] == pytest.approx(ndcg_score([truth], [similarities], k=10), abs=1e-6)
    assert 0 < np.mean(found) < 1


@pytest.mark.parametrize("first", [1, 5, 10])
def test_accuracy_at_k_is_that_of_scikit_learn(first: int) -> None:
    similarities = np.random.default_rng(0).normal(size=(60, 60))
    ours: Any = [rated(f"accuracy@{first}", ranks(row, [place])) for place, row in enumerate(similarities)]  # type: ignore[arg-type]
    assert np.mean(ours) == pytest.approx(top_k_accuracy_score(np.arange(60), similarities, k=first))


def test_a_model_that_finds_all_texts_alike_finds_nothing() -> None:
    assert ranks(np.ones(5), [0, 3]).tolist() == [4, 5]
    assert rated("accuracy@1", ranks(np.ones(5), [0])) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_similarity_that_is_no_number_leaves_the_query_without_one(metric: Any, wrong: float) -> None:
    assert math.isnan(rated(metric, ranks(np.array([0.2, wrong, 0.3]), [0])))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("documents", "relevant"), [(2, 1), (12, 1), (12, 4), (5, 5), (40, 15)])
def test_guessing_reaches_what_random_orders_do(metric: Any, documents: int, relevant: int) -> None:
    random = np.random.default_rng(0)
    tried = [rated(metric, ranks(random.normal(size=documents), range(relevant))) for _ in range(4000)]
    assert guessed(metric, relevant, documents) == pytest.approx(np.mean(tried), abs=0.02)
