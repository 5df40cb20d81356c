"""A study as Python sees it holds what its report holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import paretune
from paretune import ConfigError, NothingFeasible, Study
from search.config.study_config import StudyConfig
from search.reporting.finish import finish, report_folder
from search.study.study import run_study
from tests.search.conftest import Quiet, config_at


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A stored study of a closed form, with its report."""
    made = config_at(tmp_path_factory.mktemp("study") / "mlruns", "sampler=exhaustive", "n_trials=18")
    assert finish(run_study(made, Quiet())) == 0
    return made


@pytest.fixture
def study(config: StudyConfig) -> Study:
    return paretune.open(home=config.home)


def test_the_latest_study_is_opened_or_one_by_its_name(config: StudyConfig, study: Study) -> None:
    assert study.name == paretune.open(config.name, home=config.home).name == config.name
    assert paretune.open(storage=config.storage, home=config.home).name == config.name
    assert study.words == ()
    with pytest.raises(ConfigError, match=r"study: no study named 'x'"):
        paretune.open("x", home=config.home)


def test_its_tables_are_those_of_the_report(config: StudyConfig, study: Study) -> None:
    folder = report_folder(config)
    for table, name in ((study.trials, "trials.csv"), (study.front, "pareto.csv")):
        written = pd.read_csv(folder / name).set_index("trial")
        assert list(table.index) == list(written.index)
        assert list(table.columns) == list(written.columns)
        assert table.accuracy.tolist() == pytest.approx(written.accuracy.tolist())
    assert study.report == folder / "report.html"
    assert (study.front.accuracy >= study.floor).all()


def test_the_best_is_the_recommended_member(study: Study) -> None:
    assert study.best.recommended
    assert study.best.name in study.front.index
    assert study.best_params["quantization.bits"] == study.best.bits
    assert study.best_metrics["accuracy"] == study.best.accuracy
    assert study.baseline.is_baseline
    assert study.baseline.bits == 16


def test_it_shows_the_front_and_the_recommendation_in_plain_text_and_in_a_notebook(study: Study) -> None:
    shown = repr(study)
    assert f"Recommended: trial {study.best.name}" in shown
    assert study.name in shown
    assert "\x1b" not in shown
    assert all(line == line.rstrip() for line in shown.splitlines())
    noted = study._repr_markdown_()
    assert f"Recommended: trial {study.best.name}" in noted
    assert "| baseline |" in noted


def test_another_floor_gives_another_front_and_leaves_the_report(study: Study) -> None:
    own = study.report.read_bytes()
    strict = study.recut(floor=np.float32(0.999))
    assert strict.floor > study.floor
    assert len(strict.front) < len(study.front)
    assert (strict.front.accuracy >= strict.floor).all()
    assert strict.report.parent.name == f"{study.name}-recut"
    assert strict.report.is_file()
    assert study.report.read_bytes() == own


def test_other_objectives_and_weights_give_another_front(study: Study) -> None:
    small = study.recut(objectives=["weight_bytes"])
    assert len(small.front) == 1
    assert small.best.weight_bytes == study.trials[study.trials.feasible].weight_bytes.min()
    light = study.recut(tradeoff={"weights": {"peak_memory": 9.0, "latency.p95": 0.1}})
    assert light.best.peak_memory == study.front.peak_memory.min()
    with pytest.raises(ConfigError, match=r"n_trials: cannot be changed after the trials"):
        study.recut(n_trials=3)


def test_of_an_empty_front_there_is_no_best(study: Study, tmp_path: Path) -> None:
    empty = study.recut(floor=1.5)
    assert len(empty.front) == 0
    assert "Nothing reaches the accuracy floor of 0.6000" in repr(empty)
    for ask in (lambda: empty.best, lambda: empty.best_params, empty.load, lambda: empty.export(tmp_path / "w")):
        with pytest.raises(NothingFeasible):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_overwrite(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder: .* exists already"):
        study.export(tmp_path)
    with pytest.raises(ConfigError, match=r"trial: no measured trial 99"):
        study.export(tmp_path / "new", trial=99)


@pytest.mark.parametrize("name", ["file/winner", "x" * 300])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_built(
    study: Study, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"folder: cannot write to .*; give another folder=<new folder>") as raised:
        study.export(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_what_is_no_path_is_refused(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"folder: a path expected, got int '3'"):
        study.export(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"home: a path expected, got int '3'"):
        paretune.open(home=3)  # type: ignore[arg-type]
