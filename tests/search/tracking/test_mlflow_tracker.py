from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from search.records.stop_reason import StopReason
from search.records.trial import TrialRecord
from search.reporting.finish import finish
from search.study.study import run_study
from search.tracking.mlflow_tracker import MlflowTracker, _changed, flatten
from search.tracking.protocol import StudyEnd, StudyHeader
from tests.search.conftest import Quiet


def runs_of(home, project="ci_tiny"):
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name(project)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return client, parents, children


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A migrated database: creating the schema takes seconds."""
    home = tmp_path_factory.mktemp("mlflow")
    MlflowTracker().open(StudyHeader("0", "warm", "warm", home, {}))
    return (home / "mlflow.db").read_bytes()


@pytest.fixture
def tracked(make_config, database):
    def make(*overrides, **kwargs):
        config = replace(make_config(*overrides, **kwargs), tracker=MlflowTracker())
        config.home.mkdir(parents=True, exist_ok=True)
        if not (config.home / "mlflow.db").exists():
            (config.home / "mlflow.db").write_bytes(database)
        return config

    return make


def test_one_parent_has_as_many_children_as_trials_with_the_same_figures(tracked) -> None:
    config = tracked("n_trials=4")
    result = run_study(config, Quiet())
    assert finish(result) == 0
    client, parents, children = runs_of(config.home)
    assert len(parents) == 1
    assert len(children) == len(result.records) == 4
    by_number = {int(child.data.params["trial"]): child for child in children}
    for record in result.records:
        child = by_number[record.number]
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.metrics == pytest.approx(dict(record.metrics))
        assert child.data.params["quantization.bits"] == str(record.params["quantization.bits"])
    summary = parents[0].data.metrics
    assert summary["n_front"] == len(result.front.front)
    assert summary["headline.together.low"] < summary["headline.together"] == summary["recommended.speedup"]
    assert parents[0].info.status == "FINISHED"
    names = {file.path for file in client.list_artifacts(parents[0].info.run_id, "report")}
    expected = {
        "pareto.csv",
        "trials.csv",
        "pareto.json",
        "report.md",
        "report.html",
        "front.png",
        "cells.csv",
        "price.csv",
    }
    assert names == {f"report/{name}" for name in expected}


def test_a_resumed_study_keeps_its_parent_and_adds_only_what_is_new(tracked) -> None:
    finish(run_study(tracked("n_trials=2"), Quiet()))
    config = tracked("n_trials=3")
    finish(run_study(config, Quiet()))
    _, parents, children = runs_of(config.home)
    assert len(parents) == 1
    assert len(children) == len({child.data.tags["paretune.trial_uid"] for child in children}) == 3


def test_a_tracker_that_fails_costs_a_warning_and_not_the_study(tracked, caplog) -> None:
    config = replace(tracked("n_trials=2"), tracker=MlflowTracker(uri="sqlite:////proc/nowhere/mlflow.db"))
    with caplog.at_level(logging.WARNING, logger="search.tracking"):
        result = run_study(config, Quiet())
    assert len(result.records) == 2
    assert len([record for record in caplog.records if "the tracker failed" in record.getMessage()]) == 1
    assert "paretune sync" in result.mirror.close(StudyEnd(result.records, result.stop_reason, {}, {}, ()))


def test_failed_trials_are_mirrored_with_their_reason(tracked, tmp_path) -> None:
    config = tracked()
    config.home.mkdir(parents=True, exist_ok=True)
    mirror = MlflowTracker().open(StudyHeader("u", "study", "ci_tiny", config.home, {}))
    mirror.log(TrialRecord(0, "u:0", {"quantization.bits": 4}, "failed", reason="crashed", message="killed by SIGKILL"))
    _, _, children = runs_of(config.home)
    assert children[0].info.status == "FAILED"
    assert children[0].data.tags["reason"] == "crashed"


@pytest.mark.parametrize(("reason", "status"), [(StopReason.INTERRUPTED, "KILLED"), (StopReason.BUDGET, "FINISHED")])
def test_an_interrupted_study_is_killed_whatever_its_tags_say(tracked, reason, status) -> None:
    config = tracked()
    mirror = MlflowTracker().open(StudyHeader("u", "study", "ci_tiny", config.home, {}))
    mirror.close(StudyEnd((), reason, {}, {"stop_reason": "any"}, ()))
    _, parents, _ = runs_of(config.home)
    assert parents[0].info.status == status


def test_nothing_that_looks_like_a_secret_becomes_a_parameter() -> None:
    tree = {"a": {"api_key": "x", "b": 1}, "token": "y", "storage": "postgresql://u:p@h/d", "n": [1, 2]}
    assert flatten(tree) == {"a.b": 1, "n": [1, 2]}


def test_only_new_values_count_as_changed() -> None:
    assert _changed({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0, "c": 4.0}) == {"b": 3.0, "c": 4.0}
