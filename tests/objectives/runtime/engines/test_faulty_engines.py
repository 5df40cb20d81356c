"""A study in which one engine ends every process that opens it: its cells have a reason, the others are measured."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.test_cli import TINY, paretune, stored_texts

__all__ = ["stored_texts"]
FAULTY = "tests.objectives.faulty_engine.FaultyRuntime"


@pytest.mark.slow
def test_a_study_ends_with_a_verdict_though_an_engine_kills(tmp_path: Path) -> None:
    done = paretune(
        "run", *TINY, "sampler=exhaustive", "space.pruning=null", "space.workload=null",
        "space.quantization.bits=[16,8]", "allow_targets=[tests.,fixture_texts]", "space.runtime.name=[torch,faulty]",
        f"+runtimes.faulty={{_target_: {FAULTY}, fault: SIGFPE}}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (report,) = (tmp_path / "mlruns" / "reports").iterdir()
    trials = pd.read_csv(report / "trials.csv")
    faulty = trials[trials["runtime"] == "faulty"]
    assert len(faulty) == 2
    assert (faulty["state"] == "failed").all()
    assert faulty["message"].str.contains("killed by SIGFPE, in a process of its own").all()
    assert (trials[trials["runtime"] == "torch"]["state"] != "failed").all()
    assert json.loads((report / "pareto.json").read_text())["front"]
