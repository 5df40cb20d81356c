"""After ``paretune sync`` MLflow has one run per trial, whatever was deleted, doubled or cut short there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from search.cli import main
from search.commands import sync
from search.config.study_config import StudyConfig
from search.records.stop_reason import StopReason
from search.reporting.finish import finish, report_folder
from search.study.lease import Lease, driver_of
from search.study.opening import connected
from search.study.study import run_study
from search.tracking.mlflow_tracker import TRIAL, MlflowTracker
from search.tracking.protocol import StudyEnd, StudyHeader
from tests.search.conftest import Quiet
from tests.search.tracking.test_mlflow_tracker import database as database
from tests.search.tracking.test_mlflow_tracker import runs_of
from tests.search.tracking.test_mlflow_tracker import tracked as tracked

COUNT = 4


def synced(config: StudyConfig) -> int:
    return main(
        ["sync", f"study={config.name}", f"home={config.home}", f"tracker.uri=sqlite:///{config.home}/mlflow.db"]
    )


def require_one_run_for_each_trial(config: StudyConfig) -> None:
    _, parents, children = runs_of(config.home)
    assert len(parents) == 1
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parents[0].info.run_id}
    assert Counter(int(child.data.params["trial"]) for child in children) == Counter(range(COUNT))
    assert {child.info.status for child in children} <= {"FINISHED", "FAILED"}
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.metrics["n_trials"] == COUNT


def parent_deleted(client: MlflowClient, parent: Any, _children: Any) -> None:
    client.delete_run(parent.info.run_id)


def experiment_deleted(client: MlflowClient, parent: Any, _children: Any) -> None:
    client.delete_experiment(parent.info.experiment_id)


def everything_deleted(client: MlflowClient, parent: Any, children: Any) -> None:
    for run in (parent, *children):
        client.delete_run(run.info.run_id)


def trials_deleted(client: MlflowClient, _parent: Any, children: Any) -> None:
    for run in children[:2]:
        client.delete_run(run.info.run_id)


def doubled(client: MlflowClient, parent: Any, children: Any) -> None:
    """As a client leaves it whose calls arrived, and whose answers did not."""
    for run in (parent, *children[:2]):
        tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.log")}
        again = client.create_run(run.info.experiment_id, tags=tags)
        if TRIAL in tags:
            client.log_param(again.info.run_id, "trial", run.data.params["trial"])
            client.set_terminated(again.info.run_id)


def left_running(client: MlflowClient, _parent: Any, children: Any) -> None:
    client.update_run(children[0].info.run_id, status="RUNNING")


@pytest.mark.parametrize(
    "fault", [parent_deleted, experiment_deleted, everything_deleted, trials_deleted, doubled, left_running]
)
def test_one_run_for_each_trial(fault: Callable[..., None], tracked: Callable[..., StudyConfig]) -> None:
    config = tracked(f"n_trials={COUNT}")
    assert finish(run_study(config, Quiet())) == 0
    client, (parent,), children = runs_of(config.home)
    fault(client, parent, children)
    assert synced(config) == 0
    require_one_run_for_each_trial(config)
    assert synced(config) == 0  # and once more changes nothing
    require_one_run_for_each_trial(config)


@pytest.mark.parametrize("fault", [parent_deleted, experiment_deleted])
def test_a_run_that_is_deleted_in_the_middle_of_a_study_is_made_again_at_its_end(
    fault: Callable[..., None], tracked: Callable[..., StudyConfig]
) -> None:
    class Meddler(Quiet):
        def trial(self, records: Any, front: Any) -> None:
            super().trial(records, front)
            if len(records) == 2:
                client, (parent,), children = runs_of(config.home)
                fault(client, parent, children)

    config = tracked(f"n_trials={COUNT}")
    assert finish(run_study(config, Meddler())) == 0
    require_one_run_for_each_trial(config)


def test_a_study_that_was_run_without_a_tracker_is_sent_where_one_says(
    make_config: Callable[..., StudyConfig], database: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(f"n_trials={COUNT}", "tracker=none")
    result = run_study(config, Quiet())
    result.mirror.close(StudyEnd((), result.stop_reason, {}, {}, ()))
    assert main(["sync", f"study={config.name}", f"home={config.home}"]) == 2
    assert "tracker.uri" in capsys.readouterr().err
    (config.home / "mlflow.db").write_bytes(database)
    assert synced(config) == 0
    require_one_run_for_each_trial(config)


def test_a_uid_that_the_search_takes_for_a_pattern_gets_no_run_of_another_study(tracked: Callable[..., Any]) -> None:
    config = tracked(f"n_trials={COUNT}")
    assert finish(run_study(config, Quiet())) == 0
    mirror = MlflowTracker().open(StudyHeader("%", "odd", config.project, config.home, {}))
    mirror.close(StudyEnd((), StopReason.BUDGET, {}, {}, ()))
    assert mirror.children == {}
    _, parents, children = runs_of(config.home)
    (own,) = [parent for parent in parents if parent.info.run_name != "odd"]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {own.info.run_id}


def test_a_study_that_another_process_runs_or_sends_is_refused_before_anything_is_written(
    tracked: Callable[..., StudyConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tracked(f"n_trials={COUNT}")
    assert finish(run_study(config, Quiet())) == 0
    report = report_folder(config) / "report.md"
    report.unlink()
    capsys.readouterr()
    with connected(config) as storage, Lease(storage, config.name).held():
        assert synced(config) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"paretune: study: {config.name} is being run or sent by process {os.getpid()} on ")
    assert said.count("\n") == 1
    assert not report.exists()
    assert synced(config) == 0
    assert report.exists()


def test_a_study_is_held_while_it_is_sent_and_given_back_afterwards(
    tracked: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tracked(f"n_trials={COUNT}")
    assert finish(run_study(config, Quiet())) == 0
    second: list[int] = []
    opened = MlflowTracker.open

    def open_twice(tracker: MlflowTracker, header: StudyHeader) -> Any:
        monkeypatch.setattr(MlflowTracker, "open", opened)
        second.append(synced(config))
        return opened(tracker, header)

    monkeypatch.setattr(MlflowTracker, "open", open_twice)
    assert synced(config) == 0
    assert second == [2]
    require_one_run_for_each_trial(config)
    with connected(config) as storage:
        assert driver_of(storage, config.name) is None


def test_who_is_quicker_at_the_same_moment_is_named(
    tracked: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tracked(f"n_trials={COUNT}")
    assert finish(run_study(config, Quiet())) == 0
    answers = [None, "process 7 on there"]
    monkeypatch.setattr(sync, "driver_of", lambda *_: answers.pop(0))
    with connected(config) as storage, Lease(storage, config.name).held():
        assert synced(config) == 2
    assert "sent by process 7 on there" in capsys.readouterr().err
