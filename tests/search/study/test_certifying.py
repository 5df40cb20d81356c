"""A front is certified by the sampler's own forecast, whichever class makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from optuna.samplers import BaseSampler

from search.commands.stored_study import certificate_of, load
from search.config.study_config import StudyConfig
from search.samplers.frontier import Forecasting, FrontierSampler
from search.study.study import run_study
from tests.search.conftest import Quiet


class Own(BaseSampler):
    """A user's sampler: no FrontierSampler, but it forecasts as one does, with another error and resolution."""

    def __init__(self) -> None:
        self._inner = FrontierSampler(error=0.3, resolution=0.07, tolerance=0.02, seed=0)
        self.error, self.resolution, self.asked = 0.3, 0.07, 0

    def forecast(self, anew: bool = False) -> Any:
        self.asked += 1
        return self._inner.forecast(anew)

    def inform(self, *known: Any) -> None:
        self._inner.inform(*known)

    def finished(self, anew: bool = False) -> bool:
        return self._inner.finished(anew)

    def timed_first(self) -> bool:
        return self._inner.timed_first()

    def latest(self) -> Any:
        return self._inner.latest()

    def infer_relative_search_space(self, *asked: Any) -> Any:
        return self._inner.infer_relative_search_space(*asked)

    def sample_relative(self, *asked: Any) -> Any:
        return self._inner.sample_relative(*asked)

    def sample_independent(self, *asked: Any) -> Any:
        return self._inner.sample_independent(*asked)


@pytest.mark.parametrize("trials", [4, 18])
def test_a_front_is_certified_by_the_forecast_of_a_sampler_of_ones_own(
    make_config: Callable[..., StudyConfig], trials: int
) -> None:
    samplers: list[Own] = []

    def make(_: int) -> Own:
        samplers.append(Own())
        return samplers[-1]

    assert isinstance(Own(), Forecasting)
    config = replace(make_config(f"n_trials={trials}"), sampler=make)
    found = run_study(config, Quiet()).certificate
    assert found is not None
    assert (found.error, found.resolution) == (0.3, 0.07)
    stored = load([f"study={config.name}", f"home={config.home}"])
    again = certificate_of(replace(stored, config=replace(stored.config, sampler=make)))
    assert again is not None
    assert (again.error, again.resolution, samplers[-1].asked) == (0.3, 0.07, 1)
    assert again.open == pytest.approx(found.open, abs=1e-6)
    assert again.counts == found.counts
