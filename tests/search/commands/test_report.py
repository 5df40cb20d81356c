"""``paretune report``: a stored study is reported as its run reported it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.cli import main
from search.config.study_config import StudyConfig
from search.records.stop_reason import StopReason
from search.reporting.finish import finish, report_folder
from search.study import store
from search.study.opening import open_study
from search.study.study import run_study
from tests.search.conftest import Quiet


def study_facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "pareto.json").read_text())["study"]


def reported(config: StudyConfig) -> dict[str, Any]:
    """Return the facts of the study after ``paretune report`` wrote them again."""
    assert main(["report", f"study={config.name}", f"home={config.home}"]) == 0
    return study_facts(report_folder(config))


def stored(config: StudyConfig) -> optuna.Study:
    return open_study(config, config.sampler)


def test_a_report_leaves_the_stop_reason(make_config: Callable[..., StudyConfig]) -> None:
    config = make_config("n_trials=3")
    assert finish(run_study(config, Quiet())) == 0
    assert study_facts(report_folder(config))["stop_reason"] == "budget"
    assert reported(config)["stop_reason"] == "budget"


@pytest.mark.parametrize("text", ["stored", "a reason of tomorrow"])
def test_a_reason_that_nobody_knows_is_told_as_old_reports_told_it(
    make_config: Callable[..., StudyConfig], text: str
) -> None:
    config = make_config("n_trials=3")
    run_study(config, Quiet())
    stored(config).set_user_attr(store.STOP, text)
    assert store.stop_of(stored(config)) is StopReason.UNKNOWN
    assert reported(config)["stop_reason"] == "stored"


def test_a_study_that_runs_has_no_stop_reason_yet(make_config: Callable[..., StudyConfig]) -> None:
    config = make_config("n_trials=2")
    run_study(config, Quiet())
    found = []

    class Asking(Quiet):
        def trial(self, *_: object) -> None:
            found.append(store.stop_of(stored(config)))

    run_study(make_config("n_trials=3"), Asking())
    assert set(found) == {StopReason.UNKNOWN}
    assert store.stop_of(stored(config)) is StopReason.BUDGET


@pytest.mark.parametrize("asked", ["limits={reserved_peak: 1}", "objectives=[speedup,energy]"])
def test_what_no_trial_measured_is_no_limit_and_no_objective(
    make_config: Callable[..., StudyConfig], asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("n_trials=2")
    run_study(config, Quiet())
    assert main(["report", f"study={config.name}", f"home={config.home}", asked]) == 2
    assert f"no trial of {config.name} measured" in capsys.readouterr().err
