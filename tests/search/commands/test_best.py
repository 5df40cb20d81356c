"""``paretune best``: one candidate, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.cli import main
from search.config.study_config import StudyConfig
from search.reporting.finish import finish
from search.study.study import run_study
from tests.search.conftest import Quiet


def best(config: StudyConfig, *words: str) -> int:
    assert finish(run_study(config, Quiet())) == 0
    return main(["best", f"study={config.name}", f"home={config.home}", *words])


def test_no_candidate_is_said_where_no_tradeoff_is_a_number(
    make_config: Callable[..., StudyConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(
        "n_trials=3", "tradeoff=expression", "tradeoff.expression='throughput / (accuracy - accuracy)'"
    )
    assert best(config) == 3
    assert "tradeoff: it has no finite value for any member of the front" in capsys.readouterr().err
    assert main(["best", f"study={config.name}", f"home={config.home}", "objective=throughput"]) == 0
    assert main(["export", f"study={config.name}", f"home={config.home}", f"folder={tmp_path}/winner"]) == 3
    assert not (tmp_path / "winner").exists()
