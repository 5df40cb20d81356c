"""Small studies of every kind and preset, by the command; the front's members are scored again by independent code.

Each study ends with a front above its floor. Every member is exported, loaded and scored in full by code that shares
nothing with our tasks (:mod:`tests.studies.independent`): the floor must hold there too, for that code's own baseline.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from objectives import load
from tests.studies.case import Divided, all_cases
from tests.studies.kinds import KINDS
from tests.studies.presets import PRESETS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[1]
SHORT = (
    "tracker=none", "device=cpu", "device.threads=1", "n_trials=4", "space.pruning.ratio=[0.0,0.1]",
    "space.quantization.bits=[16,8]", "space.workload.batch_size=[1]", "timing.min_rounds=3", "timing.max_rounds=5",
    "timing.max_seconds=1", "confirm=false", "accuracy_floor.error=0",
)  # fmt: skip
CASES = all_cases(KINDS, PRESETS)


@pytest.fixture(autouse=True)
def _no_dump() -> None:
    """Let a study take longer than a test may that hangs in C."""
    faulthandler.cancel_dump_traceback_later()


@cache
def rows_of(name: str) -> Divided:
    return CASES[name].rows()


def command(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", *words], cwd=folder, capture_output=True, text=True, timeout=1200,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CASES)
def test_every_member_of_a_front_keeps_the_floor_where_other_code_scores_it(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    scored, _ = rows_of(name)
    if "task=lm_eval" in case.words:
        pytest.importorskip("lm_eval")
    words = case.prepared(tmp_path, rows_of(name))
    command(tmp_path, "run", *SHORT, *words, f"accuracy_floor.epsilon={case.floor}")
    (report,) = (tmp_path / "mlruns" / "reports").iterdir()
    trials, front = (pd.read_csv(report / f"{file}.csv") for file in ("trials", "pareto"))
    found = json.loads((report / "pareto.json").read_text())
    (first,) = trials[trials.is_baseline].trial
    ours = dict(zip(trials.trial, trials.accuracy))
    theirs: dict[int, float] = {}
    for number in {int(first), *map(int, front.trial)}:
        command(tmp_path, "export", f"trial={number}", f"folder=winner{number}")
        theirs[number] = case.score(load(tmp_path / f"winner{number}"), scored)
        assert theirs[number] == pytest.approx(ours[number], abs=case.tolerance), number
    floor = case.floor if "accuracy_floor.relative=false" in case.words else case.floor * theirs[int(first)]
    assert found["floor"] == pytest.approx(floor, abs=case.tolerance)
    assert all(theirs[int(number)] >= floor - 1e-9 for number in front.trial)
    assert len(trials) > 1
    assert len(front) >= 1
    assert all(math.isfinite(value) for value in theirs.values())
    assert case.resampled == ("accuracy_replicates" in trials and bool((trials.accuracy_replicates == 1000).all()))
    print({number: (ours[number], theirs[number]) for number in theirs}, len(front), found["floor"])


def test_every_kind_and_preset_has_a_study() -> None:
    named = {
        next(word for word in case.words if word.startswith("task=")).removeprefix("task=") for case in CASES.values()
    }
    known = {file.stem for file in (ROOT / "conf" / "task").glob("*.yaml")}
    assert known - named <= {"choice", "link_prediction"}, "presets cover these two"
    assert named <= known
