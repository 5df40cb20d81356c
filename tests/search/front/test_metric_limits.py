"""Limits on metrics: kept as measured, cell by cell, in front, search, certificate and report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives.protocols.running import Workload
from objectives.workloads.encoding import Encoding
from objectives.workloads.generation import Generation
from objectives.workloads.serving import Serving
from search.config.limited import metric_limits_of, require_measurable
from search.config.study_config import StudyConfig, build_config
from search.errors import ConfigError
from search.front.accuracy_price import price_rows
from search.front.advice import advice
from search.front.feasibility import is_feasible
from search.front.front import by_floor, cut
from search.front.metric_limits import MetricLimit, MetricLimits, limits_on, what_is_asked
from search.front.tradeoff import WeightedLogRatio
from search.frontier.certificate import INFEASIBLE, certify
from search.frontier.observations import known_of
from search.space.grid import Grid
from search.study.study import run_study
from tests.search.conftest import Quiet, composed, config_at
from tests.search.front.test_front import BASELINE, OBJECTIVES, trial

MakeConfig = Callable[..., StudyConfig]
LIMITS = MetricLimits({"peak_memory": 300.0, "throughput": 110.0})


def limited(*records: object) -> list[object]:
    return [LIMITS.on(record) for record in records]  # type: ignore[arg-type]


def test_less_is_limited_from_above_and_more_from_below_and_the_measured_value_decides() -> None:
    assert MetricLimit("ttft.p95", 0.5, 0.5).is_kept
    assert not MetricLimit("ttft.p95", 0.5, 0.500001).is_kept
    assert MetricLimit("goodput", 2.0, 2.0).is_kept
    assert not MetricLimit("goodput", 2.0, 1.99).is_kept
    assert not MetricLimit("goodput", 2.0, math.nan).is_kept
    assert MetricLimit("ttft.p95", 0.5, 0.75).excess == pytest.approx(0.5)
    assert MetricLimit("goodput", 2.0, 1.0).excess == pytest.approx(0.5)
    assert MetricLimit("goodput", 2.0, 3.0).excess < 0
    assert MetricLimit("goodput", 2.0, 4.0).margin == pytest.approx(math.log(2))
    assert MetricLimit("ttft", 0.5, 1.0).margin == pytest.approx(-math.log(2))
    assert str(MetricLimit("ttft.p95", 0.5, 0.62)) == "ttft.p95 0.62, above its limit of 0.5"
    assert what_is_asked("goodput", 2.0) == "goodput at least 2 requests/s"


def test_what_is_beyond_a_limit_is_on_no_front_whatever_its_floor() -> None:
    records = limited(BASELINE, trial(1, 120, 200), trial(2, 300, 390), trial(3, 105, 100, accuracy=0.9))
    front = cut(records, OBJECTIVES, 0.45, WeightedLogRatio())  # type: ignore[arg-type]
    assert front.front == (1,)
    assert front.feasible == {1}
    assert [step.front for step in by_floor(records, front)] == [(1,)]  # type: ignore[arg-type]
    assert {row.trial for row in price_rows(records, "throughput")} == {1}  # type: ignore[arg-type]


def test_the_nearest_miss_is_the_one_that_exceeds_least_and_says_by_what() -> None:
    records = limited(BASELINE, trial(1, 100, 310), trial(2, 108, 305))
    front = cut(records, OBJECTIVES, 0.45, WeightedLogRatio())  # type: ignore[arg-type]
    assert front.nearest_miss == 2
    assert front.missed_by == "peak_memory 305, above its limit of 300; throughput 108, below its limit of 110"
    (line, *_) = advice(records, front, config_floor())  # type: ignore[arg-type]
    assert "miss what is asked" in line
    assert "above its limit of 300" in line


def config_floor() -> object:
    from search.front.accuracy_floor import AccuracyFloor

    return AccuracyFloor(epsilon=0.9)


def test_limits_of_a_study_replace_those_that_a_trial_carries() -> None:
    before = MetricLimits({"ttft": 1.0}).on(trial(1, 1, 1))
    after = LIMITS.on(before)
    assert [each.metric for each in limits_on(after.metrics)] == ["peak_memory", "throughput"]
    assert limits_on(MetricLimits().on(after).metrics) == []
    failed = replace(trial(1, 1, 1), state="failed")
    assert LIMITS.on(failed) is failed


def test_a_limit_is_of_a_cell_and_closes_no_other_of_its_recipe(make_config: MakeConfig) -> None:
    grid = Grid.of(make_config("space.workload.batch_size=[1,4]").space)
    records = []
    for index, memory in ((0, 200.0), (1, 400.0)):
        one = trial(index, 120.0, memory)
        records.append(LIMITS.on(replace(one, params=grid.cell(index))))
    assert grid.recipes[0] == grid.recipes[1]
    known = known_of(grid, records, OBJECTIVES, 0.45)
    assert known.beyond[:2].tolist() == [False, True]
    assert known.verdicts[grid.recipes[0]] == 1
    assert 0 in known.front.tolist()
    assert 1 not in known.front.tolist()
    assert known.margins["peak_memory"][:2] == pytest.approx([math.log(1.5), math.log(0.75)])
    assert np.isnan(known.margins["peak_memory"][2:]).all()


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same study with limits, by the frontier sampler and exhaustively, and without limits."""
    home = tmp_path_factory.mktemp("limits")
    found = {}
    free = run_study(config_at(home, "study_name=free", "sampler=exhaustive", "confirm=false", "n_trials=100"), Quiet())
    memories = sorted(record.metrics["peak_memory"] for record in free.records if record.number in free.front.front)
    most = memories[len(memories) // 2]
    limit = f"limits={{peak_memory: {most}}}"
    for sampler in ("frontier", "exhaustive"):
        words = (f"study_name={sampler}", f"sampler={sampler}", "confirm=false", "n_trials=100", limit)
        found[sampler] = run_study(config_at(home, *words), Quiet())
    return {**found, "free": free, "limit": most}


def test_the_search_finds_the_limited_front_and_knows_that_it_is_complete(studies: dict[str, object]) -> None:
    frontier, exhaustive, free = studies["frontier"], studies["exhaustive"], studies["free"]
    cells = [
        {tuple(record.params.values()) for record in study.records if record.number in study.front.front}  # type: ignore[attr-defined]
        for study in (frontier, exhaustive, free)
    ]
    assert cells[0] == cells[1] != cells[2]
    assert len(frontier.records) < len(exhaustive.records)  # type: ignore[attr-defined]
    assert all(
        record.metrics["peak_memory"] <= studies["limit"]
        for record in frontier.records  # type: ignore[attr-defined]
        if record.number in frontier.front.feasible  # type: ignore[attr-defined]
    )


def test_the_certificate_says_of_a_cell_which_limit_it_exceeds(studies: dict[str, object]) -> None:
    study = studies["exhaustive"]
    grid = Grid.of(study.config.space)  # type: ignore[attr-defined]
    certificate = certify(grid, study.records, study.front)  # type: ignore[attr-defined]
    assert certificate is not None
    assert certificate.complete
    told = [each.why for each in certificate.standings if each.status == INFEASIBLE and "limit" in each.why]
    assert told
    assert all("peak_memory" in why for why in told)


# ---- the setting


def test_limits_are_written_flat_or_nested_and_by_either_name() -> None:
    assert metric_limits_of({"ttft": {"p95": 0.5}, "tpot_p95": 1}).limits == {"ttft.p95": 0.5, "tpot.p95": 1.0}
    assert not metric_limits_of(None)
    assert not metric_limits_of({"ttft": None})


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"ttft.p96": 1.0}, r"limits: unknown metric 'ttft.p96' \(did you mean"),
        ({"ttft": True}, "limits.ttft: expected a number in base units"),
        ({"ttft": "fast"}, "got 'fast'"),
        ({"ttft": math.inf}, "expected a number"),
        ({"ttft": -0.5}, "limits.ttft: no value is below 0"),
        ({"accuracy": 0.9}, "an accuracy has a floor"),
        ({"ttft.p95": 1.0, "ttft_p95": 1.0}, "may be limited once"),
        (3, "expected metrics with numbers"),
    ],
)
def test_a_wrong_limit_is_refused_in_a_line(node: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        metric_limits_of(node)
    assert "\n" not in str(caught.value)


def test_a_metric_that_is_not_measured_cannot_be_limited(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"limits\.reserved_peak: it is not measured for this model and workload"):
        run_study(make_config("limits={reserved_peak: 1}"), Quiet())


@pytest.mark.parametrize(
    ("workload", "metric", "told"),
    [
        (Encoding(), "goodput", "goodput is not measured by this workload: workload=serving has it"),
        (Encoding(), "ttft", "an encoder writes no tokens"),
        (Generation(), "ttft.p95", "workload=serving has it"),
        (Serving(slo_ttft=1.0), "per_token", "a load has no batches"),
        (Serving(), "goodput", "workload.slo_ttft=0.5"),
    ],
)
def test_a_metric_that_a_workload_never_has_is_refused_before_anything_runs(
    workload: Workload, metric: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        require_measurable({"limits": [metric]}, workload)
    assert "\n" not in str(caught.value)


def test_metrics_that_a_workload_has_are_taken() -> None:
    require_measurable({"objectives": ["speedup", "ttft", "peak_memory"]}, Generation())
    require_measurable({"objectives": ["goodput"], "limits": ["ttft.p95", "itl"]}, Serving(slo_tpot=0.1))


def test_limits_make_another_study_and_none_leave_name_and_definition_as_they_were() -> None:
    plain, without, with_limits = (
        build_config(composed("study_name=null", *words)) for words in ((), ("limits=null",), ("limits={ttft: 1}",))
    )
    assert plain.name == without.name != with_limits.name
    assert "limits" not in plain.definition
    assert with_limits.definition["limits"] == {"ttft": 1.0}


def test_a_trial_without_limits_is_judged_by_its_floor_alone(tmp_path: Path) -> None:
    assert is_feasible(trial(1, 1, 1), 0.4)
    assert not is_feasible(MetricLimits({"peak_memory": 0.5}).on(trial(1, 1, 1)), 0.4)
