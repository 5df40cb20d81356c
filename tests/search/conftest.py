"""Studies over a closed-form model: the whole search runs in milliseconds, as a mock transport serves a client."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from objectives.measuring.stored_facts import facts_of
from objectives.metrics import is_dominated
from objectives.protocols.candidate import Candidate
from objectives.types import Measurement, Outcome
from search.commands.run import CONF, plain
from search.config.study_config import StudyConfig, build_config
from tests.faults.closed_form import cell_of, measured
from tests.search.study.postgresql import postgresql as postgresql

RATIOS = "space.pruning.ratio=[0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7]"

HOME = "/the/home/of/a/test"

Answer = Callable[[Candidate], Outcome]


def closed_form(candidate: Candidate) -> Measurement:
    """Measure in closed form; the surfaces are those of the injected faults."""
    metrics = measured(cell_of(candidate))
    return Measurement(metrics, {"latency": (metrics["latency.p50"],) * 2})


def slow_to_score(candidate: Candidate) -> Measurement:
    """The same with quirks of a tenth in every cell's speed, where scoring takes twenty times as long as timing."""
    found = closed_form(candidate)
    cell = (candidate.pruning.ratio, candidate.quantization.bits, candidate.workload.batch_size)
    nugget = math.exp(random.Random(str(cell)).gauss(0.0, 0.1))
    metrics = {**found.metrics, "score_seconds": 20.0, "run_seconds": 1.0}
    metrics |= {name: metrics[name] * nugget for name in ("throughput", "speedup")}
    return replace(found, metrics=metrics)


def behind(found: Measurement, incumbents: Any) -> Measurement:
    """As the evaluator leaves it: what is dominated is not scored."""
    if not any(is_dominated(found.metrics, other) for other in incumbents):
        return found
    metrics = {name: value for name, value in found.metrics.items() if not name.startswith("accuracy")}
    return replace(found, metrics=metrics, facts=facts_of({"verdict": "unscored"}))


@dataclass
class FakeExecutor:
    """Answers from a function and remembers what it was asked."""

    answer: Answer = closed_form
    loss: Callable[[Candidate], float] = lambda _candidate: math.nan

    def __post_init__(self) -> None:
        self.asked: list[Candidate] = []
        self.confirmed: list[Candidate] = []
        self.left = 0

    def start(self, _problem: object) -> FakeExecutor:
        return self

    def __enter__(self) -> FakeExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1

    def prepare(self) -> Future[Mapping[str, str]]:
        return done({"device": "fake"})

    def sources(self) -> Future[list[Any]]:
        return done([])

    def evaluate(self, candidate: Candidate, gate: Any = None) -> Future[Outcome]:
        self.asked.append(candidate)
        found = self.answer(candidate)
        if gate is not None and gate.timed_first and isinstance(found, Measurement):
            found = behind(found, gate.incumbents)
        return done(found)

    def predict_losses(self, candidates: Any) -> Future[list[float]]:
        return done([self.loss(candidate) for candidate in candidates])

    def confirm(self, candidates: Any) -> Future[list[Measurement]]:
        self.confirmed.extend(candidates)
        return done([self.answer(candidate) for candidate in candidates])


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Quiet:
    """Progress that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def stage(self, text: str) -> None:
        pass

    def scoring(self, far: Any) -> None:
        pass

    def trial(self, records: Any, front: Any) -> None:
        self.shown.append(len(front.front))


def _chooses(word: str) -> bool:
    """Return whether ``word`` chooses a file of a group, and sets no single value."""
    return (CONF / word.lstrip("+~").partition("=")[0]).is_dir()


@cache
def _chosen(choices: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(choices))


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    config = deepcopy(_chosen(tuple(word for word in overrides if _chooses(word))))
    values = OverridesParser.create().parse_overrides([word for word in overrides if not _chooses(word)])
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return plain(config)


def composed(*overrides: str) -> dict[str, Any]:
    """What Hydra makes of the command line's words.

    Hydra reads the files of the chosen groups, then sets single values. The first takes 0.2 s, so it is done once for
    all tests with the same choices.
    """
    return deepcopy(_composed(overrides))


def moved(resolved: Any, home: str) -> Any:
    """``resolved`` with another folder in place of :data:`HOME`."""
    if isinstance(resolved, dict):
        return {key: moved(value, home) for key, value in resolved.items()}
    if isinstance(resolved, list):
        return [moved(value, home) for value in resolved]
    return resolved.replace(HOME, home) if isinstance(resolved, str) else resolved


def config_at(home: Path, *overrides: str, answer: Answer = closed_form) -> StudyConfig:
    """A validated study of the ci_tiny preset with a fake executor and no tracker."""
    base = ("experiment=ci_tiny", "tracker=none", "device=cpu", f"home={HOME}")
    resolved = moved(composed(*base, *overrides), str(home))
    return replace(build_config(resolved), executor=FakeExecutor(answer))


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., StudyConfig]:
    """Make such a study below the test's own folder."""
    return partial(config_at, tmp_path / "mlruns")
