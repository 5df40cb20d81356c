from __future__ import annotations

import math

import pytest

from search.front.tradeoff import Chebyshev, Expression, Tradeoff, WeightedLogRatio

BASELINE = {"throughput": 100.0, "peak_memory": 400.0, "latency.p95": 0.2, "pruning_ratio": 0.0}
TRIAL = {"throughput": 200.0, "peak_memory": 100.0, "latency.p95": 0.1, "pruning_ratio": 0.3}


def test_twice_as_fast_counts_as_much_as_half_the_memory() -> None:
    f = WeightedLogRatio()
    faster, smaller = {**BASELINE, "throughput": 200.0}, {**BASELINE, "peak_memory": 200.0}
    assert f(faster, BASELINE) == pytest.approx(f(smaller, BASELINE)) == pytest.approx(-0.5 * math.log(2))


@pytest.mark.parametrize("f", [WeightedLogRatio(), Chebyshev()])
def test_the_baseline_itself_is_worth_zero(f: Tradeoff) -> None:
    assert f(BASELINE, BASELINE) == 0.0


def test_chebyshev_is_as_good_as_the_weakest_side() -> None:
    f = Chebyshev(weights={"throughput": 1.0, "peak_memory": 2.0})
    expected = -math.log(2) + 1e-3 * (-math.log(2) - 2 * math.log(4))
    assert f(TRIAL, BASELINE) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("peak_memory / throughput", 0.5),
        ("-throughput", -200.0),
        ("-" * 280 + "1", 1.0),
        ("latency.p95 * 2 ** 3 - 1", -0.2),
        ("peak_memory / baseline.peak_memory", 0.25),
        ("latency.p95 / baseline.latency.p95", 0.5),
        ("max(log(throughput), sqrt(peak_memory), min(1, 2))", 10.0),
        ("abs(1 - throughput / baseline.throughput)", 1.0),
    ],
)
def test_an_expression_is_arithmetic_over_metrics(text: str, value: float) -> None:
    assert Expression(expression=text)(TRIAL, BASELINE) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("__import__('os').system('true')", "not allowed"),
        ("throughput.__class__", "unknown metric"),
        ("throughput if True else 1", "not allowed"),
        ("[throughput for x in (1,)]", "not allowed"),
        ("exp(throughput)", r"'exp\(throughput\)' is not allowed.*log sqrt min max abs"),
        ("throughput // 2", "not allowed"),
        ("throughput and 1", "not allowed"),
        ("throughput < 2", "not allowed"),
        ("'text'", "not allowed"),
        ("True", "not allowed"),
        ("1j", "not allowed"),
        ("+throughput", "not allowed"),
        ("log(throughput, base=2)", "not allowed"),
        ("min(*throughput)", "not allowed"),
        ("sqrt(1, 2)", "takes one value, got 2"),
        ("througput", "did you mean 'throughput'"),
        ("baseline.througput", "did you mean 'throughput'"),
        ("latency", "did you mean 'latency"),
        ("throughput /", "not arithmetic"),
        ("", "not arithmetic"),
        ("-" * 290 + "1" * 20, "characters"),
        ("(" * 140 + "1", "not arithmetic"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Expression(expression=text)


@pytest.mark.parametrize(
    "text",
    [
        "throughput ** 9999999999",
        "9 ** 9 ** 9 ** 9 ** 9",
        "1 / pruning_ratio - 1 / (throughput - 200)",
        "log(-throughput)",
        "sqrt(0 - 1)",
        "(-8) ** 0.5",
        "1e308 * 10 - 1e308 * 10",
        "1e999",
    ],
)
def test_what_has_no_finite_value_counts_as_worst(text: str) -> None:
    assert Expression(expression=text)(TRIAL, BASELINE) == math.inf


def test_a_ratio_of_zero_counts_as_worst() -> None:
    assert WeightedLogRatio(weights={"pruning_ratio": 1.0})(TRIAL, BASELINE) == math.inf
    assert Chebyshev(weights={"pruning_ratio": 1.0})(BASELINE, BASELINE) == math.inf


@pytest.mark.parametrize("f", [WeightedLogRatio(weights={"ttft": 1.0}), Expression(expression="ttft")])
def test_a_missing_metric_is_named_with_those_that_are_there(f: Tradeoff) -> None:
    with pytest.raises(ValueError, match=r"'ttft'.*latency\.p95, peak_memory"):
        f(TRIAL, BASELINE)


@pytest.mark.parametrize("weights", [{}, {"throughput": 0.0}, {"throughput": math.inf}, {"speed": 1.0}, {"ttft": -1}])
@pytest.mark.parametrize("kind", [WeightedLogRatio, Chebyshev])
def test_weights_are_checked_at_construction(kind: type, weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        kind(weights=weights)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="wieghts"):
        WeightedLogRatio(wieghts={})  # type: ignore[call-arg]
