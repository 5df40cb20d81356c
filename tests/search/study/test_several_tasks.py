"""Studies of two tasks over a closed-form model, and of one with a band: the front keeps all that is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from objectives.protocols.candidate import Candidate
from objectives.types import Decision, Facts, Measurement, Verdict
from search.config.study_config import StudyConfig, build_config
from search.errors import BaselineFailed
from search.front.accuracy_price import price_rows
from search.front.asked import asked_of, missed_by
from search.front.deciding_again import decided_again
from search.front.feasibility import is_feasible, is_open, is_scored
from search.frontier.forecast import Forecaster
from search.frontier.observations import known_of
from search.records.trial import TrialRecord
from search.reporting.finish import study_info
from search.space.grid import Grid
from search.study import opening, store
from search.study.study import StudyResult, run_study
from search.study.telling import Telling
from tests.search.conftest import FakeExecutor, Quiet, closed_form, composed, config_at

NODE = {"_target_": "tests.objectives.tasks.test_several.Constant"}
MakeStudy = Callable[..., StudyConfig]


def two_tasks(candidate: Candidate) -> Measurement:
    """Pruning costs the quiz, rounding costs the news."""
    found = closed_form(candidate)
    ratio, bits = candidate.pruning.ratio, candidate.quantization.bits  # type: ignore[attr-defined]
    quiz, news = 0.8 * (1 - 0.2 * ratio), 0.4 * (1 - {16: 0.0, 8: 0.01, 4: 0.2}[bits])
    metrics = {**found.metrics, "accuracy.quiz": quiz, "accuracy.news": news, "accuracy": (quiz + news) / 2}
    metrics |= {"accuracy_stderr.quiz": 0.01, "accuracy_stderr.news": 0.01}
    exact = Facts(tasks={"quiz": Facts(), "news": Facts()})
    return replace(found, metrics=metrics, facts=exact)


def first_miss(candidate: Candidate) -> Measurement:
    """The same, as the evaluator leaves it: news are not scored where the quiz is missed."""
    found = two_tasks(candidate)
    if found.metrics["accuracy.quiz"] >= 0.95 * 0.8:
        return found
    kept = {name: value for name, value in found.metrics.items() if name != "accuracy" and "news" not in name}
    missed = facts_of_missed()
    return replace(found, metrics=kept, facts=missed)


def facts_of_missed() -> Facts:
    verdict = Verdict(Decision.MISSED, "betting")
    return Facts(verdict=verdict, tasks={"quiz": Facts(verdict=verdict)})


@pytest.fixture
def study(tmp_path: Any) -> Callable[..., StudyResult]:
    def made(
        *words: str, answer: Any = two_tasks, tasks: Mapping[str, Any] = MappingProxyType({}), **floors: float
    ) -> StudyResult:
        resolved = composed(f"home={tmp_path / 'mlruns'}", "tracker=none", *words)
        resolved |= {"tasks": {"quiz": NODE, "news": NODE, **tasks}, "allow_targets": ["tests."]}
        resolved["accuracy_floor"] = {**resolved["accuracy_floor"], **floors}
        template = config_at(tmp_path / "template", *words, answer=answer)
        config = replace(build_config(resolved), executor=template.executor)
        assert isinstance(config.executor, FakeExecutor)
        return run_study(config, Quiet())

    return made


def keeps(record: Any, quiz: float, news: float) -> bool:
    shares = record.metrics["accuracy.quiz"] / 0.8, record.metrics["accuracy.news"] / 0.4
    return shares[0] >= quiz - 1e-12 and shares[1] >= news - 1e-12


@pytest.mark.parametrize("sampler", ["exhaustive", "frontier", pytest.param("tpe", marks=pytest.mark.slow)])
def test_the_front_keeps_the_floor_of_every_task(study: Callable[..., StudyResult], sampler: str) -> None:
    found = study(f"sampler={sampler}", "n_trials=40", quiz=0.95, news=0.97)
    by_number = {record.number: record for record in found.records}
    assert found.front.front
    assert all(keeps(by_number[number], 0.95, 0.97) for number in found.front.feasible)
    assert {record.number for record in found.records if keeps(record, 0.95, 0.97)} == set(found.front.feasible)


def test_the_frontier_sampler_finds_the_front_of_two_floors_without_measuring_all(
    study: Callable[..., StudyResult],
) -> None:
    whole = study("sampler=exhaustive", "n_trials=40", "study_name=whole", quiz=0.95, news=0.97)
    found = study("sampler=frontier", "n_trials=40", "study_name=found", answer=first_miss, quiz=0.95, news=0.97)
    fronts = [{tuple(r.records[number].params.items()) for number in r.front.front} for r in (whole, found)]
    assert fronts[0] == fronts[1]
    assert found.certificate is not None
    assert found.certificate.complete
    assert len(found.records) < len(whole.records)
    missed = [record for record in found.records if "accuracy.news" not in record.metrics]
    assert all(not is_feasible(record, 0.0) and is_scored(record) for record in missed)


def test_a_floor_of_the_mean_is_one_for_both(study: Callable[..., StudyResult]) -> None:
    found = study("sampler=exhaustive", "n_trials=40", mean=0.96)
    feasible = {record.number for record in found.records if record.metrics["accuracy"] >= 0.96 * 0.6 - 1e-12}
    assert feasible == set(found.front.feasible)
    assert found.front.floor == pytest.approx(0.576)


@pytest.mark.parametrize(("weights", "is_refused"), [({}, True), ({"quiz": 9.0}, False)])
def test_a_floor_of_the_mean_needs_a_baseline_whose_mean_is_above_chance(
    study: Callable[..., StudyResult], weights: dict[str, float], is_refused: bool
) -> None:
    """The quiz lies 0.1 above chance and the news 0.2 below it."""

    def near_chance(candidate: Candidate) -> Measurement:
        found = two_tasks(candidate)
        quiz = weights.get("quiz", 1.0) / (weights.get("quiz", 1.0) + 1)
        mean = quiz * found.metrics["accuracy.quiz"] + (1 - quiz) * found.metrics["accuracy.news"]
        return replace(found, metrics={**found.metrics, "accuracy": mean, "chance.quiz": 0.7, "chance.news": 0.6})

    if not is_refused:
        assert study("n_trials=2", "sampler=random", answer=near_chance, tasks={"weights": weights}, mean=0.9).records
        return
    for _ in range(2):  # the second time it is known from the store
        with pytest.raises(BaselineFailed, match=r"on the mean of all tasks of 0\.6, and guessing gives 0\.65") as told:
            study("n_trials=2", "sampler=random", answer=near_chance, mean=0.9)
        assert told.value.exit_code == 2


def test_optuna_is_told_a_constraint_for_each_task(study: Callable[..., StudyResult]) -> None:
    found = study("sampler=exhaustive", "n_trials=40", answer=first_miss, quiz=0.95, news=0.97)
    told = opening.optuna.load_study(study_name=found.config.name, storage=found.config.storage)
    for trial, record in zip(told.get_trials(deepcopy=False), found.records):
        names = {"accuracy.quiz", "accuracy.news"} if "accuracy.news" in record.metrics else {"accuracy.quiz"}
        assert set(trial.constraints) == names
        assert all(value <= 0 for value in trial.constraints.values()) == is_feasible(record, 0.0)


def test_the_chance_of_a_wrong_answer_is_shared_among_the_floors(study: Callable[..., StudyResult]) -> None:
    both = study("n_trials=1", "study_name=both", quiz=0.95, news=0.97).config
    mean = study("n_trials=1", "study_name=mean", mean=0.96).config
    assert 2 * Telling(both).error == Telling(mean).error


def test_another_floor_opens_what_was_not_scored(study: Callable[..., StudyResult]) -> None:
    found = study("sampler=exhaustive", "n_trials=40", answer=first_miss, quiz=0.95, news=0.97)
    again = decided_again(found.records, {}, 0.0, 0.01, {"quiz": 0.5, "news": 0.2})
    for before, now in zip(found.records, again):
        assert now.metrics["floor.quiz"] == 0.5
        assert is_open(now, 0.0) == ("accuracy.news" not in before.metrics)
        assert is_feasible(now, 0.0) == ("accuracy.news" in before.metrics)


def test_a_stored_race_is_decided_again_for_another_floor_of_one_task() -> None:
    """Eighty of a hundred examples were seen, all right, against a baseline that is right on half."""
    ids = [f"quiz:{number}" for number in range(100)]
    stored = {0: {"accuracy.quiz": [1.0, 0.0] * 50, "ids": ids}, 1: {"accuracy.quiz": [1.0] * 80, "ids": ids[:80]}}
    metrics = {"accuracy.quiz": 0.5, "accuracy_stderr.quiz": 0.05, "accuracy": 0.5, "floor.quiz": 0.45}
    base = TrialRecord(0, "u0", {"a": 0}, "complete", metrics, is_baseline=True, facts=Facts(tasks={"quiz": Facts()}))
    raced = Facts(tasks={"quiz": Facts(verdict=Verdict(Decision.REACHED, "betting"))})
    other = TrialRecord(1, "u1", {"a": 1}, "complete", {**metrics, "accuracy.quiz": 0.9}, facts=raced)
    decisions = []
    for floor in (0.45, 0.6, 0.99):
        _, now = decided_again([base, other], stored, 0.0, 0.01, {"quiz": floor})
        decisions.append(asked_of(now, 0.0)[0].verdict.decision)
    assert decisions == [Decision.REACHED, Decision.REACHED, Decision.OPEN]
    _, now = decided_again([base, other], {}, 0.0, 0.01, {"quiz": 0.6})
    assert is_open(now, 0.0)


def test_the_price_of_accuracy_goes_by_the_least_share(study: Callable[..., StudyResult]) -> None:
    found = study("sampler=exhaustive", "n_trials=40", quiz=0.95, news=0.97)
    rows = price_rows(found.records, "throughput")
    assert len(rows) > 1
    for row in rows:
        assert row.share == min(row.tasks["quiz"] / 0.8, row.tasks["news"] / 0.4)
        assert row.flat["accuracy_quiz"] == row.tasks["quiz"]
    shares = [row.share for row in rows]
    assert shares == sorted(shares, reverse=True)


def test_where_nothing_is_feasible_the_advice_names_floors_that_a_trial_keeps(
    study: Callable[..., StudyResult],
) -> None:
    found = study("sampler=exhaustive", "n_trials=40", quiz=1.1, news=1.2)
    info = study_info(
        found.config, found.records, found.front, {}, found.stop_reason, found.confirmation, found.certificate
    )
    assert not found.front.front
    text = " ".join(info.advice)
    assert "below the floor of news" in text
    words = text.rsplit("accuracies: ", 1)[1].rstrip(".").split()
    floors = {word.split("=")[0].removeprefix("accuracy_floor."): float(word.split("=")[1]) for word in words}
    again = decided_again(found.records, {}, 0.0, 0.01, {"quiz": 0.8 * floors["quiz"], "news": 0.4 * floors["news"]})
    assert any(is_feasible(record, 0.0) and not record.is_baseline for record in again)
    assert found.front.missed_by.count("floor") == 2


def test_the_chance_of_keeping_all_floors_is_the_least_of_any(study: Callable[..., StudyResult]) -> None:
    found = study("sampler=random", "n_trials=8", quiz=0.95, news=0.97)
    known = known_of(Grid.of(found.config.space), found.records, found.config.objectives, 0.0)
    forecaster = Forecaster()
    chances = [forecaster._keeping(known.grid, name, each) for name, each in known.floors.items()]
    assert set(known.floors) == {"quiz", "news"}
    open_ones = known.verdicts == 0
    assert open_ones.any()
    assert np.array_equal(forecaster.feasible(known)[open_ones], np.minimum(*chances)[open_ones])


def test_a_study_of_two_tasks_resumes(study: Callable[..., StudyResult]) -> None:
    first = study("sampler=exhaustive", "n_trials=4", answer=first_miss, quiz=0.95, news=0.97)
    second = study("sampler=exhaustive", "n_trials=40", answer=first_miss, quiz=0.95, news=0.97)
    assert second.config.name == first.config.name
    stored = store.records_of(opening.optuna.load_study(study_name=second.config.name, storage=second.config.storage))
    assert [record.facts for record in stored] == [record.facts for record in second.records]
    assert [record.metrics["floor.quiz"] for record in stored] == [0.8 * 0.95] * len(stored)


def test_a_band_is_kept_by_every_member_of_the_front(make_config: MakeStudy) -> None:
    """What is rounded to 4 bits rambles."""

    def rambling(candidate: Candidate) -> Measurement:
        found = closed_form(candidate)
        ratio = {16: 1.0, 8: 1.05, 4: 1.3}[candidate.quantization.bits]  # type: ignore[attr-defined]
        more = {"length_ratio": ratio, "length_ratio.least": 0.9, "length_ratio.most": 1.1}
        return replace(found, metrics={**found.metrics, **more})

    found = run_study(make_config("sampler=frontier", "n_trials=40", answer=rambling), Quiet())
    by_number = {record.number: record for record in found.records}
    assert found.front.front
    assert {by_number[number].metrics["length_ratio"] for number in found.front.feasible} <= {1.0, 1.05}
    outside = [record for record in found.records if record.metrics["length_ratio"] == 1.3]
    assert outside
    assert all(
        missed_by(record, found.front.floor).endswith("length ratio 1.3, outside 0.9 to 1.1") for record in outside
    )


def test_a_baseline_outside_its_own_band_ends_the_study(make_config: MakeStudy) -> None:
    def short(candidate: Candidate) -> Measurement:
        found = closed_form(candidate)
        more = {"length_ratio": 0.4, "length_ratio.least": 0.9, "length_ratio.most": 1.1}
        return replace(found, metrics={**found.metrics, **more})

    config = make_config("n_trials=4", "sampler=random", answer=short)
    for _ in range(2):  # the second time it is known from the store
        with pytest.raises(BaselineFailed, match=r"has a length ratio 0\.4, outside 0\.9 to 1\.1: it is not") as told:
            run_study(config, Quiet())
        assert told.value.exit_code == 2
    stored = store.records_of(opening.optuna.load_study(study_name=config.name, storage=config.storage))
    assert [record.is_baseline for record in stored] == [True]
