"""The knapsack against every combination there is."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.knapsack import Options, cheapest

losses_of = st.lists(st.sampled_from([0.0, 1e-3, 0.5, 1.0, 1.0, 3.0, 40.0, math.inf]), min_size=0, max_size=3)


@st.composite
def problems(draw: st.DrawFn) -> list[Options]:
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        losses = [0.0, *draw(losses_of)]
        gains = draw(st.lists(st.integers(1, 12), min_size=len(losses) - 1, max_size=len(losses) - 1))
        layers.append(Options([0, *(6 * gain for gain in gains)], losses))
    return layers


@given(problems(), st.floats(0, 200))
def test_without_tolerance_the_loss_is_least_among_all_that_gain_enough(layers: list[Options], target: float) -> None:
    found = cheapest(layers, target)
    enough = [
        sum(layer.losses[i] for layer, i in zip(layers, choice))
        for choice in itertools.product(*(range(len(layer.gains)) for layer in layers))
        if sum(layer.gains[i] for layer, i in zip(layers, choice)) >= target
    ]
    least = min(enough, default=math.inf)
    if found is None:
        assert math.isinf(least)
        return
    assert sum(layer.gains[i] for layer, i in zip(layers, found)) >= target * (1 - 1e-9)
    assert sum(layer.losses[i] for layer, i in zip(layers, found)) == pytest.approx(least)


@settings(max_examples=300)
@given(problems(), st.floats(0, 200), st.floats(0, 20))
def test_the_choice_is_the_best_of_all_choices(layers: list[Options], target: float, tolerance: float) -> None:
    found = cheapest(layers, target, tolerance)
    sums: dict[int, float] = {}
    for choice in itertools.product(*(range(len(layer.gains)) for layer in layers)):
        gain = sum(layer.gains[i] for layer, i in zip(layers, choice))
        loss = sum(layer.losses[i] for layer, i in zip(layers, choice))
        if math.isfinite(loss):
            sums[gain] = min(loss, sums.get(gain, math.inf))
    close = {gain for gain in sums if abs(gain - target) <= tolerance * (1 + 1e-9)}
    above = {gain for gain in sums if gain >= target}
    if found is None:
        assert not close | above
        return
    gain = sum(layer.gains[i] for layer, i in zip(layers, found))
    loss = sum(layer.losses[i] for layer, i in zip(layers, found))
    assert loss == pytest.approx(sums[gain])
    if close:
        assert gain in close
        assert loss / max(gain, 1) == pytest.approx(min(sums[g] / max(g, 1) for g in close))
    else:
        assert gain == min(above)


def test_many_layers_with_gains_that_share_no_divisor_are_still_chosen_closely() -> None:
    layers = [Options([0, 100_003, 200_009], [0.0, 1.0 + i, 3.0 + i]) for i in range(200)]
    found = cheapest(layers, 10_000_000, 50_000)
    assert found is not None
    assert sum(layer.gains[i] for layer, i in zip(layers, found)) == pytest.approx(10_000_000, rel=0.01)
    assert not any(found[120:])  # the dear layers keep everything
