"""A study warmed by another: it starts better, ends the same, and reports nothing of the other's."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from objectives.types import Measurement
from search.errors import ConfigError
from search.space.grid import Grid
from search.study.study import run_study
from search.study.warm_start import warm_start_of
from tests.search.conftest import RATIOS, Quiet, closed_form, config_at

WHOLE = ("sampler=exhaustive", "n_trials=200", RATIOS, "study_name=whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The home of a study that ran; copied, since others are stored beside it."""
    home = tmp_path_factory.mktemp("whole") / "mlruns"
    run_study(config_at(home, *WHOLE), Quiet())
    return home


@pytest.fixture
def studies(make_config, whole, tmp_path):
    """The same space twice: a study that ran, and one for other batch sizes that it warms."""
    shutil.copytree(whole, tmp_path / "mlruns")

    def make(*overrides: str, answer=closed_form):
        batches = "space.workload.batch_size=[1,2,8]"
        return make_config("sampler=frontier", "n_trials=200", RATIOS, batches, *overrides, answer=answer)

    return make


def slower(candidate) -> Measurement:
    """Another device: half as fast, and batches gain less."""
    found = closed_form(candidate)
    speed = found.metrics["throughput"] / 2 / candidate.workload.batch_size**0.1
    return replace(found, metrics={**found.metrics, "throughput": speed, "speedup": speed / 50})


def test_the_hint_tells_gains_over_the_baseline_at_cells_that_the_other_study_has_not(studies) -> None:
    config = studies("warm_start=whole")
    warm_start, grid = warm_start_of(config), Grid(config.space.axes)
    cells = [grid.cell(index) for index in range(len(grid))]
    truth = [closed_form(config.space.candidate(cell)).metrics for cell in cells]
    gains = np.array([[-np.log(each["speedup"]), np.log(each["peak_memory"] / 1.01e8)] for each in truth])
    away = warm_start.values - gains - np.median(warm_start.values - gains, axis=0)
    inside = [index for index, cell in enumerate(cells) if cell["workload.batch_size"] < 8]
    assert np.abs(away[inside]).max() < 0.1
    accuracies = np.array([each["accuracy"] for each in truth])[np.unique(grid.recipes, return_index=True)[1]]
    assert warm_start.accuracy - accuracies == pytest.approx(
        np.full(24, (warm_start.accuracy - accuracies).mean()), abs=0.01
    )


@pytest.mark.parametrize("answer", [closed_form, pytest.param(slower, marks=pytest.mark.slow)])
def test_a_warm_study_needs_fewer_trials_for_the_same_front(studies, answer) -> None:
    cold = run_study(studies("study_name=cold", answer=answer), Quiet())
    warm = run_study(studies("study_name=warm", "warm_start=whole", answer=answer), Quiet())
    fronts = [{tuple(r.records[n].params.items()) for n in r.front.front} for r in (cold, warm)]
    assert fronts[0] == fronts[1]
    assert len(warm.records) < len(cold.records)
    for record in warm.records:  # what is reported was measured here
        own = answer(warm.config.space.candidate(record.params)).metrics
        assert (record.metrics["speedup"], record.metrics["peak_memory"]) == (own["speedup"], own["peak_memory"])
        assert record.metrics.get("accuracy", own["accuracy"]) == own["accuracy"]


@pytest.mark.slow
@pytest.mark.usefixtures("studies")
def test_other_samplers_begin_with_the_other_front(make_config) -> None:
    config = make_config("sampler=random", "n_trials=40", RATIOS, "warm_start=whole")
    whole = run_study(make_config(*WHOLE), Quiet())
    front = [dict(whole.records[number].params) for number in whole.front.front]
    tried = [dict(record.params) for record in run_study(config, Quiet()).records]
    assert all(cell in tried[: len(front) + 1] for cell in front)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["warm_start=hole"], "warm_start: no study named 'hole' (did you mean whole?); known: whole"),
        (
            ["warm_start=whole", "+space.pruning.attention_ratio=[0.0,0.5]"],
            "warm_start: whole varies pruning.ratio, quantization.bits, workload.batch_size, this study pruning.",
        ),
    ],
)
def test_a_study_that_is_no_help_is_refused_before_anything_is_measured(studies, overrides, words) -> None:
    config = studies(*overrides)
    with pytest.raises(ConfigError) as refused:
        run_study(config, Quiet())
    assert str(refused.value).startswith(words)
    assert config.executor.asked == []
