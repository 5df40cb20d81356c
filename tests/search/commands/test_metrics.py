"""``paretune metrics`` says of every metric what it means, and so does the report."""

from __future__ import annotations

import pytest

from objectives.metrics import CONDITIONS, METRICS
from search.cli import main
from search.reporting.tables import columns


def test_every_metric_is_listed_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for metric in (*METRICS.values(), *CONDITIONS.values()):
        assert metric.name in shown
        assert metric.meaning.split()[-1] in shown


def test_a_word_narrows_the_list_and_one_that_fits_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "token"]) == 0
    shown = capsys.readouterr().out
    assert "ttft" in shown
    assert "weight_bytes" not in shown
    assert main(["metrics", "nonesuch"]) == 2
    assert "no name or meaning contains 'nonesuch'" in capsys.readouterr().err


def test_conditions_are_listed_apart_and_marked_as_no_objectives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "drift"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "not an objective" in shown
    assert "drift" in shown
    assert "Better" not in shown
    assert main(["metrics", "perplexity"]) == 0
    assert "not an objective" not in capsys.readouterr().out


def test_columns_of_metrics_have_a_meaning_and_settings_have_none() -> None:
    row = {"pruning_ratio": 0.1, "bits": 8, "batch_size": 1, "throughput": 2.0, "accuracy": 0.5}
    found = {column.key: column.meaning for column in columns([row], ["throughput"], [], "tokens/s")}
    assert found["throughput"] == METRICS["throughput"].meaning
    assert found["bits"] == found["batch_size"] == ""
