"""One thread for every test, and calibration data for the tiny models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from objectives.calibration.statistics import Statistics
from objectives.models import LoadedModel

Tiny = Callable[[str], LoadedModel]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """One thread, whatever the test before left: an evaluator sets as many as its device has."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def statistics(tiny: Tiny) -> Callable[[str], Statistics]:
    """Of a tiny model over 8 x 32 random tokens. Shared: never changed."""

    @cache
    def collected(family: str) -> Statistics:
        ids = torch.randint(2, 128, (8, 32), generator=torch.Generator().manual_seed(2))
        return Statistics(tiny(family), {"random": [ids]})

    return collected
