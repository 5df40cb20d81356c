"""Two tasks and two floors on a real model, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from search.cli import main


@pytest.mark.slow
@pytest.mark.usefixtures("micro_folder")
def test_two_tasks_with_two_floors_end_with_a_front_that_keeps_both(tmp_path: Path) -> None:
    home = tmp_path / "mlruns"
    words = ["experiment=ci_tiny", f"home={home}", "tracker=none", "device=cpu", "device.threads=1", "n_trials=6"]
    words += ["tasks={topics: python_topics, likely: python_topics}", "+tasks.likely.metric=inverse_perplexity"]
    assert main(["run", *words, "accuracy_floor={topics: 0.9, likely: 0.6}", "study_name=both"]) == 0
    found = json.loads((home / "reports" / "both" / "pareto.json").read_text())
    assert found["front"]
    start = pd.read_csv(home / "reports" / "both" / "trials.csv").set_index("trial").loc[0]
    for member in found["front"]:
        for task, share in (("topics", 0.9), ("likely", 0.6)):
            assert member["metrics"][f"floor.{task}"] == pytest.approx(share * start[f"accuracy_{task}"])
            assert member["metrics"][f"accuracy.{task}"] >= member["metrics"][f"floor.{task}"]
    assert main(["report", f"home={home}", "accuracy_floor.topics=0.5"]) == 0
    assert main(["report", f"home={home}", "accuracy_floor={topics: 1.5}"]) == 3
